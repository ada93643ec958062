//! Passwords, and the Argon2id hashes (RFC 9106) that are kept instead of them.
//!
//! Hashing here is plain, slow computation on the thread that asks for it. Requests go through
//! [`HashingPool`](crate::password::hasher::HashingPool), which bounds it.

pub mod hasher;
pub mod opaque_string;
pub mod typed_password;

use std::{fmt, str::FromStr};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{self, Output, ParamsString, Salt},
};
use aws_lc_rs::{constant_time, rand};
use zeroize::Zeroizing;

/// The memory that one hash may use, at most: 1 GiB. Guards against a hash or a configuration that asks for more
/// than a server has.
pub const MAX_MEMORY_KIB: u32 = 1024 * 1024;

const SALT_LENGTH: usize = 16;
const OUTPUT_LENGTH: usize = 32;

/// The text that is hashed: one form of a [`TypedPassword`](crate::password::typed_password::TypedPassword). Wiped from memory when it is dropped, and never shown.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes the text over, without a copy that would stay behind.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// A text that is wiped already when it is dropped.
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

/// What a hash costs: whoever guesses pays it for every guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes. They are computed one after the other here: parallelism comes from several hashes at a time.
    pub parallelism: u32,
}

impl Cost {
    fn params(self) -> Result<Params, HashError> {
        if self.memory_kib > MAX_MEMORY_KIB {
            return Err(HashError::Cost);
        }
        // Checked here, since the library multiplies before it compares.
        if self.parallelism > self.memory_kib / 8 {
            return Err(HashError::Cost);
        }
        Params::new(self.memory_kib, self.iterations, self.parallelism, Some(OUTPUT_LENGTH))
            .map_err(|_| HashError::Cost)
    }

    /// Proves that hashes can be made at this cost.
    ///
    /// # Errors
    /// [`HashError::Cost`] if they cannot.
    pub fn check(self) -> Result<(), HashError> {
        self.params().map(drop)
    }
}

/// A password hash, as a PHC string such as `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A hash of this cost that no password fits: it costs as much to try one against it as against a true one.
    ///
    /// # Errors
    /// See [`HashError`].
    pub fn dummy(cost: Cost) -> Result<Self, HashError> {
        let mut output = [0; OUTPUT_LENGTH];
        rand::fill(&mut output).map_err(|_| HashError::Random)?;
        compose(&cost.params()?, &new_salt()?, &output)
    }
}

impl FromStr for PasswordHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        Parts::of(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// Whether a password is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is not.
    Wrong,
    /// It is.
    Right,
    /// It is, but its hash was made at another cost than hashes are made now.
    RightButOutdated,
}

impl Verdict {
    /// Whether the password is the right one.
    #[must_use]
    pub fn is_right(self) -> bool {
        self != Self::Wrong
    }
}

/// Why a hash cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not a PHC string of Argon2.
    #[error("the stored password hash cannot be read")]
    Malformed,
    /// Argon2 cannot be had at this cost.
    #[error("the cost of the password hash is out of range")]
    Cost,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers")]
    Random,
    /// Argon2 itself failed.
    #[error("argon2 failed: {0}")]
    Argon2(argon2::Error),
}

/// Makes and checks hashes on one thread, in one block of memory that it keeps from one to the next. With 19 MiB got
/// anew from the system for each, page by page, two threads on two cores made a fifth fewer hashes.
#[derive(Debug)]
pub struct PasswordHasher {
    params: Params,
    memory: Vec<Block>,
}

impl PasswordHasher {
    /// A hasher that makes new hashes at this cost.
    ///
    /// # Errors
    /// [`HashError::Cost`] if there are none at this cost.
    pub fn new(cost: Cost) -> Result<Self, HashError> {
        Ok(Self { params: cost.params()?, memory: Vec::new() })
    }

    /// Hashes a new password under a salt of its own.
    ///
    /// # Errors
    /// See [`HashError`].
    pub fn hash(&mut self, password: &Password) -> Result<PasswordHash, HashError> {
        let params = self.params.clone();
        let salt = new_salt()?;
        let mut output = Zeroizing::new([0; OUTPUT_LENGTH]);
        self.compute(Algorithm::Argon2id, Version::V0x13, &params, password, &salt, output.as_mut())?;
        compose(&params, &salt, output.as_ref())
    }

    /// Checks a password against a hash, at the hash's own cost.
    ///
    /// # Errors
    /// See [`HashError`].
    pub fn verify(&mut self, password: &Password, hash: &PasswordHash) -> Result<Verdict, HashError> {
        let Parts { algorithm, version, params, salt, output: expected } = Parts::of(hash.as_str())?;
        let mut buffer = Zeroizing::new([0; Output::MAX_LENGTH]);
        let output = buffer.get_mut(..expected.len()).ok_or(HashError::Malformed)?;
        self.compute(algorithm, version, &params, password, &salt, output)?;

        if constant_time::verify_slices_are_equal(output, expected.as_bytes()).is_err() {
            return Ok(Verdict::Wrong);
        }
        let current = algorithm == Algorithm::Argon2id
            && version == Version::V0x13
            && params == self.params
            && salt.len() >= SALT_LENGTH;
        Ok(if current { Verdict::Right } else { Verdict::RightButOutdated })
    }

    /// Whether there is memory to give back.
    #[must_use]
    pub fn holds_memory(&self) -> bool {
        !self.memory.is_empty()
    }

    /// Gives the memory back. The next hash takes it again.
    pub fn release_memory(&mut self) {
        self.memory = Vec::new();
    }

    fn compute(
        &mut self,
        algorithm: Algorithm,
        version: Version,
        params: &Params,
        password: &Password,
        salt: &[u8],
        output: &mut [u8],
    ) -> Result<(), HashError> {
        let blocks = params.block_count();
        if self.memory.len() < blocks {
            self.memory.resize(blocks, Block::new());
        }
        Argon2::new(algorithm, version, params.clone())
            .hash_password_into_with_memory(password.as_bytes(), salt, output, self.memory.as_mut_slice())
            .map_err(HashError::Argon2)
    }
}

/// What a PHC string says.
struct Parts {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Salt,
    output: Output,
}

impl Parts {
    fn of(text: &str) -> Result<Self, HashError> {
        let hash = phc::PasswordHash::new(text).map_err(|_| HashError::Malformed)?;
        let params = Params::try_from(&hash).map_err(|_| HashError::Malformed)?;
        if params.m_cost() > MAX_MEMORY_KIB || params.p_cost() > params.m_cost() / 8 {
            return Err(HashError::Cost);
        }
        Ok(Self {
            algorithm: Algorithm::new(hash.algorithm.as_str()).map_err(|_| HashError::Malformed)?,
            // A string without a version is one of the first, 1.0.
            version: hash.version.map_or(Ok(Version::V0x10), Version::try_from).map_err(|_| HashError::Malformed)?,
            params,
            salt: hash.salt.ok_or(HashError::Malformed)?,
            output: hash.hash.ok_or(HashError::Malformed)?,
        })
    }
}

fn new_salt() -> Result<Salt, HashError> {
    let mut salt = [0; SALT_LENGTH];
    rand::fill(&mut salt).map_err(|_| HashError::Random)?;
    Salt::new(&salt).map_err(|_| HashError::Malformed)
}

fn compose(params: &Params, salt: &Salt, output: &[u8]) -> Result<PasswordHash, HashError> {
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
    fn a_hash_fits_its_own_password_alone() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        let hash = hasher.hash(&password("correct horse")).unwrap();
        assert_eq!(hasher.verify(&password("correct horse"), &hash).unwrap(), Verdict::Right);
        for wrong in ["correct horsf", "correct hors", "correct horse ", "", "Correct horse"] {
            assert_eq!(hasher.verify(&password(wrong), &hash).unwrap(), Verdict::Wrong, "{wrong:?}");
        }
    }

    #[test]
    fn a_hash_survives_the_way_through_its_text() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        let hash = hasher.hash(&password("correct horse")).unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{}", hash.as_str());

        let read: PasswordHash = hash.as_str().parse().unwrap();
        assert_eq!(read, hash);
        assert_eq!(hasher.verify(&password("correct horse"), &read).unwrap(), Verdict::Right);
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        assert_ne!(hasher.hash(&password("same")).unwrap(), hasher.hash(&password("same")).unwrap());
    }

    #[test]
    fn the_reference_programs_own_hashes_are_understood() {
        // From the tests of the reference implementation, https://github.com/P-H-C/phc-winner-argon2/blob/master/src/test.c
        let references = [
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA",
        ];
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        for reference in references {
            let hash = reference.parse().unwrap();
            assert_eq!(hasher.verify(&password("password"), &hash).unwrap(), Verdict::RightButOutdated);
            assert_eq!(hasher.verify(&password("Password"), &hash).unwrap(), Verdict::Wrong);
        }
    }

    #[test]
    fn a_hash_of_another_cost_is_right_but_outdated() {
        let mut now = PasswordHasher::new(CHEAP).unwrap();
        let others = [
            Cost { memory_kib: 32, ..CHEAP },
            Cost { memory_kib: 128, ..CHEAP },
            Cost { iterations: 2, ..CHEAP },
            Cost { parallelism: 2, ..CHEAP },
        ];
        for cost in others {
            let old = PasswordHasher::new(cost).unwrap().hash(&password("kept")).unwrap();
            assert_eq!(now.verify(&password("kept"), &old).unwrap(), Verdict::RightButOutdated, "{cost:?}");
            assert_eq!(now.verify(&password("lost"), &old).unwrap(), Verdict::Wrong, "{cost:?}");
        }
    }

    #[test]
    fn memory_that_was_used_before_changes_nothing() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        let hash = hasher.hash(&password("one")).unwrap();
        for other in ["two", "three"] {
            hasher.hash(&password(other)).unwrap();
        }
        assert!(hasher.verify(&password("one"), &hash).unwrap().is_right());
        hasher.release_memory();
        assert!(hasher.verify(&password("one"), &hash).unwrap().is_right());
    }

    #[test]
    fn no_password_fits_the_hash_of_no_password() {
        let hash = PasswordHash::dummy(CHEAP).unwrap();
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        for guess in ["", "password", "correct horse"] {
            assert_eq!(hasher.verify(&password(guess), &hash).unwrap(), Verdict::Wrong);
        }
    }

    #[test]
    fn a_text_that_is_no_hash_is_refused() {
        let bad = [
            "",
            "password",
            "$argon2id$v=19$m=64,t=1,p=1",
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ",
            "$argon2id$v=99$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=4,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$scrypt$ln=16,r=8,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        ];
        for text in bad {
            assert!(text.parse::<PasswordHash>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cost_that_argon2_does_not_know_is_refused() {
        let bad = [
            Cost { memory_kib: 7, ..CHEAP },
            Cost { memory_kib: MAX_MEMORY_KIB + 1, ..CHEAP },
            Cost { iterations: 0, ..CHEAP },
            Cost { parallelism: 0, ..CHEAP },
            Cost { parallelism: 9, ..CHEAP },
            Cost { parallelism: u32::MAX, ..CHEAP },
        ];
        for cost in bad {
            assert_eq!(cost.check(), Err(HashError::Cost), "{cost:?}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut hasher = PasswordHasher::new(CHEAP).unwrap();
        let secret = password("correct horse");
        let shown = format!("{secret:?} {:?}", hasher.hash(&secret).unwrap());
        assert_eq!(shown, "Password(..) PasswordHash(..)");
    }
}
