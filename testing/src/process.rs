//! One `drystone` process, which never outlives the test that started it.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
};

use crate::{binary, wait::until_blocking};

/// Waits for a line; if its input ends without one, the test process is gone, and the watched one goes too.
const WATCHDOG: &str = r#"read -r _ && exit 0
kill -KILL "$0" 2>/dev/null
[ -n "$1" ] && rm -rf -- "$1"
exit 0"#;

/// Puts a disk of the size `$1` at `$0`, and becomes what comes after.
const MOUNT: &str = r#"mount -t tmpfs -o size="$1",mode=700 drystone "$0" && shift && exec "$@""#;

/// A running `drystone`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Watchdog,
    log: PathBuf,
}

/// What came of a `drystone` that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote on standard output.
    pub stdout: String,
    /// What it wrote on standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `drystone` with these arguments. Its standard error is added to the file `log`; `scratch` is removed
    /// if the test process dies before this one.
    pub fn start(command: &mut Command, log: &Path, scratch: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).expect("the log can be written");
        let stdout = File::create(output_beside(log)).expect("the output can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let watchdog = Watchdog::start(child.id(), scratch);
        Self { child, watchdog, log: log.to_owned() }
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has written on standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(output_beside(&self.log)).unwrap_or_default()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked how it is")
    }

    /// Asks it to stop, as an operator or a container does, and waits until it has.
    ///
    /// # Panics
    /// If it does not stop, or says that something went wrong.
    pub fn stop(self) {
        self.stop_by("TERM");
    }

    /// Asks it to stop as Ctrl-C does, and waits until it has.
    ///
    /// # Panics
    /// If it does not stop, or says that something went wrong.
    pub fn interrupt(self) {
        self.stop_by("INT");
    }

    fn stop_by(mut self, signal: &str) {
        self.watchdog.dismiss();
        send(signal, self.child.id());
        let ended = until_blocking(|| Ok(self.ended()));
        let status = ended.unwrap_or_else(|error| panic!("SIG{signal} did not stop it: {error}"));
        assert!(status.success(), "it ended with {status} after SIG{signal}");
    }

    /// Ends it as a power cut does.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.watchdog.dismiss();
        let _it_may_have_ended = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- its log ---\n{}--- end of its log ---", self.log());
        }
        self.end();
    }
}

/// A command for `drystone` that takes no configuration from the environment of the test.
#[must_use]
pub fn drystone(arguments: &[&str]) -> Command {
    command(&binary::drystone(), arguments)
}

/// The same for another binary.
#[must_use]
pub fn command(binary: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    let ours = env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("DRYSTONE_"));
    for name in ours {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// Runs a command that is expected to end by itself, and takes all that it says.
///
/// # Panics
/// If it does not end.
#[must_use]
pub fn run_to_end(command: &mut Command) -> Ended {
    let scratch = tempfile::tempdir().expect("a temporary directory can be made");
    let log = scratch.path().join("log");
    let mut process = Process::start(command, &log, scratch.path());
    let status =
        until_blocking(|| Ok(process.ended())).unwrap_or_else(|error| panic!("{command:?} does not end: {error}"));
    Ended { status, stdout: process.output(), stderr: process.log() }
}

/// The same command, for which a small disk of its own lies at `place`. Nobody else sees it there, and it is gone with
/// the process.
///
/// # Panics
/// If this machine has no such disks.
pub fn on_a_disk_of_its_own(command: &Command, place: &Path, mebibytes: u32) -> Command {
    let own = || {
        let mut unshare = Command::new("unshare");
        // Root needs no more than the right to mount, anybody else a namespace in which they are root.
        let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
        unshare.args(if tried.is_ok_and(|status| status.success()) { &["--mount"][..] } else { &["-r", "--mount"] });
        unshare.args(["sh", "-c", MOUNT]).arg(place).arg(format!("{mebibytes}m"));
        unshare
    };
    let output = own().arg("true").output();
    let works = output.as_ref().is_ok_and(|output| output.status.success());
    assert!(
        works,
        "this test needs a small disk: run it as root, or where `unshare -r --mount` is allowed (Debian: the package \
         util-linux, and user namespaces switched on): {output:?}"
    );
    let mut wrapped = own();
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

fn output_beside(log: &Path) -> PathBuf {
    log.with_extension("stdout")
}

/// Kills a process when the one that started it is gone, however it went: a static is never dropped, and nobody runs
/// destructors for a test that was killed. The system closes our end of the pipe in any case.
#[derive(Debug)]
struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    fn start(watched: u32, scratch: &Path) -> Self {
        let scratch = if keeps_scratch() { Path::new("") } else { scratch };
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

    /// Sends it home. To be done before the watched process is waited for, while its id is still its own.
    fn dismiss(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _it_may_have_gone = pipe.write_all(b"\n");
            let _ = self.shell.wait();
        }
    }
}

/// Whether the tester asked to keep what the processes wrote, by setting `DRYSTONE_TEST_KEEP`.
pub fn keeps_scratch() -> bool {
    env::var_os("DRYSTONE_TEST_KEEP").is_some()
}
