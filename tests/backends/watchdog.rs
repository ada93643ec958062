//! Stops a server when the test process exits or is killed.

use std::{
    io::Write,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

/// Waits for a line on standard input. End of file without one means that the test process has ended: stops the server and
/// removes its directory.
const SCRIPT: &str = r#"read -r _ && exit 0
kill "-$2" "$0" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$0" 2>/dev/null || break; sleep 0.2; done
kill -KILL "$0" 2>/dev/null
[ -n "$1" ] && rm -rf -- "$1"
exit 0"#;

/// A shell that holds the read end of a pipe. Statics are never dropped, and a killed process runs no destructors, but the
/// operating system always closes the write end.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Watches a server, which is stopped with this signal, and its directory.
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

    /// Stops watching. Call it before waiting for the server, while its process id cannot be reused.
    pub(crate) fn cancel(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _may_have_exited = pipe.write_all(b"\n");
            let _ = self.shell.wait();
        }
    }
}
