//! Rotation of refresh tokens, and detection of their reuse.
//!
//! A refresh token carries its session's counter when it was issued. A session knows two of them: `counter`, that of the
//! last token issued, and `confirmed`, that of the last token used. [`Lifetimes::present`] decides what a token means:
//!
//! | counter of the token | meaning | outcome |
//! |---|---|---|
//! | `counter` | the client has the last token | it is confirmed, and a new one is issued |
//! | `confirmed`, within the grace period | the response was lost, or two clients share the token | the *same* successor, up to [`MAX_REPEATS`] times |
//! | `confirmed`, later | the response was lost for longer, such as in an outage | a *new* successor, which supersedes the unused one, up to [`MAX_REPLACEMENTS`] times, then one each hour |
//! | lower, or superseded | two clients use the session | the session ends (RFC 9700, section 4.14.2) |
//!
//! So a lost response never signs a client out. An attacker with a copy of a token either uses it before the client, whose
//! own token is then superseded or confirmed; or after the client, and gets the client's own successor, or supersedes it.
//! In each case the next token that one of the two presents ends the session, unless both always follow each other within
//! the grace period. That shows as repeats on consecutive rotations, which are counted and audited, and end the session if
//! configured.

use chrono::TimeDelta;
use drystone_mesh::clock::Timestamp;

use crate::session::{FIRST_COUNTER, Lifetimes, Session};

/// How often a token gets the same successor within the grace period.
pub const MAX_REPEATS: u32 = 20;

/// How often a successor that was never used is superseded by a new one.
pub const MAX_REPLACEMENTS: u32 = 5;

/// After that many, another one is issued only this long after the last one: a client must not be signed out by responses
/// that were lost one after another.
pub const LATE_REPLACEMENT: TimeDelta = TimeDelta::hours(1);

/// On how many consecutive rotations a token was repeated until two clients are suspected.
pub const SUSPICIOUS_REPEATS: u32 = 2;

/// The outcome of presenting a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It was current. The session has advanced.
    Advanced(Session),
    /// It was the last one used, within the grace period. Its successor is the same.
    Repeated(Session),
    /// It was the last one used, and its successor was not used. It has a new successor.
    Replaced(Session),
    /// It was repeated or replaced too often. The session is unchanged.
    RepeatedTooOften(Session),
    /// It was used before, or superseded. The session has been ended and its tokens revoked.
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

/// What a token means for the session that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// It is current: the session advances to this.
    Advance(Session),
    /// The same successor again: the session becomes this.
    Repeat(Session),
    /// A new successor: the session becomes this.
    Replace(Session),
    /// Repeated or replaced too often: the session is unchanged.
    RepeatedTooOften,
    /// Used before, or superseded: the session ends.
    Reuse,
    /// Never issued.
    NeverIssued,
    /// The session has expired.
    Ended,
}

/// The client that presents a token. It is recorded and never decides anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresentedBy {
    /// The device or client.
    pub device: String,
    /// The client address; empty if unknown.
    pub address: String,
}

impl Lifetimes {
    /// Decides what the token with this counter means.
    #[must_use]
    pub fn present(&self, session: &Session, counter: u64, by: &PresentedBy, now: Timestamp) -> Presented {
        if !session.is_active(now) {
            Presented::Ended
        } else if counter < FIRST_COUNTER || counter > session.counter {
            Presented::NeverIssued
        } else if counter == session.counter {
            Presented::Advance(self.advance(session, by, now))
        } else if counter != session.confirmed {
            Presented::Reuse
        } else if now <= session.last_seen_at + self.rotation_grace {
            repeat(session)
        } else if session.replacements < MAX_REPLACEMENTS || now >= session.last_seen_at + LATE_REPLACEMENT {
            Presented::Replace(self.issue(session, session.replacements.saturating_add(1), by, now))
        } else {
            Presented::RepeatedTooOften
        }
    }

    fn advance(&self, session: &Session, by: &PresentedBy, now: Timestamp) -> Session {
        Session {
            confirmed: session.counter,
            repeated_rotations: if session.repeats > 0 { session.repeated_rotations } else { 0 },
            ..self.issue(session, 0, by, now)
        }
    }

    /// The session with one more token.
    fn issue(&self, session: &Session, replacements: u32, by: &PresentedBy, now: Timestamp) -> Session {
        Session {
            counter: session.counter + 1,
            repeats: 0,
            replacements,
            last_seen_at: now,
            idle_expires_at: session.expires_at.min(now + self.idle_timeout),
            last_device: by.device.clone(),
            last_address: by.address.clone(),
            ..session.clone()
        }
    }
}

fn repeat(session: &Session) -> Presented {
    if session.repeats >= MAX_REPEATS {
        return Presented::RepeatedTooOften;
    }
    // The first repeat of a rotation counts.
    let is_first = session.repeats == 0;
    Presented::Repeat(Session {
        repeats: session.repeats + 1,
        repeated_rotations: session.repeated_rotations + u32::from(is_first),
        ..session.clone()
    })
}

impl Session {
    /// Whether its token was repeated on consecutive rotations: two clients may share the session.
    #[must_use]
    pub fn is_suspicious(&self) -> bool {
        self.repeated_rotations >= SUSPICIOUS_REPEATS
    }
}
