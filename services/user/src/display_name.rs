//! The names that users go by.

/// A name that is shown to others: one line, without spaces around it. How long it may be, the contract says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName(String);

/// The text cannot be shown as a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DisplayNameError {
    /// Nothing would be seen.
    #[error("must not be blank")]
    Blank,
    /// It would not stay on its line.
    #[error("must not have line breaks or other control characters")]
    Control,
}

impl DisplayName {
    /// Parses a name. Spaces around it are no part of it.
    pub fn parse(text: &str) -> Result<Self, DisplayNameError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(DisplayNameError::Blank);
        }
        if text.chars().any(char::is_control) {
            return Err(DisplayNameError::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// What a store has kept, which was parsed when it came in.
    pub(crate) fn stored(text: String) -> Self {
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
    fn a_name_is_what_stands_between_the_spaces() {
        assert_eq!(DisplayName::parse(" Ada Lovelace ").unwrap().as_str(), "Ada Lovelace");
        assert_eq!(DisplayName::parse("李小龍").unwrap().as_str(), "李小龍");
    }

    #[test]
    fn what_would_not_be_seen_as_a_name_is_refused() {
        assert_eq!(DisplayName::parse("\u{a0} \t"), Err(DisplayNameError::Blank));
        assert_eq!(DisplayName::parse("Ada\nAdmin"), Err(DisplayNameError::Control));
        assert_eq!(DisplayName::parse("Ada\u{1b}[31m"), Err(DisplayNameError::Control));
    }
}
