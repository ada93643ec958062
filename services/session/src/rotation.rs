//! Rotation of refresh tokens, and detection of their reuse.
//!
//! A refresh token carries its session's counter. The current counter advances the session; the store does that in one
//! atomic statement. Any other counter is classified here.
//!
//! The previous counter is presented either by a client that did not receive its response, or by an attacker, and
//! within the grace period the two cannot be told apart. It gets the *same* successor, so that the next rotation
//! exposes an attacker. Anything older was certainly presented twice, and the session ends (RFC 9700, section 4.14.2).

use drystone_mesh::clock::Timestamp;

use crate::session::{FIRST_COUNTER, Lifetimes, Session};

/// The outcome of presenting a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It was current. The session has advanced.
    Advanced(Session),
    /// It was the previous one, within the grace period. The session is unchanged.
    Repeated(Session),
    /// It was used before. The session has been ended and its tokens revoked.
    Reused {
        /// The session before it was ended.
        session: Session,
        /// The sequence number of the revocation.
        revocation: u64,
    },
    /// No such token was ever issued.
    NeverIssued,
    /// The session has expired, was ended, or never existed.
    Ended,
}

/// The meaning of a counter that is not the current one of an active session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonCurrentCounter {
    /// The previous one, within the grace period: repeat the response.
    Repeat,
    /// Used before: end the session.
    Reuse,
    /// Never issued.
    NeverIssued,
    /// The session has expired.
    Ended,
}

impl Lifetimes {
    /// Classifies a counter that is not the current one, or whose session has expired.
    #[must_use]
    pub fn classify(&self, session: &Session, counter: u64, now: Timestamp) -> NonCurrentCounter {
        if !session.is_active(now) {
            NonCurrentCounter::Ended
        } else if counter < FIRST_COUNTER || counter >= session.counter {
            NonCurrentCounter::NeverIssued
        } else if counter + 1 == session.counter && now <= session.last_seen_at + self.rotation_grace {
            NonCurrentCounter::Repeat
        } else {
            NonCurrentCounter::Reuse
        }
    }
}
