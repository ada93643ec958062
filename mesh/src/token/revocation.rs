//! The revocations known to this process.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::Hash,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use drystone::session::v1::{Revocation, revocation::Scope};
use tokio::sync::watch;
use uuid::Uuid;

use super::{Principal, WithdrawnKeys};
use crate::{
    clock::{Clock, Timestamp},
    time::from_proto,
};

/// The maximum number of revocations in one message of the session service. After one with so many, more are pending.
pub const MAX_REVOCATIONS: u32 = 1000;

/// A view without an update for this long is stale; the session service sends a heartbeat every 2 s.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// How often expired revocations are removed.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);
/// How long a revocation without an expiry is kept.
const DEFAULT_RETENTION: TimeDelta = TimeDelta::days(1);
/// How much longer than its tokens a revocation is kept, to tolerate clock skew.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(10);
/// How long each revocation is kept at least: as long as most tokens live.
const MIN_RETENTION: Duration = Duration::from_hours(1);
const SHARDS: usize = 16;

/// The revocations known to this process. Clones share the view.
///
/// Without revocations, a check costs two atomic loads.
#[derive(Clone)]
pub struct RevocationView(Arc<Inner>);

struct Inner {
    clock: Clock,
    created: Instant,
    /// Milliseconds from `created` to the last message from the session service after which none was pending, plus one; 0 before the
    /// first.
    last_update: AtomicU64,
    /// The total number of entries in the shards, and of `groups`.
    entries: AtomicUsize,
    groups: RwLock<Groups>,
    /// When the next sweep is due, in milliseconds of monotonic time.
    next_sweep: AtomicU64,
    shards: [RwLock<Shard>; SHARDS],
    /// Notified of each new revocation.
    changes: watch::Sender<()>,
    withdrawn_keys: WithdrawnKeys,
}

#[derive(Default)]
struct Shard {
    /// Ended sessions, and how long each entry is kept.
    sessions: HashMap<Uuid, Retention>,
    /// Users whose tokens up to a timestamp are revoked.
    users: HashMap<Uuid, UserRevocation>,
}

/// Revocations of the tokens of many users.
#[derive(Default)]
struct Groups {
    roles: HashMap<String, UserRevocation>,
    /// Of a kind that this release does not know: every token.
    unknown: Option<UserRevocation>,
}

#[derive(Clone, Copy)]
struct UserRevocation {
    revoked_until: Timestamp,
    retention: Retention,
}

/// How long an entry is kept: until the clock shows this time, and until so much time has passed. So a clock that is set
/// forward and back again makes no process forget.
#[derive(Clone, Copy)]
struct Retention {
    expires_at: Timestamp,
    monotonic: Duration,
}

impl RevocationView {
    /// Creates a view before its first update.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner {
            clock,
            created: Instant::now(),
            last_update: AtomicU64::new(0),
            entries: AtomicUsize::new(0),
            groups: RwLock::default(),
            next_sweep: AtomicU64::new(0),
            shards: Default::default(),
            changes: watch::Sender::new(()),
            withdrawn_keys: WithdrawnKeys::default(),
        }))
    }

    /// Applies an update from the session service; an empty slice is a heartbeat. When this returns, every affected token
    /// is rejected here. An update with [`MAX_REVOCATIONS`] leaves the view as old as it was, since more are pending.
    pub fn apply(&self, revocations: &[Revocation]) {
        let now = self.0.clock.now();
        let mut has_new = false;
        for revocation in revocations {
            has_new |= self.apply_one(revocation, now);
        }
        if revocations.len() < MAX_REVOCATIONS as usize {
            self.0.last_update.store(self.millis_at(Instant::now()), Ordering::Release);
        }
        // Every instance of the session service sends each.
        if has_new {
            self.0.changes.send_replace(());
        }
        self.sweep(now);
    }

    /// Notified of each new revocation.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Whether the token of this principal has been revoked.
    #[must_use]
    pub fn is_revoked(&self, principal: &Principal) -> bool {
        if self.0.withdrawn_keys.contains(&principal.key_id) {
            return true;
        }
        if self.0.entries.load(Ordering::Acquire) == 0 {
            return false;
        }
        let session_ended = self.read(principal.session_id, |shard| shard.sessions.contains_key(&principal.session_id));
        session_ended
            || self.read(principal.user_id, |shard| {
                shard.users.get(&principal.user_id).is_some_and(|entry| principal.issued_at <= entry.revoked_until)
            })
            || self.0.groups.read().unwrap_or_else(PoisonError::into_inner).revoke(principal)
    }

    /// Whether the last update was received within the last 10 seconds.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_fresh_at(Instant::now())
    }

    /// When the last update was received after which none was pending.
    #[must_use]
    pub fn last_update(&self) -> Option<Instant> {
        let millis = self.0.last_update.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.0.created + Duration::from_millis(millis))
    }

    /// The signing keys that were withdrawn.
    #[must_use]
    pub fn withdrawn_keys(&self) -> &WithdrawnKeys {
        &self.0.withdrawn_keys
    }

    /// The number of known revocations, without those of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.entries.load(Ordering::Acquire)
    }

    /// Whether no revocation is known, apart from those of keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_fresh_at(&self, now: Instant) -> bool {
        self.last_update().is_some_and(|updated| now.saturating_duration_since(updated) < STALE_AFTER)
    }

    fn millis_at(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.0.created)).saturating_add(1)
    }

    /// Returns whether it revokes more tokens than were revoked before.
    fn apply_one(&self, revocation: &Revocation, now: Timestamp) -> bool {
        let tokens_expire = revocation.expire_time.as_ref().and_then(from_proto).unwrap_or(now + DEFAULT_RETENTION);
        let expires_at = tokens_expire.checked_add_signed(CLOCK_SKEW).unwrap_or(tokens_expire);
        // Received while the clock is ahead, it would have no time left.
        let left = (expires_at - now).to_std().unwrap_or_default().max(MIN_RETENTION);
        let retention = Retention { expires_at, monotonic: self.0.clock.monotonic().saturating_add(left) };
        match &revocation.scope {
            Some(Scope::SessionId(id)) => {
                let Ok(id) = Uuid::try_parse(id) else { return log_ignored("invalid session id") };
                self.write(id, |shard| {
                    upsert(&mut shard.sessions, id, retention, |existing| {
                        existing.merge(retention);
                        false
                    })
                })
            }
            Some(Scope::UserTokens(tokens)) => {
                let Ok(id) = Uuid::try_parse(&tokens.user_id) else { return log_ignored("invalid user id") };
                let revoked_until = tokens.before_time.as_ref().and_then(from_proto).unwrap_or(now);
                let entry = UserRevocation { revoked_until, retention };
                self.write(id, |shard| upsert(&mut shard.users, id, entry, |existing| existing.merge(entry)))
            }
            Some(Scope::RoleTokens(tokens)) => {
                let revoked_until = tokens.before_time.as_ref().and_then(from_proto).unwrap_or(now);
                let entry = UserRevocation { revoked_until, retention };
                self.change_groups(|groups| {
                    upsert(&mut groups.roles, tokens.role.clone(), entry, |existing| existing.merge(entry))
                })
            }
            // Kept for as long as the process runs: a clock that jumps makes no compromised key good.
            Some(Scope::KeyId(key_id)) => self.0.withdrawn_keys.insert(key_id),
            None => {
                tracing::warn!("a revocation of a kind that this release does not know revokes all earlier tokens");
                let entry = UserRevocation { revoked_until: now, retention };
                self.change_groups(|groups| match &mut groups.unknown {
                    Some(existing) => existing.merge(entry),
                    none => {
                        *none = Some(entry);
                        true
                    }
                })
            }
        }
    }

    /// Removes expired revocations, if a sweep is due.
    fn sweep(&self, now: Timestamp) {
        let monotonic = self.0.clock.monotonic();
        if millis(monotonic) < self.0.next_sweep.load(Ordering::Relaxed) {
            return;
        }
        self.0.next_sweep.store(millis(monotonic + SWEEP_INTERVAL), Ordering::Relaxed);
        for shard in &self.0.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.sessions.retain(|_, retention| !retention.has_ended(now, monotonic));
            shard.users.retain(|_, entry| !entry.retention.has_ended(now, monotonic));
            self.0.entries.fetch_sub(before - shard.len(), Ordering::AcqRel);
        }
        let mut groups = self.0.groups.write().unwrap_or_else(PoisonError::into_inner);
        let before = groups.len();
        groups.roles.retain(|_, entry| !entry.retention.has_ended(now, monotonic));
        groups.unknown.take_if(|entry| entry.retention.has_ended(now, monotonic));
        self.0.entries.fetch_sub(before - groups.len(), Ordering::AcqRel);
    }

    fn read(&self, id: Uuid, query: impl FnOnce(&Shard) -> bool) -> bool {
        query(&self.shard(id).read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Updates the count under the shard's lock, so that it is never less than the entries that a reader can find.
    fn write<R>(&self, id: Uuid, change: impl FnOnce(&mut Shard) -> R) -> R {
        let mut shard = self.shard(id).write().unwrap_or_else(PoisonError::into_inner);
        let before = shard.len();
        let outcome = change(&mut shard);
        self.0.entries.fetch_add(shard.len() - before, Ordering::AcqRel);
        outcome
    }

    fn change_groups<R>(&self, change: impl FnOnce(&mut Groups) -> R) -> R {
        let mut groups = self.0.groups.write().unwrap_or_else(PoisonError::into_inner);
        let before = groups.len();
        let outcome = change(&mut groups);
        self.0.entries.fetch_add(groups.len() - before, Ordering::AcqRel);
        outcome
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

impl Groups {
    fn len(&self) -> usize {
        self.roles.len() + usize::from(self.unknown.is_some())
    }

    fn revoke(&self, principal: &Principal) -> bool {
        let is_covered = |entry: &UserRevocation| principal.issued_at <= entry.revoked_until;
        self.unknown.as_ref().is_some_and(is_covered)
            || (!self.roles.is_empty()
                && principal.roles.iter().any(|role| self.roles.get(role).is_some_and(is_covered)))
    }
}

impl UserRevocation {
    /// Returns whether more tokens are revoked now.
    fn merge(&mut self, other: Self) -> bool {
        let is_later = other.revoked_until > self.revoked_until;
        self.revoked_until = self.revoked_until.max(other.revoked_until);
        self.retention.merge(other.retention);
        is_later
    }
}

impl Retention {
    fn merge(&mut self, other: Self) {
        self.expires_at = self.expires_at.max(other.expires_at);
        self.monotonic = self.monotonic.max(other.monotonic);
    }

    fn has_ended(&self, now: Timestamp, monotonic: Duration) -> bool {
        self.expires_at <= now && self.monotonic <= monotonic
    }
}

impl fmt::Debug for RevocationView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationView").field("entries", &self.len()).finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns that nothing was revoked.
fn log_ignored(reason: &'static str) -> bool {
    tracing::warn!(reason, "revocation ignored");
    false
}

/// Returns whether the value was inserted, or what `merge` returns.
fn upsert<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V, merge: impl FnOnce(&mut V) -> bool) -> bool {
    match map.entry(key) {
        Entry::Occupied(mut entry) => merge(entry.get_mut()),
        Entry::Vacant(entry) => {
            entry.insert(value);
            true
        }
    }
}

#[cfg(test)]
mod tests;
