//! The seeded users, identified by number. Each has an account, a session and a property.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use drystone_auth::{
    store::{AuthStore, MIGRATIONS},
    token::{
        access_token_signer::{AccessTokenParams, AccessTokenSigner},
        key_ring::KeyRing,
        key_spec::KeySpec,
        refresh_token::RefreshToken,
    },
};
use drystone_mesh::{clock::Clock, token::WithdrawnKeys};
use drystone_store::{
    Db, Location,
    sealing::{MasterKeys, Sealer},
};
use drystone_tests::MASTER_KEY;
use tonic::metadata::{Ascii, MetadataValue};
use uuid::{Builder, Uuid};

use super::processes::ISSUER;

/// The lifetime of access tokens: longer than a run, and within the maximum that services accept.
const LIFETIME: Duration = Duration::from_mins(50);

/// The timestamp in the ids of the first user: 1 January 2025, in milliseconds since 1970. Each next user is one
/// millisecond later.
const FIRST_TIMESTAMP: u64 = 1_735_689_600_000;

/// A user by number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeedUser(pub(crate) u64);

impl SeedUser {
    /// The account's id.
    pub(crate) fn user_id(self) -> Uuid {
        self.id(0)
    }

    /// The property's id.
    pub(crate) fn property_id(self) -> Uuid {
        self.id(1)
    }

    /// The session's id. It has the shard of the user, as the session store requires.
    pub(crate) fn session_id(self) -> Uuid {
        let shard = self.user_id().as_bytes().iter().fold(0, |shard, byte| shard ^ byte);
        let mut id = self.id(2).into_bytes();
        id[12] = shard;
        Uuid::from_bytes(id)
    }

    /// A UUID version 7 for this number: ordered by number, with pseudorandom bits.
    fn id(self, which: u64) -> Uuid {
        let mut random = [0; 10];
        let (head, tail) = random.split_at_mut(8);
        head.copy_from_slice(&scatter(3 * self.0 + which).to_be_bytes());
        tail.copy_from_slice(&scatter(!self.0).to_be_bytes()[..2]);
        Builder::from_unix_timestamp_millis(FIRST_TIMESTAMP + self.0, &random).into_uuid()
    }
}

/// The finalizer of SplitMix64, a hash of the number.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// All seeded users of a mesh, with the keys of its auth service.
///
/// A thousand sign-ins would take half a minute because of the password hashes. So tokens are issued here, by the auth
/// service's own code with the keys in its database.
#[derive(Debug)]
pub(crate) struct SeedUsers {
    access_token_signer: AccessTokenSigner,
    keys: Arc<KeyRing>,
    /// The counter of each user's session.
    counters: Vec<AtomicU64>,
}

impl SeedUsers {
    /// `count` users of the mesh whose auth service has this database.
    pub(crate) async fn of(database: &str, count: u64) -> Result<Self> {
        let clock = Clock::system();
        let store = AuthStore::new(Db::open(Location::server("auth", database)?, MIGRATIONS).await?);
        let sealer = Sealer::new(Arc::new(MasterKeys::parse(MASTER_KEY)?));
        let keys = Arc::new(
            KeyRing::open(store, sealer, clock, KeySpec::Es256, WithdrawnKeys::default())
                .await
                .context("reading the keys")?,
        );
        let counters = (0..count).map(|_| AtomicU64::new(drystone_session::FIRST_COUNTER)).collect();
        Ok(Self {
            access_token_signer: AccessTokenSigner::new(
                keys.clone(),
                ISSUER.to_owned(),
                "drystone".to_owned(),
                LIFETIME,
            ),
            keys,
            counters,
        })
    }

    /// `count` users, evenly distributed over all, with access tokens. Each `round` has other users if there are
    /// enough.
    pub(crate) fn active_users(&self, count: u64, round: u64) -> Result<Vec<ActiveUser>> {
        self.active_users_with(&["member"], count, round)
    }

    /// The same with these roles.
    pub(crate) fn active_users_with(&self, roles: &[&str], count: u64, round: u64) -> Result<Vec<ActiveUser>> {
        let total = self.counters.len() as u64;
        (0..count).map(|number| self.active_user(SeedUser((number * total / count + round) % total), roles)).collect()
    }

    fn active_user(&self, user: SeedUser, roles: &[&str]) -> Result<ActiveUser> {
        let now = Clock::system().now();
        let token = self.access_token_signer.sign(AccessTokenParams {
            user_id: user.user_id(),
            session_id: user.session_id(),
            auth_time: now,
            amr: vec!["pwd".to_owned()],
            as_of: now,
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            permissions: Vec::new(),
            claims_expire_at: None,
            properties: BTreeMap::from([(user.property_id().to_string(), "owner".to_owned())]),
        })?;
        Ok(ActiveUser { user, bearer: format!("Bearer {}", token.jwt).parse()? })
    }

    /// The user's current refresh token.
    pub(crate) fn refresh_token(&self, user: SeedUser) -> Result<String> {
        let counter = self.counter(user)?.load(Ordering::Relaxed);
        let (session_id, user_id) = (user.session_id(), user.user_id());
        let token = RefreshToken { session_id, user_id, counter };
        Ok(self.keys.current().refresh_tokens.encode(token, self.keys.now()))
    }

    /// Counts a refresh of the user's session.
    pub(crate) fn refreshed(&self, user: SeedUser) -> Result<()> {
        self.counter(user)?.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn counter(&self, user: SeedUser) -> Result<&AtomicU64> {
        self.counters.get(usize::try_from(user.0)?).context("no such user")
    }
}

/// A user that makes calls.
#[derive(Debug)]
pub(crate) struct ActiveUser {
    /// The user.
    pub(crate) user: SeedUser,
    /// The `authorization` header.
    pub(crate) bearer: MetadataValue<Ascii>,
}
