//! Lanes: what is limited and paused together, such as the mails to one domain, so that a slow or failing destination does not hold up
//! the others.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use chrono::TimeDelta;
use drystone_mesh::{clock::Timestamp, consecutive_failures::FAILURE_THRESHOLD};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use crate::channel::{Channel, SendError};

/// How many deliveries of a lane are attempted at once: fewer than there are connections to the mail server.
const MAX_IN_FLIGHT: usize = 4;

/// How many deliveries of a lane are leased at once; more are put off.
const MAX_LEASED: usize = 32;

/// How long a delivery is put off whose lane has too many.
const FULL_DELAY: TimeDelta = TimeDelta::seconds(1);

/// The bounds of the pause after [`FAILURE_THRESHOLD`] consecutive failures, which doubles.
const MIN_PAUSE: TimeDelta = TimeDelta::seconds(10);
const MAX_PAUSE: TimeDelta = TimeDelta::minutes(5);

/// How many breakers are kept.
const MAX_BREAKERS: usize = 10_000;

/// The lanes with leased deliveries, and the breakers of lanes that fail.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    joined: HashMap<String, Weak<Lane>>,
    breakers: HashMap<String, Breaker>,
    slots: HashMap<String, Timestamp>,
}

#[derive(Debug)]
struct Lane {
    turns: Semaphore,
}

/// A leased delivery in its lane. It leaves the lane when this is dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Lane>);

impl Slot {
    /// Waits for the turn of the delivery.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.0.turns.acquire().await
    }
}

/// Whether an attempt may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    /// Yes.
    Go,
    /// Not before this time.
    Wait(Timestamp),
}

/// A circuit breaker: open after consecutive failures, for a while; then one attempt decides.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// The length of the pause, and its end.
    pause: Option<(TimeDelta, Timestamp)>,
    is_probing: bool,
}

impl Breaker {
    fn begin(&mut self, now: Timestamp) -> Permit {
        match self.pause {
            None => Permit::Go,
            Some((_, until)) if now < until => Permit::Wait(until),
            Some(_) if self.is_probing => Permit::Wait(now + FULL_DELAY),
            Some(_) => {
                self.is_probing = true;
                Permit::Go
            }
        }
    }

    /// Returns whether it opens.
    fn failed(&mut self, now: Timestamp) -> bool {
        self.failures = self.failures.saturating_add(1);
        let was_probing = std::mem::take(&mut self.is_probing);
        let length = match self.pause {
            // Attempts that had begun before it opened change nothing.
            Some(_) if !was_probing => return false,
            Some((length, _)) => (length * 2).min(MAX_PAUSE),
            None if self.failures < FAILURE_THRESHOLD => return false,
            None => MIN_PAUSE,
        };
        self.pause = Some((length, now + length));
        true
    }
}

impl Lanes {
    /// Joins a lane with a leased delivery.
    ///
    /// # Errors
    /// How long the delivery is put off, if the lane has too many.
    pub(super) fn join(&mut self, lane: &str) -> Result<Slot, TimeDelta> {
        if let Some(joined) = self.joined.get(lane).and_then(Weak::upgrade) {
            // One of them is `joined`.
            let is_full = Arc::strong_count(&joined) > MAX_LEASED;
            return if is_full { Err(FULL_DELAY) } else { Ok(Slot(joined)) };
        }
        self.joined.retain(|_, lane| lane.strong_count() > 0);
        let new = Arc::new(Lane { turns: Semaphore::new(MAX_IN_FLIGHT) });
        self.joined.insert(lane.to_owned(), Arc::downgrade(&new));
        Ok(Slot(new))
    }

    /// Whether an attempt may begin.
    pub(super) fn begin(&mut self, channel: Channel, lane: &str, now: Timestamp) -> Permit {
        for key in [channel.name(), lane] {
            let Some(breaker) = self.breakers.get_mut(key) else { continue };
            let permit = breaker.begin(now);
            if permit != Permit::Go {
                if key == lane {
                    self.release_probe(channel.name());
                }
                return permit;
            }
        }
        Permit::Go
    }

    /// An attempt that was permitted was not made.
    pub(super) fn cancelled(&mut self, channel: Channel, lane: &str) {
        self.release_probe(channel.name());
        self.release_probe(lane);
    }

    fn release_probe(&mut self, key: &str) {
        if let Some(breaker) = self.breakers.get_mut(key) {
            breaker.is_probing = false;
        }
    }

    /// An attempt has ended. A mail server that does not answer is the one that all mails go through; a receiver that refuses for now is
    /// one of its lane.
    pub(super) fn ended(&mut self, channel: Channel, lane: &str, result: &Result<(), SendError>, now: Timestamp) {
        let failed = match (channel, result) {
            (_, Ok(()) | Err(SendError::Permanent(_))) => None,
            (Channel::Mail, Err(SendError::Unreachable(_))) => Some(channel.name()),
            (_, Err(SendError::Unreachable(_) | SendError::Temporary { .. })) => Some(lane),
        };
        for key in [channel.name(), lane] {
            if failed == Some(key) {
                self.make_room();
                if self.breakers.entry(key.to_owned()).or_default().failed(now) {
                    tracing::warn!(lane = key, "deliveries are paused after consecutive failures");
                }
            } else if failed.is_some() && key == lane {
                // The mail server did not answer: that says nothing of the lane.
                self.release_probe(key);
            } else if self.breakers.remove(key).is_some_and(|breaker| breaker.pause.is_some()) {
                tracing::info!(lane = key, "deliveries go on");
            }
        }
    }

    /// Forgets breakers that are closed if there are too many, and then all.
    fn make_room(&mut self) {
        if self.breakers.len() >= MAX_BREAKERS {
            self.breakers.retain(|_, breaker| breaker.pause.is_some());
        }
        if self.breakers.len() >= MAX_BREAKERS {
            self.breakers.clear();
        }
    }

    /// The next free time of a lane whose rate is exceeded, from `earliest` on: each is given once.
    pub(super) fn next_slot(&mut self, lane: &str, earliest: Timestamp, interval: TimeDelta) -> Timestamp {
        if self.slots.len() >= MAX_BREAKERS {
            self.slots.retain(|_, slot| *slot > earliest);
        }
        let slot = self.slots.entry(lane.to_owned()).or_insert(earliest);
        let free = (*slot).max(earliest);
        *slot = free + interval;
        free
    }
}

#[cfg(test)]
mod tests {
    use drystone_mesh::clock::Clock;

    use super::*;

    const LANE: &str = "mail example.com";
    const OTHER: &str = "mail example.org";

    fn temporary() -> Result<(), SendError> {
        Err(SendError::temporary("not now"))
    }

    fn unreachable() -> Result<(), SendError> {
        Err(SendError::Unreachable("nobody answers".to_owned()))
    }

    fn fail(lanes: &mut Lanes, result: &Result<(), SendError>, now: Timestamp) {
        for _ in 0..FAILURE_THRESHOLD {
            lanes.ended(Channel::Mail, LANE, result, now);
        }
    }

    #[test]
    fn a_lane_that_fails_is_paused_alone_and_one_attempt_decides() {
        let (mut lanes, now) = (Lanes::default(), Clock::system().now());
        fail(&mut lanes, &temporary(), now);
        let later = now + MIN_PAUSE;
        assert_eq!(lanes.begin(Channel::Mail, LANE, now), Permit::Wait(later));
        assert_eq!(lanes.begin(Channel::Mail, OTHER, now), Permit::Go);
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Go);
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Wait(later + FULL_DELAY), "one probe");
        lanes.ended(Channel::Mail, LANE, &temporary(), later);
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Wait(later + MIN_PAUSE * 2), "it doubles");
        let last = later + MIN_PAUSE * 2;
        assert_eq!(lanes.begin(Channel::Mail, LANE, last), Permit::Go);
        lanes.ended(Channel::Mail, LANE, &Ok(()), last);
        for _ in 0..3 {
            assert_eq!(lanes.begin(Channel::Mail, LANE, last), Permit::Go);
        }
    }

    #[test]
    fn a_mail_server_that_does_not_answer_pauses_all_mails_and_no_webhooks() {
        let (mut lanes, now) = (Lanes::default(), Clock::system().now());
        fail(&mut lanes, &unreachable(), now);
        assert!(matches!(lanes.begin(Channel::Mail, OTHER, now), Permit::Wait(_)));
        assert_eq!(lanes.begin(Channel::Webhook, "webhook crm", now), Permit::Go);
        // A refusal of one lane shows that the server answers.
        let later = now + MIN_PAUSE;
        assert_eq!(lanes.begin(Channel::Mail, OTHER, later), Permit::Go);
        lanes.ended(Channel::Mail, OTHER, &temporary(), later);
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Go);
    }

    #[test]
    fn a_probe_that_was_not_made_lets_another_one() {
        let (mut lanes, now) = (Lanes::default(), Clock::system().now());
        fail(&mut lanes, &unreachable(), now);
        let later = now + MIN_PAUSE;
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Go);
        lanes.cancelled(Channel::Mail, LANE);
        assert_eq!(lanes.begin(Channel::Mail, OTHER, later), Permit::Go);
    }

    #[test]
    fn permanent_failures_do_not_pause() {
        let (mut lanes, now) = (Lanes::default(), Clock::system().now());
        fail(&mut lanes, &Err(SendError::Permanent("no such mailbox".to_owned())), now);
        assert_eq!(lanes.begin(Channel::Mail, LANE, now), Permit::Go);
    }

    #[test]
    fn a_full_lane_puts_off_and_empties() {
        let mut lanes = Lanes::default();
        let joined: Vec<_> = (0..MAX_LEASED).map(|_| lanes.join(LANE).unwrap()).collect();
        assert_eq!(lanes.join(LANE).unwrap_err(), FULL_DELAY);
        assert!(lanes.join(OTHER).is_ok());
        drop(joined);
        assert!(lanes.join(LANE).is_ok());
    }

    #[test]
    fn free_times_are_given_once() {
        let (mut lanes, now) = (Lanes::default(), Clock::system().now());
        let interval = TimeDelta::seconds(2);
        let slots: Vec<_> = (0..3).map(|_| lanes.next_slot(LANE, now, interval)).collect();
        assert_eq!(slots, [now, now + interval, now + interval * 2]);
        assert_eq!(lanes.next_slot(OTHER, now, interval), now);
    }
}
