//! The policy for new passwords, after NIST SP 800-63B-4, section 3.1.1.2: a length, no composition rules, a blocklist,
//! and a reason for every refusal.
//!
//! Checks run in the order of their cost: length, the account's own words, the blocklists, and last the strength
//! estimate. A check blocks the calling thread for up to some milliseconds, so it belongs beside hashing.

pub mod blocklist;
mod own_words;
mod strength;
mod weakness;

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};

use self::{
    blocklist::{Blocklist, OpenError},
    strength::MinimumScore,
};
pub use self::{
    own_words::OwnWords,
    weakness::{Weakness, WeaknessKind},
};

/// The minimum length of a new password, in code points.
pub const MIN_PASSWORD_LENGTH: usize = 8;

/// The maximum length of a new password, in code points.
pub const MAX_PASSWORD_LENGTH: usize = 256;

/// The maximum of `minimum_length`: SP 800-63B-4 wants passwords of 64 characters accepted.
const MAX_MINIMUM_LENGTH: usize = 64;

const MAX_SERVICE_NAMES: usize = 8;
const MAX_SERVICE_NAME_LENGTH: usize = 64;

/// The commonest passwords; `built_in.md` beside it has its source and licence.
static BUILT_IN_BLOCKLIST: &[u8] = include_bytes!("policy/built_in.filter");

/// The configuration of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// The minimum length, in code points. SP 800-63B-4 requires 15 where the password is the only factor.
    pub minimum_length: usize,
    /// The minimum score of the strength estimate, from 0 (not estimated) to 4 (more than 10^10 guesses).
    pub minimum_score: u8,
    /// A file of leaked passwords made by [`build`](blocklist::build()), beside the built-in list of common ones.
    pub blocklist: Option<PathBuf>,
    /// The names of the product and its operator, which must not be the password.
    pub service_names: Vec<String>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { minimum_length: MIN_PASSWORD_LENGTH, minimum_score: 3, blocklist: None, service_names: Vec::new() }
    }
}

impl PolicyConfig {
    /// Validates the values.
    ///
    /// # Errors
    /// A message that names the invalid key and its valid values.
    pub fn check(&self) -> Result<(), String> {
        if !(MIN_PASSWORD_LENGTH..=MAX_MINIMUM_LENGTH).contains(&self.minimum_length) {
            return Err(format!("minimum_length must be {MIN_PASSWORD_LENGTH} to {MAX_MINIMUM_LENGTH}, such as 15"));
        }
        if MinimumScore::new(self.minimum_score).is_none() {
            return Err("minimum_score must be 0 to 4, such as 3; 0 means no estimate".to_owned());
        }
        let is_name = |name: &String| (1..=MAX_SERVICE_NAME_LENGTH).contains(&name.chars().count());
        if self.service_names.len() > MAX_SERVICE_NAMES || !self.service_names.iter().all(is_name) {
            return Err(format!(
                "service_names must be at most {MAX_SERVICE_NAMES} names of 1 to {MAX_SERVICE_NAME_LENGTH} characters"
            ));
        }
        Ok(())
    }
}

/// Why a policy cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A value of the configuration is invalid.
    #[error("{0}")]
    Config(String),
    /// The blocklist cannot be used.
    #[error(transparent)]
    Blocklist(#[from] OpenError),
}

/// Why a password is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The user has to choose another one.
    #[error(transparent)]
    Weak(#[from] Weakness),
    /// The blocklist could not be read. No password is accepted unchecked.
    #[error("the password blocklist cannot be read")]
    Blocklist(#[source] io::Error),
}

/// The policy for new passwords.
#[derive(Debug)]
pub struct Policy {
    minimum_length: usize,
    minimum_score: MinimumScore,
    service_names: Vec<String>,
    common: Blocklist,
    leaked: Option<Blocklist>,
}

impl Policy {
    /// Validates the configuration and opens the blocklists. Reads only their headers. A file replaced later is used
    /// from the next start.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn new(config: &PolicyConfig) -> Result<Self, PolicyError> {
        config.check().map_err(PolicyError::Config)?;
        let Some(minimum_score) = MinimumScore::new(config.minimum_score) else {
            return Err(PolicyError::Config("minimum_score must be 0 to 4".to_owned()));
        };
        Ok(Self {
            minimum_length: config.minimum_length,
            minimum_score,
            service_names: config.service_names.clone(),
            common: Blocklist::from_static(BUILT_IN_BLOCKLIST)?,
            leaked: config.blocklist.as_deref().map(Blocklist::open).transpose()?,
        })
    }

    /// Checks a password, normalized by the profile `OpaqueString`, that is to be set for the account with these words.
    ///
    /// The strength estimate leaves copies of parts of the password in freed memory: its library does not zeroize.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub fn check(&self, password: &str, own_words: &OwnWords<'_>) -> Result<(), CheckError> {
        let length = password.chars().count();
        if length < self.minimum_length {
            return Err(Weakness::too_short(self.minimum_length).into());
        }
        if length > MAX_PASSWORD_LENGTH {
            return Err(Weakness::too_long().into());
        }
        let own_words = own_words.collect(&self.service_names);
        if let Some(source) = own_words.equal_to(password) {
            return Err(Weakness::own_word(source).into());
        }
        if self.common.contains(password).map_err(CheckError::Blocklist)? {
            return Err(Weakness::common().into());
        }
        if let Some(leaked) = &self.leaked
            && leaked.contains(password).map_err(CheckError::Blocklist)?
        {
            return Err(Weakness::leaked().into());
        }
        Ok(strength::check(password, &own_words.for_estimate(), self.minimum_score)?)
    }
}

#[cfg(test)]
mod tests;
