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

use super::Principal;
use crate::clock::{Clock, Timestamp};

/// A view that has heard nothing for so long is stale; the session service gives a sign of life every 2 s.
const FRESH_FOR: Duration = Duration::from_secs(10);
/// How often what has expired is forgotten.
const SWEEP_EVERY: TimeDelta = TimeDelta::seconds(60);
/// How long a revocation without an end of its own is kept.
const KEPT_BY_DEFAULT: TimeDelta = TimeDelta::days(1);
/// How much longer than its tokens live a revocation is kept, for clocks that go differently.
const SLACK: TimeDelta = TimeDelta::seconds(10);
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
        let ends = revocation.expire_time.as_ref().and_then(timestamp).unwrap_or(now + KEPT_BY_DEFAULT);
        let forget_at = ends.checked_add_signed(SLACK).unwrap_or(ends);
        match &revocation.scope {
            Some(Scope::SessionId(id)) => {
                let Ok(id) = Uuid::try_parse(id) else { return passed_over("a session without a valid id") };
                self.write(id, |shard| keep(&mut shard.sessions, id, forget_at, |held| *held = forget_at.max(*held)));
            }
            Some(Scope::UserTokens(tokens)) => {
                let Ok(id) = Uuid::try_parse(&tokens.user_id) else { return passed_over("a user without a valid id") };
                let void_until = tokens.before_time.as_ref().and_then(timestamp).unwrap_or(now);
                let entry = UserEntry { void_until, forget_at };
                self.write(id, |shard| keep(&mut shard.users, id, entry, |held| held.join(entry)));
            }
            None => passed_over("a kind that is not known here"),
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

fn passed_over(what: &'static str) {
    tracing::warn!(what, "revocation passed over");
}

fn keep<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V, join: impl FnOnce(&mut V)) {
    map.entry(key).and_modify(join).or_insert(value);
}

fn timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    DateTime::from_timestamp(time.seconds, u32::try_from(time.nanos).ok()?)
}

#[cfg(test)]
mod tests {
    use drystone::session::v1::UserTokens;
    use proptest::prelude::*;

    use super::*;
    use crate::token::testing::{clock, principal};

    const HOUR: Duration = Duration::from_hours(1);

    fn proto(time: Timestamp) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().cast_signed() }
    }

    fn session_over(id: Uuid, expires: Timestamp) -> Revocation {
        Revocation { scope: Some(Scope::SessionId(id.to_string())), expire_time: Some(proto(expires)) }
    }

    fn tokens_void(user: Uuid, before: Timestamp, expires: Timestamp) -> Revocation {
        let tokens = UserTokens { user_id: user.to_string(), before_time: Some(proto(before)) };
        Revocation { scope: Some(Scope::UserTokens(tokens)), expire_time: Some(proto(expires)) }
    }

    #[test]
    fn only_what_is_revoked_is_void() {
        let (clock, view) = (clock(), RevocationView::new(clock()));
        let now = clock.now();
        let (over, void, untouched) = (principal(now), principal(now), principal(now));
        view.apply(&[session_over(over.session_id, now + HOUR), tokens_void(void.user_id, now, now + HOUR)]);
        assert!(view.is_void(&over) && view.is_void(&void) && !view.is_void(&untouched));
        assert_eq!(view.len(), 2);
    }

    #[test]
    fn the_same_revocation_twice_is_one_and_the_furthest_counts() {
        let (clock, view) = (clock(), RevocationView::new(clock()));
        let now = clock.now();
        let user = principal(now);
        view.apply(&[tokens_void(user.user_id, now, now + 2 * HOUR)]);
        view.apply(&[tokens_void(user.user_id, now - HOUR, now + HOUR)]);
        assert_eq!(view.len(), 1);
        assert!(view.is_void(&user));
    }

    #[test]
    fn what_has_expired_is_forgotten_and_nothing_else() {
        let clock = clock();
        let view = RevocationView::new(clock.clone());
        let (soon, late) = (principal(clock.now()), principal(clock.now()));
        view.apply(&[
            session_over(soon.session_id, clock.now() + HOUR),
            tokens_void(late.user_id, clock.now(), clock.now() + 2 * HOUR),
        ]);
        clock.advance(HOUR);
        view.apply(&[]);
        assert_eq!(view.len(), 2, "kept a little longer than the tokens live");
        clock.advance(Duration::from_mins(2));
        view.apply(&[]);
        assert_eq!(view.len(), 1);
        assert!(view.is_void(&late) && !view.is_void(&soon));
        clock.advance(HOUR);
        view.apply(&[]);
        assert!(view.is_empty() && !view.is_void(&late));
    }

    #[test]
    fn what_cannot_be_understood_is_passed_over_and_the_rest_applied() {
        let (clock, view) = (clock(), RevocationView::new(clock()));
        let now = clock.now();
        let over = principal(now);
        let no_end = Revocation { scope: Some(Scope::SessionId(over.session_id.to_string())), expire_time: None };
        let no_id = Revocation { scope: Some(Scope::SessionId("x".to_owned())), expire_time: None };
        let no_user = Revocation { scope: Some(Scope::UserTokens(UserTokens::default())), expire_time: None };
        view.apply(&[Revocation::default(), no_id, no_user, no_end]);
        assert!(view.is_void(&over));
        assert_eq!(view.len(), 1);
    }

    #[test]
    fn a_view_is_fresh_for_ten_seconds_after_each_word() {
        let view = RevocationView::new(clock());
        assert!(!view.is_fresh() && view.last_heard().is_none());
        view.apply(&[]);
        let heard = view.last_heard().unwrap();
        assert!(view.is_fresh_at(heard) && view.is_fresh_at(heard + Duration::from_millis(9_999)));
        assert!(!view.is_fresh_at(heard + FRESH_FOR));
    }

    #[test]
    fn many_threads_apply_and_ask_at_once_and_each_sees_its_own() {
        let view = RevocationView::new(clock());
        let now = clock().now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let user = principal(now);
                        assert!(!view.is_void(&user));
                        view.apply(&[session_over(user.session_id, now + HOUR)]);
                        assert!(view.is_void(&user));
                    }
                });
            }
        });
        assert_eq!(view.len(), 2000);
    }

    proptest! {
        /// Whatever comes in whatever order, the view answers as a plain list would.
        #[test]
        fn the_view_answers_as_a_plain_list_would(
            events in prop::collection::vec((0_usize..4, prop::option::of(-60_i64..60)), 0..40),
            asked in prop::collection::vec((0_usize..4, -60_i64..60), 0..20),
        ) {
            let now = clock().now();
            let people: Vec<_> = (0..4).map(|_| principal(now)).collect();
            let view = RevocationView::new(clock());
            for (who, before) in &events {
                view.apply(&[match before {
                    None => session_over(people[*who].session_id, now + HOUR),
                    Some(seconds) => tokens_void(people[*who].user_id, now + TimeDelta::seconds(*seconds), now + HOUR),
                }]);
            }
            for (who, issued) in asked {
                let mut token = people[who].clone();
                token.issued_at = now + TimeDelta::seconds(issued);
                let expected = events.iter().any(|(of, before)| *of == who && before.is_none_or(|before| issued <= before));
                prop_assert_eq!(view.is_void(&token), expected);
            }
        }
    }
}
