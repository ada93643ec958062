//! Upstreams in memory, which keep the contract of the real ones as far as this service leans on it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;
use drystone::user::v1::User;
use drystone_mesh::{
    call::Call,
    clock::Clock,
    display_name::DisplayName,
    email::Email,
    error::{Error as MeshError, Reason},
    id,
};
use uuid::Uuid;

use crate::{
    error::Error,
    upstreams::{Account, SessionState, Upstreams},
};

/// How a service is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Condition {
    /// It answers.
    #[default]
    Up,
    /// It refuses connections.
    Down,
    /// It takes calls and never answers.
    Silent,
}

/// How the creation of an account goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    /// The user service is away.
    Away,
    /// The account is created, and the answer is lost.
    AnswerLost,
    /// The user service of a newer release refuses the name.
    Refused,
    /// The user service of a newer release answers a name that our contract does not allow.
    LongName,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) users: BTreeMap<Uuid, User>,
    pub(super) roles: Vec<String>,
    /// As far as accounts are looked up: for their creation, see `next_creation`.
    pub(super) user_service: Condition,
    pub(super) property_service: Condition,
    pub(super) next_creation: Option<Mishap>,
    pub(super) sessions: BTreeMap<Uuid, SessionState>,
    /// The names of the calls that were made, in order.
    pub(super) calls: Vec<&'static str>,
}

pub(super) struct Fake {
    world: Mutex<World>,
    clock: Clock,
}

impl Fake {
    pub(super) fn new(clock: Clock) -> Self {
        Self { world: Mutex::default(), clock }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn called(&self, name: &'static str) -> MutexGuard<'_, World> {
        let mut world = self.world();
        world.calls.push(name);
        world
    }

    async fn account(
        &self,
        name: &'static str,
        matches: impl Fn(&User) -> bool + Send,
    ) -> Result<Option<Account>, Error> {
        let condition = self.called(name).user_service;
        condition.answer().await?;
        let world = self.world();
        let Some((id, _)) = world.users.iter().find(|(_, user)| matches(user)) else { return Ok(None) };
        let permissions = vec!["users:read".to_owned()];
        Ok(Some(Account { user_id: *id, roles: world.roles.clone(), permissions }))
    }
}

impl Condition {
    async fn answer(self) -> Result<(), Error> {
        match self {
            Self::Up => Ok(()),
            Self::Down => Err(away()),
            Self::Silent => std::future::pending().await,
        }
    }
}

fn away() -> Error {
    MeshError::new(Reason::Unavailable, "away").into()
}

/// Whether this is the address of a user, as the user service compares them.
fn is_of(user: &User, email: &Email) -> bool {
    Email::parse(&user.email).is_ok_and(|address| address.key() == email.key())
}

#[async_trait]
impl Upstreams for Fake {
    async fn create_account(&self, _: &Call, user_id: Uuid, email: Email, name: DisplayName) -> Result<User, Error> {
        let mut world = self.called("create_account");
        let mishap = world.next_creation.take();
        match mishap {
            Some(Mishap::Away) => return Err(away()),
            Some(Mishap::Refused) => return Err(MeshError::invalid_field("display_name", "must be shorter").into()),
            Some(Mishap::AnswerLost | Mishap::LongName) | None => {}
        }
        if world.users.iter().any(|(id, user)| *id != user_id && is_of(user, &email)) {
            return Err(MeshError::new(Reason::EmailTaken, "taken").into());
        }
        let new = User {
            id: user_id.to_string(),
            email: email.into_string(),
            display_name: name.into_string(),
            ..User::default()
        };
        let mut user = world.users.entry(user_id).or_insert(new).clone();
        if mishap == Some(Mishap::LongName) {
            user.display_name = "x".repeat(201);
        }
        if mishap == Some(Mishap::AnswerLost) { Err(away()) } else { Ok(user) }
    }

    async fn account_by_email(&self, _: &Call, email: &Email) -> Result<Option<Account>, Error> {
        self.account("account_by_email", |user| is_of(user, email)).await
    }

    async fn account_by_id(&self, _: &Call, user_id: Uuid) -> Result<Option<Account>, Error> {
        self.account("account_by_id", |user| user.id == user_id.to_string()).await
    }

    async fn property_claims(&self, _: &Call, _: Uuid) -> Result<BTreeMap<String, String>, Error> {
        let condition = self.called("property_claims").property_service;
        condition.answer().await?;
        Ok(BTreeMap::from([("a-property".to_owned(), "owner".to_owned())]))
    }

    async fn start_session(&self, _: &Call, user_id: Uuid) -> Result<SessionState, Error> {
        let now = self.clock.now();
        let session = SessionState { session_id: id::v7_at(now), user_id, create_time: now, counter: 1 };
        self.called("start_session").sessions.insert(session.session_id, session);
        Ok(session)
    }

    async fn rotate_session(&self, _: &Call, session_id: Uuid, counter: u64) -> Result<SessionState, Error> {
        let mut world = self.called("rotate_session");
        match world.sessions.get_mut(&session_id) {
            Some(session) if session.counter == counter => {
                session.counter += 1;
                Ok(*session)
            }
            Some(_) => Err(MeshError::new(Reason::RefreshTokenReused, "reused").into()),
            None => Err(MeshError::new(Reason::SessionEnded, "ended").into()),
        }
    }

    async fn revoke_session(&self, _: &Call, session_id: Uuid) -> Result<(), Error> {
        self.called("revoke_session").sessions.remove(&session_id);
        Ok(())
    }
}
