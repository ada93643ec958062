//! Tokens with previous roles are void after a change of roles: a message in the outbox, so that neither happens without the
//! other.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use drystone::session::v1::{VoidTokensRequest, session_service_client::SessionServiceClient};
use drystone_mesh::{call::Call, client::Channel, clock::Timestamp, id};
use drystone_store::outbox::{Deliver, DeliveryError, Message};
use uuid::Uuid;

/// The kind of the message.
const KIND: &str = "void_tokens";

/// The timeout of a delivery.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The message for a user whose roles have changed. Changes of one user are delivered in order.
pub(crate) fn message(user_id: Uuid, now: Timestamp) -> Message {
    let key = user_id.to_string();
    Message { id: id::v7_at(now), kind: KIND.to_owned(), payload: key.clone().into_bytes(), key, created_at: now }
}

/// Calls the session service.
pub(crate) struct VoidTokens {
    /// The session service.
    pub(crate) sessions: SessionServiceClient<Channel>,
}

#[async_trait]
impl Deliver for VoidTokens {
    async fn deliver(&self, message: &Message) -> Result<(), DeliveryError> {
        if message.kind != KIND {
            return Err(DeliveryError::Permanent(format!(
                "this release knows no message of the kind `{}`",
                message.kind
            )));
        }
        let user_id = String::from_utf8_lossy(&message.payload).into_owned();
        let call = Call::background(Some(Instant::now() + TIMEOUT));
        let voided = self.sessions.clone().void_tokens(call.request(VoidTokensRequest { user_id })).await;
        // The message is right, so that whatever is wrong may be mended.
        voided.map(drop).map_err(|status| DeliveryError::Temporary(status.message().to_owned()))
    }
}
