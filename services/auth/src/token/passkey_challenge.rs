//! Challenges of passkeys: authentic text that a browser signs, so that the server remembers none that is not used.
//!
//! | bytes of the body | content |
//! |---|---|
//! | 0..16 | random |
//! | 16..32 | the first half of the SHA-256 of what it is for: [`Ceremony`] |
//! | 32..40 | when it expires, in seconds since 1970, big-endian |
//!
//! For the rest of a token see `mac_keys.rs`; its kind is `dpc`. Which ones were used is stored until they expire.

use std::time::Duration;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use chrono::{DateTime, TimeDelta};
use drystone_mesh::clock::Timestamp;
use uuid::Uuid;

use super::mac_keys::{BODY_LENGTH, MacKeys};

/// How long a user may take.
pub const LIFETIME: Duration = Duration::from_mins(5);

/// How long a replaced secret verifies: those who have a copy of it can forge the time of a challenge.
const GRACE: TimeDelta = TimeDelta::minutes(10);

/// How far the clocks of two instances may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

/// What a passkey is asked for. A challenge is for one ceremony alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ceremony {
    /// Registering one for a user, in a session of theirs.
    Registration {
        /// The user.
        user_id: Uuid,
        /// The session.
        session_id: Uuid,
    },
    /// Signing in without a password.
    SignIn,
    /// Completing a sign-in, by the hash of its challenge.
    SecondFactor([u8; 32]),
    /// Registering one in a sign-in, by the hash of its challenge.
    Enrolment([u8; 32]),
    /// Verifying a signed-in user.
    Verification {
        /// The user.
        user_id: Uuid,
        /// The session.
        session_id: Uuid,
    },
}

impl Ceremony {
    fn tag(self) -> [u8; 16] {
        let mut text = Vec::with_capacity(33);
        match self {
            Self::Registration { user_id, session_id } => {
                text.push(1);
                text.extend(user_id.as_bytes());
                text.extend(session_id.as_bytes());
            }
            Self::SignIn => text.push(2),
            Self::SecondFactor(challenge) => {
                text.push(3);
                text.extend(challenge);
            }
            Self::Enrolment(challenge) => {
                text.push(5);
                text.extend(challenge);
            }
            Self::Verification { user_id, session_id } => {
                text.push(4);
                text.extend(user_id.as_bytes());
                text.extend(session_id.as_bytes());
            }
        }
        let mut tag = [0; 16];
        tag.copy_from_slice(&digest(&SHA256, &text).as_ref()[..16]);
        tag
    }
}

/// A challenge that was signed: it serves once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasskeyChallenge {
    /// What is random of it.
    pub id: Uuid,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// Encodes and authenticates challenges of passkeys with secret keys.
#[derive(Debug)]
pub struct PasskeyChallengeCodec(MacKeys);

impl PasskeyChallengeCodec {
    /// A codec with these secrets.
    #[must_use]
    pub fn new(keys: MacKeys) -> Self {
        Self(keys)
    }

    /// A new challenge, in base64url, and when it expires; `None` if the system's random number generator fails.
    #[must_use]
    pub fn issue(&self, ceremony: Ceremony, now: Timestamp) -> Option<(String, Timestamp)> {
        let mut body = [0; BODY_LENGTH];
        SystemRandom::new().fill(&mut body[..16]).ok()?;
        body[16..32].copy_from_slice(&ceremony.tag());
        let expires_at = DateTime::from_timestamp((now + LIFETIME).timestamp(), 0)?;
        body[32..].copy_from_slice(&expires_at.timestamp().to_be_bytes());
        Some((self.0.encode(&body, now), expires_at))
    }

    /// Reads a challenge; `None` if it is malformed, forged, for another ceremony, or has expired.
    #[must_use]
    pub fn read(&self, text: &str, ceremony: Ceremony, now: Timestamp) -> Option<PasskeyChallenge> {
        let token = self.0.decode(text)?;
        let (id, rest) = token.body.split_first_chunk::<16>()?;
        let (tag, seconds) = rest.split_first_chunk::<16>()?;
        let expires_at = DateTime::from_timestamp(i64::from_be_bytes(seconds.try_into().ok()?), 0)?;
        // Nor of a clock that was far ahead.
        let is_current = now < expires_at && expires_at <= now + LIFETIME + CLOCK_SKEW && token.is_recent(GRACE, now);
        (*tag == ceremony.tag() && is_current).then(|| PasskeyChallenge { id: Uuid::from_bytes(*id), expires_at })
    }
}

#[cfg(test)]
mod tests {
    use drystone_mesh::clock::Clock;

    use super::*;

    const USER: Uuid = Uuid::from_u128(1);
    const SESSION: Uuid = Uuid::from_u128(2);

    fn of_secret(secret: u8) -> PasskeyChallengeCodec {
        PasskeyChallengeCodec::new(MacKeys::single(*b"dpc", &[secret; 32]))
    }

    #[test]
    fn a_challenge_is_for_one_ceremony_and_five_minutes() {
        let ceremonies = [
            Ceremony::SignIn,
            Ceremony::Registration { user_id: USER, session_id: SESSION },
            Ceremony::Verification { user_id: USER, session_id: SESSION },
            Ceremony::Verification { user_id: SESSION, session_id: SESSION },
            Ceremony::Verification { user_id: USER, session_id: USER },
            Ceremony::SecondFactor([1; 32]),
            Ceremony::SecondFactor([2; 32]),
            Ceremony::Enrolment([1; 32]),
        ];
        let (codec, now) = (of_secret(7), Clock::system().now());
        for ceremony in ceremonies {
            let (text, expires_at) = codec.issue(ceremony, now).unwrap();
            for other in ceremonies {
                let read = codec.read(&text, other, now);
                assert_eq!(read.map(|read| read.expires_at), (other == ceremony).then_some(expires_at), "{other:?}");
            }
            let reads_at = |at: Timestamp| codec.read(&text, ceremony, at).is_some();
            assert!(reads_at(expires_at - TimeDelta::seconds(1)) && !reads_at(expires_at));
            assert!(!reads_at(now - TimeDelta::minutes(1)), "a clock that was set back");
            assert_eq!(of_secret(8).read(&text, ceremony, now), None);
            assert_ne!(codec.issue(ceremony, now).unwrap().0, text);
        }
    }
}
