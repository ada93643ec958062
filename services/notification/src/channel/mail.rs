//! Mail: by SMTP, or into files where no mail server is configured.

mod files;
mod smtp;
mod stream;

use std::{path::PathBuf, time::SystemTime};

use drystone_mesh::clock::Timestamp;
use lettre::{
    Address, Message,
    message::{
        Body, Mailbox, MultiPart, SinglePart,
        header::{ContentTransferEncoding, ContentType, Header, HeaderName, HeaderValue},
    },
};
use uuid::Uuid;

use self::{files::MailFolder, smtp::Smtp};
use super::SendError;
use crate::{config::SmtpConfig, template::Mail as Text};

/// A mail that is to be sent.
pub(crate) struct Letter<'a> {
    /// Its id, which stays the same if it is sent again.
    pub(crate) id: Uuid,
    /// When its message was accepted.
    pub(crate) at: Timestamp,
    /// The address.
    pub(crate) to: &'a str,
    /// The name of the recipient; may be empty.
    pub(crate) name: &'a str,
    /// The subject and the texts.
    pub(crate) text: Text,
}

/// Sends mails.
#[derive(Debug)]
pub(crate) struct Mail {
    transport: Transport,
    from: Mailbox,
}

#[derive(Debug)]
enum Transport {
    Smtp(Smtp),
    Files(MailFolder),
}

impl Mail {
    /// By this configuration; without a mail server, into this folder.
    ///
    /// # Errors
    /// A sentence that names the key, or the folder.
    pub(crate) fn new(config: &SmtpConfig, folder: PathBuf) -> Result<Self, String> {
        let from: Mailbox = config.from.parse().map_err(|error| format!("notification.smtp.from: {error}"))?;
        let transport = if config.is_configured() {
            Transport::Smtp(Smtp::new(config, from.email.domain())?)
        } else {
            Transport::Files(MailFolder::open(folder)?)
        };
        Ok(Self { transport, from })
    }

    /// Sends a mail.
    pub(crate) async fn send(&self, letter: Letter<'_>) -> Result<(), SendError> {
        let id = letter.id;
        let message = self.compose(letter)?;
        match &self.transport {
            Transport::Smtp(smtp) => smtp.send(&message).await,
            Transport::Files(folder) => folder.write(id, message.formatted()).await,
        }
    }

    fn compose(&self, letter: Letter<'_>) -> Result<Message, SendError> {
        let Letter { id, at, to, name, text } = letter;
        // An address that the mail library cannot send to is wrong for good.
        let address: Address = to
            .parse()
            .map_err(|error| SendError::Permanent(format!("mail cannot be sent to this address: {error}")))?;
        // The mail library panics where a name has line breaks.
        let name = (!name.is_empty() && !name.contains(char::is_control)).then(|| name.to_owned());
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(name, address))
            .subject(text.subject)
            .date(SystemTime::from(at))
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            // So that no out-of-office answer comes back (RFC 3834).
            .header(AutoSubmitted)
            .multipart(self.alternatives(text.text, text.html))
            .map_err(|error| SendError::Permanent(format!("the mail cannot be composed: {error}")))
    }

    fn alternatives(&self, text: String, html: String) -> MultiPart {
        // In mail, lines are bounded (RFC 5322, section 2.1.1). A person reads the text in a file: it is as it is.
        let quoted = |content_type, text: String| {
            let encoding = ContentTransferEncoding::QuotedPrintable;
            SinglePart::builder().header(content_type).header(encoding).body(text)
        };
        let text = match self.transport {
            Transport::Smtp(_) => quoted(ContentType::TEXT_PLAIN, text),
            Transport::Files(_) => {
                let lines = text.replace('\n', "\r\n").into_bytes();
                let body = Body::dangerous_pre_encoded(lines, ContentTransferEncoding::EightBit);
                SinglePart::builder().header(ContentType::TEXT_PLAIN).body(body)
            }
        };
        MultiPart::alternative().singlepart(text).singlepart(quoted(ContentType::TEXT_HTML, html))
    }
}

/// The header `Auto-Submitted: auto-generated`.
#[derive(Debug, Clone, Copy)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
