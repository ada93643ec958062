//! Who lives in the stores: users by number, each with an account, a session and a property.

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
        access_token_signer::{AccessTokenSigner, Grant},
        key_ring::{KeyRing, refresh_token_seal},
        refresh_token::{RefreshToken, RefreshTokenSeal},
    },
};
use drystone_mesh::clock::Clock;
use drystone_store::{Db, Location};
use tonic::metadata::{Ascii, MetadataValue};
use uuid::{Builder, Uuid};

use super::fleet::ISSUER;

/// How long the tokens live: longer than a run, and not longer than the services allow.
const LIFETIME: Duration = Duration::from_mins(50);

/// When the first of them came: 1 January 2025, in milliseconds since 1970. The others followed, one a millisecond.
const FIRST: u64 = 1_735_689_600_000;

/// A user by number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Person(pub(crate) u64);

impl Person {
    /// The account's id.
    pub(crate) fn user_id(self) -> Uuid {
        self.id(0)
    }

    /// The property's id.
    pub(crate) fn property_id(self) -> Uuid {
        self.id(1)
    }

    /// The session's id, which tells the shard of its user as the session service has it; its store checks that.
    pub(crate) fn session_id(self) -> Uuid {
        let shard = self.user_id().as_bytes().iter().fold(0, |shard, byte| shard ^ byte);
        let mut id = self.id(2).into_bytes();
        id[12] = shard;
        Uuid::from_bytes(id)
    }

    /// One of the ids of version 7 that belong to this number: in the order of numbers, and otherwise as if random.
    fn id(self, which: u64) -> Uuid {
        let mut random = [0; 10];
        let (head, tail) = random.split_at_mut(8);
        head.copy_from_slice(&scatter(3 * self.0 + which).to_be_bytes());
        tail.copy_from_slice(&scatter(!self.0).to_be_bytes()[..2]);
        Builder::from_unix_timestamp_millis(FIRST + self.0, &random).into_uuid()
    }
}

/// The finaliser of SplitMix64: numbers that follow each other go far apart.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Everybody in a mesh's stores, and the keys to speak for them: those that its auth service made when it started.
///
/// A sign-in costs a password hash; a thousand users who have signed in would cost half a minute. So the tokens
/// are made here, by the auth service's own code, with the keys in its database.
#[derive(Debug)]
pub(crate) struct People {
    maker: AccessTokenSigner,
    seal: RefreshTokenSeal,
    /// What each one's refresh token carries.
    counters: Vec<AtomicU64>,
}

impl People {
    /// So many, in the mesh whose auth service has this database.
    pub(crate) async fn of(database: &str, count: u64) -> Result<Self> {
        let clock = Clock::system();
        let store = AuthStore::new(Db::open(Location::server("auth", database)?, MIGRATIONS).await?);
        let keys = KeyRing::open(&store, &clock).await.context("reading the signing keys")?;
        let seal = refresh_token_seal(&store, &clock).await.context("reading the refresh tokens' secret")?;
        let counters = (0..count).map(|_| AtomicU64::new(drystone_session::FIRST_COUNTER)).collect();
        Ok(Self {
            maker: AccessTokenSigner::new(Arc::new(keys), ISSUER.to_owned(), "drystone".to_owned(), LIFETIME),
            seal,
            counters,
        })
    }

    /// So many of them, evenly spread over all, with their tokens. Another `turn` meets others, where there are enough.
    pub(crate) fn visitors(&self, count: u64, turn: u64) -> Result<Vec<Visitor>> {
        let all = self.counters.len() as u64;
        (0..count).map(|number| self.visitor(Person((number * all / count + turn) % all))).collect()
    }

    fn visitor(&self, person: Person) -> Result<Visitor> {
        let now = Clock::system().now();
        let token = self.maker.make(Grant {
            user_id: person.user_id(),
            session_id: person.session_id(),
            auth_time: now,
            as_of: now,
            roles: vec!["member".to_owned()],
            permissions: Vec::new(),
            properties: BTreeMap::from([(person.property_id().to_string(), "owner".to_owned())]),
        })?;
        Ok(Visitor { person, bearer: format!("Bearer {}", token.jwt).parse()? })
    }

    /// The refresh token that is good now.
    pub(crate) fn refresh_token(&self, person: Person) -> Result<String> {
        let counter = self.counter(person)?.load(Ordering::Relaxed);
        let (session_id, user_id) = (person.session_id(), person.user_id());
        Ok(self.seal.seal(RefreshToken { session_id, user_id, counter }))
    }

    /// It has been traded in.
    pub(crate) fn refreshed(&self, person: Person) -> Result<()> {
        self.counter(person)?.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn counter(&self, person: Person) -> Result<&AtomicU64> {
        self.counters.get(usize::try_from(person.0)?).context("there are not so many people")
    }
}

/// Somebody who calls.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// Who.
    pub(crate) person: Person,
    /// The `authorization` header.
    pub(crate) bearer: MetadataValue<Ascii>,
}
