//! The section `[sealing]` of the configuration.

use std::{path::PathBuf, sync::Arc};

use drystone_mesh::config::Secret;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{KeyEncryption, MasterKeyError, MasterKeyFile, MasterKeys, Vault};

/// Where the master key is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SealingConfig {
    /// A file with master keys; the first one seals.
    pub key_file: Option<PathBuf>,
    /// The same as a value, for the environment.
    pub keys: Secret,
    /// The transit engine of HashiCorp Vault.
    pub vault: VaultConfig,
}

/// A key of the transit engine of HashiCorp Vault.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaultConfig {
    /// The address, `https://HOST:PORT`; empty: Vault is not used.
    pub address: String,
    /// Where the engine is mounted.
    pub mount: String,
    /// The name of the key.
    pub key: String,
    /// The namespace, of Vault Enterprise.
    pub namespace: Option<String>,
    /// A file with the token. It is read for each call, so that an agent may renew it.
    pub token_file: PathBuf,
    /// A PEM file with the root certificates; empty for those of the system.
    pub ca: PathBuf,
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self {
            address: String::new(),
            mount: "transit".to_owned(),
            key: "drystone".to_owned(),
            namespace: None,
            token_file: PathBuf::new(),
            ca: PathBuf::new(),
        }
    }
}

impl SealingConfig {
    /// The configured master key; `None` if there is none.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn open(&self) -> Result<Option<Arc<dyn KeyEncryption>>, String> {
        let invalid = |error: MasterKeyError| error.to_string();
        Ok(if let Some(path) = &self.key_file {
            Some(Arc::new(MasterKeyFile::open(path).map_err(invalid)?))
        } else if !self.keys.is_empty() {
            Some(Arc::new(MasterKeys::parse(self.keys.expose()).map_err(invalid)?))
        } else if !self.vault.address.is_empty() {
            Some(Arc::new(Vault::new(&self.vault)?))
        } else {
            None
        })
    }

    /// Checks what types cannot express.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub fn check(&self) -> Result<(), String> {
        let sources = [self.key_file.is_some(), !self.keys.is_empty(), !self.vault.address.is_empty()];
        if sources.into_iter().filter(|is_set| *is_set).count() > 1 {
            return Err("set one of sealing.key_file, sealing.keys and sealing.vault.address".to_owned());
        }
        if self.vault.address.is_empty() { Ok(()) } else { self.vault.check() }
    }
}

impl VaultConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        let url = Url::parse(&self.address).ok().filter(|url| {
            let is_local = url.host_str().is_some_and(|host| ["127.0.0.1", "[::1]", "localhost"].contains(&host));
            url.scheme() == "https" || (url.scheme() == "http" && is_local)
        });
        if url.is_none_or(|url| url.path() != "/" || url.query().is_some() || !url.username().is_empty()) {
            return Err(
                "sealing.vault.address must be https://HOST:PORT (http for an agent on the same host), without a path"
                    .to_owned(),
            );
        }
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
        };
        for (key, value) in [("mount", &self.mount), ("key", &self.key)] {
            if !is_name(value) || value.len() > 100 {
                return Err(format!("sealing.vault.{key} must be the name of Vault, of letters, digits and `._-/`"));
            }
        }
        if self.token_file.as_os_str().is_empty() {
            return Err("sealing.vault.token_file must name a file with a token of Vault".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_refused_by_their_key() {
        let vault = |change: fn(&mut VaultConfig)| {
            let mut vault = VaultConfig {
                address: "https://vault.example.org:8200".to_owned(),
                token_file: "token".into(),
                ..VaultConfig::default()
            };
            change(&mut vault);
            SealingConfig { vault, ..SealingConfig::default() }.check()
        };
        SealingConfig::default().check().unwrap();
        vault(|_| {}).unwrap();
        vault(|vault| vault.address = "http://127.0.0.1:8100".to_owned()).unwrap();
        for (outcome, key) in [
            (vault(|vault| vault.address = "http://vault.example.org".to_owned()), "sealing.vault.address"),
            (vault(|vault| vault.address = "https://a:b@vault".to_owned()), "sealing.vault.address"),
            (vault(|vault| vault.address = "https://vault/v1".to_owned()), "sealing.vault.address"),
            (vault(|vault| vault.key = "a?b".to_owned()), "sealing.vault.key"),
            (vault(|vault| vault.mount = String::new()), "sealing.vault.mount"),
            (vault(|vault| vault.token_file = PathBuf::new()), "sealing.vault.token_file"),
        ] {
            let error = outcome.unwrap_err();
            assert!(error.starts_with(key), "{error}");
        }
        let both = SealingConfig { key_file: Some("a".into()), keys: "k x".to_owned().into(), ..Default::default() };
        assert!(both.check().unwrap_err().starts_with("set one of sealing.key_file"));
    }
}
