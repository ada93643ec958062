//! SMTP server for tests: aiosmtpd, which `make setup` installs, with `smtp.py`.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// The server.
const SCRIPT: &str = include_str!("smtp.py");
/// Timeout for starting the server, for a command to it, and for a mail.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How an [`Smtp`] server is configured. The default is neither TLS nor AUTH.
#[derive(Debug, Clone, Default)]
pub struct SmtpOptions {
    /// Whether connections are encrypted.
    pub tls: SmtpTls,
    /// The user and password without which no mail is accepted. AUTH PLAIN and AUTH LOGIN are offered over TLS only: without
    /// TLS, every mail is refused with 530.
    pub require_auth: Option<(String, String)>,
}

/// Whether the connections of an [`Smtp`] server are encrypted. Certificate (chain) and key are PEM files.
#[derive(Debug, Clone, Default)]
pub enum SmtpTls {
    /// Never; STARTTLS is not offered.
    #[default]
    Plain,
    /// STARTTLS is required before any mail (530 otherwise).
    StartTls {
        /// The certificate chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// From the first byte (implicit TLS, port 465 in production).
    Tls {
        /// The certificate chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// An accepted mail, decoded by Python's `email` package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The sender of the envelope.
    pub mail_from: String,
    /// The recipients of the envelope.
    pub rcpt_to: Vec<String>,
    /// The message as received, with CRLF line ends; bytes that are not UTF-8 are replaced.
    pub data: String,
    /// The decoded subject.
    pub subject: Option<String>,
    /// The decoded text/plain body, with LF line ends.
    pub text: Option<String>,
    /// The decoded text/html body, with LF line ends.
    pub html: Option<String>,
    /// All header fields, decoded, in their order.
    pub headers: Vec<(String, String)>,
    /// What is malformed in the message.
    pub defects: Vec<String>,
    /// Whether the connection was encrypted.
    pub is_tls: bool,
    /// The authenticated user.
    pub user: Option<String>,
}

impl Mail {
    /// The first header field with this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn parse(event: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let list = |name: &str| event[name].as_array().into_iter().flatten();
        Self {
            mail_from: text(&event["mail_from"]).unwrap_or_default(),
            rcpt_to: list("rcpt_to").filter_map(text).collect(),
            data: text(&event["data"]).unwrap_or_default(),
            subject: text(&event["subject"]),
            text: text(&event["text"]),
            html: text(&event["html"]),
            headers: list("headers").filter_map(|header| Some((text(&header[0])?, text(&header[1])?))).collect(),
            defects: list("defects").filter_map(text).collect(),
            is_tls: event["is_tls"] == true,
            user: text(&event["user"]),
        }
    }
}

/// An SMTP server. One serves many tests, since its behaviour is chosen by the local part of the recipient:
///
/// | recipient | behaviour |
/// |---|---|
/// | `ok-*` and any other | accepted |
/// | `greylist-*` | 451 to the first RCPT of this address, later accepted |
/// | `temporary-*` | 451 to RCPT |
/// | `permanent-*` | 550 to RCPT |
/// | `reject-data-*` | 554 after DATA |
/// | `drop-*` | the connection is closed instead of a reply to RCPT |
/// | `drop-once-*` | the same for the first RCPT of this address, later accepted |
/// | `slow-*` | accepted; RCPT is answered after 3 seconds |
/// | `slow-data-*` | accepted; DATA is answered after 3 seconds, and the mail is recorded then, unless the client disconnects |
/// | `hang-*` | RCPT is never answered |
/// | `lost-reply-*` | the mail is accepted, and the first time the connection is closed instead of the reply to DATA |
///
/// The server stops when the test process exits or is killed. Its counters and mails are kept over a restart.
#[derive(Debug)]
pub struct Smtp {
    address: SocketAddr,
    options: SmtpOptions,
    seen: Arc<Seen>,
    running: Mutex<Option<Running>>,
}

/// What the server has reported.
#[derive(Debug, Default)]
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    mails: Vec<Mail>,
    attempts: BTreeMap<String, u64>,
    open: u64,
    max_open: u64,
    opened: u64,
}

/// The process of the server.
#[derive(Debug)]
struct Running {
    child: Child,
    /// `None` after it has been closed, which ends the process.
    commands: Option<ChildStdin>,
    /// The answers to commands.
    answers: Receiver<()>,
    reader: Option<JoinHandle<()>>,
}

impl Smtp {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(options: SmtpOptions) -> Self {
        let seen = Arc::new(Seen::default());
        let (running, port) = Running::start(&options, None, &seen);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { address, options, seen, running: Mutex::new(Some(running)) }
    }

    /// Its address, the same after a restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it as in a crash: connections are closed without a reply. Does nothing if it is stopped.
    pub fn stop(&self) {
        // Dropping it stops the process.
        lock(&self.running).take();
        self.seen.lock().open = 0;
    }

    /// Stops it and starts it on the same port.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&self) {
        self.stop();
        let (running, _) = Running::start(&self.options, Some(self.address.port()), &self.seen);
        *lock(&self.running) = Some(running);
    }

    /// Closes all connections, also idle ones of a pool, without a reply.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn close_connections(&self) {
        self.command("close");
    }

    /// The accepted mails.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.state().mails.clone()
    }

    /// The accepted mails to a recipient.
    #[must_use]
    pub fn mails_to(&self, recipient: &str) -> Vec<Mail> {
        self.state().mails_to(recipient).cloned().collect()
    }

    /// Waits until this number of mails has been accepted, and returns all mails.
    ///
    /// # Panics
    /// If it takes 30 seconds.
    pub async fn wait_for(&self, count: usize) -> Vec<Mail> {
        self.wait(&format!("{count} mails"), move |state| (state.mails.len() >= count).then(|| state.mails.clone()))
            .await
    }

    /// Waits for the first mail to a recipient.
    ///
    /// # Panics
    /// If it takes 30 seconds.
    pub async fn wait_for_mail(&self, recipient: &str) -> Mail {
        let to = recipient.to_owned();
        self.wait(&format!("a mail to {recipient}"), move |state| state.mails_to(&to).next().cloned()).await
    }

    /// Waits until this number of RCPT commands for a recipient has been received.
    ///
    /// # Panics
    /// If it takes 30 seconds.
    pub async fn wait_for_attempts(&self, recipient: &str, count: u64) {
        let to = recipient.to_owned();
        let reached = move |state: &State| (state.attempts(&to) >= count).then_some(());
        self.wait(&format!("{count} attempts for {recipient}"), reached).await;
    }

    /// The number of RCPT commands for a recipient.
    #[must_use]
    pub fn attempts(&self, recipient: &str) -> u64 {
        self.state().attempts(recipient)
    }

    /// The number of connections that were ever opened. With [`SmtpTls::Tls`], only those whose handshake succeeded.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state().opened
    }

    /// The number of connections that are open. One that the client closes just now may still be counted.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.state().open
    }

    /// The largest number of connections that were open at once.
    #[must_use]
    pub fn max_seen_connections(&self) -> u64 {
        self.state().max_open
    }

    /// The state with all events of SMTP commands that have been answered.
    fn state(&self) -> MutexGuard<'_, State> {
        self.command("sync");
        self.seen.lock()
    }

    /// Sends a command to the server, and waits until it is executed. Does nothing if the server is stopped.
    fn command(&self, command: &str) {
        if let Some(running) = &mut *lock(&self.running) {
            running.command(command);
        }
    }

    async fn wait<T, F>(&self, what: &str, condition: F) -> T
    where
        T: Send + 'static,
        F: Fn(&State) -> Option<T> + Send + 'static,
    {
        let seen = Arc::clone(&self.seen);
        // Not on the thread of the runtime, on which the sender under test may run. A paused clock stands still meanwhile.
        let found =
            tokio::task::spawn_blocking(move || seen.wait(condition)).await.expect("the condition can be checked");
        found.unwrap_or_else(|| panic!("the SMTP server has not received {what}; it has {:#?}", self.seen.lock()))
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait<T>(&self, condition: impl Fn(&State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.lock();
        loop {
            if let Some(found) = condition(&state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    fn mails_to<'a>(&'a self, recipient: &'a str) -> impl Iterator<Item = &'a Mail> {
        self.mails.iter().filter(move |mail| mail.rcpt_to.iter().any(|to| to == recipient))
    }

    fn attempts(&self, recipient: &str) -> u64 {
        self.attempts.get(recipient).copied().unwrap_or_default()
    }

    fn apply(&mut self, event: &Value) {
        match event["event"].as_str() {
            Some("opened") => {
                self.opened += 1;
                self.open += 1;
                self.max_open = self.max_open.max(self.open);
            }
            Some("closed") => self.open = self.open.saturating_sub(1),
            Some("attempt") => {
                let recipient = event["to"].as_str().unwrap_or_default().to_owned();
                *self.attempts.entry(recipient).or_default() += 1;
            }
            Some("mail") => self.mails.push(Mail::parse(event)),
            _ => panic!("the SMTP server reports an unknown event: {event}"),
        }
    }
}

impl Running {
    fn start(options: &SmtpOptions, port: Option<u16>, seen: &Arc<Seen>) -> (Self, u16) {
        let mut child = Command::new(python())
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python can be started");
        let mut commands = child.stdin.take().expect("standard input is a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let configuration = configuration(options, port, &seen.lock().attempts);
        let _may_have_exited = writeln!(commands, "{configuration}");
        let port = listening(&mut output).unwrap_or_else(|| {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "the SMTP server does not start, see its error above; if a Python package is missing, run `make setup` first"
            )
        });
        let (answered, answers) = mpsc::channel();
        let seen = Arc::clone(seen);
        let reader = thread::spawn(move || read_events(output, &seen, &answered));
        (Self { child, commands: Some(commands), answers, reader: Some(reader) }, port)
    }

    fn command(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("the server is running");
        writeln!(commands, "{command}").unwrap_or_else(|error| panic!("the SMTP server has exited: {error}"));
        self.answers.recv_timeout(TIMEOUT).unwrap_or_else(|error| panic!("the SMTP server does not answer: {error}"));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // End of file on its standard input ends the server. It does so at once; the kill is for one that is stuck.
        self.commands.take();
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(5));
        }
        let _may_have_exited = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The first line of the standard input of the server.
fn configuration(options: &SmtpOptions, port: Option<u16>, attempts: &BTreeMap<String, u64>) -> Value {
    let (tls, files) = match &options.tls {
        SmtpTls::Plain => ("plain", None),
        SmtpTls::StartTls { certificate, key } => ("starttls", Some((certificate, key))),
        SmtpTls::Tls { certificate, key } => ("tls", Some((certificate, key))),
    };
    let (certificate, key) = files.unzip();
    let (user, password) = options.require_auth.as_ref().map(|(user, password)| (user, password)).unzip();
    json!({
        "port": port, "tls": tls, "certificate": certificate, "key": key, "user": user, "password": password,
        "attempts": attempts,
    })
}

/// The port, once the server listens; `None` if it exits.
fn listening(output: &mut BufReader<ChildStdout>) -> Option<u16> {
    let mut line = String::new();
    output.read_line(&mut line).ok()?;
    let event: Value = serde_json::from_str(&line).ok()?;
    u16::try_from(event["port"].as_u64()?).ok()
}

/// Applies the events of the server until it exits.
fn read_events(output: BufReader<ChildStdout>, seen: &Seen, answered: &Sender<()>) {
    for line in output.lines().map_while(Result::ok) {
        // The last line of a killed server may be incomplete.
        let Ok(event) = serde_json::from_str::<Value>(&line) else { return };
        if event["event"] == "done" {
            let _stopped = answered.send(());
        } else {
            seen.lock().apply(&event);
            seen.changed.notify_all();
        }
    }
}

/// The interpreter of the virtual environment that `make setup` creates.
fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/python");
    assert!(path.is_file(), "{} is missing: run `make setup` first", path.display());
    path
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked has its own message.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
