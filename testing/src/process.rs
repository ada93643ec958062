//! A `drystone` process, which never outlives the test that started it.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
};

use crate::{binary, wait::until_blocking};

/// Waits for a line on standard input. End of input without one means that the test process has ended; then kills the
/// process `$0` and deletes the directory `$1`.
const WATCHDOG: &str = r#"read -r _ && exit 0
kill -KILL "$0" 2>/dev/null
[ -n "$1" ] && rm -rf -- "$1"
exit 0"#;

/// Mounts a tmpfs of size `$1` on `$0`, then executes the remaining arguments.
const MOUNT: &str = r#"mount -t tmpfs -o size="$1",mode=700 drystone "$0" && shift && exec "$@""#;

/// A running `drystone`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Watchdog,
    log: PathBuf,
}

/// The exit status and output of a `drystone` process that exited by itself.
#[derive(Debug)]
pub struct ProcessOutput {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Process {
    /// Starts a command. Its standard error is appended to the file `log`. The directory `scratch` is deleted if the
    /// test process ends before this one.
    pub fn start(command: &mut Command, log: &Path, scratch: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).expect("the log can be written");
        let stdout = File::create(stdout_path(log)).expect("the output can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let watchdog = Watchdog::start(child.id(), scratch);
        Self { child, watchdog, log: log.to_owned() }
    }

    /// The log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(stdout_path(&self.log)).unwrap_or_default()
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if the process has exited.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child's status can be read")
    }

    /// Sends SIGTERM and waits for the exit.
    ///
    /// # Panics
    /// If the process does not exit, or with a code other than zero.
    pub fn stop(self) {
        self.stop_with("TERM");
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the exit.
    ///
    /// # Panics
    /// If the process does not exit, or with a code other than zero.
    pub fn interrupt(self) {
        self.stop_with("INT");
    }

    fn stop_with(mut self, signal: &str) {
        self.watchdog.cancel();
        send(signal, self.child.id());
        let status = until_blocking(|| Ok(self.exit_status()));
        let status = status.unwrap_or_else(|error| panic!("the process did not exit after SIG{signal}: {error}"));
        assert!(status.success(), "the process exited with {status} after SIG{signal}");
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.kill_and_wait();
    }

    fn kill_and_wait(&mut self) {
        self.watchdog.cancel();
        let _may_have_exited = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the process ---\n{}--- end of the log ---", self.log());
        }
        self.kill_and_wait();
    }
}

/// A command for `drystone` without the `DRYSTONE_*` variables of the test's environment.
#[must_use]
pub fn drystone(arguments: &[&str]) -> Command {
    command(&binary::drystone(), arguments)
}

/// As [`drystone`], for another binary.
#[must_use]
pub fn command(binary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    let inherited = env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.to_string_lossy().starts_with("DRYSTONE_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// Runs a command that exits by itself; returns its status and output.
///
/// # Panics
/// If it does not exit.
#[must_use]
pub fn run_to_end(command: &mut Command) -> ProcessOutput {
    let scratch = tempfile::tempdir().expect("a temporary directory can be created");
    let log = scratch.path().join("log");
    let mut process = Process::start(command, &log, scratch.path());
    let status = until_blocking(|| Ok(process.exit_status()))
        .unwrap_or_else(|error| panic!("{command:?} did not exit: {error}"));
    ProcessOutput { status, stdout: process.output(), stderr: process.log() }
}

/// Wraps a command so that it runs in its own mount namespace with a tmpfs on `mount_point`, which disappears when the
/// process exits.
///
/// # Panics
/// If the system does not allow mount namespaces.
pub fn with_private_tmpfs(command: &Command, mount_point: &Path, mebibytes: u32) -> Command {
    let with_tmpfs = || {
        let mut unshare = Command::new("unshare");
        // Other users than root need a user namespace to mount.
        let probe = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
        unshare.args(if probe.is_ok_and(|status| status.success()) { &["--mount"][..] } else { &["-r", "--mount"] });
        unshare.args(["sh", "-c", MOUNT]).arg(mount_point).arg(format!("{mebibytes}m"));
        unshare
    };
    let output = with_tmpfs().arg("true").output();
    let is_supported = output.as_ref().is_ok_and(|output| output.status.success());
    assert!(
        is_supported,
        "this test mounts a tmpfs: run it as root, or where `unshare -r --mount` is allowed (Debian: the package \
         util-linux, and user namespaces enabled): {output:?}"
    );
    let mut wrapped = with_tmpfs();
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// Sends a signal, such as `STOP`, to a process.
///
/// # Panics
/// If it cannot be sent.
pub fn send(signal: &str, id: u32) {
    let status = Command::new("kill").args(["-s", signal]).arg(id.to_string()).status().expect("`kill` can be run");
    assert!(status.success(), "process {id} cannot be signalled: {status}");
}

fn stdout_path(log: &Path) -> PathBuf {
    log.with_extension("stdout")
}

/// Kills a process when the test process ends, for any reason: statics are never dropped, and a killed test runs no
/// destructors, but the system always closes the pipe.
#[derive(Debug)]
struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    fn start(watched: u32, scratch: &Path) -> Self {
        // The shell deletes nothing if the path is empty.
        let scratch = if keep_scratch() { Path::new("") } else { scratch };
        let mut shell = Command::new("sh")
            .args(["-c", WATCHDOG, &watched.to_string()])
            .arg(scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`sh` can be run");
        let pipe = shell.stdin.take();
        Self { shell, pipe }
    }

    /// Stops watching. Call it before waiting for the process, while its process id cannot be reused.
    fn cancel(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _may_have_exited = pipe.write_all(b"\n");
            let _ = self.shell.wait();
        }
    }
}

/// Whether `DRYSTONE_TEST_KEEP` is set: keep the directories of the processes.
pub fn keep_scratch() -> bool {
    env::var_os("DRYSTONE_TEST_KEEP").is_some()
}
