//! The revocations known to this process.

use std::{
    collections::HashMap,
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
use uuid::Uuid;

use super::Principal;
use crate::{
    clock::{Clock, Timestamp},
    time::from_proto,
};

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
/// Without revocations, a check costs one atomic load.
#[derive(Clone)]
pub struct RevocationView(Arc<Inner>);

struct Inner {
    clock: Clock,
    created: Instant,
    /// Milliseconds from `created` to the last message from the session service, plus one; 0 before the first.
    last_update: AtomicU64,
    /// The total number of entries in the shards, and of `groups`.
    entries: AtomicUsize,
    groups: RwLock<Groups>,
    /// When the next sweep is due, in milliseconds of monotonic time.
    next_sweep: AtomicU64,
    shards: [RwLock<Shard>; SHARDS],
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
        }))
    }

    /// Applies an update from the session service; an empty slice is a heartbeat. When this returns, every affected token
    /// is rejected here.
    pub fn apply(&self, revocations: &[Revocation]) {
        let now = self.0.clock.now();
        for revocation in revocations {
            self.apply_one(revocation, now);
        }
        self.0.last_update.store(self.millis_at(Instant::now()), Ordering::Release);
        self.sweep(now);
    }

    /// Whether the token of this principal has been revoked.
    #[must_use]
    pub fn is_revoked(&self, principal: &Principal) -> bool {
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

    /// When the last update was received.
    #[must_use]
    pub fn last_update(&self) -> Option<Instant> {
        let millis = self.0.last_update.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.0.created + Duration::from_millis(millis))
    }

    /// The number of known revocations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.entries.load(Ordering::Acquire)
    }

    /// Whether no revocation is known.
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

    fn apply_one(&self, revocation: &Revocation, now: Timestamp) {
        let tokens_expire = revocation.expire_time.as_ref().and_then(from_proto).unwrap_or(now + DEFAULT_RETENTION);
        let expires_at = tokens_expire.checked_add_signed(CLOCK_SKEW).unwrap_or(tokens_expire);
        // Received while the clock is ahead, it would have no time left.
        let left = (expires_at - now).to_std().unwrap_or_default().max(MIN_RETENTION);
        let retention = Retention { expires_at, monotonic: self.0.clock.monotonic().saturating_add(left) };
        match &revocation.scope {
            Some(Scope::SessionId(id)) => {
                let Ok(id) = Uuid::try_parse(id) else { return log_ignored("invalid session id") };
                self.write(id, |shard| {
                    upsert(&mut shard.sessions, id, retention, |existing| existing.merge(retention));
                });
            }
            Some(Scope::UserTokens(tokens)) => {
                let Ok(id) = Uuid::try_parse(&tokens.user_id) else { return log_ignored("invalid user id") };
                let revoked_until = tokens.before_time.as_ref().and_then(from_proto).unwrap_or(now);
                let entry = UserRevocation { revoked_until, retention };
                self.write(id, |shard| upsert(&mut shard.users, id, entry, |existing| existing.merge(entry)));
            }
            Some(Scope::RoleTokens(tokens)) => {
                let revoked_until = tokens.before_time.as_ref().and_then(from_proto).unwrap_or(now);
                let entry = UserRevocation { revoked_until, retention };
                self.change_groups(|groups| {
                    upsert(&mut groups.roles, tokens.role.clone(), entry, |existing| existing.merge(entry));
                });
            }
            None => {
                tracing::warn!("a revocation of a kind that this release does not know revokes all earlier tokens");
                let entry = UserRevocation { revoked_until: now, retention };
                self.change_groups(|groups| match &mut groups.unknown {
                    Some(existing) => existing.merge(entry),
                    none => *none = Some(entry),
                });
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
    fn write(&self, id: Uuid, change: impl FnOnce(&mut Shard)) {
        let mut shard = self.shard(id).write().unwrap_or_else(PoisonError::into_inner);
        let before = shard.len();
        change(&mut shard);
        self.0.entries.fetch_add(shard.len() - before, Ordering::AcqRel);
    }

    fn change_groups(&self, change: impl FnOnce(&mut Groups)) {
        let mut groups = self.0.groups.write().unwrap_or_else(PoisonError::into_inner);
        let before = groups.len();
        change(&mut groups);
        self.0.entries.fetch_add(groups.len() - before, Ordering::AcqRel);
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
    fn merge(&mut self, other: Self) {
        self.revoked_until = self.revoked_until.max(other.revoked_until);
        self.retention.merge(other.retention);
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

fn log_ignored(reason: &'static str) {
    tracing::warn!(reason, "revocation ignored");
}

fn upsert<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V, merge: impl FnOnce(&mut V)) {
    map.entry(key).and_modify(merge).or_insert(value);
}

#[cfg(test)]
mod tests {
    use drystone::session::v1::{RoleTokens, UserTokens};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        time::to_proto,
        token::testing::{clock, principal},
    };

    const HOUR: Duration = Duration::from_hours(1);

    fn session_revocation(id: Uuid, expires: Timestamp) -> Revocation {
        Revocation { scope: Some(Scope::SessionId(id.to_string())), expire_time: Some(to_proto(expires)) }
    }

    fn user_revocation(user: Uuid, before: Timestamp, expires: Timestamp) -> Revocation {
        let tokens = UserTokens { user_id: user.to_string(), before_time: Some(to_proto(before)) };
        Revocation { scope: Some(Scope::UserTokens(tokens)), expire_time: Some(to_proto(expires)) }
    }

    #[test]
    fn only_revoked_tokens_are_rejected() {
        let (clock, view) = (clock(), RevocationView::new(clock()));
        let now = clock.now();
        let (session_ended, user_revoked, other) = (principal(now), principal(now), principal(now));
        view.apply(&[
            session_revocation(session_ended.session_id, now + HOUR),
            user_revocation(user_revoked.user_id, now, now + HOUR),
        ]);
        assert!(view.is_revoked(&session_ended) && view.is_revoked(&user_revoked) && !view.is_revoked(&other));
        assert_eq!(view.len(), 2);
    }

    #[test]
    fn duplicate_revocations_merge_to_the_latest() {
        let (clock, view) = (clock(), RevocationView::new(clock()));
        let now = clock.now();
        let user = principal(now);
        view.apply(&[user_revocation(user.user_id, now, now + 2 * HOUR)]);
        view.apply(&[user_revocation(user.user_id, now - HOUR, now + HOUR)]);
        assert_eq!(view.len(), 1);
        assert!(view.is_revoked(&user));
    }

    #[test]
    fn a_clock_that_jumps_forward_and_back_makes_nothing_forgotten() {
        let clock = clock();
        let view = RevocationView::new(clock.clone());
        let (before, user) = (principal(clock.now()), principal(clock.now()));
        view.apply(&[
            session_revocation(before.session_id, clock.now() + HOUR),
            user_revocation(user.user_id, clock.now(), clock.now() + HOUR),
        ]);
        clock.set_by(TimeDelta::hours(2));
        for _ in 0..3 {
            clock.advance(Duration::from_mins(2));
            view.apply(&[]);
        }
        clock.set_by(-TimeDelta::hours(2));
        assert!(view.is_revoked(&before) && view.is_revoked(&user));
        // They are removed after as much time as without the jump.
        clock.advance(HOUR);
        view.apply(&[]);
        assert!(view.is_empty());
    }

    #[test]
    fn only_expired_revocations_are_removed() {
        let clock = clock();
        let view = RevocationView::new(clock.clone());
        let (soon, late) = (principal(clock.now()), principal(clock.now()));
        view.apply(&[
            session_revocation(soon.session_id, clock.now() + HOUR),
            user_revocation(late.user_id, clock.now(), clock.now() + 2 * HOUR),
        ]);
        clock.advance(HOUR);
        view.apply(&[]);
        assert_eq!(view.len(), 2, "kept a little longer than the tokens");
        clock.advance(Duration::from_mins(2));
        view.apply(&[]);
        assert_eq!(view.len(), 1);
        assert!(view.is_revoked(&late) && !view.is_revoked(&soon));
        clock.advance(HOUR);
        view.apply(&[]);
        assert!(view.is_empty() && !view.is_revoked(&late));
    }

    #[test]
    fn invalid_revocations_are_ignored_and_the_rest_applied() {
        let (clock, view) = (clock(), RevocationView::new(clock()));
        let now = clock.now();
        let token = principal(now);
        let no_end = Revocation { scope: Some(Scope::SessionId(token.session_id.to_string())), expire_time: None };
        let no_id = Revocation { scope: Some(Scope::SessionId("x".to_owned())), expire_time: None };
        let no_user = Revocation { scope: Some(Scope::UserTokens(UserTokens::default())), expire_time: None };
        view.apply(&[no_id, no_user, no_end]);
        assert!(view.is_revoked(&token));
        assert_eq!(view.len(), 1);
    }

    fn role_revocation(role: &str, before: Timestamp, expires: Timestamp) -> Revocation {
        let tokens = RoleTokens { role: role.to_owned(), before_time: Some(to_proto(before)) };
        Revocation { scope: Some(Scope::RoleTokens(tokens)), expire_time: Some(to_proto(expires)) }
    }

    #[test]
    fn a_revoked_role_revokes_the_earlier_tokens_of_all_who_have_it() {
        let clock = clock();
        let view = RevocationView::new(clock.clone());
        let now = clock.now();
        let with = |roles: &[&str], issued_at| Principal {
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            ..principal(issued_at)
        };
        view.apply(&[role_revocation("manager", now - HOUR, now + HOUR), role_revocation("manager", now, now + HOUR)]);
        assert_eq!(view.len(), 1);
        assert!(view.is_revoked(&with(&["member", "manager"], now)));
        assert!(!view.is_revoked(&with(&["manager"], now + TimeDelta::milliseconds(1))));
        assert!(!view.is_revoked(&with(&["member", "managers"], now)));
        assert!(!view.is_revoked(&with(&[], now)));
        clock.advance(HOUR + Duration::from_mins(2));
        view.apply(&[]);
        assert!(view.is_empty());
    }

    #[test]
    fn a_revocation_of_an_unknown_kind_revokes_every_earlier_token() {
        let clock = clock();
        let view = RevocationView::new(clock.clone());
        let now = clock.now();
        view.apply(&[Revocation { scope: None, expire_time: Some(to_proto(now + HOUR)) }]);
        assert_eq!(view.len(), 1);
        assert!(view.is_revoked(&principal(now)) && view.is_revoked(&principal(now - HOUR)));
        assert!(!view.is_revoked(&principal(now + TimeDelta::milliseconds(1))));
        clock.advance(HOUR + Duration::from_mins(2));
        view.apply(&[]);
        assert!(view.is_empty());
    }

    #[test]
    fn a_view_is_fresh_for_ten_seconds_after_each_update() {
        let view = RevocationView::new(clock());
        assert!(!view.is_fresh() && view.last_update().is_none());
        view.apply(&[]);
        let updated = view.last_update().unwrap();
        assert!(view.is_fresh_at(updated) && view.is_fresh_at(updated + Duration::from_millis(9_999)));
        assert!(!view.is_fresh_at(updated + STALE_AFTER));
    }

    #[test]
    fn concurrent_threads_see_their_own_revocations() {
        let view = RevocationView::new(clock());
        let now = clock().now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let user = principal(now);
                        assert!(!view.is_revoked(&user));
                        view.apply(&[session_revocation(user.session_id, now + HOUR)]);
                        assert!(view.is_revoked(&user));
                    }
                });
            }
        });
        assert_eq!(view.len(), 2000);
    }

    proptest! {
        /// The view gives the same results as a list of all revocations.
        #[test]
        fn the_view_is_equivalent_to_a_list(
            events in prop::collection::vec((0_usize..4, prop::option::of(-60_i64..60)), 0..40),
            queries in prop::collection::vec((0_usize..4, -60_i64..60), 0..20),
        ) {
            let now = clock().now();
            let users: Vec<_> = (0..4).map(|_| principal(now)).collect();
            let view = RevocationView::new(clock());
            for (who, before) in &events {
                view.apply(&[match before {
                    None => session_revocation(users[*who].session_id, now + HOUR),
                    Some(seconds) => user_revocation(users[*who].user_id, now + TimeDelta::seconds(*seconds), now + HOUR),
                }]);
            }
            for (who, issued) in queries {
                let mut token = users[who].clone();
                token.issued_at = now + TimeDelta::seconds(issued);
                let expected = events.iter().any(|(of, before)| *of == who && before.is_none_or(|before| issued <= before));
                prop_assert_eq!(view.is_revoked(&token), expected);
            }
        }
    }
}
