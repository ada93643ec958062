//! Calls to the user, property, session and notification services.

use std::collections::BTreeMap;

use async_trait::async_trait;
use drystone::{
    notification::v1::{SendRequest, notification_service_client::NotificationServiceClient},
    property::v1::{ListPropertyClaimsRequest, property_service_client::PropertyServiceClient},
    session::v1::{
        EndUserSessionsRequest, RaiseSessionRequest, RevokeSessionRequest, RotateSessionRequest, Session,
        StartSessionRequest, VoidKeyTokensRequest, session_service_client::SessionServiceClient,
    },
    user::v1::{
        AuthorizeFactorResetRequest, GetContactRequest, LookUpForSignInRequest, LookUpImportedRequest, NewUser,
        ProvisionResult, ProvisionUserRequest, ProvisionUsersRequest, SetEmailRequest, User, UserStatus,
        get_contact_request::Key as ContactKey, look_up_for_sign_in_request::Key,
        user_service_client::UserServiceClient,
    },
};
use drystone_mesh::{
    call::Call,
    client::Channel,
    clock::Timestamp,
    display_name::DisplayName,
    email::Email,
    error::{Error as MeshError, Reason},
    time::{from_proto, to_proto},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{
    authentication::{Method, amr},
    error::Error,
};

/// The fields of an account that a token has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountClaims {
    /// The user.
    pub user_id: Uuid,
    /// The roles.
    pub roles: Vec<String>,
    /// The permissions of the user.
    pub permissions: Vec<String>,
    /// When the first of these expires.
    pub expire_time: Option<Timestamp>,
    /// Whether an administrator has disabled the account.
    pub is_disabled: bool,
    /// Whether the address is verified; false where the account was looked up by its id.
    pub email_verified: bool,
}

/// How to address a user in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The user.
    pub user_id: Uuid,
    /// The e-mail address.
    pub email: String,
    /// The display name.
    pub display_name: String,
    /// The given name; may be empty.
    pub given_name: String,
    /// The family name; may be empty.
    pub family_name: String,
    /// The language; may be empty.
    pub locale: String,
    /// Whether the user can sign in.
    pub is_active: bool,
    /// Whether the address is verified.
    pub email_verified: bool,
}

impl Contact {
    /// Whether the account has this address, in whatever spelling.
    #[must_use]
    pub fn has_email(&self, email: &str) -> bool {
        let key = |text| Email::parse(text).map(|email| email.key());
        matches!((key(&self.email), key(email)), (Ok(own), Ok(other)) if own == other)
    }
}

/// A session and its current counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// The session.
    pub session_id: Uuid,
    /// The user of the session.
    pub user_id: Uuid,
    /// When the user last authenticated in it.
    pub auth_time: Timestamp,
    /// How (RFC 8176).
    pub amr: Vec<String>,
    /// The counter for the next refresh token.
    pub counter: u64,
    /// Whether two clients seem to share it.
    pub is_shared: bool,
}

/// The calls to other services.
#[async_trait]
pub trait Upstreams: Send + Sync {
    /// Creates an account with this id. Idempotent: returns the account if it exists with this email address.
    async fn create_account(
        &self,
        call: &Call,
        user_id: Uuid,
        email: Email,
        display_name: DisplayName,
    ) -> Result<User, Error>;

    /// The ids of accounts that this source has imported, in the order of their ids there; empty for the others.
    async fn look_up_imported(
        &self,
        call: &Call,
        source: &str,
        external_ids: Vec<String>,
    ) -> Result<Vec<String>, Error>;

    /// Creates the accounts of an import, each by itself. Idempotent.
    async fn provision_users(
        &self,
        call: &Call,
        source: String,
        users: Vec<NewUser>,
    ) -> Result<Vec<ProvisionResult>, Error>;

    /// The account with this email address.
    async fn account_by_email(&self, call: &Call, email: &Email) -> Result<Option<AccountClaims>, Error>;

    /// The account with this id.
    async fn account_by_id(&self, call: &Call, user_id: Uuid) -> Result<Option<AccountClaims>, Error>;

    /// The contact of the account with this email address.
    async fn contact_by_email(&self, call: &Call, email: &Email) -> Result<Option<Contact>, Error>;

    /// The contact of the account with this id.
    async fn contact_by_id(&self, call: &Call, user_id: Uuid) -> Result<Option<Contact>, Error>;

    /// Gives an account a verified address. Idempotent. `current` is the one that it has until now, which is kept for it until
    /// `keep_until`.
    async fn set_email(
        &self,
        call: &Call,
        user_id: Uuid,
        current: Option<&str>,
        email: &str,
        keep_until: Option<Timestamp>,
    ) -> Result<(), Error>;

    /// Checks whether the user of the call may reset the second factors of this user now.
    async fn authorize_factor_reset(&self, call: &Call, user_id: Uuid) -> Result<(), Error>;

    /// Ends the sessions of a user, except for one. Idempotent.
    async fn end_sessions(&self, call: &Call, user_id: Uuid, except: Option<Uuid>) -> Result<(), Error>;

    /// Revokes the tokens that a signing key has signed or will sign. Idempotent.
    async fn void_key_tokens(&self, call: &Call, kid: &str) -> Result<(), Error>;

    /// Sends a message to a user. Idempotent by its id.
    async fn send_message(&self, call: &Call, message: SendRequest) -> Result<(), Error>;

    /// A user's relations to properties, by property id.
    async fn property_claims(&self, call: &Call, user_id: Uuid) -> Result<BTreeMap<String, String>, Error>;

    /// Starts a session with the device and address of the call's client.
    async fn start_session(&self, call: &Call, user_id: Uuid, methods: &[Method]) -> Result<SessionState, Error>;

    /// Records that the user of a session has authenticated again. Returns when and how they have in it.
    async fn raise_session(
        &self,
        call: &Call,
        user_id: Uuid,
        session_id: Uuid,
        methods: &[Method],
    ) -> Result<(Timestamp, Vec<String>), Error>;

    /// Rotates a session from this counter.
    async fn rotate_session(&self, call: &Call, session_id: Uuid, counter: u64) -> Result<SessionState, Error>;

    /// Revokes a session of the call's user. Succeeds if the session has already ended.
    async fn revoke_session(&self, call: &Call, session_id: Uuid) -> Result<(), Error>;
}

/// The gRPC clients of the upstreams.
#[derive(Debug, Clone)]
pub struct GrpcUpstreams {
    /// The user service.
    pub users: UserServiceClient<Channel>,
    /// The property service.
    pub properties: PropertyServiceClient<Channel>,
    /// The session service.
    pub sessions: SessionServiceClient<Channel>,
    /// The notification service.
    pub notifications: NotificationServiceClient<Channel>,
}

impl GrpcUpstreams {
    async fn contact(&self, call: &Call, key: ContactKey) -> Result<Option<Contact>, Error> {
        const SERVICE: &str = "the user service";
        let request = call.request(GetContactRequest { key: Some(key) });
        let contact = match self.users.clone().get_contact(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                let error = to_mesh_error(SERVICE, status);
                return if error.reason() == Reason::UserNotFound { Ok(None) } else { Err(error.into()) };
            }
        };
        Ok(Some(Contact {
            user_id: parse_id(&contact.user_id, SERVICE, "a user id")?,
            is_active: contact.status() == UserStatus::Active,
            email_verified: contact.email_verified,
            email: contact.email,
            display_name: contact.display_name,
            given_name: contact.given_name,
            family_name: contact.family_name,
            locale: contact.locale,
        }))
    }

    async fn account(&self, call: &Call, key: Key) -> Result<Option<AccountClaims>, Error> {
        let request = call.request(LookUpForSignInRequest { key: Some(key) });
        let response = match self.users.clone().look_up_for_sign_in(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                let error = to_mesh_error("the user service", status);
                return if error.reason() == Reason::UserNotFound { Ok(None) } else { Err(error.into()) };
            }
        };
        let user_id = parse_id(&response.user_id, "the user service", "a user id")?;
        // A user service of the release before sends no status.
        let is_disabled = !matches!(response.status(), UserStatus::Unspecified | UserStatus::Active);
        Ok(Some(AccountClaims {
            user_id,
            is_disabled,
            email_verified: response.email_verified,
            roles: response.roles,
            permissions: response.permissions,
            expire_time: response.expire_time.as_ref().and_then(from_proto),
        }))
    }
}

/// Device and address of the call's client, of the lengths in the contract.
fn client_of(call: &Call) -> (String, String) {
    let client = &call.fields().client;
    (client.agent.chars().take(256).collect(), client.address.chars().take(64).collect())
}

#[async_trait]
impl Upstreams for GrpcUpstreams {
    async fn create_account(
        &self,
        call: &Call,
        user_id: Uuid,
        email: Email,
        display_name: DisplayName,
    ) -> Result<User, Error> {
        let request = call.request(ProvisionUserRequest {
            user_id: user_id.to_string(),
            email: email.into_string(),
            display_name: display_name.into_string(),
        });
        let response = self.users.clone().provision_user(request).await.map_err(provisioning_error)?;
        Ok(response.into_inner())
    }

    async fn look_up_imported(
        &self,
        call: &Call,
        source: &str,
        external_ids: Vec<String>,
    ) -> Result<Vec<String>, Error> {
        let request = call.request(LookUpImportedRequest { source: source.to_owned(), external_ids });
        let found = self.users.clone().look_up_imported(request).await;
        Ok(found.map_err(|status| to_mesh_error("the user service", status))?.into_inner().user_ids)
    }

    async fn provision_users(
        &self,
        call: &Call,
        source: String,
        users: Vec<NewUser>,
    ) -> Result<Vec<ProvisionResult>, Error> {
        let request = call.request(ProvisionUsersRequest { source, users });
        let provisioned = self.users.clone().provision_users(request).await;
        Ok(provisioned.map_err(|status| to_mesh_error("the user service", status))?.into_inner().results)
    }

    async fn account_by_email(&self, call: &Call, email: &Email) -> Result<Option<AccountClaims>, Error> {
        self.account(call, Key::Email(email.as_str().to_owned())).await
    }

    async fn account_by_id(&self, call: &Call, user_id: Uuid) -> Result<Option<AccountClaims>, Error> {
        self.account(call, Key::UserId(user_id.to_string())).await
    }

    async fn contact_by_email(&self, call: &Call, email: &Email) -> Result<Option<Contact>, Error> {
        self.contact(call, ContactKey::Email(email.as_str().to_owned())).await
    }

    async fn contact_by_id(&self, call: &Call, user_id: Uuid) -> Result<Option<Contact>, Error> {
        self.contact(call, ContactKey::UserId(user_id.to_string())).await
    }

    async fn set_email(
        &self,
        call: &Call,
        user_id: Uuid,
        current: Option<&str>,
        email: &str,
        keep_until: Option<Timestamp>,
    ) -> Result<(), Error> {
        let request = call.request(SetEmailRequest {
            user_id: user_id.to_string(),
            email: email.to_owned(),
            current_email: current.unwrap_or_default().to_owned(),
            keep_previous_until: keep_until.map(to_proto),
        });
        let set = self.users.clone().set_email(request).await;
        set.map_err(|status| to_mesh_error("the user service", status))?;
        Ok(())
    }

    async fn authorize_factor_reset(&self, call: &Call, user_id: Uuid) -> Result<(), Error> {
        let request = call.request_for_user(AuthorizeFactorResetRequest { user_id: user_id.to_string() });
        let authorized = self.users.clone().authorize_factor_reset(request).await;
        authorized.map_err(|status| to_mesh_error("the user service", status))?;
        Ok(())
    }

    async fn end_sessions(&self, call: &Call, user_id: Uuid, except: Option<Uuid>) -> Result<(), Error> {
        let except_session_id = except.map(|id| id.to_string()).unwrap_or_default();
        let request = call.request(EndUserSessionsRequest { user_id: user_id.to_string(), except_session_id });
        let ended = self.sessions.clone().end_user_sessions(request).await;
        ended.map_err(|status| to_mesh_error("the session service", status))?;
        Ok(())
    }

    async fn void_key_tokens(&self, call: &Call, kid: &str) -> Result<(), Error> {
        let request = call.request(VoidKeyTokensRequest { key_id: kid.to_owned() });
        let voided = self.sessions.clone().void_key_tokens(request).await;
        voided.map(drop).map_err(|status| to_mesh_error("the session service", status).into())
    }

    async fn send_message(&self, call: &Call, message: SendRequest) -> Result<(), Error> {
        let sent = self.notifications.clone().send(call.request(message)).await;
        sent.map_err(|status| to_mesh_error("the notification service", status))?;
        Ok(())
    }

    async fn property_claims(&self, call: &Call, user_id: Uuid) -> Result<BTreeMap<String, String>, Error> {
        let request = call.request(ListPropertyClaimsRequest { user_id: user_id.to_string() });
        let response = self
            .properties
            .clone()
            .list_property_claims(request)
            .await
            .map_err(|status| to_mesh_error("the property service", status))?;
        Ok(response.into_inner().claims.into_iter().map(|claim| (claim.property_id, claim.relation)).collect())
    }

    async fn start_session(&self, call: &Call, user_id: Uuid, methods: &[Method]) -> Result<SessionState, Error> {
        let (device, address) = client_of(call);
        let request =
            call.request(StartSessionRequest { user_id: user_id.to_string(), device, address, amr: amr(methods) });
        let response = self
            .sessions
            .clone()
            .start_session(request)
            .await
            .map_err(|status| to_mesh_error("the session service", status))?;
        let response = response.into_inner();
        let session = session_state(response.session, response.counter)?;
        // The token is issued for the session's user, which must be the user that authenticated here.
        if session.user_id == user_id {
            Ok(session)
        } else {
            Err(Error::InvalidResponse("the session service", "a session of the user that signs in"))
        }
    }

    async fn raise_session(
        &self,
        call: &Call,
        user_id: Uuid,
        session_id: Uuid,
        methods: &[Method],
    ) -> Result<(Timestamp, Vec<String>), Error> {
        let (session_id, user_id) = (session_id.to_string(), user_id.to_string());
        let request = call.request(RaiseSessionRequest { session_id, user_id, amr: amr(methods) });
        let response = self
            .sessions
            .clone()
            .raise_session(request)
            .await
            .map_err(|status| to_mesh_error("the session service", status))?;
        let state = session_state(response.into_inner().session, 0)?;
        Ok((state.auth_time, state.amr))
    }

    async fn rotate_session(&self, call: &Call, session_id: Uuid, counter: u64) -> Result<SessionState, Error> {
        let (device, address) = client_of(call);
        let session_id = session_id.to_string();
        let request = call.request(RotateSessionRequest { session_id, counter, device, address });
        let response = self
            .sessions
            .clone()
            .rotate_session(request)
            .await
            .map_err(|status| to_mesh_error("the session service", status))?;
        let response = response.into_inner();
        let state = session_state(response.session, response.counter)?;
        Ok(SessionState { is_shared: response.is_shared, ..state })
    }

    async fn revoke_session(&self, call: &Call, session_id: Uuid) -> Result<(), Error> {
        let request = call.request_for_user(RevokeSessionRequest { id: session_id.to_string() });
        match self.sessions.clone().revoke_session(request).await {
            Ok(_) => Ok(()),
            Err(status) => {
                let error = to_mesh_error("the session service", status);
                match error.reason() {
                    // The session ended between the token verification here and at the session service.
                    Reason::SessionNotFound | Reason::SessionEnded | Reason::TokenRevoked => Ok(()),
                    _ => Err(error.into()),
                }
            }
        }
    }
}

/// The error of a failed `ProvisionUser`. Violations of fields that it shares with `Register` are passed on. Other
/// fields are set by this service, so their violation is an internal error.
fn provisioning_error(status: Status) -> MeshError {
    const SHARED_FIELDS: [&str; 2] = ["email", "display_name"];
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    if violations.iter().any(|violation| !SHARED_FIELDS.contains(&violation.field.as_str())) {
        return MeshError::internal(status);
    }
    to_mesh_error("the user service", status)
}

/// The error of a failed call. If the service is unavailable, the message names it.
fn to_mesh_error(service: &'static str, status: Status) -> MeshError {
    let without_reason = drystone_mesh::error::reason_of(&status).is_none();
    if without_reason && status.code() == Code::Unavailable {
        MeshError::unavailable(service, status)
    } else {
        status.into()
    }
}

fn session_state(session: Option<Session>, counter: u64) -> Result<SessionState, Error> {
    const SERVICE: &str = "the session service";
    let missing = |field| Error::InvalidResponse(SERVICE, field);
    let session = session.ok_or_else(|| missing("the session"))?;
    // An instance of the release before sends neither.
    let create_time = session.create_time.as_ref().and_then(from_proto).ok_or_else(|| missing("a creation time"))?;
    let auth_time = session.auth_time.as_ref().and_then(from_proto).unwrap_or(create_time);
    let amr = if session.amr.is_empty() { amr(&[Method::Password]) } else { session.amr };
    Ok(SessionState {
        session_id: parse_id(&session.id, SERVICE, "a session id")?,
        user_id: parse_id(&session.user_id, SERVICE, "a user id")?,
        auth_time,
        amr,
        counter,
        is_shared: false,
    })
}

fn parse_id(text: &str, service: &'static str, field: &'static str) -> Result<Uuid, Error> {
    text.parse().map_err(|_| Error::InvalidResponse(service, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_of_client_fields_are_passed_on_and_others_are_internal() {
        let error = |field: &str| provisioning_error(MeshError::invalid_field(field, "invalid").into());
        for field in ["email", "display_name"] {
            assert_eq!(error(field).reason(), Reason::InvalidRequest, "{field}");
        }
        assert_eq!(error("user_id").reason(), Reason::Internal);
        let taken = MeshError::new(Reason::EmailTaken, "taken");
        assert_eq!(provisioning_error(taken.into()).reason(), Reason::EmailTaken);
    }
}
