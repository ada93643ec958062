//! Lanes: what is limited and paused together, such as the mails to one domain, so that a slow or failing destination does not hold up
//! the others.

use std::{collections::HashMap, time::Duration};

use chrono::TimeDelta;
use drystone_mesh::{clock::Timestamp, consecutive_failures::FAILURE_THRESHOLD};

use crate::channel::{Channel, SendError};

/// How long a delivery is put off whose lane, or whose kind of lane, has as many attempts as it may.
const FULL_DELAY: TimeDelta = TimeDelta::seconds(1);

/// A lane is slow after an attempt that took longer.
const SLOW: Duration = Duration::from_secs(5);

/// The bounds of the pause after [`FAILURE_THRESHOLD`] consecutive failures, which doubles.
const MIN_PAUSE: TimeDelta = TimeDelta::seconds(10);
const MAX_PAUSE: TimeDelta = TimeDelta::minutes(5);

/// How many lanes are remembered for each reason.
const MAX_REMEMBERED: usize = 10_000;

/// The lanes with attempts, those that are slow, and the breakers of those that fail.
#[derive(Debug)]
pub(super) struct Lanes {
    /// How many attempts are made at once, in all lanes.
    max_in_flight: usize,
    in_flight: HashMap<String, usize>,
    /// Whether the last attempt of a lane was slow.
    is_slow: HashMap<String, bool>,
    breakers: HashMap<String, Breaker>,
    slots: HashMap<String, Timestamp>,
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
    pub(super) fn new(max_in_flight: usize) -> Self {
        let (in_flight, is_slow) = (HashMap::new(), HashMap::new());
        Self { max_in_flight, in_flight, is_slow, breakers: HashMap::new(), slots: HashMap::new() }
    }

    /// Whether an attempt may begin. If so, it is counted until [`Self::cancelled`] or [`Self::ended`].
    pub(super) fn begin(&mut self, channel: Channel, lane: &str, now: Timestamp) -> Permit {
        if self.is_full(lane) {
            return Permit::Wait(now + FULL_DELAY);
        }
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
        *self.in_flight.entry(lane.to_owned()).or_default() += 1;
        Permit::Go
    }

    /// A lane may have a quarter of all attempts until it is known to be quick, and then three quarters; slow ones may have half of them
    /// together.
    fn is_full(&self, lane: &str) -> bool {
        let (quarter, is_slow) = ((self.max_in_flight / 4).max(1), self.is_slow.get(lane));
        let max = if is_slow == Some(&false) { (self.max_in_flight - quarter).max(1) } else { quarter };
        let in_flight = |lane: &str| self.in_flight.get(lane).copied().unwrap_or_default();
        let slow_lanes = self.in_flight.keys().filter(|lane| self.is_slow.get(*lane) == Some(&true));
        in_flight(lane) >= max
            || is_slow == Some(&true)
                && slow_lanes.map(|lane| in_flight(lane)).sum::<usize>() >= (self.max_in_flight / 2).max(1)
    }

    /// An attempt that was permitted was not made.
    pub(super) fn cancelled(&mut self, channel: Channel, lane: &str) {
        self.leave(lane);
        self.release_probe(channel.name());
        self.release_probe(lane);
    }

    fn leave(&mut self, lane: &str) {
        if let Some(count) = self.in_flight.get_mut(lane) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(lane);
            }
        }
    }

    fn release_probe(&mut self, key: &str) {
        if let Some(breaker) = self.breakers.get_mut(key) {
            breaker.is_probing = false;
        }
    }

    /// An attempt has ended. A mail server that does not answer is the one that all mails go through; a receiver that refuses for now is
    /// one of its lane.
    pub(super) fn ended(
        &mut self,
        channel: Channel,
        lane: &str,
        result: &Result<(), SendError>,
        time: Duration,
        now: Timestamp,
    ) {
        self.leave(lane);
        self.remember_time(lane, time);
        let failed = match (channel, result) {
            // It says nothing of the receiver.
            (_, Err(SendError::NotReady(_))) => {
                self.release_probe(channel.name());
                return self.release_probe(lane);
            }
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

    fn remember_time(&mut self, lane: &str, time: Duration) {
        if self.is_slow.len() >= MAX_REMEMBERED {
            self.is_slow.clear();
        }
        self.is_slow.insert(lane.to_owned(), time > SLOW);
    }

    /// Forgets breakers that are closed if there are too many, and then all.
    fn make_room(&mut self) {
        if self.breakers.len() >= MAX_REMEMBERED {
            self.breakers.retain(|_, breaker| breaker.pause.is_some());
        }
        if self.breakers.len() >= MAX_REMEMBERED {
            self.breakers.clear();
        }
    }

    /// The next free time of a lane whose rate is exceeded, from `earliest` on: each is given once.
    pub(super) fn next_slot(&mut self, lane: &str, earliest: Timestamp, interval: TimeDelta) -> Timestamp {
        if self.slots.len() >= MAX_REMEMBERED {
            self.slots.retain(|_, slot| *slot > earliest);
            if self.slots.len() >= MAX_REMEMBERED {
                self.slots.clear();
            }
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
            lanes.ended(Channel::Mail, LANE, result, Duration::ZERO, now);
        }
    }

    #[test]
    fn a_lane_that_fails_is_paused_alone_and_one_attempt_decides() {
        let (mut lanes, now) = (Lanes::new(8), Clock::system().now());
        fail(&mut lanes, &temporary(), now);
        let later = now + MIN_PAUSE;
        assert_eq!(lanes.begin(Channel::Mail, LANE, now), Permit::Wait(later));
        assert_eq!(lanes.begin(Channel::Mail, OTHER, now), Permit::Go);
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Go);
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Wait(later + FULL_DELAY), "one probe");
        lanes.ended(Channel::Mail, LANE, &temporary(), Duration::ZERO, later);
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Wait(later + MIN_PAUSE * 2), "it doubles");
        let last = later + MIN_PAUSE * 2;
        assert_eq!(lanes.begin(Channel::Mail, LANE, last), Permit::Go);
        lanes.ended(Channel::Mail, LANE, &Ok(()), Duration::ZERO, last);
        for _ in 0..6 {
            assert_eq!(lanes.begin(Channel::Mail, LANE, last), Permit::Go);
        }
    }

    #[test]
    fn a_mail_server_that_does_not_answer_pauses_all_mails_and_no_webhooks() {
        let (mut lanes, now) = (Lanes::new(8), Clock::system().now());
        fail(&mut lanes, &unreachable(), now);
        assert!(matches!(lanes.begin(Channel::Mail, OTHER, now), Permit::Wait(_)));
        assert_eq!(lanes.begin(Channel::Webhook, "webhook crm", now), Permit::Go);
        // A refusal of one lane shows that the server answers.
        let later = now + MIN_PAUSE;
        assert_eq!(lanes.begin(Channel::Mail, OTHER, later), Permit::Go);
        lanes.ended(Channel::Mail, OTHER, &temporary(), Duration::ZERO, later);
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Go);
    }

    #[test]
    fn a_probe_that_was_not_made_lets_another_one() {
        let (mut lanes, now) = (Lanes::new(8), Clock::system().now());
        fail(&mut lanes, &unreachable(), now);
        let later = now + MIN_PAUSE;
        assert_eq!(lanes.begin(Channel::Mail, LANE, later), Permit::Go);
        lanes.cancelled(Channel::Mail, LANE);
        assert_eq!(lanes.begin(Channel::Mail, OTHER, later), Permit::Go);
    }

    #[test]
    fn permanent_failures_do_not_pause() {
        let (mut lanes, now) = (Lanes::new(8), Clock::system().now());
        fail(&mut lanes, &Err(SendError::Permanent("no such mailbox".to_owned())), now);
        assert_eq!(lanes.begin(Channel::Mail, LANE, now), Permit::Go);
    }

    #[test]
    fn a_lane_has_a_quarter_of_all_attempts_a_quick_one_more_and_slow_ones_together_half() {
        let (mut lanes, now) = (Lanes::new(8), Clock::system().now());
        let full = Permit::Wait(now + FULL_DELAY);
        for expected in [Permit::Go, Permit::Go, full] {
            assert_eq!(lanes.begin(Channel::Mail, LANE, now), expected);
        }
        assert_eq!(lanes.begin(Channel::Mail, OTHER, now), Permit::Go);
        lanes.ended(Channel::Mail, LANE, &Ok(()), Duration::ZERO, now);
        for _ in 0..5 {
            assert_eq!(lanes.begin(Channel::Mail, LANE, now), Permit::Go, "it is quick");
        }
        assert_eq!(lanes.begin(Channel::Mail, LANE, now), full);
        assert_eq!(lanes.begin(Channel::Mail, OTHER, now), Permit::Go);

        let mut lanes = Lanes::new(8);
        let slow: Vec<_> = (0..6).map(|number| format!("mail slow{number}.example")).collect();
        for lane in &slow {
            assert_eq!(lanes.begin(Channel::Mail, lane, now), Permit::Go, "nothing is known of it yet");
            lanes.ended(Channel::Mail, lane, &Ok(()), SLOW * 2, now);
        }
        let begun: Vec<_> = slow.iter().map(|lane| lanes.begin(Channel::Mail, lane, now)).collect();
        assert_eq!(begun, [Permit::Go, Permit::Go, Permit::Go, Permit::Go, full, full]);
        assert_eq!(lanes.begin(Channel::Mail, LANE, now), Permit::Go);
        lanes.ended(Channel::Mail, &slow[0], &Ok(()), Duration::ZERO, now);
        assert_eq!(lanes.begin(Channel::Mail, &slow[0], now), Permit::Go, "it is not slow any more");
    }

    #[test]
    fn what_this_service_is_not_ready_for_pauses_nobody() {
        let (mut lanes, now) = (Lanes::new(8), Clock::system().now());
        fail(&mut lanes, &Err(SendError::NotReady("no such template".to_owned())), now);
        assert_eq!(lanes.begin(Channel::Mail, LANE, now), Permit::Go);
    }

    #[test]
    fn free_times_are_given_once() {
        let (mut lanes, now) = (Lanes::new(8), Clock::system().now());
        let interval = TimeDelta::seconds(2);
        let slots: Vec<_> = (0..3).map(|_| lanes.next_slot(LANE, now, interval)).collect();
        assert_eq!(slots, [now, now + interval, now + interval * 2]);
        assert_eq!(lanes.next_slot(OTHER, now, interval), now);
    }
}
