//! Mail by SMTP (RFC 5321), through one mail server.
//!
//! Connections are kept here and not in lettre's own pool: that one keeps a connection whose mail was given up at its timeout, and takes
//! the late reply for that of the next mail. Here a connection is kept only after its mail was accepted, and otherwise closed. As many
//! mails are sent at once as the dispatcher allows, which is the number of connections.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use drystone_mesh::{error::Chain, https::Tls};
use lettre::{
    Message,
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::AsyncSmtpConnection,
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension, MailParameter},
    },
};
use tokio::{net::TcpStream, time::timeout};
use url::Host;

use super::stream::GuardedStream;
use crate::{
    channel::SendError,
    config::{SmtpConfig, SmtpTls},
};

/// How long looking at an idle connection may take, connecting with TLS and authentication, and sending a mail.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SEND_TIMEOUT: Duration = Duration::from_secs(25);

/// How long an unused connection is kept. Mail servers end them after minutes (RFC 5321, section 4.5.3.2.7).
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The reply of a mail server that stops, or has too much to do (RFC 5321, section 3.8).
const SERVER_UNAVAILABLE: u16 = 421;

/// A word of a reply that is longer is not shown: it may be of the mail, such as a token.
const MAX_WORD: usize = 40;

/// A mail server.
pub(super) struct Smtp {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    hello: String,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

enum Encryption {
    None,
    Starttls(Tls),
    Tls(Tls),
}

impl Smtp {
    /// The mail server of this configuration. It is connected to when there is a mail.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(super) fn new(config: &SmtpConfig, domain: &str) -> Result<Self, String> {
        let tls = || {
            let host =
                config.host.parse().map_or_else(|_| Host::parse(&config.host), |address| Ok(Host::Ipv6(address)));
            let host = host.map_err(|error| format!("notification.smtp.host must be a host name: {error}"))?;
            Tls::new(&host, &config.ca, &[]).map_err(|error| format!("notification.smtp: {}", Chain(&error)))
        };
        let encryption = match config.tls {
            SmtpTls::Starttls => Encryption::Starttls(tls()?),
            SmtpTls::Tls => Encryption::Tls(tls()?),
            SmtpTls::None => Encryption::None,
        };
        let password = || config.password.expose().to_owned();
        let has_user = !config.username.is_empty();
        Ok(Self {
            host: config.host.clone(),
            port: config.port(),
            encryption,
            credentials: has_user.then(|| Credentials::new(config.username.clone(), password())),
            hello: domain.to_owned(),
            idle: Mutex::default(),
        })
    }

    /// Sends a mail.
    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let mut connection = self.connection().await?;
        match timeout(SEND_TIMEOUT, self.exchange(&mut connection, message)).await {
            Ok(Ok(())) => {
                self.idle().push((connection, Instant::now()));
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(self.unreachable(&format!("no reply within {SEND_TIMEOUT:?}"))),
        }
    }

    async fn exchange(&self, connection: &mut AsyncSmtpConnection, message: &Message) -> Result<(), SendError> {
        let envelope = message.envelope();
        let mut options = Vec::new();
        let is_ascii = |address: &lettre::Address| AsRef::<str>::as_ref(address).is_ascii();
        if !envelope.to().iter().all(is_ascii) {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(SendError::Permanent(format!(
                    "the mail server {} does not send to addresses with other than ASCII characters (SMTPUTF8)",
                    self.host
                )));
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        // The sender is the same in all mails: who is refused here is refused in all.
        let from = connection.command(Mail::new(envelope.from().cloned(), options)).await;
        from.map_err(|error| self.unreachable(&shown(&error)))?;
        for to in envelope.to() {
            let recipient = connection.command(Rcpt::new(to.clone(), Vec::new())).await;
            recipient.map_err(|error| self.refused(&error))?;
        }
        connection.command(Data).await.map_err(|error| self.refused(&error))?;
        connection.message(&message.formatted()).await.map_err(|error| self.refused(&error))?;
        Ok(())
    }

    /// An idle connection that still works, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, SendError> {
        let newest = self.idle().pop();
        if let Some((mut connection, since)) = newest {
            let is_alive = since.elapsed() < IDLE_TIMEOUT
                && timeout(CHECK_TIMEOUT, connection.test_connected()).await.unwrap_or(false);
            if is_alive {
                return Ok(connection);
            }
            // The others are older.
            self.idle().clear();
        }
        match timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(text)) => Err(self.unreachable(&text)),
            Err(_elapsed) => Err(self.unreachable(&format!("no connection within {CONNECT_TIMEOUT:?}"))),
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        // Otherwise each mail waits for a delayed acknowledgement.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let stream = match &self.encryption {
            Encryption::None => GuardedStream::plain(stream),
            Encryption::Starttls(tls) => GuardedStream::starttls(stream, tls, &self.hello).await,
            Encryption::Tls(tls) => GuardedStream::tls(stream, tls).await,
        };
        let stream = stream.map_err(|error| error.to_string())?;
        let hello = ClientId::Domain(self.hello.clone());
        let connection = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await;
        let mut connection = connection.map_err(|error| shown(&error))?;
        if let Some(credentials) = &self.credentials {
            let authenticated = connection.auth(&[Mechanism::Plain, Mechanism::Login], credentials).await;
            authenticated.map_err(|error| shown(&error))?;
        }
        Ok(connection)
    }

    /// What the mail server has replied to a recipient or a mail, or that it has not.
    fn refused(&self, error: &Error) -> SendError {
        let text = shown(error);
        match error.status().map(u16::from) {
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

/// An error without what may be of the mail: spam filters quote links, and others addresses.
fn shown(error: &Error) -> String {
    redact(&Chain(error).to_string())
}

fn redact(text: &str) -> String {
    let word = |word: &str| {
        let is_quoted = word.contains(['@', '/', '=', '?', '&']) || word.len() > MAX_WORD;
        if is_quoted { "[...]".to_owned() } else { word.to_owned() }
    };
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn links_and_addresses_of_replies_are_left_out() {
        let reply = "permanent error (554): 5.7.1 blocked: contains https://id.example.com/reset#token=abc for <ada@example.com>";
        assert_eq!(redact(reply), "permanent error (554): 5.7.1 blocked: contains [...] for [...]");
        assert_eq!(redact(&"a".repeat(41)), "[...]");
        assert_eq!(redact("mailbox   unavailable"), "mailbox unavailable");
    }
}
