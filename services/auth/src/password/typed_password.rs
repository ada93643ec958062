//! A password as it arrives, and the form of it that is hashed.

use std::{fmt, str::FromStr};

use crate::{
    password::Password,
    password::opaque_string::{self, Disallowed},
};

/// The shortest new password, in code points of its normal form.
pub const MIN_PASSWORD_LENGTH: usize = 8;

/// The longest new password, in code points of its normal form. A sign-in may send more: its contract says how much.
pub const MAX_PASSWORD_LENGTH: usize = 256;

/// Which form of a password a stored hash was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordForm {
    /// The text as it was typed: credentials from before there was a normal form.
    Raw,
    /// The normal form of the profile `OpaqueString` (RFC 8265).
    Opaque,
}

impl PasswordForm {
    /// Its name in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Opaque => "opaque",
        }
    }
}

/// The database holds a form that this release does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored form of a password is unknown")]
pub struct UnknownForm;

impl FromStr for PasswordForm {
    type Err = UnknownForm;

    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        [Self::Raw, Self::Opaque].into_iter().find(|form| form.name() == name).ok_or(UnknownForm)
    }
}

/// Why a new password is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NewPasswordError {
    /// Too short or too long.
    #[error("must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")]
    Length,
    /// A character is not allowed.
    #[error(transparent)]
    Disallowed(#[from] Disallowed),
}

/// A password that somebody has typed, in both forms. Both are made in any case, so that the time tells nothing of the
/// form that is stored.
#[derive(Clone)]
pub struct TypedPassword {
    raw: Password,
    opaque: Password,
    forms_agree: bool,
}

impl TypedPassword {
    /// Any text: passwords that exist were chosen by the rules of their time.
    #[must_use]
    pub fn new(text: String) -> Self {
        let normal = opaque_string::normal_form(&text);
        let forms_agree = *normal == text;
        Self { raw: Password::new(text), opaque: Password::from_zeroizing(normal), forms_agree }
    }

    /// A password that is about to be set.
    ///
    /// # Errors
    /// See [`NewPasswordError`].
    pub fn parse_new(text: String) -> Result<Self, NewPasswordError> {
        let password = Self::new(text);
        let normal = password.opaque.as_str();
        if !(MIN_PASSWORD_LENGTH..=MAX_PASSWORD_LENGTH).contains(&normal.chars().count()) {
            return Err(NewPasswordError::Length);
        }
        opaque_string::check(normal)?;
        Ok(password)
    }

    /// The password in the form that a hash was made of.
    #[must_use]
    pub fn in_form(&self, form: PasswordForm) -> &Password {
        match form {
            PasswordForm::Raw => &self.raw,
            PasswordForm::Opaque => &self.opaque,
        }
    }

    /// Whether both forms are the same text, and a hash of one is a hash of the other.
    #[must_use]
    pub fn forms_agree(&self) -> bool {
        self.forms_agree
    }
}

impl fmt::Debug for TypedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypedPassword(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(text: &str) -> Result<TypedPassword, NewPasswordError> {
        TypedPassword::parse_new(text.to_owned())
    }

    #[test]
    fn the_length_is_that_of_the_normal_form_in_code_points() {
        for (text, valid) in [
            ("x".repeat(7), false),
            ("x".repeat(8), true),
            // Eight code points, of which NFC makes seven.
            ("cafe\u{301}bar".to_owned(), false),
            ("\u{1f40e}".repeat(8), true),
            ("x".repeat(256), true),
            ("x".repeat(257), false),
            ("e\u{301}".repeat(256), true),
            ("\u{958}".repeat(129), false),
        ] {
            assert_eq!(new(&text).err(), (!valid).then_some(NewPasswordError::Length), "{}", text.escape_unicode());
        }
    }

    #[test]
    fn only_new_passwords_are_refused() {
        assert_eq!(new("correct\thorse").err(), Some(Disallowed::Control.into()));
        assert_eq!(TypedPassword::new("\t".to_owned()).in_form(PasswordForm::Raw).as_str(), "\t");
    }

    #[test]
    fn both_forms_are_there() {
        let password = new("cafe\u{301}\u{a0}horse").unwrap();
        assert!(!password.forms_agree());
        assert_eq!(password.in_form(PasswordForm::Raw).as_str(), "cafe\u{301}\u{a0}horse");
        assert_eq!(password.in_form(PasswordForm::Opaque).as_str(), "caf\u{e9} horse");
        assert!(new("correct horse").unwrap().forms_agree());
    }

    #[test]
    fn a_form_has_one_name() {
        for form in [PasswordForm::Raw, PasswordForm::Opaque] {
            assert_eq!(form.name().parse(), Ok(form));
        }
        assert_eq!("nfkc".parse::<PasswordForm>(), Err(UnknownForm));
    }

    #[test]
    fn nothing_secret_is_shown() {
        assert_eq!(format!("{:?}", new("correct horse").unwrap()), "TypedPassword(..)");
    }
}
