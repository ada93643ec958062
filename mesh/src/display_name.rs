//! The names that are shown, of users and of what they own.

use crate::text::{Lines, TextError, is_blank, normalize};

/// The longest name, in code points of its normal form. The contract says the same of what is sent.
pub const MAX_DISPLAY_NAME_LENGTH: usize = 200;

/// A name that is shown to others: one line in NFC, with something to see and without white space around it. What it
/// may not have in it, and why: see [`text`](crate::text).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName(String);

impl DisplayName {
    /// Parses a name. White space around it is not part of it.
    ///
    /// # Errors
    /// See [`TextError`].
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if is_blank(text) {
            return Err(TextError::Blank);
        }
        normalize(text.trim(), Lines::One, MAX_DISPLAY_NAME_LENGTH).map(|name| Self(name.into_owned()))
    }

    /// A name that was parsed before it was stored. It is not checked again: rules may become stricter.
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
    fn white_space_around_a_name_is_not_part_of_it() {
        assert_eq!(DisplayName::parse(" Ada Lovelace\u{3000}\n").unwrap().as_str(), "Ada Lovelace");
        assert_eq!(DisplayName::parse("李小龍").unwrap().as_str(), "李小龍");
    }

    #[test]
    fn one_name_has_one_form() {
        assert_eq!(DisplayName::parse("Sea\u{301}n"), DisplayName::parse("Seán"));
    }

    #[test]
    fn a_name_that_would_not_be_seen_is_blank() {
        let invisible = ["", " ", "\u{a0} \t", "\u{200b}", "\u{3164}", "\u{2060}", "\u{feff}", "\u{ad}", "\u{115f}"];
        for text in invisible.into_iter().chain(["\u{1160}", "\u{ffa0}", "\u{2800}", "\u{200b}\u{3164}", "\u{2028}"]) {
            assert_eq!(DisplayName::parse(text), Err(TextError::Blank), "{}", text.escape_unicode());
        }
    }

    #[test]
    fn a_name_that_would_not_stay_on_its_line_is_refused() {
        for text in ["Ada\nAdmin", "Ada\u{1b}[31m", "Ada\u{2028}Admin", "Ada\u{2029}Admin"] {
            assert_eq!(DisplayName::parse(text), Err(TextError::Control), "{}", text.escape_unicode());
        }
        assert_eq!(DisplayName::parse("Ada\u{202e}nimdA"), Err(TextError::Direction));
        assert_eq!(DisplayName::parse("Ada\u{200b}"), Err(TextError::Invisible));
    }

    #[test]
    fn a_name_ends() {
        assert!(DisplayName::parse(&"x".repeat(MAX_DISPLAY_NAME_LENGTH)).is_ok());
        let long = "x".repeat(MAX_DISPLAY_NAME_LENGTH + 1);
        assert_eq!(DisplayName::parse(&long), Err(TextError::TooLong(MAX_DISPLAY_NAME_LENGTH)));
    }
}
