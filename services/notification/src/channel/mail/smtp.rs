//! Mail by SMTP (RFC 5321), through one mail server.
//!
//! Connections are kept here and not in lettre's own pool: that one keeps a connection whose mail was given up at its timeout, and takes
//! the late reply for that of the next mail. Here a connection is kept only after its mail was accepted, and otherwise closed.

use std::{
    fmt, fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use drystone_mesh::error::Chain;
use lettre::{
    Message,
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters},
        extension::ClientId,
    },
};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

use crate::{
    channel::SendError,
    config::{SmtpConfig, SmtpTls},
};

/// How long connecting may take, with TLS and authentication, and sending a mail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an unused connection is kept. Mail servers end them after minutes (RFC 5321, section 4.5.3.2.7).
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Replies that tell of the mail server and not of the mail: it stops, or has too much to do (RFC 5321, section 3.8).
const SERVER_UNAVAILABLE: u16 = 421;

/// A mail server.
pub(super) struct Smtp {
    host: String,
    port: u16,
    tls: Encryption,
    credentials: Option<Credentials>,
    hello: ClientId,
    connections: Semaphore,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

enum Encryption {
    None,
    Starttls(TlsParameters),
    Tls(TlsParameters),
}

impl Smtp {
    /// The mail server of this configuration. It is connected to when there is a mail.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(super) fn new(config: &SmtpConfig, domain: &str) -> Result<Self, String> {
        let tls = match config.tls {
            SmtpTls::Starttls => Encryption::Starttls(tls(config)?),
            SmtpTls::Tls => Encryption::Tls(tls(config)?),
            SmtpTls::None => Encryption::None,
        };
        let password = || config.password.expose().to_owned();
        let has_user = !config.username.is_empty();
        Ok(Self {
            host: config.host.clone(),
            port: config.port(),
            tls,
            credentials: has_user.then(|| Credentials::new(config.username.clone(), password())),
            hello: ClientId::Domain(domain.to_owned()),
            connections: Semaphore::new(config.connections as usize),
            idle: Mutex::default(),
        })
    }

    /// Sends a mail.
    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let permit = self.connections.acquire().await;
        let _permit = permit.map_err(|error| SendError::Unreachable(error.to_string()))?;
        let mut connection = self.connection().await?;
        let sent = timeout(SEND_TIMEOUT, connection.send(message.envelope(), &message.formatted())).await;
        match sent {
            Ok(Ok(_reply)) => {
                self.idle().push((connection, Instant::now()));
                Ok(())
            }
            Ok(Err(error)) => Err(self.refused(&error)),
            Err(_elapsed) => Err(self.unreachable(&format!("no reply within {SEND_TIMEOUT:?}"))),
        }
    }

    /// An idle connection that still works, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, SendError> {
        loop {
            let Some((mut connection, since)) = self.idle().pop() else { break };
            let is_alive = since.elapsed() < IDLE_TIMEOUT
                && timeout(CONNECT_TIMEOUT, connection.test_connected()).await.unwrap_or(false);
            if is_alive {
                return Ok(connection);
            }
        }
        match timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(text)) => Err(self.unreachable(&text)),
            Err(_elapsed) => Err(self.unreachable(&format!("no connection within {CONNECT_TIMEOUT:?}"))),
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, String> {
        let shown = |error: Error| Chain(&error).to_string();
        let (address, hello) = ((self.host.as_str(), self.port), &self.hello);
        let mut connection = match &self.tls {
            Encryption::Tls(parameters) => {
                let connected =
                    AsyncSmtpConnection::connect_tokio1(address, None, hello, Some(parameters.clone()), None);
                connected.await.map_err(shown)?
            }
            Encryption::Starttls(_) | Encryption::None => {
                let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                // Otherwise each mail waits for a delayed acknowledgement.
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), hello).await.map_err(shown)?
            }
        };
        if let Encryption::Starttls(parameters) = &self.tls {
            connection.starttls(parameters.clone(), hello).await.map_err(shown)?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(&[Mechanism::Plain, Mechanism::Login], credentials).await.map_err(shown)?;
        }
        Ok(connection)
    }

    /// What the mail server has replied to a mail, or that it has not.
    fn refused(&self, error: &Error) -> SendError {
        let text = Chain(error).to_string();
        match error.status().map(u16::from) {
            None if error.is_client() => SendError::Permanent(format!("the mail server {}: {text}", self.host)),
            None | Some(SERVER_UNAVAILABLE) => self.unreachable(&text),
            Some(_) if error.is_permanent() => SendError::Permanent(format!("the mail server {}: {text}", self.host)),
            Some(_) => SendError::temporary(format!("the mail server {}: {text}", self.host)),
        }
    }

    fn unreachable(&self, text: &str) -> SendError {
        SendError::Unreachable(format!("the mail server {}:{}: {text}", self.host, self.port))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(AsyncSmtpConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

fn tls(config: &SmtpConfig) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(config.host.clone());
    if !config.ca.as_os_str().is_empty() {
        let cannot = |text: &dyn fmt::Display| format!("notification.smtp.ca, {}: {text}", config.ca.display());
        let pem = fs::read(&config.ca).map_err(|error| cannot(&error))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| cannot(&error))?;
        // lettre accepts a file without any.
        if !pem.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN) {
            return Err(cannot(&"it has no certificate in PEM form"));
        }
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificate);
    }
    builder.build_rustls().map_err(|error| format!("notification.smtp: TLS cannot be used: {error}"))
}

const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
