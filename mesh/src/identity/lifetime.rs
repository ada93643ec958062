//! When a connection is to be replaced, and when it must end.
//!
//! Calls complete on a connection that is to be replaced; new ones go to another. So the two certificates of a handshake can
//! expire without a failed call. A connection must end when one of them has expired, when the peer is on the denylist, and some
//! time after a root has been removed, which the peer's certificate may be of.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use chrono::TimeDelta;

use super::{Identity, Svid};
use crate::clock::{Clock, Timestamp};

/// How long before it must end a connection is replaced: longer than a unary call takes.
const RENEWAL_MARGIN: TimeDelta = TimeDelta::seconds(65);

/// How long the calls of a connection may take after a root has been removed.
const DISTRUST_TIMEOUT: Duration = Duration::from_secs(65);

/// The fraction of a connection's time that is the margin where [`RENEWAL_MARGIN`] would be more.
const MARGIN_FRACTION: i32 = 10;

/// How often the time is compared, at most and at least: the clock of the machine may be set.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The lifetime of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionLifetime {
    identity: Identity,
    peer: Arc<Svid>,
    generation: u64,
    expires_at: Timestamp,
    renew_at: Timestamp,
    clock: Clock,
    /// In the clock's monotonic time.
    too_old_at: Option<Duration>,
    /// When the removal of a root was noticed, in the clock's monotonic time.
    distrusted_since: OnceLock<Duration>,
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// The peer is on the denylist.
    Denied,
    /// One of the two certificates has expired.
    Expired,
    /// A root has been removed some time ago.
    Distrusted,
}

impl ConnectionLifetime {
    /// Of a connection that was opened now with the own certificate `own` of this generation.
    pub(crate) fn new(identity: Identity, own: &Svid, generation: u64, peer: Arc<Svid>, clock: Clock) -> Self {
        let expires_at = own.not_after.min(peer.not_after);
        let margin = ((expires_at - clock.now()) / MARGIN_FRACTION).clamp(TimeDelta::zero(), RENEWAL_MARGIN);
        let renew_at = expires_at - margin;
        Self {
            identity,
            peer,
            generation,
            expires_at,
            renew_at,
            clock,
            too_old_at: None,
            distrusted_since: OnceLock::new(),
        }
    }

    /// Replaces the connection at this age as well.
    #[must_use]
    pub(crate) fn with_max_age(mut self, max_age: Duration) -> Self {
        self.too_old_at = self.clock.monotonic().checked_add(max_age);
        self
    }

    /// Why the connection must end, if it must.
    pub(crate) fn end(&self) -> Option<ConnectionEnd> {
        if self.identity.denies(&self.peer) {
            Some(ConnectionEnd::Denied)
        } else if self.clock.now() >= self.expires_at {
            Some(ConnectionEnd::Expired)
        } else if self.distrust_left().is_some_and(|left| left.is_zero()) {
            Some(ConnectionEnd::Distrusted)
        } else {
            None
        }
    }

    /// How long the connection may go on since a root has been removed, if one has.
    fn distrust_left(&self) -> Option<Duration> {
        if !self.identity.has_removed_root_since(self.generation) {
            return None;
        }
        let now = self.clock.monotonic();
        let since = *self.distrusted_since.get_or_init(|| now);
        Some(DISTRUST_TIMEOUT.saturating_sub(now.saturating_sub(since)))
    }

    /// Whether the connection is about to end, or too old.
    fn is_old(&self) -> bool {
        self.clock.now() >= self.renew_at
            || self.too_old_at.is_some_and(|too_old_at| self.clock.monotonic() >= too_old_at)
    }

    /// Whether the connection is to be replaced: it is about to end, too old, or certificate or roots have been replaced since.
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_old() || self.identity.generation() != self.generation
    }

    /// Waits until the connection is about to end, or too old.
    pub(crate) async fn old(&self) {
        let left = || {
            let age = self.too_old_at.map(|too_old_at| too_old_at.saturating_sub(self.clock.monotonic()));
            self.until(self.renew_at).min(age.unwrap_or(MAX_PAUSE))
        };
        self.wait(|| self.is_old().then_some(()), left).await;
    }

    /// Waits until the connection must end.
    pub(crate) async fn ended(&self) -> ConnectionEnd {
        let left = || self.until(self.expires_at).min(self.distrust_left().unwrap_or(MAX_PAUSE));
        self.wait(|| self.end(), left).await
    }

    /// Waits until a root has been removed since the handshake.
    pub(crate) async fn distrusted(&self) {
        self.wait(|| self.distrust_left().map(drop), || MAX_PAUSE).await;
    }

    fn until(&self, time: Timestamp) -> Duration {
        (time - self.clock.now()).to_std().unwrap_or_default()
    }

    /// Waits for a condition, which becomes true when no time is `left`, or with a change of the identity.
    async fn wait<T>(&self, condition: impl Fn() -> Option<T>, left: impl Fn() -> Duration) -> T {
        let mut changes = self.identity.changes();
        loop {
            if let Some(outcome) = condition() {
                return outcome;
            }
            tokio::select! {
                () = tokio::time::sleep(left().clamp(MIN_PAUSE, MAX_PAUSE)) => {}
                // The sender is a part of the identity, so that this is never an error.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::identity::{Denylist, testing::TestCa};

    /// An own identity, whose certificate ends in an hour, and a connection to a peer whose certificate ends after this time.
    fn connection(peer_lifetime: TimeDelta) -> (Identity, Clock, ConnectionLifetime) {
        let (dir, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
        let identity = Identity::load(&ca.leaf("auth", |_| {}).write(dir.path(), &[&ca])).unwrap();
        let clock = Clock::manual(Clock::system().now());
        let id = "spiffe://drystone.test/service/user".parse().unwrap();
        let peer = Svid { id, not_after: clock.now() + peer_lifetime, ..(*identity.svid()).clone() };
        let lifetime = ConnectionLifetime::new(identity.clone(), &identity.svid(), 0, Arc::new(peer), clock.clone());
        (identity, clock, lifetime)
    }

    #[test]
    fn a_connection_is_replaced_before_the_first_certificate_expires() {
        let (_, clock, lifetime) = connection(TimeDelta::minutes(30));
        clock.advance(Duration::from_secs(30 * 60 - 66));
        assert!(!lifetime.is_old());
        clock.advance(Duration::from_secs(1));
        assert!(lifetime.is_old() && lifetime.end().is_none());
        clock.advance(Duration::from_secs(65));
        assert_eq!(lifetime.end(), Some(ConnectionEnd::Expired));

        let (_, clock, lifetime) = connection(TimeDelta::days(1));
        clock.advance(Duration::from_mins(61));
        assert_eq!(lifetime.end(), Some(ConnectionEnd::Expired), "the own one ends first");
    }

    #[test]
    fn the_margin_is_a_tenth_of_a_short_time() {
        let (_, clock, lifetime) = connection(TimeDelta::seconds(10));
        clock.advance(Duration::from_millis(8_900));
        assert!(!lifetime.is_old());
        clock.advance(Duration::from_millis(200));
        assert!(lifetime.is_old() && lifetime.end().is_none());
        let (_, _, expired) = connection(-TimeDelta::seconds(1));
        assert_eq!(expired.end(), Some(ConnectionEnd::Expired));
    }

    #[test]
    fn a_connection_is_replaced_at_its_maximum_age() {
        let (_, clock, lifetime) = connection(TimeDelta::minutes(30));
        let lifetime = lifetime.with_max_age(Duration::from_mins(5));
        clock.advance(Duration::from_secs(299));
        assert!(!lifetime.is_old());
        clock.advance(Duration::from_secs(1));
        assert!(lifetime.is_old() && lifetime.end().is_none());
    }

    #[tokio::test]
    async fn a_removed_root_ends_the_connection_after_the_time_of_a_call() {
        let (dir, old, new) = (TempDir::new().unwrap(), TestCa::new("drystone.test"), TestCa::new("drystone.test"));
        let identity = Identity::load(&old.leaf("auth", |_| {}).write(dir.path(), &[&old])).unwrap();
        let clock = Clock::manual(Clock::system().now());
        let own = identity.svid();
        let lifetime =
            ConnectionLifetime::new(identity.clone(), &own, identity.generation(), own.clone(), clock.clone());
        let replace = |leaf: &crate::identity::testing::Leaf, roots: &[&TestCa]| {
            assert!(identity.replace(leaf.write(dir.path(), roots).read().unwrap()).unwrap());
        };
        replace(&new.leaf("auth", |_| {}), &[&old, &new]);
        assert!(lifetime.is_outdated(), "the own certificate is another one");
        clock.advance(Duration::from_mins(10));
        assert_eq!(lifetime.end(), None, "the old root is trusted still");

        replace(&new.leaf("auth", |_| {}), &[&new]);
        lifetime.distrusted().await;
        assert_eq!(lifetime.end(), None);
        clock.advance(Duration::from_secs(64));
        assert_eq!(lifetime.end(), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(lifetime.end(), Some(ConnectionEnd::Distrusted));
        assert_eq!(lifetime.ended().await, ConnectionEnd::Distrusted);
    }

    #[tokio::test]
    async fn a_denied_peer_ends_the_connection_at_once() {
        let (identity, _, lifetime) = connection(TimeDelta::minutes(30));
        let lifetime = Arc::new(lifetime);
        let ended = tokio::spawn({
            let lifetime = lifetime.clone();
            async move { lifetime.ended().await }
        });
        assert!(lifetime.end().is_none());
        identity.set_denylist(Denylist::parse(b"spiffe://drystone.test/service/user").unwrap());
        assert_eq!(lifetime.end(), Some(ConnectionEnd::Denied));
        assert_eq!(ended.await.unwrap(), ConnectionEnd::Denied);
    }
}
