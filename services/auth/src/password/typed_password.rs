//! A password as received, and the forms of it that can be hashed.

use std::{fmt, str::FromStr};

use crate::{
    password::Password,
    password::opaque_string::{self, Disallowed},
};

/// The minimum length of a new password, in code points after normalization.
pub const MIN_PASSWORD_LENGTH: usize = 8;

/// The maximum length of a new password, in code points after normalization. The limit of `SignInRequest.password` is
/// higher.
pub const MAX_PASSWORD_LENGTH: usize = 256;

/// The form of a password that was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordForm {
    /// The string as received, without normalization: credentials of releases before normalization.
    Raw,
    /// The string normalized by the profile `OpaqueString` (RFC 8265).
    Opaque,
}

impl PasswordForm {
    /// The value in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Opaque => "opaque",
        }
    }
}

/// The database has a form that this release does not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored form of a password is unknown")]
pub struct UnknownForm;

impl FromStr for PasswordForm {
    type Err = UnknownForm;

    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        [Self::Raw, Self::Opaque].into_iter().find(|form| form.name() == name).ok_or(UnknownForm)
    }
}

/// Why a new password is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NewPasswordError {
    /// Too short or too long.
    #[error("must have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters")]
    Length,
    /// A character is not allowed.
    #[error(transparent)]
    Disallowed(#[from] Disallowed),
}

/// A password as received, in both forms. Both are always computed, so that timing does not reveal which form is
/// stored.
#[derive(Clone)]
pub struct TypedPassword {
    raw: Password,
    opaque: Password,
    is_normalized: bool,
}

impl TypedPassword {
    /// A password to verify. Accepts any string, since the rules for passwords may have changed since it was set.
    #[must_use]
    pub fn new(text: String) -> Self {
        let normalized = opaque_string::normalize(&text);
        let is_normalized = *normalized == text;
        Self { raw: Password::new(text), opaque: Password::from_zeroizing(normalized), is_normalized }
    }

    /// A password to set.
    ///
    /// # Errors
    /// See [`NewPasswordError`].
    pub fn parse_new(text: String) -> Result<Self, NewPasswordError> {
        let password = Self::new(text);
        let normalized = password.opaque.as_str();
        if !(MIN_PASSWORD_LENGTH..=MAX_PASSWORD_LENGTH).contains(&normalized.chars().count()) {
            return Err(NewPasswordError::Length);
        }
        opaque_string::check_freeform_class(normalized)?;
        Ok(password)
    }

    /// The password in the given form.
    #[must_use]
    pub fn in_form(&self, form: PasswordForm) -> &Password {
        match form {
            PasswordForm::Raw => &self.raw,
            PasswordForm::Opaque => &self.opaque,
        }
    }

    /// Whether the password as received is normalized, so that both forms have the same hash.
    #[must_use]
    pub fn is_normalized(&self) -> bool {
        self.is_normalized
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
    fn the_length_is_counted_in_code_points_after_normalization() {
        for (text, valid) in [
            ("x".repeat(7), false),
            ("x".repeat(8), true),
            // Eight code points, seven after NFC.
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
    fn only_new_passwords_are_validated() {
        assert_eq!(new("correct\thorse").err(), Some(Disallowed::Control.into()));
        assert_eq!(TypedPassword::new("\t".to_owned()).in_form(PasswordForm::Raw).as_str(), "\t");
    }

    #[test]
    fn a_password_has_its_raw_and_its_normalized_form() {
        let password = new("cafe\u{301}\u{a0}horse").unwrap();
        assert!(!password.is_normalized());
        assert_eq!(password.in_form(PasswordForm::Raw).as_str(), "cafe\u{301}\u{a0}horse");
        assert_eq!(password.in_form(PasswordForm::Opaque).as_str(), "caf\u{e9} horse");
        assert!(new("correct horse").unwrap().is_normalized());
    }

    #[test]
    fn the_name_of_a_form_round_trips() {
        for form in [PasswordForm::Raw, PasswordForm::Opaque] {
            assert_eq!(form.name().parse(), Ok(form));
        }
        assert_eq!("nfkc".parse::<PasswordForm>(), Err(UnknownForm));
    }

    #[test]
    fn debug_output_has_no_secret() {
        assert_eq!(format!("{:?}", new("correct horse").unwrap()), "TypedPassword(..)");
    }
}
