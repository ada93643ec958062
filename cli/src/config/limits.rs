//! The section `[limits]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most that can be configured; 0 is for no limit.
const MAX_PER_MINUTE: u32 = 1_000_000;

/// A hundred a second, and a minute's worth at once. Many people can share one address (an office, a mobile network), each
/// with a few requests for every click, so that a lower limit would reject them; one machine that wants more than this
/// wants to do harm, or a limit of its own.
const REQUESTS_PER_MINUTE: u32 = 6000;

/// Ten a second, and a minute's worth at once: an import fills the quota of properties in a quarter of an hour.
const WRITES_PER_MINUTE: u32 = 600;

/// Rate limits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    /// Where attempts are counted.
    pub(crate) store: LimitStoreKind,
    /// Requests a minute to the edge from one address; 0 for no limit.
    pub(crate) requests_per_minute: u32,
    /// Sign-ins a minute from one address, for one account, and from one known device; 0 for no limit.
    pub(crate) sign_in_per_minute: u32,
    /// Refreshes a minute of one session; 0 for no limit.
    pub(crate) refresh_per_minute: u32,
    /// Registrations a minute from one address; 0 for no limit.
    pub(crate) registration_per_minute: u32,
    /// Requests and uses of links for a new password a minute from one address; 0 for no limit.
    pub(crate) password_reset_per_minute: u32,
    /// Requests and uses of links in mails about addresses and sign-ins a minute, from one address or of one user; 0 for no limit.
    pub(crate) email_per_minute: u32,
    /// Changes of second factors a minute of one user; 0 for no limit.
    pub(crate) factor_per_minute: u32,
    /// Writes a minute of one user: each RPC of the class `write`; 0 for no limit.
    pub(crate) write_per_minute: u32,
    /// Calls a minute for the limits that contracts of other services name, of one user or from one address; 0 for no limit.
    pub(crate) calls_per_minute: BTreeMap<String, u32>,
}

/// Where attempts are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LimitStoreKind {
    /// In each process.
    Memory,
    /// In Redis, for all processes together.
    Redis,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            store: LimitStoreKind::Memory,
            requests_per_minute: REQUESTS_PER_MINUTE,
            sign_in_per_minute: 10,
            refresh_per_minute: 30,
            registration_per_minute: 5,
            password_reset_per_minute: 5,
            email_per_minute: 5,
            factor_per_minute: 10,
            write_per_minute: WRITES_PER_MINUTE,
            calls_per_minute: BTreeMap::new(),
        }
    }
}

impl LimitsConfig {
    /// How many calls a minute each limit allows, by its name in the contracts.
    pub(crate) fn per_minute(&self) -> BTreeMap<String, u32> {
        let own = self.own().into_iter().map(|(name, _, calls)| (name.to_owned(), calls));
        self.calls_per_minute.clone().into_iter().chain(own).collect()
    }

    /// The name, the key and the value of each limit with a key of its own.
    fn own(&self) -> [(&'static str, &'static str, u32); 8] {
        [
            ("default", "requests_per_minute", self.requests_per_minute),
            ("sign_in", "sign_in_per_minute", self.sign_in_per_minute),
            ("refresh", "refresh_per_minute", self.refresh_per_minute),
            ("registration", "registration_per_minute", self.registration_per_minute),
            ("password_reset", "password_reset_per_minute", self.password_reset_per_minute),
            ("email", "email_per_minute", self.email_per_minute),
            ("factor", "factor_per_minute", self.factor_per_minute),
            ("write", "write_per_minute", self.write_per_minute),
        ]
    }

    /// Checks what types cannot express.
    pub(super) fn check(&self) -> Result<(), String> {
        for (_, key, value) in self.own() {
            if value > MAX_PER_MINUTE {
                return Err(format!("limits.{key} must be at most {MAX_PER_MINUTE}; 0 is for no limit"));
            }
        }
        for (name, calls) in &self.calls_per_minute {
            if *calls > MAX_PER_MINUTE {
                return Err(format!(
                    "limits.calls_per_minute.{name} must be at most {MAX_PER_MINUTE}; 0 is for no limit"
                ));
            }
            if self.own().iter().any(|(own, ..)| own == name) {
                return Err(format!("limits.calls_per_minute.{name} has a key of its own in [limits]; set that one"));
            }
        }
        Ok(())
    }
}
