//! E-mail addresses.

use std::fmt;

/// An e-mail address, as its owner wrote it. Two addresses are the same account's if their [`Email::key`]s are equal.
#[derive(Clone, PartialEq, Eq)]
pub struct Email(String);

/// The text is not an e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address, such as ada@example.com")]
pub struct EmailError;

impl Email {
    /// Parses what web browsers take for an address too: the WHATWG's rule for `<input type=email>`, which the
    /// contract's `string.email` follows. Spaces around it are no part of it. How long it may be, the contract says.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or(EmailError)?;
        let lawful = !local.is_empty()
            && local.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte))
            && domain.split('.').all(is_label);
        if lawful { Ok(Self(text.to_owned())) } else { Err(EmailError) }
    }

    /// What a store has kept, which was parsed when it came in.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The address without regard to case: what must be unique.
    ///
    /// RFC 5321 lets a host tell `Ada@` from `ada@`; no host of weight does, and people do not.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// The address as its owner wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address as its owner wrote it.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// One part of a host name (RFC 1034, section 3.5).
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Addresses are personal: logs do not show them.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_shown_as_given() {
        for text in ["ada@example.com", "Ada.Lovelace+wall@Example.co.uk", "o'brien@host", "a@1.2.3"] {
            assert_eq!(Email::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(Email::parse("  ada@example.com\n").unwrap().as_str(), "ada@example.com");
    }

    #[test]
    fn case_makes_no_difference_to_the_key() {
        assert_eq!(Email::parse("ADA@Example.COM").unwrap().key(), Email::parse("ada@example.com").unwrap().key());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "ada", "@example.com", "ada@", "a b@host", "a@b@c", "ada@-host", "ada@ex..com", "ädä@host"] {
            assert_eq!(Email::parse(text), Err(EmailError), "{text}");
        }
    }

    #[test]
    fn an_address_does_not_reach_a_log_by_way_of_debug() {
        assert!(!format!("{:?}", Email::parse("ada@example.com").unwrap()).contains("ada"));
    }
}
