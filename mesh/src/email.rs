//! Email addresses. All services share the type and the normal form: auth limits sign-ins by it, user looks up accounts
//! by it.

use std::fmt;

/// The maximum length of an address, in bytes: the longest that fits into an SMTP path (RFC 5321, section 4.5.3.1.3). The
/// contract has the same limit.
pub const MAX_EMAIL_LENGTH: usize = 254;

/// An email address, in its original case. Two addresses belong to the same account if their [`Email::key`]s are equal.
#[derive(Clone, PartialEq, Eq)]
pub struct Email(String);

/// The text is not an email address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address, such as ada@example.com")]
pub struct EmailError;

impl Email {
    /// Parses an address by the WHATWG rule for `<input type=email>`, which the contract's `string.email` follows too.
    /// Surrounding white space is removed.
    ///
    /// # Errors
    /// [`EmailError`] if it is not an address, or longer than [`MAX_EMAIL_LENGTH`].
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or(EmailError)?;
        let valid = text.len() <= MAX_EMAIL_LENGTH
            && !local.is_empty()
            && local.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte))
            && domain.split('.').all(is_host_label);
        if valid { Ok(Self(text.to_owned())) } else { Err(EmailError) }
    }

    /// An address from a store. It is not validated again: the rules may have become stricter since.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The normal form, unique among accounts: ASCII lower case. Non-ASCII letters are not valid in an address.
    ///
    /// RFC 5321 lets a host distinguish `Ada@` from `ada@`; no large provider does, and users do not.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// The address in its original case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address in its original case.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Whether this is a label of a host name (RFC 1034, section 3.5).
fn is_host_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Redacted: addresses are personal data.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_addresses_are_parsed_unchanged() {
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
    fn an_invalid_address_is_rejected() {
        // U+212A, the Kelvin sign, is a k in lower case; U+0130 is an i with a combining dot.
        let invalid = ["", "ada", "@example.com", "ada@", "a b@host", "a@b@c", "ada@-host", "ada@ex..com", "ädä@host"];
        for text in invalid.into_iter().chain(["\u{212a}ate@host", "\u{130}da@host", "ada@ho\u{17f}t"]) {
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
    fn debug_redacts_the_address() {
        assert!(!format!("{:?}", Email::parse("ada@example.com").unwrap()).contains("ada"));
    }
}
