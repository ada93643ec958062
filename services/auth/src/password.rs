//! Passwords and their hashes.
//!
//! New hashes are Argon2id (RFC 9106). Hashes of other systems, in the forms listed at [`PasswordHash`], are verified too,
//! and replaced when their user signs in.
//!
//! Hashing here blocks the calling thread. Requests use [`HashingPool`](crate::password::hasher::HashingPool) instead.

mod argon2;
pub mod hasher;
pub mod huge_pages;
pub(crate) mod new_password;
pub mod opaque_string;
pub mod policy;
mod stored_hash;
pub mod typed_password;

use std::{fmt, str::FromStr};

use ::argon2::{
    Algorithm, Params, Version,
    password_hash::phc::{self, Output, ParamsString, Salt},
};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use self::{
    argon2::{HashMemory, Variant},
    stored_hash::StoredHash,
};

/// The maximum memory of one hash: 1 GiB. Guards against a stored hash or a configuration that needs more than a
/// server has.
pub const MAX_MEMORY_KIB: u32 = 1024 * 1024;

/// The maximum of memory, in KiB, times passes: two or three seconds on one core.
const MAX_WORK_KIB: u64 = 4 * MAX_MEMORY_KIB as u64;

const SALT_LENGTH: usize = 16;
const OUTPUT_LENGTH: usize = 32;

/// The string that is hashed: one form of a [`TypedPassword`](crate::password::typed_password::TypedPassword). Zeroized
/// on drop; `Debug` redacts it.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes ownership of the string, so that no copy remains in memory.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Wraps a string that is already zeroized on drop.
    #[must_use]
    pub(crate) fn from_zeroizing(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// The cost parameters of Argon2id. An attacker pays this cost for every guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes, computed sequentially here: the pool runs several hashes in parallel instead.
    pub parallelism: u32,
}

impl Cost {
    fn params(self) -> Result<Params, HashError> {
        if !self.is_within_limits() {
            return Err(HashError::Cost);
        }
        Params::new(self.memory_kib, self.iterations, self.parallelism, Some(OUTPUT_LENGTH))
            .map_err(|_| HashError::Cost)
    }

    fn is_within_limits(self) -> bool {
        self.memory_kib <= MAX_MEMORY_KIB
            // Checked here, since the library's own check can overflow.
            && self.parallelism <= self.memory_kib / 8
            && u64::from(self.memory_kib) * u64::from(self.iterations) <= MAX_WORK_KIB
    }

    /// Validates the parameters.
    ///
    /// # Errors
    /// [`HashError::Cost`] if Argon2id does not allow them, or if they need too much memory or time.
    pub fn check(self) -> Result<(), HashError> {
        self.params().map(drop)
    }
}

/// A password hash in a supported form whose cost is within limits, for example
/// `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`.
///
/// | form | limits |
/// |---|---|
/// | `$argon2id$`, `$argon2i$`, `$argon2d$` (PHC) | 1 GiB of memory, 4 GiB summed over the passes |
/// | `$2a$`, `$2b$`, `$2y$` (bcrypt) | cost 4 to 15 |
/// | `$pbkdf2-sha256$`, `$pbkdf2-sha512$`, `$pbkdf2$` (PHC, passlib) | 1 to 2,000,000 iterations |
/// | `pbkdf2_sha256$`, `pbkdf2_sha1$` (Django) | 1 to 2,000,000 iterations |
/// | `$scrypt$` (PHC, passlib) | 64 MiB of memory, `r` at most 64, `p` at most 16 |
///
/// Except in bcrypt, the output has 16 to 64 bytes and the salt 1 to 64 (Argon2: at least 8). The whole string has at most
/// 512 printable ASCII characters.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A hash that matches no password. Verifying against it takes as long as against a real hash of this cost.
    ///
    /// # Errors
    /// See [`HashError`].
    pub fn dummy(cost: Cost) -> Result<Self, HashError> {
        let mut output = [0; OUTPUT_LENGTH];
        rand::fill(&mut output).map_err(|_| HashError::Random)?;
        encode(&cost.params()?, &new_salt()?, &output)
    }
}

impl FromStr for PasswordHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        StoredHash::parse(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// The result of verifying a password against a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// The password is wrong.
    Mismatch,
    /// The password is correct.
    Match,
    /// The password is correct, but its hash does not have the current algorithm and parameters.
    MatchNeedsRehash,
    /// The beginning of the password is correct, and the hash is of that alone: the rest may be mistyped.
    MatchOfBeginning,
}

impl Verification {
    /// Whether the password is correct.
    #[must_use]
    pub fn is_match(self) -> bool {
        self != Self::Mismatch
    }
}

/// Why a hash cannot be computed or parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not a string in a supported form.
    #[error("the stored password hash is malformed")]
    Malformed,
    /// The cost parameters are out of range.
    #[error("the cost of the password hash is out of range")]
    Cost,
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
    /// Argon2 failed.
    #[error("argon2 failed: {0}")]
    Argon2(::argon2::Error),
    /// Argon2 failed.
    #[error("argon2 failed: {0}")]
    FastArgon2(argon2_rust::Error),
}

/// Computes and verifies hashes on one thread, reusing one block of memory. Allocating 19 MiB for each hash reduced the
/// throughput of two threads on two cores by a fifth.
#[derive(Debug)]
pub struct PasswordHasher {
    params: Params,
    memory: HashMemory,
}

impl PasswordHasher {
    /// A hasher whose new hashes have this cost.
    ///
    /// # Errors
    /// [`HashError::Cost`] if the cost is out of range.
    pub fn new(cost: Cost) -> Result<Self, HashError> {
        Ok(Self { params: cost.params()?, memory: HashMemory::default() })
    }

    /// Hashes a password with a random salt.
    ///
    /// # Errors
    /// See [`HashError`].
    pub fn hash(&mut self, password: &Password) -> Result<PasswordHash, HashError> {
        let params = self.params.clone();
        let salt = new_salt()?;
        let mut output = Zeroizing::new([0; OUTPUT_LENGTH]);
        let variant = Variant { algorithm: Algorithm::Argon2id, version: Version::V0x13, params: params.clone() };
        self.memory.compute(&variant, password.as_bytes(), &salt, output.as_mut())?;
        encode(&params, &salt, output.as_ref())
    }

    /// Verifies a password against a hash, with the parameters of that hash.
    ///
    /// # Errors
    /// See [`HashError`].
    pub fn verify(&mut self, password: &Password, hash: &PasswordHash) -> Result<Verification, HashError> {
        let stored = StoredHash::parse(hash.as_str())?;
        if !stored.matches(password.as_bytes(), &mut self.memory)? {
            return Ok(Verification::Mismatch);
        }
        Ok(if stored.is_current(&self.params) {
            Verification::Match
        } else if stored.is_truncated(password.as_bytes()) {
            Verification::MatchOfBeginning
        } else {
            Verification::MatchNeedsRehash
        })
    }

    /// Whether memory for the next hash is allocated.
    #[must_use]
    pub fn holds_memory(&self) -> bool {
        self.memory.is_held()
    }

    /// Frees the memory. The next hash allocates it again.
    pub fn release_memory(&mut self) {
        self.memory.release();
    }
}

fn new_salt() -> Result<Salt, HashError> {
    let mut salt = [0; SALT_LENGTH];
    rand::fill(&mut salt).map_err(|_| HashError::Random)?;
    Salt::new(&salt).map_err(|_| HashError::Malformed)
}

fn encode(params: &Params, salt: &Salt, output: &[u8]) -> Result<PasswordHash, HashError> {
    let hash = phc::PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).map_err(|_| HashError::Cost)?,
        salt: Some(*salt),
        hash: Some(Output::new(output).map_err(|_| HashError::Malformed)?),
    };
    Ok(PasswordHash(hash.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, iterations: 1, parallelism: 1 };

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    #[test]
    fn a_hash_matches_only_its_own_password() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        let hash = hasher.hash(&password("correct horse")).unwrap();
        assert_eq!(hasher.verify(&password("correct horse"), &hash).unwrap(), Verification::Match);
        for wrong in ["correct horsf", "correct hors", "correct horse ", "", "Correct horse"] {
            assert_eq!(hasher.verify(&password(wrong), &hash).unwrap(), Verification::Mismatch, "{wrong:?}");
        }
    }

    #[test]
    fn a_hash_round_trips_through_its_phc_string() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        let hash = hasher.hash(&password("correct horse")).unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{}", hash.as_str());

        let parsed: PasswordHash = hash.as_str().parse().unwrap();
        assert_eq!(parsed, hash);
        assert_eq!(hasher.verify(&password("correct horse"), &parsed).unwrap(), Verification::Match);
    }

    #[test]
    fn two_hashes_of_the_same_password_differ() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        assert_ne!(hasher.hash(&password("same")).unwrap(), hasher.hash(&password("same")).unwrap());
    }

    #[test]
    fn hashes_of_the_reference_implementation_are_verified() {
        // From the tests of the reference implementation, https://github.com/P-H-C/phc-winner-argon2/blob/master/src/test.c
        let references = [
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA",
        ];
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        for reference in references {
            let hash = reference.parse().unwrap();
            assert_eq!(hasher.verify(&password("password"), &hash).unwrap(), Verification::MatchNeedsRehash);
            assert_eq!(hasher.verify(&password("Password"), &hash).unwrap(), Verification::Mismatch);
        }
    }

    #[test]
    fn a_hash_of_another_cost_needs_a_rehash() {
        let mut current = PasswordHasher::new(CHEAP).unwrap();
        let other_costs = [
            Cost { memory_kib: 32, ..CHEAP },
            Cost { memory_kib: 128, ..CHEAP },
            Cost { iterations: 2, ..CHEAP },
            Cost { parallelism: 2, ..CHEAP },
        ];
        for cost in other_costs {
            let old = PasswordHasher::new(cost).unwrap().hash(&password("kept")).unwrap();
            assert_eq!(current.verify(&password("kept"), &old).unwrap(), Verification::MatchNeedsRehash, "{cost:?}");
            assert_eq!(current.verify(&password("lost"), &old).unwrap(), Verification::Mismatch, "{cost:?}");
        }
    }

    #[test]
    fn reused_memory_does_not_change_a_result() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        let hash = hasher.hash(&password("one")).unwrap();
        for other in ["two", "three"] {
            hasher.hash(&password(other)).unwrap();
        }
        assert!(hasher.verify(&password("one"), &hash).unwrap().is_match());
        hasher.release_memory();
        assert!(hasher.verify(&password("one"), &hash).unwrap().is_match());
    }

    #[test]
    fn no_password_matches_the_dummy_hash() {
        let hash = PasswordHash::dummy(CHEAP).unwrap();
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        for guess in ["", "password", "correct horse"] {
            assert_eq!(hasher.verify(&password(guess), &hash).unwrap(), Verification::Mismatch);
        }
    }

    #[test]
    fn a_malformed_hash_is_rejected() {
        let malformed = [
            "",
            "password",
            "$argon2id$v=19$m=64,t=1,p=1",
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ",
            "$argon2id$v=99$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=4,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        ];
        for text in malformed {
            assert!(text.parse::<PasswordHash>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cost_out_of_range_is_rejected() {
        let out_of_range = [
            Cost { memory_kib: 7, ..CHEAP },
            Cost { memory_kib: MAX_MEMORY_KIB + 1, ..CHEAP },
            Cost { iterations: 0, ..CHEAP },
            Cost { parallelism: 0, ..CHEAP },
            Cost { parallelism: 9, ..CHEAP },
            Cost { parallelism: u32::MAX, ..CHEAP },
            Cost { memory_kib: MAX_MEMORY_KIB, iterations: 5, ..CHEAP },
            Cost { iterations: u32::MAX, ..CHEAP },
        ];
        for cost in out_of_range {
            assert_eq!(cost.check(), Err(HashError::Cost), "{cost:?}");
        }
    }

    #[test]
    fn debug_output_has_no_secret() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        let secret = password("correct horse");
        let output = format!("{secret:?} {:?}", hasher.hash(&secret).unwrap());
        assert_eq!(output, "Password(..) PasswordHash(..)");
    }
}
