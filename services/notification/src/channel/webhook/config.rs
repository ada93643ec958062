//! An entry of `[[notification.webhooks]]` in the configuration.

use std::{fs, path::PathBuf};

use drystone_mesh::config::Secret;
use http::Uri;
use serde::{Deserialize, Serialize};
use url::{Host, Position, Url};
use zeroize::Zeroizing;

use super::{address, destination::refusal, signature::SigningSecret};
use crate::template::{MAX_NAME_LENGTH, is_name};

/// The maximum number of secrets: the present one, and the next or the previous one while they are rotated.
const MAX_SECRETS: usize = 2;

/// The endpoint of a receiver of webhooks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointConfig {
    /// Its name, in logs and in the store.
    pub name: String,
    /// The URL that messages are posted to.
    pub url: String,
    /// The secrets that messages are signed with, `whsec_BASE64`; a receiver needs one of them. With `secret_files`
    /// one, or two while they are rotated.
    pub secrets: Vec<Secret>,
    /// Files with a secret each.
    pub secret_files: Vec<PathBuf>,
    /// The categories of the messages that it receives; empty for all.
    pub categories: Vec<String>,
    /// A PEM file with the roots that its certificate is verified with; empty for those of the system.
    pub ca: PathBuf,
    /// Whether it may be at a private address, and its URL `http`.
    pub allow_private: bool,
}

impl EndpointConfig {
    /// Checks what the types do not. The files are not read.
    ///
    /// # Errors
    /// A sentence that names the key and a valid value.
    pub fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!(
                "notification.webhooks.name must be a letter, then up to {} of `a-z 0-9 _ -`, such as `crm`",
                MAX_NAME_LENGTH - 1
            ));
        }
        if !self.categories.iter().all(|category| is_name(category)) {
            return Err(self.invalid("categories", "must be names of categories, such as `[\"security\"]`"));
        }
        self.target()?;
        if !(1..=MAX_SECRETS).contains(&(self.secrets.len() + self.secret_files.len())) {
            let text = "must be one secret, or two while they are rotated: `whsec_` and `openssl rand -base64 32`";
            return Err(self.invalid("secrets", text));
        }
        self.secrets.iter().try_for_each(|secret| self.secret(secret.expose(), "secrets").map(drop))
    }

    /// The URL, and the path with the query that is requested.
    pub(super) fn target(&self) -> Result<(Url, Uri), String> {
        let invalid = |text: &str| self.invalid("url", text);
        let url = Url::parse(&self.url)
            .map_err(|error| invalid(&format!("must be a URL, such as `https://crm.example.org/hooks` ({error})")))?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_private => {}
            "http" => {
                return Err(invalid(
                    "must be https; http is for a receiver in your own network, with `allow_private = true`",
                ));
            }
            _ => return Err(invalid("must be https, such as `https://crm.example.org/hooks`")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("must have no user name and no password; the receiver verifies the signature instead"));
        }
        if url.fragment().is_some() {
            return Err(invalid("must have no fragment (`#`), such as `https://crm.example.org/hooks`"));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            _ => None,
        };
        if let Some(Err(reason)) = literal.map(|address| address::check(address, self.allow_private)) {
            return Err(invalid(refusal(reason)));
        }
        let uri = url[Position::BeforePath..Position::AfterQuery].parse();
        let uri = uri.map_err(|error| invalid(&format!("has a path or a query that HTTP does not allow ({error})")))?;
        Ok((url, uri))
    }

    /// All secrets.
    pub(super) fn read_secrets(&self) -> Result<Vec<SigningSecret>, String> {
        let values = self.secrets.iter().map(|secret| self.secret(secret.expose(), "secrets"));
        let files = self.secret_files.iter().map(|path| {
            let text = fs::read_to_string(path).map(Zeroizing::new);
            let text = text.map_err(|error| {
                self.invalid("secret_files", &format!("names {}, which cannot be read: {error}", path.display()))
            })?;
            self.secret(text.trim_end(), "secret_files")
        });
        values.chain(files).collect()
    }

    fn secret(&self, text: &str, key: &str) -> Result<SigningSecret, String> {
        SigningSecret::parse(text).ok_or_else(|| {
            self.invalid(
                key,
                "has one that is not `whsec_` and the base64 of 24 to 64 bytes (`openssl rand -base64 32`)",
            )
        })
    }

    /// An error text.
    pub(super) fn invalid(&self, key: &str, text: &str) -> String {
        format!("notification.webhooks.{key} of `{}` {text}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn config(change: impl FnOnce(&mut EndpointConfig)) -> EndpointConfig {
        let mut config = EndpointConfig {
            name: "crm".to_owned(),
            url: "https://crm.example.org/hooks?from=drystone".to_owned(),
            secrets: vec![Secret::from(SECRET.to_owned())],
            ..EndpointConfig::default()
        };
        change(&mut config);
        config
    }

    fn with_url(url: &str, allow_private: bool) -> Result<(), String> {
        config(|config| (config.url, config.allow_private) = (url.to_owned(), allow_private)).check()
    }

    #[test]
    fn a_wrong_value_is_reported_with_its_key() {
        config(|_| ()).check().unwrap();
        let error = |change: fn(&mut EndpointConfig)| config(change).check().unwrap_err();
        for name in ["", "Crm", "1crm", "a b", &"a".repeat(33)] {
            let error = config(|config| name.clone_into(&mut config.name)).check().unwrap_err();
            assert!(error.starts_with("notification.webhooks.name must"), "{error}");
        }
        let secret = || Secret::from(SECRET.to_owned());
        for (error, key) in [
            (error(|config| config.categories.push("Security".to_owned())), "categories"),
            (error(|config| config.url.clear()), "url"),
            (error(|config| config.secrets.clear()), "secrets"),
            (error(|config| config.secrets = vec![Secret::from("whsec_c2hvcnQ=".to_owned())]), "secrets"),
            (config(|config| config.secrets = vec![secret(), secret(), secret()]).check().unwrap_err(), "secrets"),
            (error(|config| config.secret_files = vec!["a".into(), "b".into()]), "secrets"),
        ] {
            assert!(error.starts_with(&format!("notification.webhooks.{key} of `crm` ")), "{error}");
            assert!(!error.contains("c2hvcnQ"), "{error}");
        }
        assert!(serde_json::from_str::<EndpointConfig>(r#"{"secret": "a"}"#).is_err());
    }

    #[test]
    fn a_url_is_https_without_user_information_and_fragment() {
        for good in
            ["https://crm.example.org", "https://crm:8443/a?b=c", "https://1.1.1.1/", "HTTPS://CRM.example.org."]
        {
            with_url(good, false).unwrap();
        }
        for good in ["http://crm/", "http://127.0.0.1:8080/", "https://[::1]/", "https://10.0.0.1/"] {
            with_url(good, true).unwrap();
            assert!(with_url(good, false).is_err(), "{good}");
        }
        for bad in [
            "crm.example.org",
            "ftp://crm.example.org/",
            "file:///etc/passwd",
            "https://user@crm.example.org/",
            "https://:password@crm.example.org/",
            "https://crm.example.org/#top",
            "https://crm.example.org:99999/",
            "https:///",
        ] {
            for allow_private in [false, true] {
                let error = with_url(bad, allow_private).unwrap_err();
                assert!(error.starts_with("notification.webhooks.url of `crm` "), "{bad}: {error}");
            }
        }
    }

    #[test]
    fn an_address_in_a_url_is_checked_in_every_spelling() {
        for private in
            ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "017700000001", "0x7F000001", "127.0.0.1.", "１２７.0.0.1"]
        {
            let url = format!("https://{private}/");
            assert!(with_url(&url, false).unwrap_err().contains("allow_private"), "{private}");
            with_url(&url, true).unwrap();
        }
        for private in ["[::1]", "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "[fe80::1]", "[64:ff9b::7f00:1]"] {
            assert!(
                with_url(&format!("https://{private}/"), false).unwrap_err().contains("allow_private"),
                "{private}"
            );
        }
        for never in [
            "0",
            "0.0.0.0",
            "169.254.169.254",
            "2852039166",
            "0xA9FEA9FE",
            "[::]",
            "[::ffff:a9fe:a9fe]",
            "[fd00:ec2::254]",
        ] {
            for allow_private in [false, true] {
                let error =
                    with_url(&format!("http://{never}/").replace("http:", "https:"), allow_private).unwrap_err();
                assert!(error.contains("never"), "{never}: {error}");
            }
        }
    }

    #[test]
    fn a_secret_can_be_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = config(|config| config.secret_files = vec![file.path().to_owned()]);
        fs::write(file.path(), format!("{SECRET}\n")).unwrap();
        config.check().unwrap();
        assert_eq!(config.read_secrets().unwrap().len(), 2);
        fs::write(file.path(), "whsec_c2hvcnQ=").unwrap();
        let error = config.read_secrets().unwrap_err();
        assert!(error.starts_with("notification.webhooks.secret_files of `crm` "), "{error}");
        assert!(!error.contains("c2hvcnQ"), "{error}");
        file.close().unwrap();
        assert!(config.read_secrets().unwrap_err().contains("cannot be read"));
    }
}
