//! The relying party: the RP ID of its passkeys, and the origins that use them.

use aws_lc_rs::digest::{SHA256, digest};

/// The longest RP ID: a domain.
const MAX_ID: usize = 253;

/// How many origins there may be, and how long each.
const MAX_ORIGINS: usize = 50;
const MAX_ORIGIN: usize = 300;

/// The origin of an Android app, by the hash of the certificate that has signed it.
const ANDROID: &str = "android:apk-key-hash:";

/// Why a relying party is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The RP ID.
    #[error("rp_id must be a domain in lower case, such as example.com, or localhost")]
    Id,
    /// There is no origin, or there are too many.
    #[error("origins must have 1 to {MAX_ORIGINS} origins, such as https://app.example.com")]
    Count,
    /// An origin.
    #[error(
        "origins: `{0}` is none; give https://HOST or https://HOST:PORT in lower case and without path, http for localhost alone, or \
         android:apk-key-hash:HASH"
    )]
    Origin(String),
}

/// Who asks users for their passkeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelyingParty {
    id: String,
    id_hash: [u8; 32],
    origins: Vec<String>,
}

impl RelyingParty {
    /// With an RP ID and the origins that may use its passkeys.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn new(id: &str, origins: &[String]) -> Result<Self, ConfigError> {
        let ends_in_a_letter =
            id.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_lowercase()));
        if !is_domain(id) || !ends_in_a_letter {
            return Err(ConfigError::Id);
        }
        if origins.is_empty() || origins.len() > MAX_ORIGINS {
            return Err(ConfigError::Count);
        }
        if let Some(origin) = origins.iter().find(|origin| !is_origin(origin)) {
            return Err(ConfigError::Origin(origin.clone()));
        }
        let mut id_hash = [0; 32];
        id_hash.copy_from_slice(digest(&SHA256, id.as_bytes()).as_ref());
        Ok(Self { id: id.to_owned(), id_hash, origins: origins.to_owned() })
    }

    /// The RP ID.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The origins of other domains than the RP ID's: browsers ask `https://RP_ID/.well-known/webauthn` whether they may use its passkeys
    /// (section 5.11).
    pub fn related_origins(&self) -> impl Iterator<Item = &str> {
        let is_own =
            |host: &str| host == self.id || host.strip_suffix(self.id.as_str()).is_some_and(|rest| rest.ends_with('.'));
        self.origins.iter().map(String::as_str).filter(move |origin| {
            origin.split_once("://").is_some_and(|(_, rest)| !is_own(rest.split(':').next().unwrap_or(rest)))
        })
    }

    pub(crate) const fn id_hash(&self) -> &[u8; 32] {
        &self.id_hash
    }

    pub(crate) fn has_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| known == origin)
    }
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= MAX_ID && text.split('.').all(is_label)
}

/// As browsers serialize origins (HTML, "ASCII serialization of an origin"): without a default port.
fn is_origin(text: &str) -> bool {
    if text.len() > MAX_ORIGIN {
        return false;
    }
    if let Some(hash) = text.strip_prefix(ANDROID) {
        return !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    }
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let is_port = |port: &str| {
        !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    };
    let default_port = match scheme {
        "https" => "443",
        // Browsers trust it without TLS.
        "http" if host == "localhost" || host.ends_with(".localhost") => "80",
        _ => return false,
    };
    is_domain(host) && port.is_none_or(|port| is_port(port) && port != default_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(id: &str, origins: &[&str]) -> Result<RelyingParty, ConfigError> {
        RelyingParty::new(id, &origins.iter().map(|&origin| origin.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_rp_id_is_a_domain() {
        for id in ["example.com", "localhost", "id.example-1.co.uk", "xn--bcher-kva.example"] {
            new(id, &["https://example.com"]).unwrap();
        }
        for id in [
            "",
            "Example.com",
            "https://example.com",
            "127.0.0.1",
            "example.com:443",
            ".com",
            "a..b",
            "-a.b",
            "b\u{fc}cher",
        ] {
            assert_eq!(new(id, &["https://example.com"]), Err(ConfigError::Id), "{id}");
        }
    }

    #[test]
    fn origins_are_those_that_browsers_state() {
        let good = [
            "https://example.com",
            "https://app.example.com:8443",
            "http://localhost:3000",
            "http://app.localhost",
            "android:apk-key-hash:pOXTDLkZuJtdhQ-7_kQ",
        ];
        new("example.com", &good).unwrap();
        for origin in [
            "",
            "example.com",
            "http://example.com",
            "http://localhost.example.com",
            "https://example.com/",
            "https://example.com:443",
            "http://localhost:80",
            "https://Example.com",
            "https://a@example.com",
            "https://example.com:0443",
            "https://example.com:99999",
            "https://example.com:",
            "null",
            "android:apk-key-hash:",
            "ios:bundle",
        ] {
            assert_eq!(new("example.com", &[origin]), Err(ConfigError::Origin(origin.to_owned())), "{origin}");
        }
        assert_eq!(new("example.com", &[]), Err(ConfigError::Count));
    }

    #[test]
    fn origins_of_other_domains_are_related() {
        let origins = [
            "https://example.com",
            "https://app.example.com:8443",
            "https://notexample.com",
            "https://example.de",
            "android:apk-key-hash:x",
        ];
        let party = new("example.com", &origins).unwrap();
        assert_eq!(party.related_origins().collect::<Vec<_>>(), ["https://notexample.com", "https://example.de"]);
    }
}
