//! What an owner says of a property. How long each part may be, the contract says.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};

/// What an owner says of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The name that is shown.
    pub display_name: DisplayName,
    /// The description; may be empty.
    pub description: Description,
    /// The labels; may be empty.
    pub labels: Labels,
}

/// What is to be said of a property from now on; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Another name.
    pub display_name: Option<DisplayName>,
    /// Another description.
    pub description: Option<Description>,
    /// Other labels, in place of all that are there.
    pub labels: Option<Labels>,
}

/// The name that is shown: one line, without spaces around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName(String);

/// A description: any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description(String);

/// Labels of the owner's own making, sorted by their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

/// The text cannot be shown as what it is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing would be seen.
    #[error("must not be blank")]
    Blank,
    /// It would not stay in its place.
    #[error("must not have control characters, or line breaks where one line is shown")]
    Control,
}

impl Content {
    /// A hash that two contents share if, and only if, they are the same.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        // Each text goes in behind its length, so that no two contents run together into the same bytes.
        let mut add = |text: &str| {
            context.update(&text.len().to_be_bytes());
            context.update(text.as_bytes());
        };
        add(self.display_name.as_str());
        add(self.description.as_str());
        for (key, value) in self.labels.iter() {
            add(key);
            add(value);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        fingerprint
    }
}

impl DisplayName {
    /// Parses a name. Spaces around it are no part of it.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let text = text.trim();
        if text.is_empty() { Err(TextError::Blank) } else { one_line(text).map(|()| Self(text.to_owned())) }
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

impl Description {
    /// Parses a description, which may be empty and may have many lines.
    pub fn parse(text: String) -> Result<Self, TextError> {
        let lawful = |character: char| !character.is_control() || matches!(character, '\n' | '\r' | '\t');
        if text.chars().all(lawful) { Ok(Self(text)) } else { Err(TextError::Control) }
    }

    /// What a store has kept, which was parsed when it came in.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The description.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The description.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Labels {
    /// Parses labels, which may be none.
    pub fn parse(labels: impl IntoIterator<Item = (String, String)>) -> Result<Self, TextError> {
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        labels.iter().flat_map(|(key, value)| [key, value]).try_for_each(|text| one_line(text))?;
        Ok(Self(labels))
    }

    /// What a store has kept, which was parsed when it came in.
    pub(crate) fn stored(labels: BTreeMap<String, String>) -> Self {
        Self(labels)
    }

    /// The labels, sorted by their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The labels.
    #[must_use]
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The labels.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }
}

fn one_line(text: &str) -> Result<(), TextError> {
    if text.chars().any(char::is_control) { Err(TextError::Control) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(display_name: &str, description: &str, labels: &[(&str, &str)]) -> Content {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Content {
            display_name: DisplayName::parse(display_name).unwrap(),
            description: Description::parse(description.to_owned()).unwrap(),
            labels: Labels::parse(labels).unwrap(),
        }
    }

    #[test]
    fn a_name_is_what_stands_between_the_spaces() {
        assert_eq!(DisplayName::parse(" Barn ").unwrap().as_str(), "Barn");
        assert_eq!(DisplayName::parse("\u{a0} \t"), Err(TextError::Blank));
        assert_eq!(DisplayName::parse("Barn\nShed"), Err(TextError::Control));
    }

    #[test]
    fn a_description_has_lines_and_no_other_control_characters() {
        assert!(Description::parse("one\r\n\ttwo\n".to_owned()).is_ok());
        assert_eq!(Description::parse("one\u{1b}[31m".to_owned()), Err(TextError::Control));
    }

    #[test]
    fn labels_stay_on_their_line() {
        for (key, value) in [("colour\n", "red"), ("colour", "red\u{0}")] {
            assert_eq!(Labels::parse([(key.to_owned(), value.to_owned())]), Err(TextError::Control));
        }
    }

    #[test]
    fn contents_share_a_fingerprint_only_if_they_are_the_same() {
        let all = [
            content("ab", "c", &[]),
            content("a", "bc", &[]),
            content("ab", "", &[("c", "")]),
            content("ab", "c", &[("d", "e"), ("f", "g")]),
            content("ab", "c", &[("d", "e"), ("f", "h")]),
        ];
        for (place, one) in all.iter().enumerate() {
            for (other_place, other) in all.iter().enumerate() {
                assert_eq!(one.fingerprint() == other.fingerprint(), place == other_place);
            }
        }
        let reordered = content("ab", "c", &[("f", "g"), ("d", "e")]);
        assert_eq!(reordered.fingerprint(), all[3].fingerprint());
    }
}
