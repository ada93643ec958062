//! What has been revoked, as far as this process has heard.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta};
use drystone::session::v1::{Revocation, revocation::Scope};
use uuid::Uuid;

use super::{Principal, claims::LEEWAY};
use crate::clock::{Clock, Timestamp};

/// A view that has heard nothing for so long is stale; the session service gives a sign of life every 2 s.
const FRESH_FOR: Duration = Duration::from_secs(10);
/// How often what has expired is forgotten.
const SWEEP_EVERY: TimeDelta = TimeDelta::seconds(60);
/// How long a revocation without an end of its own is kept.
const KEPT_BY_DEFAULT: TimeDelta = TimeDelta::days(1);
const SHARDS: usize = 16;

/// What has been revoked, as far as this process has heard. Clones are the same view.
///
/// While nothing is revoked, asking costs one atomic load.
#[derive(Clone)]
pub struct RevocationView(Arc<Inner>);

struct Inner {
    clock: Clock,
    born: Instant,
    /// Milliseconds from `born` to the last word from the session service, and one; 0 before the first.
    heard: AtomicU64,
    /// How many entries the shards hold together.
    entries: AtomicUsize,
    /// When to forget next, in microseconds since 1970.
    next_sweep: AtomicI64,
    shards: [RwLock<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    /// Sessions that are over, and when each can be forgotten.
    sessions: HashMap<Uuid, Timestamp>,
    /// Users whose tokens up to some moment are void.
    users: HashMap<Uuid, UserEntry>,
}

#[derive(Clone, Copy)]
struct UserEntry {
    void_until: Timestamp,
    forget_at: Timestamp,
}

impl RevocationView {
    /// A view that has heard nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            clock,
            born: Instant::now(),
            heard: AtomicU64::new(0),
            entries: AtomicUsize::new(0),
            next_sweep: AtomicI64::new(i64::MIN),
            shards: Default::default(),
        }))
    }

    /// Takes in what the session service says; an empty slice is a sign of life. When this returns, every token that
    /// it concerns is void here.
    pub fn apply(&self, revocations: &[Revocation]) {
        let now = self.0.clock.now();
        for revocation in revocations {
            self.apply_one(revocation, now);
        }
        self.0.heard.store(self.millis_at(Instant::now()), Ordering::Release);
        self.sweep(now);
    }

    /// Whether the token that made this principal has been revoked.
    #[must_use]
    pub fn is_void(&self, principal: &Principal) -> bool {
        if self.0.entries.load(Ordering::Acquire) == 0 {
            return false;
        }
        let session_over = self.read(principal.session_id, |shard| shard.sessions.contains_key(&principal.session_id));
        session_over
            || self.read(principal.user_id, |shard| {
                shard.users.get(&principal.user_id).is_some_and(|entry| principal.issued_at <= entry.void_until)
            })
    }

    /// Whether the session service has been heard of within the last 10 seconds.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_fresh_at(Instant::now())
    }

    /// When the session service was last heard of.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        let heard = self.0.heard.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.0.born + Duration::from_millis(heard))
    }

    /// How many revocations are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.entries.load(Ordering::Acquire)
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_fresh_at(&self, now: Instant) -> bool {
        self.last_heard().is_some_and(|heard| now.saturating_duration_since(heard) < FRESH_FOR)
    }

    fn millis_at(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.0.born).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn apply_one(&self, revocation: &Revocation, now: Timestamp) {
        // A little longer than the tokens live, for clocks that go differently.
        let forget_at = revocation.expire_time.as_ref().and_then(timestamp).unwrap_or(now + KEPT_BY_DEFAULT) + 2 * LEEWAY;
        match &revocation.scope {
            Some(Scope::SessionId(id)) => match Uuid::try_parse(id) {
                Ok(id) => self.write(id, |shard| keep(&mut shard.sessions, id, forget_at, |at| *at = forget_at.max(*at))),
                Err(_) => tracing::warn!("revocation of a session without a lawful id passed over"),
            },
            Some(Scope::UserTokens(tokens)) => {
                let void_until = tokens.before_time.as_ref().and_then(timestamp).unwrap_or(now);
                let entry = UserEntry { void_until, forget_at };
                match Uuid::try_parse(&tokens.user_id) {
                    Ok(id) => self.write(id, |shard| keep(&mut shard.users, id, entry, |held| held.join(entry))),
                    Err(_) => tracing::warn!("revocation of a user's tokens without a lawful id passed over"),
                }
            }
            None => tracing::warn!("revocation of a kind that is not known here passed over"),
        }
    }

    /// Forgets what has expired, if it is time to.
    fn sweep(&self, now: Timestamp) {
        if now.timestamp_micros() < self.0.next_sweep.load(Ordering::Relaxed) {
            return;
        }
        self.0.next_sweep.store((now + SWEEP_EVERY).timestamp_micros(), Ordering::Relaxed);
        for shard in &self.0.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.sessions.retain(|_, forget_at| *forget_at > now);
            shard.users.retain(|_, entry| entry.forget_at > now);
            self.0.entries.fetch_sub(before - shard.len(), Ordering::AcqRel);
        }
    }

    fn read(&self, id: Uuid, question: impl FnOnce(&Shard) -> bool) -> bool {
        question(&self.shard(id).read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The count is moved under the shard's lock, so that it is never less than what a reader could find.
    fn write(&self, id: Uuid, change: impl FnOnce(&mut Shard)) {
        let mut shard = self.shard(id).write().unwrap_or_else(PoisonError::into_inner);
        let before = shard.len();
        change(&mut shard);
        self.0.entries.fetch_add(shard.len() - before, Ordering::AcqRel);
    }

    /// The last byte of a UUID of version 7 is random.
    fn shard(&self, id: Uuid) -> &RwLock<Shard> {
        &self.0.shards[usize::from(id.as_bytes()[15]) % SHARDS]
    }
}

impl Shard {
    fn len(&self) -> usize {
        self.sessions.len() + self.users.len()
    }
}

impl UserEntry {
    fn join(&mut self, other: Self) {
        self.void_until = self.void_until.max(other.void_until);
        self.forget_at = self.forget_at.max(other.forget_at);
    }
}

impl fmt::Debug for RevocationView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationView").field("entries", &self.len()).finish_non_exhaustive()
    }
}

fn keep<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V, join: impl FnOnce(&mut V)) {
    map.entry(key).and_modify(join).or_insert(value);
}

fn timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    DateTime::from_timestamp(time.seconds, u32::try_from(time.nanos).ok()?)
}
