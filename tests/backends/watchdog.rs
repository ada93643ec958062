//! Ends a server when the test process is gone, however it went.

use std::{
    io::Write,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

/// Waits for a line; if its input ends without one, the test process is gone, and the watched one goes too.
const SCRIPT: &str = r#"read -r _ && exit 0
kill -KILL "$0" 2>/dev/null
rm -rf -- "$1"
exit 0"#;

/// Kills a process and removes its directory when the one that started it is gone: a static is never dropped, and
/// nobody runs destructors for a test that was killed. The system closes our end of the pipe in any case.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    pub(crate) fn start(watched: u32, directory: &Path) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, &watched.to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`sh` can be run");
        let pipe = shell.stdin.take();
        Self { shell, pipe }
    }

    /// Sends it home. To be done before the watched process is waited for, while its id is still its own.
    pub(crate) fn dismiss(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _it_may_have_gone = pipe.write_all(b"\n");
            let _ = self.shell.wait();
        }
    }
}
