//! Challenges: sign-ins whose password was right, and that wait for a second factor.
//!
//! A challenge is a random token of its client. Stored is its SHA-256, so that a copied database completes no sign-in.

use std::time::Duration;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone_mesh::clock::Timestamp;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long a challenge can be completed.
pub const LIFETIME: Duration = Duration::from_mins(5);

/// How many codes can be tried.
pub const MAX_TRIES: i16 = 5;

/// The kind of token, as its prefix says.
const PREFIX: &str = "dsc_";

/// A challenge, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The hash of its token.
    pub token_hash: [u8; 32],
    /// The user.
    pub user_id: Uuid,
    /// The address of the sign-in.
    pub email: String,
    /// The device, if it has signed in to the account before; nil otherwise.
    pub device: Uuid,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl Challenge {
    /// Whether the device had not signed in to the account before.
    #[must_use]
    pub fn is_new_device(&self) -> bool {
        self.device.is_nil()
    }
}

/// A random token; `None` if the system's random number generator fails.
#[must_use]
pub fn new_token() -> Option<Zeroizing<String>> {
    let mut random = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(random.as_mut_slice()).ok()?;
    Some(Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random.as_slice()))))
}

/// The hash of a token, by which its challenge is found.
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}
