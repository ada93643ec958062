//! The section `[limits]`.

use serde::{Deserialize, Serialize};

/// More than this is no limit; 0 says so.
const MOST: u32 = 1_000_000;

/// How often something may be tried.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    /// Where attempts are counted.
    pub(crate) store: LimitStore,
    /// Sign-ins a minute from one address, and for one account; 0 for no limit.
    pub(crate) sign_in_per_minute: u32,
    /// Registrations a minute from one address; 0 for no limit.
    pub(crate) registration_per_minute: u32,
}

/// Where attempts are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LimitStore {
    /// In each process.
    Memory,
    /// In Redis, for all processes together.
    Redis,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { store: LimitStore::Memory, sign_in_per_minute: 10, registration_per_minute: 5 }
    }
}

impl LimitsConfig {
    /// What types cannot say of the values.
    pub(super) fn check(&self) -> Result<(), String> {
        for (key, value) in
            [("sign_in_per_minute", self.sign_in_per_minute), ("registration_per_minute", self.registration_per_minute)]
        {
            if value > MOST {
                return Err(format!("limits.{key} must be at most {MOST}; 0 is for no limit"));
            }
        }
        Ok(())
    }
}
