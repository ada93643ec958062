//! SPIFFE IDs: the names of workloads, such as `spiffe://drystone.local/service/auth`.
//!
//! The rules are those of the SPIFFE-ID standard. There is no percent-encoding, port, query, fragment or normalisation,
//! so two different strings never name the same workload.

use std::{fmt, hash, str::FromStr, sync::Arc};

const SCHEME: &str = "spiffe://";
const MAX_BYTES: usize = 2048;
const MAX_DOMAIN_BYTES: usize = 255;
const WORKLOAD_PREFIX: &str = "/service/";

/// The name of a trust domain, whose workloads share one set of roots.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

/// The ID of a workload, or of a trust domain if the path is empty. Cheap to clone.
#[derive(Clone)]
pub struct SpiffeId {
    text: Arc<str>,
    domain: TrustDomain,
}

/// The text is not a SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// It does not start with the scheme.
    #[error("a SPIFFE ID starts with `spiffe://`")]
    Scheme,
    /// It is longer than the standard allows.
    #[error("a SPIFFE ID has at most 2048 bytes")]
    TooLong,
    /// The trust domain is empty, too long, or has a character that the standard does not allow.
    #[error("a trust domain has 1 to 255 characters of `a-z 0-9 . - _`")]
    TrustDomain,
    /// A segment of the path is empty, is `.` or `..`, or has a character that the standard does not allow.
    #[error(
        "each segment of a SPIFFE ID's path has characters of `A-Z a-z 0-9 . - _`, and is neither empty nor `.` nor `..`"
    )]
    Path,
}

impl TrustDomain {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the trust domain itself, which its root certificates may have.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        SpiffeId { text: format!("{SCHEME}{self}").into(), domain: self.clone() }
    }
}

impl SpiffeId {
    /// The ID of the workload `name` in `domain`: `spiffe://DOMAIN/service/NAME`.
    ///
    /// # Errors
    /// [`SpiffeIdError::Path`] if the name is not one valid path segment.
    pub fn for_workload(domain: &TrustDomain, name: &str) -> Result<Self, SpiffeIdError> {
        if !is_valid_segment(name) {
            return Err(SpiffeIdError::Path);
        }
        let text = format!("{SCHEME}{domain}{WORKLOAD_PREFIX}{name}");
        if text.len() > MAX_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        Ok(Self { text: text.into(), domain: domain.clone() })
    }

    /// The trust domain that the workload belongs to.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The path after the trust domain; empty for the trust domain itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[SCHEME.len() + self.domain.0.len()..]
    }

    /// The workload's name if the path is exactly `/service/NAME`.
    #[must_use]
    pub fn workload(&self) -> Option<&str> {
        self.path().strip_prefix(WORKLOAD_PREFIX).filter(|name| !name.contains('/'))
    }

    /// The ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if (1..=MAX_DOMAIN_BYTES).contains(&text.len()) && text.bytes().all(valid) {
            Ok(Self(text.into()))
        } else {
            Err(SpiffeIdError::TrustDomain)
        }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        let domain = domain.parse()?;
        if path.is_some_and(|path| !path.split('/').all(is_valid_segment)) {
            return Err(SpiffeIdError::Path);
        }
        Ok(Self { text: text.into(), domain })
    }
}

fn is_valid_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

impl PartialEq for SpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SpiffeId {}

impl hash::Hash for SpiffeId {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<SpiffeId, SpiffeIdError> {
        text.parse()
    }

    #[test]
    fn an_id_has_a_trust_domain_a_path_and_a_workload() {
        let id = parse("spiffe://drystone.local/service/auth").unwrap();
        assert_eq!(id.trust_domain().as_str(), "drystone.local");
        assert_eq!(id.path(), "/service/auth");
        assert_eq!(id.workload(), Some("auth"));
        assert_eq!(id, SpiffeId::for_workload(id.trust_domain(), "auth").unwrap());
        assert_eq!(format!("{id} {id:?}"), "spiffe://drystone.local/service/auth spiffe://drystone.local/service/auth");
    }

    #[test]
    fn only_a_path_of_the_form_service_name_has_a_workload() {
        for other in ["", "/service", "/service/auth/two", "/Service/auth", "/ns/default/sa/auth"] {
            assert_eq!(parse(&format!("spiffe://drystone.local{other}")).unwrap().workload(), None, "{other}");
        }
    }

    #[test]
    fn a_trust_domain_alone_is_an_id_with_an_empty_path() {
        let id = parse("spiffe://drystone.local").unwrap();
        assert_eq!(id.path(), "");
        assert_eq!(id, id.trust_domain().id());
    }

    #[test]
    fn an_id_that_the_standard_forbids_is_rejected() {
        use SpiffeIdError::{Path, Scheme, TooLong, TrustDomain};
        let long_domain = format!("spiffe://{}/a", "d".repeat(256));
        let long_path = format!("spiffe://d/{}", "p".repeat(2048));
        let cases = [
            ("", Scheme),
            ("https://drystone.local/service/auth", Scheme),
            ("SPIFFE://drystone.local/service/auth", Scheme),
            ("spiffe:/drystone.local", Scheme),
            ("spiffe://", TrustDomain),
            ("spiffe:///service/auth", TrustDomain),
            ("spiffe://Drystone.local/service/auth", TrustDomain),
            ("spiffe://drystone.local:443/service/auth", TrustDomain),
            ("spiffe://user@drystone.local/service/auth", TrustDomain),
            ("spiffe://dryst\u{f6}ne.local/service/auth", TrustDomain),
            ("spiffe://drystone.local?x", TrustDomain),
            (long_domain.as_str(), TrustDomain),
            ("spiffe://drystone.local/", Path),
            ("spiffe://drystone.local//auth", Path),
            ("spiffe://drystone.local/service/auth/", Path),
            ("spiffe://drystone.local/./auth", Path),
            ("spiffe://drystone.local/service/../auth", Path),
            ("spiffe://drystone.local/service/%61uth", Path),
            ("spiffe://drystone.local/service/auth?x=y", Path),
            ("spiffe://drystone.local/service/auth#x", Path),
            ("spiffe://drystone.local/service/a uth", Path),
            ("spiffe://drystone.local/service/auth\0", Path),
            (long_path.as_str(), TooLong),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_workload_name_is_one_path_segment() {
        let domain: TrustDomain = "drystone.local".parse().unwrap();
        for name in ["", ".", "..", "a/b", "a b", "../auth"] {
            assert_eq!(SpiffeId::for_workload(&domain, name), Err(SpiffeIdError::Path), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_parsed_id_is_displayed_unchanged(text in "(spiffe://)?[a-z.A-Z/%:@_-]{0,40}") {
            if let Ok(id) = parse(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }
    }
}
