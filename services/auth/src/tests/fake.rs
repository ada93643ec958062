//! In-memory upstreams, with the behavior of the real ones that this service depends on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use drystone::{
    notification::v1::SendRequest,
    user::v1::{NewUser, ProvisionResult, User},
};
use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
    display_name::DisplayName,
    email::Email,
    error::{Error as MeshError, Reason},
    id,
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    authentication::{Method, amr},
    error::Error,
    upstreams::{AccountClaims, Contact, SessionState, Upstreams},
};

/// The availability of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Availability {
    /// It responds.
    #[default]
    Up,
    /// It is unavailable.
    Down,
    /// It accepts calls and never responds.
    Hanging,
}

/// How the creation of an account fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CreationFailure {
    /// The user service is unavailable.
    Unavailable,
    /// The account is created, but the response is lost.
    ResponseLost,
    /// The user service, of a newer release, rejects the display name.
    Rejected,
    /// The user service, of a newer release, responds with a display name that this release's contract does not allow.
    LongName,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each makes one thing fail")]
pub(super) struct FakeState {
    pub(super) users: BTreeMap<Uuid, User>,
    /// By source and id there.
    pub(super) imported: BTreeMap<(String, String), Uuid>,
    pub(super) roles: Vec<String>,
    /// The permissions; if there are none, `users:read`.
    pub(super) permissions: Vec<String>,
    /// Whether the users have more properties than one.
    pub(super) many_properties: bool,
    /// Whether the accounts are disabled.
    pub(super) is_disabled: bool,
    /// When the first role expires.
    pub(super) claims_expire_at: Option<Timestamp>,
    /// For lookups of accounts. Creations fail by `next_creation_failure`.
    pub(super) user_service: Availability,
    pub(super) property_service: Availability,
    pub(super) next_creation_failure: Option<CreationFailure>,
    pub(super) sessions: BTreeMap<Uuid, SessionState>,
    /// Messages that were sent, by their ids.
    pub(super) messages: BTreeMap<String, SendRequest>,
    /// The availability of the notification and of the session service for what follows a change.
    pub(super) notification_service: Availability,
    pub(super) session_service: Availability,
    /// What starting a session waits for.
    pub(super) session_gate: Option<Arc<Notify>>,
    /// Whose sessions were ended, and which one stayed.
    pub(super) ended: Vec<(Uuid, Option<Uuid>)>,
    /// The signing keys whose tokens were revoked.
    pub(super) voided_keys: Vec<String>,
    /// Whether used refresh tokens are those of a session that two clients share.
    pub(super) sessions_are_shared: bool,
    /// Whether addresses cannot be set.
    pub(super) fails_to_set_email: bool,
    /// An address that the notification service refuses.
    pub(super) refused_address: Option<String>,
    /// Why the user service refuses that the second factors of a user are reset.
    pub(super) reset_refusal: Option<Reason>,
    /// Addresses that are kept, for whom and until when.
    pub(super) kept_emails: BTreeMap<String, (Uuid, Timestamp)>,
    /// The names of the calls that were made, in order.
    pub(super) calls: Vec<&'static str>,
}

pub(super) struct FakeUpstreams {
    state: Mutex<FakeState>,
    clock: Clock,
}

impl FakeUpstreams {
    pub(super) fn new(clock: Clock) -> Self {
        Self { state: Mutex::default(), clock }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap()
    }

    fn called(&self, name: &'static str) -> MutexGuard<'_, FakeState> {
        let mut state = self.state();
        state.calls.push(name);
        state
    }

    async fn account(
        &self,
        name: &'static str,
        matches: impl Fn(&User) -> bool + Send,
    ) -> Result<Option<AccountClaims>, Error> {
        let availability = self.called(name).user_service;
        availability.respond().await?;
        let state = self.state();
        let Some((id, user)) = state.users.iter().find(|(_, user)| matches(user)) else { return Ok(None) };
        let mut permissions = state.permissions.clone();
        if permissions.is_empty() {
            permissions.push("users:read".to_owned());
        }
        let expire_time = state.claims_expire_at;
        let (roles, is_disabled) = (state.roles.clone(), state.is_disabled);
        Ok(Some(AccountClaims {
            user_id: *id,
            roles,
            permissions,
            expire_time,
            is_disabled,
            email_verified: user.email_verified,
        }))
    }
}

impl FakeUpstreams {
    async fn contact(
        &self,
        name: &'static str,
        matches: impl Fn(&User) -> bool + Send,
    ) -> Result<Option<Contact>, Error> {
        let availability = self.called(name).user_service;
        availability.respond().await?;
        let state = self.state();
        let is_active = !state.is_disabled;
        Ok(state.users.iter().find(|(_, user)| matches(user)).map(|(id, user)| Contact {
            user_id: *id,
            email: user.email.clone(),
            display_name: user.display_name.clone(),
            given_name: String::new(),
            family_name: String::new(),
            locale: "de".to_owned(),
            is_active,
            email_verified: user.email_verified,
        }))
    }
}

impl Availability {
    async fn respond(self) -> Result<(), Error> {
        match self {
            Self::Up => Ok(()),
            Self::Down => Err(unavailable()),
            Self::Hanging => std::future::pending().await,
        }
    }
}

fn unavailable() -> Error {
    MeshError::new(Reason::Unavailable, "unavailable").into()
}

/// Whether the user has this email address, compared as the user service does.
fn has_email(user: &User, email: &Email) -> bool {
    Email::parse(&user.email).is_ok_and(|address| address.key() == email.key())
}

#[async_trait]
impl Upstreams for FakeUpstreams {
    async fn create_account(&self, _: &Call, user_id: Uuid, email: Email, name: DisplayName) -> Result<User, Error> {
        let mut state = self.called("create_account");
        let failure = state.next_creation_failure.take();
        match failure {
            Some(CreationFailure::Unavailable) => return Err(unavailable()),
            Some(CreationFailure::Rejected) => {
                return Err(MeshError::invalid_field("display_name", "must be shorter").into());
            }
            Some(CreationFailure::ResponseLost | CreationFailure::LongName) | None => {}
        }
        if state.users.iter().any(|(id, user)| *id != user_id && has_email(user, &email)) {
            return Err(MeshError::new(Reason::EmailTaken, "taken").into());
        }
        let new = User {
            id: user_id.to_string(),
            email: email.into_string(),
            display_name: name.into_string(),
            ..User::default()
        };
        let mut user = state.users.entry(user_id).or_insert(new).clone();
        if failure == Some(CreationFailure::LongName) {
            user.display_name = "x".repeat(201);
        }
        if failure == Some(CreationFailure::ResponseLost) { Err(unavailable()) } else { Ok(user) }
    }

    async fn look_up_imported(&self, _: &Call, source: &str, ids: Vec<String>) -> Result<Vec<String>, Error> {
        let state = self.called("look_up_imported");
        let found = |id: String| state.imported.get(&(source.to_owned(), id)).map(Uuid::to_string).unwrap_or_default();
        Ok(ids.into_iter().map(found).collect())
    }

    /// Refuses addresses that are taken.
    async fn provision_users(
        &self,
        _: &Call,
        source: String,
        users: Vec<NewUser>,
    ) -> Result<Vec<ProvisionResult>, Error> {
        let mut state = self.called("provision_users");
        if state.next_creation_failure == Some(CreationFailure::Unavailable) {
            state.next_creation_failure = None;
            return Err(unavailable());
        }
        let mut results = Vec::new();
        for new in users {
            let (id, user) = (new.user_id.parse().unwrap(), new.user.unwrap());
            let email = Email::parse(&user.email).unwrap();
            if state.users.values().any(|user| has_email(user, &email)) {
                results.push(ProvisionResult { user_id: String::new(), refusal: "taken".to_owned() });
                continue;
            }
            state.users.insert(id, user);
            state.imported.insert((source.clone(), new.external_id), id);
            results.push(ProvisionResult { user_id: new.user_id, refusal: String::new() });
        }
        if state.next_creation_failure.take() == Some(CreationFailure::ResponseLost) {
            return Err(unavailable());
        }
        Ok(results)
    }

    async fn account_by_email(&self, _: &Call, email: &Email) -> Result<Option<AccountClaims>, Error> {
        self.account("account_by_email", |user| has_email(user, email)).await
    }

    async fn account_by_id(&self, _: &Call, user_id: Uuid) -> Result<Option<AccountClaims>, Error> {
        self.account("account_by_id", |user| user.id == user_id.to_string()).await
    }

    async fn contact_by_email(&self, _: &Call, email: &Email) -> Result<Option<Contact>, Error> {
        self.contact("contact_by_email", |user| Email::parse(&user.email).unwrap().key() == email.key()).await
    }

    async fn contact_by_id(&self, _: &Call, user_id: Uuid) -> Result<Option<Contact>, Error> {
        self.contact("contact_by_id", |user| user.id == user_id.to_string()).await
    }

    async fn set_email(
        &self,
        _: &Call,
        user_id: Uuid,
        current: Option<&str>,
        email: &str,
        keep_until: Option<Timestamp>,
    ) -> Result<(), Error> {
        let mut state = self.called("set_email");
        if state.fails_to_set_email {
            return Err(unavailable());
        }
        let address = Email::parse(email).unwrap();
        let is_taken = state.users.iter().any(|(id, user)| *id != user_id && has_email(user, &address))
            || state
                .kept_emails
                .get(&address.key())
                .is_some_and(|(owner, until)| *owner != user_id && *until > self.clock.now());
        if is_taken {
            return Err(MeshError::new(Reason::EmailTaken, "taken").into());
        }
        let Some(user) = state.users.get_mut(&user_id) else {
            return Err(MeshError::new(Reason::UserNotFound, "unknown").into());
        };
        let is_expected = current.is_none_or(|current| has_email(user, &Email::parse(current).unwrap()));
        if !is_expected && !has_email(user, &address) {
            return Err(MeshError::new(Reason::StaleEtag, "changed").into());
        }
        let previous = std::mem::replace(&mut user.email, email.to_owned());
        user.email_verified = true;
        if let Some(until) = keep_until {
            state.kept_emails.insert(Email::parse(&previous).unwrap().key(), (user_id, until));
        }
        Ok(())
    }

    async fn authorize_factor_reset(&self, _: &Call, user_id: Uuid) -> Result<(), Error> {
        let availability = self.called("authorize_factor_reset").user_service;
        availability.respond().await?;
        let state = self.state();
        let unknown = (!state.users.contains_key(&user_id)).then_some(Reason::UserNotFound);
        state.reset_refusal.or(unknown).map_or(Ok(()), |reason| Err(MeshError::new(reason, "refused").into()))
    }

    async fn end_sessions(&self, _: &Call, user_id: Uuid, except: Option<Uuid>) -> Result<(), Error> {
        let availability = self.called("end_sessions").session_service;
        availability.respond().await?;
        let mut state = self.state();
        state.ended.push((user_id, except));
        state.sessions.retain(|id, session| session.user_id != user_id || Some(*id) == except);
        Ok(())
    }

    async fn void_key_tokens(&self, _: &Call, kid: &str) -> Result<(), Error> {
        let availability = self.called("void_key_tokens").session_service;
        availability.respond().await?;
        self.state().voided_keys.push(kid.to_owned());
        Ok(())
    }

    async fn send_message(&self, _: &Call, message: SendRequest) -> Result<(), Error> {
        let availability = self.called("send_message").notification_service;
        availability.respond().await?;
        let mut state = self.state();
        if message.recipient.as_ref().is_some_and(|recipient| Some(&recipient.email) == state.refused_address.as_ref())
        {
            return Err(
                MeshError::invalid_field("recipient.email", "must be an address that mails can be sent to").into()
            );
        }
        if let Some(other) = state.messages.get(&message.message_id) {
            assert_eq!(*other, message, "a repeated message is the same");
        }
        state.messages.insert(message.message_id.clone(), message);
        Ok(())
    }

    async fn property_claims(&self, _: &Call, _: Uuid) -> Result<BTreeMap<String, String>, Error> {
        let availability = self.called("property_claims").property_service;
        availability.respond().await?;
        let count = if self.state().many_properties { 64 } else { 0 };
        let many = (0..count).map(|_| (Uuid::now_v7().to_string(), "owner".to_owned()));
        Ok(many.chain([("a-property".to_owned(), "owner".to_owned())]).collect())
    }

    async fn start_session(&self, _: &Call, user_id: Uuid, methods: &[Method]) -> Result<SessionState, Error> {
        let now = self.clock.now();
        let (session_id, amr) = (id::v7_at(now), amr(methods));
        let session = SessionState { session_id, user_id, auth_time: now, amr, counter: 1, is_shared: false };
        let gate = {
            let mut state = self.called("start_session");
            state.sessions.insert(session.session_id, session.clone());
            state.session_gate.clone()
        };
        if let Some(gate) = gate {
            gate.notified().await;
        }
        Ok(session)
    }

    async fn raise_session(
        &self,
        _: &Call,
        user_id: Uuid,
        session_id: Uuid,
        methods: &[Method],
    ) -> Result<(Timestamp, Vec<String>), Error> {
        let now = self.clock.now();
        let mut state = self.called("raise_session");
        let session = state.sessions.get_mut(&session_id).filter(|session| session.user_id == user_id);
        let session = session.ok_or_else(|| MeshError::new(Reason::SessionEnded, "ended"))?;
        session.auth_time = now;
        session.amr = amr(methods);
        Ok((now, session.amr.clone()))
    }

    async fn rotate_session(&self, _: &Call, session_id: Uuid, counter: u64) -> Result<SessionState, Error> {
        let mut state = self.called("rotate_session");
        let is_shared = state.sessions_are_shared;
        match state.sessions.get_mut(&session_id) {
            Some(session) if session.counter == counter => {
                session.counter += 1;
                Ok(session.clone())
            }
            Some(session) if is_shared => Ok(SessionState { is_shared, ..session.clone() }),
            Some(_) => Err(MeshError::new(Reason::RefreshTokenReused, "reused").into()),
            None => Err(MeshError::new(Reason::SessionEnded, "ended").into()),
        }
    }

    async fn revoke_session(&self, _: &Call, session_id: Uuid) -> Result<(), Error> {
        self.called("revoke_session").sessions.remove(&session_id);
        Ok(())
    }
}
