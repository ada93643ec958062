//! Email addresses. One type and one normal form for every service: auth counts sign-ins by it, user finds accounts by
//! it.

use std::fmt;

/// The longest address, in bytes: what fits into a path of SMTP (RFC 5321, section 4.5.3.1.3). The contract says the
/// same.
pub const MAX_EMAIL_LENGTH: usize = 254;

/// An email address, as its owner wrote it. Two addresses belong to the same account if their [`Email::key`]s are equal.
#[derive(Clone, PartialEq, Eq)]
pub struct Email(String);

/// The text is not an email address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address, such as ada@example.com")]
pub struct EmailError;

impl Email {
    /// Parses what web browsers take for an address too: the WHATWG's rule for `<input type=email>`, which the
    /// contract's `string.email` follows. White space around it is not part of it.
    ///
    /// # Errors
    /// [`EmailError`] if it is not an address, or longer than [`MAX_EMAIL_LENGTH`].
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or(EmailError)?;
        let valid = text.len() <= MAX_EMAIL_LENGTH
            && !local.is_empty()
            && local.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte))
            && domain.split('.').all(is_label);
        if valid { Ok(Self(text.to_owned())) } else { Err(EmailError) }
    }

    /// An address that was parsed before it was stored. It is not checked again: rules may become stricter.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The normal form, which is unique among accounts: ASCII letters in lower case. Other letters do not occur.
    ///
    /// RFC 5321 lets a host distinguish `Ada@` from `ada@`; no large host does, and people do not.
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

/// One label of a host name (RFC 1034, section 3.5).
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Addresses are personal data: logs do not show them.
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
    fn the_key_ignores_case() {
        assert_eq!(Email::parse("ADA@Example.COM").unwrap().key(), Email::parse("ada@example.com").unwrap().key());
    }

    #[test]
    fn a_text_that_is_not_an_address_is_refused() {
        // U+212A, the Kelvin sign, is a k in lower case; U+0130 is an i with a combining dot.
        let refused = ["", "ada", "@example.com", "ada@", "a b@host", "a@b@c", "ada@-host", "ada@ex..com", "ädä@host"];
        for text in refused.into_iter().chain(["\u{212a}ate@host", "\u{130}da@host", "ada@ho\u{17f}t"]) {
            assert_eq!(Email::parse(text), Err(EmailError), "{text}");
        }
    }

    #[test]
    fn the_length_is_limited() {
        let address = |length: usize| format!("{}@example.com", "x".repeat(length - "@example.com".len()));
        assert!(Email::parse(&address(MAX_EMAIL_LENGTH)).is_ok());
        assert_eq!(Email::parse(&address(MAX_EMAIL_LENGTH + 1)), Err(EmailError));
    }

    #[test]
    fn an_address_is_not_shown_by_debug() {
        assert!(!format!("{:?}", Email::parse("ada@example.com").unwrap()).contains("ada"));
    }
}
