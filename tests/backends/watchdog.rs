//! Ends a server when the test process is gone, however it went.

use std::{
    io::Write,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

/// Waits for a line; if its input ends without one, the test process is gone, and the server goes too.
const SCRIPT: &str = r#"read -r _ && exit 0
kill "-$2" "$0" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$0" 2>/dev/null || break; sleep 0.2; done
kill -KILL "$0" 2>/dev/null
[ -n "$1" ] && rm -rf -- "$1"
exit 0"#;

/// A static is never dropped, and nobody runs destructors for a test that was killed. The system closes our end of the
/// pipe in any case.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Watches a server that ends by this signal, and its directory.
    pub(crate) fn start(server: u32, directory: &Path, signal: &str) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, &server.to_string()])
            .arg(directory)
            .arg(signal)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`sh` can be run");
        let pipe = shell.stdin.take();
        Self { shell, pipe }
    }

    /// Sends it home. To be done before the server is waited for, while its id is still its own.
    pub(crate) fn dismiss(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _it_may_have_gone = pipe.write_all(b"\n");
            let _ = self.shell.wait();
        }
    }
}
