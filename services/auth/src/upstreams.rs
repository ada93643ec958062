//! The other services, as this one sees them: what it asks of each, in its own words.

use std::collections::BTreeMap;

use async_trait::async_trait;
use drystone::{
    property::v1::{ListPropertyClaimsRequest, property_service_client::PropertyServiceClient},
    session::v1::{
        RevokeSessionRequest, RotateSessionRequest, Session, StartSessionRequest,
        session_service_client::SessionServiceClient,
    },
    user::v1::{
        LookUpForSignInRequest, ProvisionUserRequest, User, look_up_for_sign_in_request::Key,
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
    time::from_proto,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::error::Error;

/// An account, as far as a token speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Whose it is.
    pub user_id: Uuid,
    /// The roles.
    pub roles: Vec<String>,
    /// The permissions that the roles bring.
    pub permissions: Vec<String>,
}

/// A session and where its counter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionState {
    /// The session.
    pub session_id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// When it began: when the user proved who they are.
    pub create_time: Timestamp,
    /// What the next refresh token carries.
    pub counter: u64,
}

/// What this service asks of the others.
#[async_trait]
pub trait Upstreams: Send + Sync {
    /// Creates an account under this id, or finds it if it has been created with this address.
    async fn create_account(
        &self,
        call: &Call,
        user_id: Uuid,
        email: Email,
        display_name: DisplayName,
    ) -> Result<User, Error>;

    /// The account of an address.
    async fn account_by_email(&self, call: &Call, email: &Email) -> Result<Option<Account>, Error>;

    /// The account of an id.
    async fn account_by_id(&self, call: &Call, user_id: Uuid) -> Result<Option<Account>, Error>;

    /// A user's relations to properties, by the property's id.
    async fn property_claims(&self, call: &Call, user_id: Uuid) -> Result<BTreeMap<String, String>, Error>;

    /// Starts a session on the device and from the address that the call comes from.
    async fn start_session(&self, call: &Call, user_id: Uuid) -> Result<SessionState, Error>;

    /// Moves a session on from this counter.
    async fn rotate_session(&self, call: &Call, session_id: Uuid, counter: u64) -> Result<SessionState, Error>;

    /// Ends a session of the call's own user. One that is over already is fine.
    async fn revoke_session(&self, call: &Call, session_id: Uuid) -> Result<(), Error>;
}

/// The upstreams over the mesh.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Who owns the accounts.
    pub users: UserServiceClient<Channel>,
    /// Who owns the properties.
    pub properties: PropertyServiceClient<Channel>,
    /// Who owns the sessions.
    pub sessions: SessionServiceClient<Channel>,
}

impl Clients {
    async fn account(&self, call: &Call, key: Key) -> Result<Option<Account>, Error> {
        let request = call.request(LookUpForSignInRequest { key: Some(key) });
        let answer = match self.users.clone().look_up_for_sign_in(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                let error = failed("the user service", status);
                return if error.reason() == Reason::UserNotFound { Ok(None) } else { Err(error.into()) };
            }
        };
        let user_id = id(&answer.user_id, "the user service", "a user id")?;
        Ok(Some(Account { user_id, roles: answer.roles, permissions: answer.permissions }))
    }
}

#[async_trait]
impl Upstreams for Clients {
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
        let answer = self.users.clone().provision_user(request).await.map_err(provisioning_failed)?;
        Ok(answer.into_inner())
    }

    async fn account_by_email(&self, call: &Call, email: &Email) -> Result<Option<Account>, Error> {
        self.account(call, Key::Email(email.as_str().to_owned())).await
    }

    async fn account_by_id(&self, call: &Call, user_id: Uuid) -> Result<Option<Account>, Error> {
        self.account(call, Key::UserId(user_id.to_string())).await
    }

    async fn property_claims(&self, call: &Call, user_id: Uuid) -> Result<BTreeMap<String, String>, Error> {
        let request = call.request(ListPropertyClaimsRequest { user_id: user_id.to_string() });
        let answer = self
            .properties
            .clone()
            .list_property_claims(request)
            .await
            .map_err(|status| failed("the property service", status))?;
        Ok(answer.into_inner().claims.into_iter().map(|claim| (claim.property_id, claim.relation)).collect())
    }

    async fn start_session(&self, call: &Call, user_id: Uuid) -> Result<SessionState, Error> {
        let client = &call.fields().client;
        let request = call.request(StartSessionRequest {
            user_id: user_id.to_string(),
            // As long as the contract lets them be.
            device: client.agent.chars().take(256).collect(),
            address: client.address.chars().take(64).collect(),
        });
        let answer = self
            .sessions
            .clone()
            .start_session(request)
            .await
            .map_err(|status| failed("the session service", status))?;
        let answer = answer.into_inner();
        let session = session_state(answer.session, answer.counter)?;
        // The token speaks for whoever the session is said to be of: that must be who has proved themselves here.
        if session.user_id == user_id {
            Ok(session)
        } else {
            Err(Error::Answer("the session service", "a session of the user who signs in"))
        }
    }

    async fn rotate_session(&self, call: &Call, session_id: Uuid, counter: u64) -> Result<SessionState, Error> {
        let request = call.request(RotateSessionRequest { session_id: session_id.to_string(), counter });
        let answer = self
            .sessions
            .clone()
            .rotate_session(request)
            .await
            .map_err(|status| failed("the session service", status))?;
        let answer = answer.into_inner();
        session_state(answer.session, answer.counter)
    }

    async fn revoke_session(&self, call: &Call, session_id: Uuid) -> Result<(), Error> {
        let request = call.request_for_user(RevokeSessionRequest { id: session_id.to_string() });
        match self.sessions.clone().revoke_session(request).await {
            Ok(_) => Ok(()),
            Err(status) => {
                let error = failed("the session service", status);
                match error.reason() {
                    // Somebody ended it between the check of the token here and there.
                    Reason::SessionNotFound | Reason::SessionEnded | Reason::TokenRevoked => Ok(()),
                    _ => Err(error.into()),
                }
            }
        }
    }
}

/// A failed `ProvisionUser`. Its fields are spelled as those of `Register`, but for those that this service fills in
/// itself: a refusal of them says nothing to the client, and is a mistake on our side.
fn provisioning_failed(status: Status) -> MeshError {
    const OF_REGISTER: [&str; 2] = ["email", "display_name"];
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    if violations.iter().any(|violation| !OF_REGISTER.contains(&violation.field.as_str())) {
        return MeshError::internal(status);
    }
    failed("the user service", status)
}

/// A failed call, with the name of the service that is away in its message.
fn failed(service: &'static str, status: Status) -> MeshError {
    let without_reason = drystone_mesh::error::reason_of(&status).is_none();
    if without_reason && status.code() == Code::Unavailable {
        MeshError::unavailable(service, status)
    } else {
        status.into()
    }
}

fn session_state(session: Option<Session>, counter: u64) -> Result<SessionState, Error> {
    const WHO: &str = "the session service";
    let session = session.ok_or(Error::Answer(WHO, "the session"))?;
    Ok(SessionState {
        session_id: id(&session.id, WHO, "a session id")?,
        user_id: id(&session.user_id, WHO, "a user id")?,
        create_time: session.create_time.as_ref().and_then(from_proto).ok_or(Error::Answer(WHO, "a start"))?,
        counter,
    })
}

fn id(text: &str, who: &'static str, what: &'static str) -> Result<Uuid, Error> {
    text.parse().map_err(|_| Error::Answer(who, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_what_the_client_sent_is_passed_on_and_one_of_what_it_did_not_is_ours() {
        let refusal = |field: &str| provisioning_failed(MeshError::invalid_field(field, "must be better").into());
        for field in ["email", "display_name"] {
            assert_eq!(refusal(field).reason(), Reason::InvalidRequest, "{field}");
        }
        assert_eq!(refusal("user_id").reason(), Reason::Internal);
        let taken = MeshError::new(Reason::EmailTaken, "taken");
        assert_eq!(provisioning_failed(taken.into()).reason(), Reason::EmailTaken);
    }
}
