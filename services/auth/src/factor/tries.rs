//! How long somebody waits who has tried wrong codes.
//!
//! An app has three valid codes of a million at a time. Five failures are free; then each is followed by a wait, which doubles from a
//! minute to an hour. Failures are counted for each known device and each session by themselves, and for all other devices of a user
//! together: who knows the password of somebody else cannot keep them from signing in on a device that they have used before. A
//! success, or a day, clears them.

use std::time::Duration;

use drystone_mesh::clock::Timestamp;

/// How many failures are free.
const FREE: u32 = 5;

/// The wait after the first failure beyond, and the longest.
const FIRST_WAIT: Duration = Duration::from_mins(1);
const MAX_WAIT: Duration = Duration::from_hours(1);

/// After how long without one failures are forgotten.
pub(crate) const RETENTION: Duration = Duration::from_hours(24);

/// The failures from one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// How many.
    pub failures: u32,
    /// When the next try is accepted.
    pub allowed_at: Timestamp,
}

impl Tries {
    /// Counts one more, until it turns out to be right.
    ///
    /// # Errors
    /// How long to wait.
    pub fn next(before: Option<Self>, now: Timestamp) -> Result<Self, Duration> {
        let before = before.filter(|before| now < before.allowed_at + RETENTION);
        let failures = match before {
            // The clock was set back.
            Some(before) if before.allowed_at > now + MAX_WAIT => before.failures,
            Some(before) if now < before.allowed_at => {
                return Err((before.allowed_at - now).to_std().unwrap_or(MAX_WAIT));
            }
            before => before.map_or(0, |before| before.failures),
        };
        let failures = failures.saturating_add(1);
        Ok(Self { failures, allowed_at: now + wait_after(failures) })
    }
}

fn wait_after(failures: u32) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_WAIT.saturating_mul(1 << doublings.min(10)).min(MAX_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use drystone_mesh::clock::Clock;

    use super::*;

    #[test]
    fn after_five_failures_each_is_followed_by_a_longer_wait() {
        let mut now = Clock::system().now();
        let (mut tries, mut waits) = (None, Vec::new());
        for _ in 0..14 {
            let next = Tries::next(tries, now).unwrap();
            let wait = next.allowed_at - now;
            waits.push(wait.num_minutes());
            if !wait.is_zero() {
                let early = Tries::next(Some(next), now + wait - Duration::from_secs(1));
                assert_eq!(early, Err(Duration::from_secs(1)));
            }
            now += wait;
            tries = Some(next);
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        let last = tries.unwrap();
        assert_eq!(Tries::next(tries, last.allowed_at + RETENTION).unwrap().failures, 1, "a day clears them");
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_wait_longer_than_an_hour() {
        let now = Clock::system().now();
        let tries = Tries { failures: 9, allowed_at: now + Duration::from_hours(48) };
        assert_eq!(Tries::next(Some(tries), now).unwrap().failures, 10);
    }
}
