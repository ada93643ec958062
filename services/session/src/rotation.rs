//! What becomes of a refresh token that is presented.
//!
//! A refresh token carries its session's counter. The current counter moves the session one step on; the store does
//! that in one atomic statement. What any other counter means is decided here.
//!
//! The counter before the current one is either a client whose answer was lost or a thief, and within a few seconds
//! nobody can tell. It gets the *same* successor, so that a thief gains nothing that the next rotation does not
//! bring to light. Anything older was certainly presented twice, and the session ends.

use drystone_mesh::clock::Timestamp;

use crate::session::{FIRST_COUNTER, Lifetimes, Session};

/// What became of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It was current. The session is one step on.
    Advanced(Session),
    /// It was current a moment ago. The session stands where that one step took it.
    Repeated(Session),
    /// It had been used. The session, as it was, has been ended, and `revocation` says so to all.
    Reused {
        /// The session as it was.
        session: Session,
        /// The number of the revocation.
        revocation: u64,
    },
    /// No such token has ever been issued.
    NeverIssued,
    /// The session has expired, was ended, or never was.
    Over,
}

/// What a counter means that is not the current one of a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCurrent {
    /// It was current a moment ago: answer as then.
    Repeat,
    /// It was used before: end the session.
    Reuse,
    /// It has never been issued.
    NeverIssued,
    /// The session has expired.
    Over,
}

impl Lifetimes {
    /// What this counter means, which is not the current one of the session, or the session is over.
    #[must_use]
    pub fn classify(&self, session: &Session, counter: u64, now: Timestamp) -> NotCurrent {
        if !session.is_live(now) {
            NotCurrent::Over
        } else if counter < FIRST_COUNTER || counter >= session.counter {
            NotCurrent::NeverIssued
        } else if counter + 1 == session.counter && now <= session.last_seen_at + self.rotation_grace {
            NotCurrent::Repeat
        } else {
            NotCurrent::Reuse
        }
    }
}
