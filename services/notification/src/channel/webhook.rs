//! Webhooks: messages as signed HTTP requests to endpoints of the operator (Standard Webhooks 1.0).
//!
//! A request is a `POST` of JSON with `webhook-id`, which is the same whenever the message is sent again,
//! `webhook-timestamp`, and `webhook-signature`, a signature with each secret of the endpoint. An endpoint accepts it
//! with a 2xx; redirects are not followed.
//!
//! A host is resolved once for each attempt, all its addresses are checked, and the connection is to one of these
//! addresses. So a DNS answer that changes afterwards changes nothing.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

mod address;
mod config;
mod destination;
mod retry_after;
mod signature;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use drystone_mesh::{
    error::Chain,
    https::{Connection, Origin},
};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

pub use self::config::EndpointConfig;
use self::{
    destination::{Destination, Resolve, SystemResolver},
    retry_after::retry_after,
    signature::{SigningSecret, signatures},
};
use super::SendError;

/// The limits of an attempt, which takes at most 15 seconds.
const LIMITS: Limits =
    Limits { step: Duration::from_secs(5), response: Duration::from_secs(14), drain: Duration::from_secs(1) };

/// An endpoint that messages are sent to.
pub struct Webhook {
    name: String,
    origin: Origin,
    /// The path and the query.
    uri: Uri,
    secrets: Vec<SigningSecret>,
    destination: Destination,
    limits: Limits,
}

/// How long the parts of an attempt take at most.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Each of resolving the name, connecting, and the TLS handshake.
    step: Duration,
    /// All up to the head of the response.
    response: Duration,
    /// Reading the body.
    drain: Duration,
}

impl Webhook {
    /// An endpoint with these settings. It reads the files of the configuration.
    ///
    /// # Errors
    /// A sentence that names the key and a valid value.
    pub fn new(config: &EndpointConfig) -> Result<Self, String> {
        Self::with_resolver(config, Arc::new(SystemResolver))
    }

    fn with_resolver(config: &EndpointConfig, resolver: Arc<dyn Resolve>) -> Result<Self, String> {
        config.check()?;
        let (url, uri) = config.target()?;
        let origin = Origin::new(&url, &config.ca)
            .map_err(|error| config.invalid("url", &format!("cannot be used: {}", Chain(&error))))?;
        let destination = Destination {
            host: origin.host().clone(),
            port: origin.port(),
            allow_private: config.allow_private,
            resolver,
        };
        let secrets = config.read_secrets()?;
        Ok(Self { name: config.name.clone(), origin, uri, secrets, destination, limits: LIMITS })
    }

    /// Sends a message with this id, which has to be the same if it is sent again, at the time `at`. It waits at most
    /// 15 seconds.
    ///
    /// The texts of the errors have no body, no secret, and of the URL only the host.
    pub async fn send(&self, id: Uuid, at: DateTime<Utc>, body: Bytes) -> Result<(), SendError> {
        let request = self.request(&id.to_string(), at.timestamp(), body)?;
        let deadline = Instant::now() + self.limits.response;
        let late = || self.unreachable("it does not respond in time");
        let connection = timeout_at(deadline, self.connect()).await.map_err(|_| late())??;
        let rest = deadline.saturating_duration_since(Instant::now());
        let response = connection.exchange_head(request, rest, self.limits.drain).await;
        let response = response.map_err(|error| self.unreachable(Chain(&error)))?;
        self.outcome(response.status(), response.headers(), at)
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let addresses = self.destination.addresses(self.limits.step).await?;
        let connection = self.origin.connect(&addresses, self.limits.step).await;
        connection.map_err(|error| self.unreachable(Chain(&error)))
    }

    fn request(&self, id: &str, timestamp: i64, body: Bytes) -> Result<Request<Bytes>, SendError> {
        Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures(&self.secrets, id, timestamp, &body))
            .body(body)
            .map_err(|error| {
                SendError::temporary(format!("the request to the webhook `{}` is invalid: {error}", self.name))
            })
    }

    fn outcome(&self, status: StatusCode, headers: &HeaderMap, at: DateTime<Utc>) -> Result<(), SendError> {
        let text = format!("{} responded with {status}", self.destination.host);
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::GONE => Err(SendError::Permanent(format!(
                "{text}: it receives no more messages; remove `{}` from notification.webhooks",
                self.name
            ))),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(SendError::Temporary { text, retry_after: retry_after(headers, at) })
            }
            status if status.is_redirection() => Err(SendError::temporary(format!(
                "{text}; redirects are not followed: set notification.webhooks.url of `{}` to the final URL",
                self.name
            ))),
            _ => Err(SendError::temporary(text)),
        }
    }

    fn unreachable(&self, reason: impl fmt::Display) -> SendError {
        SendError::Unreachable(format!("{}: {reason}", self.destination.host))
    }
}

/// Without the path and the query, which some receivers give a token in.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// The body of a message: `{"type": TEMPLATE, "timestamp": RFC 3339, "data": {..}}`.
#[must_use]
pub fn payload(template: &str, at: DateTime<Utc>, data: Map<String, Value>) -> Bytes {
    let fields = [
        ("type", Value::from(template)),
        ("timestamp", Value::from(at.to_rfc3339_opts(SecondsFormat::Micros, true))),
        ("data", Value::Object(data)),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Bytes::from(Value::Object(Map::from_iter(fields)).to_string())
}

#[cfg(test)]
pub(crate) mod tests;
