//! The section `[auth]` of the configuration.

mod signing_keys;

use std::{num::NonZeroUsize, thread::available_parallelism, time::Duration};

use drystone_mesh::{config::ConfigDuration, token::is_client_id};
use drystone_webauthn::RelyingParty;
use serde::{Deserialize, Serialize};

pub use self::signing_keys::SigningKeyConfig;
use crate::{
    factor::requirement::FactorRequirement,
    password::hasher::PoolSize,
    password::{Cost, MAX_MEMORY_KIB, policy::PolicyConfig},
    store::AuthStore,
};

/// Services reject access tokens with a longer lifetime.
pub(crate) const MAX_ACCESS_TOKEN_LIFETIME: ConfigDuration = ConfigDuration::hours(1);

/// Limits the size of every token.
const MAX_CLIENT_ID_LENGTH: usize = 255;

/// The longest time that a reset of second factors waits.
const MAX_RESET_DELAY: ConfigDuration = ConfigDuration::days(30);

/// The longest name of this service in authenticator apps.
const MAX_ISSUER_NAME: usize = 100;

/// The maximum of `mfa.trusted_device_lifetime`.
const MAX_TRUSTED_DEVICE_LIFETIME: ConfigDuration = ConfigDuration::days(90);

/// The maximum of `hashing.threads`.
const MAX_THREADS: usize = 1024;

/// The most roles that ask for a second factor, and the longest name of one.
const MAX_REQUIRED_ROLES: usize = 100;
const MAX_ROLE: usize = 100;

/// The longest time that their users have to add one.
const MAX_GRACE_PERIOD: ConfigDuration = ConfigDuration::days(90);

/// The configuration of the auth service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The `client_id` claim of access tokens (RFC 9068): the product's own client, which all users sign in with.
    pub client_id: String,
    /// The lifetime of an access token.
    pub access_token_lifetime: ConfigDuration,
    /// How long a sign-in or refresh waits for property claims before it issues tokens without them.
    pub property_claims_timeout: ConfigDuration,
    /// The cost of a password hash. A hash of another cost is replaced when its user signs in.
    pub password: PasswordConfig,
    /// The hashing pool.
    pub hashing: HashingConfig,
    /// What new passwords have to be.
    pub password_policy: PolicyConfig,
    /// The URL of the application that links in mails lead to, such as `https://app.example.com`; empty: the issuer.
    pub app_url: String,
    /// Whether users have to verify their e-mail address before they sign in. Registrations then tell nobody whether an address has an
    /// account.
    pub require_verified_email: bool,
    /// Second factors.
    pub mfa: MfaConfig,
    /// Passkeys.
    pub passkeys: PasskeyConfig,
    /// The signing keys of access tokens.
    pub signing_keys: SigningKeyConfig,
}

/// Passkeys (Web Authentication). Without an RP ID there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasskeyConfig {
    /// The domain that passkeys belong to, such as `example.com`. Changing it makes all of them useless.
    pub rp_id: String,
    /// How users know this service; empty: as authenticator apps name it.
    pub rp_name: String,
    /// The origins of the applications that use passkeys, such as `https://app.example.com`.
    pub origins: Vec<String>,
}

impl PasskeyConfig {
    /// The relying party; `None` if there are no passkeys.
    pub(crate) fn relying_party(&self) -> Result<Option<RelyingParty>, String> {
        if self.rp_id.is_empty() {
            let is_unused = self.origins.is_empty() && self.rp_name.is_empty();
            let missing = || "rp_id is missing: set it, such as example.com".to_owned();
            return is_unused.then_some(None).ok_or_else(missing);
        }
        if self.rp_name.len() > MAX_ISSUER_NAME {
            return Err(format!("rp_name must have at most {MAX_ISSUER_NAME} bytes"));
        }
        RelyingParty::new(&self.rp_id, &self.origins).map(Some).map_err(|error| error.to_string())
    }
}

/// Second factors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MfaConfig {
    /// How authenticator apps name this service, such as `Example`; empty: the host of the issuer.
    pub issuer_name: String,
    /// The roles whose users need a second factor, such as `["admin"]`.
    pub required_roles: Vec<String>,
    /// How long such a user can sign in without one, from the first time that they do.
    pub grace_period: ConfigDuration,
    /// How long a reset by an administrator waits, so that the user can cancel it; 0: not at all.
    pub reset_delay: ConfigDuration,
    /// How long sign-ins on a device need no second factor whose user has asked for that; zero: they always do.
    pub trusted_device_lifetime: ConfigDuration,
}

impl MfaConfig {
    /// Which users need a second factor.
    pub(crate) fn requirement(&self, store: &AuthStore) -> FactorRequirement {
        let grace_period = self.grace_period.duration();
        FactorRequirement { roles: self.required_roles.clone(), grace_period, store: store.clone() }
    }

    /// How authenticator apps name this service.
    pub(crate) fn issuer_name(&self, issuer: &str) -> String {
        if !self.issuer_name.is_empty() {
            return self.issuer_name.clone();
        }
        let host = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
        host.split(['/', ':']).next().unwrap_or(host).to_owned()
    }
}

/// The cost of a password hash (Argon2id, RFC 9106).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordConfig {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

/// The hashing pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HashingConfig {
    /// Hashing threads; 0 means one per core. Each uses `memory_kib` while it has work.
    pub threads: usize,
    /// Queued passwords per thread. When the queue is full, sign-ins are refused with `OVERLOADED`.
    pub queue_per_thread: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            client_id: "drystone".to_owned(),
            access_token_lifetime: ConfigDuration::minutes(5),
            property_claims_timeout: ConfigDuration::millis(500),
            password: PasswordConfig::default(),
            hashing: HashingConfig::default(),
            password_policy: PolicyConfig::default(),
            app_url: String::new(),
            require_verified_email: false,
            mfa: MfaConfig::default(),
            passkeys: PasskeyConfig::default(),
            signing_keys: SigningKeyConfig::default(),
        }
    }
}

/// The second configuration in OWASP's password storage cheat sheet: 19 MiB and two passes.
impl Default for PasswordConfig {
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, iterations: 2, parallelism: 1 }
    }
}

impl Default for HashingConfig {
    fn default() -> Self {
        Self { threads: 0, queue_per_thread: 64 }
    }
}

impl Config {
    /// Validates the values.
    ///
    /// # Errors
    /// A message that names the invalid key and its valid values.
    pub fn check(&self) -> Result<(), String> {
        if !is_client_id(&self.client_id) || self.client_id.len() > MAX_CLIENT_ID_LENGTH {
            return Err(format!(
                "auth.client_id must be 1 to {MAX_CLIENT_ID_LENGTH} visible ASCII characters, such as `drystone`"
            ));
        }
        if self.access_token_lifetime.duration() < Duration::from_secs(1)
            || self.access_token_lifetime > MAX_ACCESS_TOKEN_LIFETIME
        {
            return Err(format!(
                "auth.access_token_lifetime must be from 1s to {MAX_ACCESS_TOKEN_LIFETIME}, such as `5m`"
            ));
        }
        if self.cost().check().is_err() {
            return Err(format!(
                "auth.password: iterations and parallelism must be at least 1, and memory_kib at least 8 for each of \
                 parallelism and at most {MAX_MEMORY_KIB}"
            ));
        }
        self.password_policy.check().map_err(|text| format!("auth.password_policy.{text}"))?;
        if self.mfa.issuer_name.len() > MAX_ISSUER_NAME || self.mfa.issuer_name.contains(':') {
            return Err(format!("auth.mfa.issuer_name must have at most {MAX_ISSUER_NAME} bytes and no colon"));
        }
        let is_role = |role: &String| (1..=MAX_ROLE).contains(&role.len()) && role.trim() == role;
        if self.mfa.required_roles.len() > MAX_REQUIRED_ROLES || !self.mfa.required_roles.iter().all(is_role) {
            return Err(format!(
                "auth.mfa.required_roles must be at most {MAX_REQUIRED_ROLES} names of roles, such as [\"admin\"]"
            ));
        }
        if self.mfa.grace_period > MAX_GRACE_PERIOD {
            return Err(format!("auth.mfa.grace_period must be at most {MAX_GRACE_PERIOD}, such as 7d; 0s means none"));
        }
        if self.mfa.reset_delay > MAX_RESET_DELAY {
            return Err(format!("auth.mfa.reset_delay must be at most {MAX_RESET_DELAY}, such as 24h; 0s means none"));
        }
        if self.mfa.trusted_device_lifetime > MAX_TRUSTED_DEVICE_LIFETIME {
            return Err(format!(
                "auth.mfa.trusted_device_lifetime must be at most {MAX_TRUSTED_DEVICE_LIFETIME}, such as `30d`; `0s` trusts no device"
            ));
        }
        self.passkeys.relying_party().map_err(|text| format!("auth.passkeys.{text}"))?;
        self.signing_keys.check().map_err(|text| format!("auth.signing_keys.{text}"))?;
        if !self.app_url.is_empty() && !is_app_url(&self.app_url) {
            return Err(
                "auth.app_url must be an https URL without query and fragment, such as https://app.example.com"
                    .to_owned(),
            );
        }
        if self.hashing.threads > MAX_THREADS {
            return Err(format!("auth.hashing.threads must be at most {MAX_THREADS}; 0 means one per core"));
        }
        if self.hashing.queue_per_thread == 0 {
            return Err("auth.hashing.queue_per_thread must be at least 1, such as 64".to_owned());
        }
        Ok(())
    }

    /// The URL of the application that links in mails lead to.
    pub(crate) fn app_url(&self, issuer: &str) -> String {
        if self.app_url.is_empty() { issuer.to_owned() } else { self.app_url.clone() }
    }

    /// The cost of a password hash.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let PasswordConfig { memory_kib, iterations, parallelism } = self.password;
        Cost { memory_kib, iterations, parallelism }
    }

    /// The size of the hashing pool on this machine.
    #[must_use]
    pub fn pool_size(&self) -> PoolSize {
        let cores = || available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let threads = NonZeroUsize::new(self.hashing.threads).unwrap_or_else(cores);
        PoolSize { threads, queue: self.hashing.queue_per_thread.saturating_mul(threads.get()) }
    }
}

/// `https://HOST/PATH`, or `http` for development.
fn is_app_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_part = |c: char| c.is_ascii_graphic() && !"?#@\\<>\"{}|^`".contains(c);
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && text.len() <= 300 && rest.chars().all(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_is_at_a_url() {
        for good in ["https://app.example.com", "http://127.0.0.1:3000/", "https://example.com/app"] {
            Config { app_url: good.to_owned(), ..Config::default() }.check().unwrap();
        }
        for bad in [
            "app.example.com",
            "ftp://example.com",
            "https://",
            "https:///a",
            "https://a?b",
            "https://a#b",
            "https://u@a",
        ] {
            let error = Config { app_url: bad.to_owned(), ..Config::default() }.check().unwrap_err();
            assert!(error.starts_with("auth.app_url"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        Config::default().check().unwrap();
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_key() {
        let error = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        for lifetime in [ConfigDuration::seconds(0), ConfigDuration::millis(999), ConfigDuration::seconds(3601)] {
            let config = Config { access_token_lifetime: lifetime, ..Config::default() };
            assert!(config.check().unwrap_err().contains("auth.access_token_lifetime"));
        }
        assert!(error(|config| config.mfa.reset_delay = ConfigDuration::days(31)).contains("auth.mfa.reset_delay"));
        assert!(error(|config| config.password.memory_kib = 7).contains("auth.password"));
        assert!(error(|config| config.password.memory_kib = u32::MAX).contains("auth.password"));
        assert!(error(|config| config.password.iterations = 0).contains("auth.password"));
        assert!(error(|config| config.password.parallelism = 0).contains("auth.password"));
        assert!(error(|config| config.client_id = String::new()).contains("auth.client_id"));
        assert!(error(|config| config.client_id = "a\nb".to_owned()).contains("auth.client_id"));
        assert!(error(|config| config.client_id = "x".repeat(256)).contains("auth.client_id"));
        assert!(error(|config| config.hashing.threads = 1025).contains("auth.hashing.threads"));
        assert!(error(|config| config.hashing.queue_per_thread = 0).contains("auth.hashing.queue_per_thread"));
    }

    #[test]
    fn devices_are_trusted_for_90_days_at_most() {
        assert_eq!(Config::default().mfa.trusted_device_lifetime, ConfigDuration::seconds(0), "off by default");
        let checked = |lifetime| {
            let mfa = MfaConfig { trusted_device_lifetime: lifetime, ..MfaConfig::default() };
            Config { mfa, ..Config::default() }.check()
        };
        checked(ConfigDuration::seconds(0)).unwrap();
        checked(ConfigDuration::days(90)).unwrap();
        let error = checked(ConfigDuration::seconds(90 * 86_400 + 1)).unwrap_err();
        assert!(error.starts_with("auth.mfa.trusted_device_lifetime must be at most 90d"), "{error}");
    }

    #[test]
    fn the_queue_grows_with_the_threads() {
        let hashing = HashingConfig { threads: 3, queue_per_thread: 10 };
        let size = Config { hashing, ..Config::default() }.pool_size();
        assert_eq!((size.threads.get(), size.queue), (3, 30));
        assert_eq!(Config::default().pool_size().threads, available_parallelism().unwrap());
    }
}
