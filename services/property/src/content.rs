//! The content of a property. All text is normalized to NFC; for the characters that are rejected, see
//! [`drystone_mesh::text`].

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use drystone_mesh::{
    display_name::DisplayName,
    text::{LineMode, TextError, is_blank, normalize},
};

// Maximum lengths in code points after normalization. The contract has the same limits for requests.
const MAX_DESCRIPTION_LENGTH: usize = 2000;
const MAX_LABEL_KEY_LENGTH: usize = 63;
const MAX_LABEL_VALUE_LENGTH: usize = 256;

/// The content of a property, written by its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The display name.
    pub display_name: DisplayName,
    /// The description; may be empty.
    pub description: Description,
    /// The labels; may be empty.
    pub labels: Labels,
}

/// A partial update of a content: a field that is `None` is not changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentUpdate {
    /// The new display name.
    pub display_name: Option<DisplayName>,
    /// The new description.
    pub description: Option<Description>,
    /// The new labels, which replace all existing ones.
    pub labels: Option<Labels>,
}

/// A description, which may have several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description(String);

/// Labels chosen by the owner, sorted by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

/// Why labels are invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// A key or a value is invalid.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Two keys have the same normal form.
    #[error("must not have two keys with the same normal form")]
    DuplicateKey,
}

impl Content {
    /// A SHA-256 hash, to compare contents.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        // Length-prefixed, so that different contents are never hashed as the same bytes.
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

impl Description {
    /// Parses a description, which may be empty and may have several lines.
    ///
    /// # Errors
    /// See [`TextError`].
    pub fn parse(text: &str) -> Result<Self, TextError> {
        normalize(text, LineMode::Multi, MAX_DESCRIPTION_LENGTH).map(|text| Self(text.into_owned()))
    }

    /// A description that was parsed before it was stored.
    pub(crate) fn from_stored(text: String) -> Self {
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
    /// Parses labels, possibly none. A key must not be blank, and keys and values must not contain line breaks.
    ///
    /// # Errors
    /// See [`LabelsError`].
    pub fn parse(labels: impl IntoIterator<Item = (String, String)>) -> Result<Self, LabelsError> {
        let mut parsed = BTreeMap::new();
        for (key, value) in labels {
            if is_blank(&key) {
                return Err(TextError::Blank.into());
            }
            let key = normalize(&key, LineMode::Single, MAX_LABEL_KEY_LENGTH)?.into_owned();
            let value = normalize(&value, LineMode::Single, MAX_LABEL_VALUE_LENGTH)?.into_owned();
            if parsed.insert(key, value).is_some() {
                return Err(LabelsError::DuplicateKey);
            }
        }
        Ok(Self(parsed))
    }

    /// Labels that were parsed before they were stored.
    pub(crate) fn from_stored(labels: BTreeMap<String, String>) -> Self {
        Self(labels)
    }

    /// The labels, sorted by key.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn content(display_name: &str, description: &str, labels: &[(&str, &str)]) -> Content {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Content {
            display_name: DisplayName::parse(display_name).unwrap(),
            description: Description::parse(description).unwrap(),
            labels: Labels::parse(labels).unwrap(),
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Result<Labels, LabelsError> {
        Labels::parse(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_description_may_have_line_breaks_and_no_other_control_characters() {
        assert!(Description::parse("").is_ok());
        assert!(Description::parse("one\r\n\ttwo\n").is_ok());
        assert_eq!(Description::parse("one\u{1b}[31m"), Err(TextError::Control));
        assert_eq!(Description::parse("one\u{202e}two"), Err(TextError::Direction));
        let long = "x".repeat(MAX_DESCRIPTION_LENGTH + 1);
        assert_eq!(Description::parse(&long), Err(TextError::TooLong(MAX_DESCRIPTION_LENGTH)));
    }

    #[test]
    fn labels_must_not_contain_line_breaks() {
        for (key, value) in [("colour\n", "red"), ("colour", "red\u{0}"), ("colour", "red\u{2028}")] {
            assert_eq!(labels(&[(key, value)]), Err(TextError::Control.into()), "{key:?} {value:?}");
        }
        assert_eq!(labels(&[("colour", "red\u{202e}")]), Err(TextError::Direction.into()));
        assert_eq!(labels(&[("colo\u{200b}ur", "red")]), Err(TextError::Invisible.into()));
    }

    #[test]
    fn a_label_may_be_empty_but_its_key_may_not() {
        assert!(labels(&[("colour", "")]).is_ok());
        for key in ["", " ", "\u{200b}", "\u{3164}"] {
            assert_eq!(labels(&[(key, "red")]), Err(TextError::Blank.into()), "{}", key.escape_unicode());
        }
    }

    #[test]
    fn two_keys_with_the_same_normal_form_are_rejected() {
        assert_eq!(labels(&[("caf\u{e9}", "one"), ("cafe\u{301}", "two")]), Err(LabelsError::DuplicateKey));
        let parsed = labels(&[("cafe\u{301}", "one")]).unwrap();
        assert_eq!(parsed.iter().collect::<Vec<_>>(), [("caf\u{e9}", "one")]);
    }

    #[test]
    fn contents_have_the_same_fingerprint_only_if_they_are_equal() {
        let all = [
            content("ab", "c", &[]),
            content("a", "bc", &[]),
            content("ab", "", &[("c", "")]),
            content("ab", "c", &[("d", "e"), ("f", "g")]),
            content("ab", "c", &[("d", "e"), ("f", "h")]),
        ];
        for (index, one) in all.iter().enumerate() {
            for (other_index, other) in all.iter().enumerate() {
                assert_eq!(one.fingerprint() == other.fingerprint(), index == other_index);
            }
        }
        let reordered = content("ab", "c", &[("f", "g"), ("d", "e")]);
        assert_eq!(reordered.fingerprint(), all[3].fingerprint());
    }
}
