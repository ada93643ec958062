//! The channels that messages are delivered over.

pub(crate) mod mail;
pub mod webhook;

use std::time::Duration;

/// How a message reaches a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Mail.
    Mail,
    /// An HTTP request to an endpoint of the operator.
    Webhook,
    /// The user's inbox.
    Inbox,
}

impl Channel {
    /// All channels.
    pub const ALL: [Self; 3] = [Self::Mail, Self::Webhook, Self::Inbox];

    /// The name, such as `mail`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Webhook => "webhook",
            Self::Inbox => "inbox",
        }
    }

    /// As it is stored.
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Mail => 1,
            Self::Webhook => 2,
            Self::Inbox => 3,
        }
    }

    pub(crate) fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.number() == number)
    }
}

/// Why an attempt failed. The text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The receiver does not answer, whatever the message: after several such failures its deliveries are paused.
    #[error("{0}")]
    Unreachable(String),
    /// The receiver refuses the message for now.
    #[error("{text}")]
    Temporary {
        /// Why.
        text: String,
        /// When to try again, if the receiver says so.
        retry_after: Option<Duration>,
    },
    /// The receiver refuses the message for good.
    #[error("{0}")]
    Permanent(String),
    /// Nothing was sent, for a reason of this service or its configuration, which somebody may mend.
    #[error("{0}")]
    NotReady(String),
}

impl SendError {
    /// A temporary refusal without a time.
    pub(crate) fn temporary(text: impl Into<String>) -> Self {
        Self::Temporary { text: text.into(), retry_after: None }
    }
}
