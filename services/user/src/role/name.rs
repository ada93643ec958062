//! Names of roles.

use std::{borrow::Borrow, fmt, str::FromStr};

/// The maximum length of a name.
const MAX_LENGTH: usize = 63;

/// The name of a role: a letter, then up to 62 of `a-z 0-9 - _`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(String);

/// A text is not the name of a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be the name of a role: a letter, then up to 62 of `a-z 0-9 - _`")]
pub struct InvalidRoleName;

impl RoleName {
    /// A name from the store, which was valid when it was written.
    pub(crate) fn from_stored(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = InvalidRoleName;

    fn from_str(text: &str) -> Result<Self, InvalidRoleName> {
        let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let starts_with_letter = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if starts_with_letter && text.len() <= MAX_LENGTH && text.bytes().all(is_valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidRoleName)
        }
    }
}

impl Borrow<str> for RoleName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_letters_digits_and_hyphens_and_starts_with_a_letter() {
        for valid in ["a", "editor", "shift-lead_2", &"a".repeat(63)] {
            assert_eq!(valid.parse::<RoleName>().unwrap().as_str(), valid);
        }
        for invalid in ["", "2nd", "-a", "Editor", "a b", "a,b", "é", &"a".repeat(64)] {
            assert_eq!(invalid.parse::<RoleName>(), Err(InvalidRoleName), "{invalid}");
        }
    }
}
