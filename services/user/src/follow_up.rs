//! Tokens with previous roles are void after a change of roles, the sessions of disabled accounts end, and other services forget the
//! users of removed accounts: by messages in the outbox, so that neither happens without the other.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use drystone::{
    auth::v1::{ForgetUserRequest, auth_service_client::AuthServiceClient},
    notification::v1::{ForgetRecipientRequest, notification_service_client::NotificationServiceClient},
    property::v1::{ForgetOwnerRequest, property_service_client::PropertyServiceClient},
    session::v1::{
        EndUserSessionsRequest, VoidRoleTokensRequest, VoidTokensRequest, session_service_client::SessionServiceClient,
    },
};
use drystone_mesh::{call::Call, client::Channel, clock::Timestamp, id};
use drystone_store::outbox::{Deliver, DeliveryError, Message};
use uuid::Uuid;

use crate::role::RoleName;

/// The kinds of message: about one user, about all who have one of several roles, about one user whose sessions end as well, and
/// about the password, the properties and the messages of a user whose account is removed.
const OF_USER: &str = "void_tokens";
const OF_ROLES: &str = "void_role_tokens";
const WITH_SESSIONS: &str = "end_user_sessions";
const PASSWORD: &str = "forget_password";
const PROPERTIES: &str = "forget_properties";
const NOTIFICATIONS: &str = "forget_notifications";

/// The key of messages about roles: they are delivered in order.
pub(crate) const ROLES: &str = "roles";

/// The timeout of a delivery.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The message for a user whose roles or overrides have changed. Changes of one user are delivered in order.
pub(crate) fn of_user(user_id: Uuid, now: Timestamp) -> Message {
    let key = user_id.to_string();
    Message { id: id::v7_at(now), kind: OF_USER.to_owned(), payload: key.clone().into_bytes(), key, created_at: now }
}

/// The message for a user whose sessions end. In order with the other changes of the user.
pub(crate) fn with_sessions(user_id: Uuid, now: Timestamp) -> Message {
    Message { kind: WITH_SESSIONS.to_owned(), ..of_user(user_id, now) }
}

/// The messages for a user whose account is removed.
pub(crate) fn of_purge(user_id: Uuid, now: Timestamp) -> [Message; 4] {
    let message = |kind: &str| Message { kind: kind.to_owned(), ..of_user(user_id, now) };
    [message(WITH_SESSIONS), message(PASSWORD), message(PROPERTIES), message(NOTIFICATIONS)]
}

/// The message for roles that have changed, and those that inherit them.
pub(crate) fn of_roles(roles: &[RoleName], now: Timestamp) -> Message {
    let names: Vec<_> = roles.iter().map(RoleName::as_str).collect();
    let (key, payload) = (ROLES.to_owned(), names.join(" ").into_bytes());
    Message { id: id::v7_at(now), kind: OF_ROLES.to_owned(), payload, key, created_at: now }
}

/// Calls the other services.
pub(crate) struct FollowUp {
    pub(crate) sessions: SessionServiceClient<Channel>,
    pub(crate) auth: AuthServiceClient<Channel>,
    pub(crate) properties: PropertyServiceClient<Channel>,
    pub(crate) notifications: NotificationServiceClient<Channel>,
}

#[async_trait]
impl Deliver for FollowUp {
    async fn deliver(&self, message: &Message) -> Result<(), DeliveryError> {
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        let (call, mut sessions) = (Call::background(Some(Instant::now() + TIMEOUT)), self.sessions.clone());
        let voided = match message.kind.as_str() {
            OF_USER => sessions.void_tokens(call.request(VoidTokensRequest { user_id: payload })).await.map(drop),
            OF_ROLES => {
                let roles = payload.split(' ').map(str::to_owned).collect();
                sessions.void_role_tokens(call.request(VoidRoleTokensRequest { roles })).await.map(drop)
            }
            WITH_SESSIONS => {
                let request = call.request(EndUserSessionsRequest { user_id: payload, ..Default::default() });
                sessions.end_user_sessions(request).await.map(drop)
            }
            PASSWORD => {
                let request = call.request(ForgetUserRequest { user_id: payload });
                self.auth.clone().forget_user(request).await.map(drop)
            }
            PROPERTIES => {
                let request = call.request(ForgetOwnerRequest { owner_id: payload });
                self.properties.clone().forget_owner(request).await.map(drop)
            }
            NOTIFICATIONS => {
                let request = call.request(ForgetRecipientRequest { user_id: payload });
                self.notifications.clone().forget_recipient(request).await.map(drop)
            }
            // An instance of a later release delivers it.
            kind => {
                return Err(DeliveryError::Temporary(format!("this release knows no message of the kind `{kind}`")));
            }
        };
        // The message is right, so that whatever is wrong may be mended.
        voided.map_err(|status| DeliveryError::Temporary(status.message().to_owned()))
    }
}
