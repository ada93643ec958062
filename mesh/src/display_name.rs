//! Display names of users and of their resources.

use crate::text::{LineMode, TextError, is_blank, normalize};

/// The maximum length of a name, in code points after normalization. The contract limits the request field alike.
pub const MAX_DISPLAY_NAME_LENGTH: usize = 200;

/// A name that is shown to other users: one line in NFC, not blank, without surrounding white space. See
/// [`text`](crate::text) for the characters that are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName(String);

impl DisplayName {
    /// Parses a name. Surrounding white space is removed.
    ///
    /// # Errors
    /// See [`TextError`].
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if is_blank(text) {
            return Err(TextError::Blank);
        }
        normalize(text.trim(), LineMode::Single, MAX_DISPLAY_NAME_LENGTH).map(|name| Self(name.into_owned()))
    }

    /// A name from a store. It is not validated again: the rules may have become stricter since.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrounding_white_space_is_removed() {
        assert_eq!(DisplayName::parse(" Ada Lovelace\u{3000}\n").unwrap().as_str(), "Ada Lovelace");
        assert_eq!(DisplayName::parse("李小龍").unwrap().as_str(), "李小龍");
    }

    #[test]
    fn a_name_is_normalized_to_nfc() {
        assert_eq!(DisplayName::parse("Sea\u{301}n"), DisplayName::parse("Seán"));
    }

    #[test]
    fn an_invisible_name_is_blank() {
        let invisible = ["", " ", "\u{a0} \t", "\u{200b}", "\u{3164}", "\u{2060}", "\u{feff}", "\u{ad}", "\u{115f}"];
        for text in invisible.into_iter().chain(["\u{1160}", "\u{ffa0}", "\u{2800}", "\u{200b}\u{3164}", "\u{2028}"]) {
            assert_eq!(DisplayName::parse(text), Err(TextError::Blank), "{}", text.escape_unicode());
        }
    }

    #[test]
    fn a_name_with_control_or_invisible_characters_is_rejected() {
        for text in ["Ada\nAdmin", "Ada\u{1b}[31m", "Ada\u{2028}Admin", "Ada\u{2029}Admin"] {
            assert_eq!(DisplayName::parse(text), Err(TextError::Control), "{}", text.escape_unicode());
        }
        assert_eq!(DisplayName::parse("Ada\u{202e}nimdA"), Err(TextError::Direction));
        assert_eq!(DisplayName::parse("Ada\u{200b}"), Err(TextError::Invisible));
    }

    #[test]
    fn the_length_is_limited() {
        assert!(DisplayName::parse(&"x".repeat(MAX_DISPLAY_NAME_LENGTH)).is_ok());
        let long = "x".repeat(MAX_DISPLAY_NAME_LENGTH + 1);
        assert_eq!(DisplayName::parse(&long), Err(TextError::TooLong(MAX_DISPLAY_NAME_LENGTH)));
    }
}
