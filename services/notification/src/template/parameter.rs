//! Parameters of templates, and what they accept.

use serde::Deserialize;
use url::Url;

/// The maximum number of parameters of a template.
pub const MAX_PARAMETERS: usize = 32;
/// The maximum size of all parameters of a message together, in bytes: of their names and values.
pub const MAX_PARAMETERS_BYTES: usize = 16 * 1024;
/// The maximum length of a value in bytes.
pub const MAX_TEXT_LENGTH: usize = 2048;
/// The maximum length of a URL in bytes. With it, the link of a mail fits into a line of plain text (RFC 5322: 998).
pub const MAX_URL_LENGTH: usize = 800;
const DEFAULT_MAX_LENGTH: usize = 256;
const MAX_TIME_LENGTH: usize = 40;

/// The definition of a parameter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What it accepts.
    pub kind: Kind,
    /// Whether it is for the body of a mail only.
    #[serde(default)]
    pub secret: bool,
    /// In bytes.
    #[serde(default = "default_max_length")]
    pub max_length: usize,
    /// A valid value.
    pub sample: Box<str>,
}

/// What a parameter accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One line of text; may be empty.
    Text,
    /// An absolute http or https URL without user info, in the characters of RFC 3986.
    Url,
    /// A time as it is shown, such as `2026-01-31T12:00:00Z` or `unknown`.
    Time,
}

/// Why parameters are invalid. Values are not quoted: they may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A parameter is missing.
    #[error("parameter `{0}` is missing")]
    Missing(String),
    /// The template does not have this parameter.
    #[error("parameter `{0}` is unknown to this template")]
    Unknown(String),
    /// A value is too long.
    #[error("parameter `{name}` has more than {max} bytes")]
    TooLong {
        /// The name of the parameter.
        name: String,
        /// The maximum length in bytes.
        max: usize,
    },
    /// A value is invalid.
    #[error("parameter `{name}` {reason}")]
    Invalid {
        /// The name of the parameter.
        name: String,
        /// What it must be.
        reason: &'static str,
    },
    /// Too many bytes.
    #[error("the parameters have more than {MAX_PARAMETERS_BYTES} bytes together, names and values")]
    TooLarge,
}

impl Parameter {
    /// Checks a value.
    pub fn check(&self, name: &str, value: &str) -> Result<(), ParameterError> {
        let name = || name.to_owned();
        if value.len() > self.max_length {
            return Err(ParameterError::TooLong { name: name(), max: self.max_length });
        }
        let checked = match self.kind {
            Kind::Text if is_text(value) => Ok(()),
            Kind::Text => Err("must be one line without control characters"),
            Kind::Url => check_url(value),
            Kind::Time if is_text(value) && (1..=MAX_TIME_LENGTH).contains(&value.chars().count()) => Ok(()),
            Kind::Time => Err("must be a time in one line of 1 to 40 characters"),
        };
        checked.map_err(|reason| ParameterError::Invalid { name: name(), reason })
    }

    /// Whether `max_length` is in its bounds.
    pub fn has_valid_max_length(&self) -> bool {
        let max = if self.kind == Kind::Url { MAX_URL_LENGTH } else { MAX_TEXT_LENGTH };
        (1..=max).contains(&self.max_length)
    }
}

fn default_max_length() -> usize {
    DEFAULT_MAX_LENGTH
}

/// Whether a text has neither control characters nor line or paragraph separators.
pub fn is_text(text: &str) -> bool {
    !text.contains(is_break)
}

/// Whether a character breaks a line, or could in a header, a terminal or a log.
pub fn is_break(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Checks that a text is a link that is safe to show and to open.
pub fn check_url(text: &str) -> Result<(), &'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err("must begin with https:// or http://");
    };
    // Stricter than `Url`, which follows the WHATWG: that drops line breaks and takes a backslash for a slash.
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    if !text.bytes().all(is_valid) {
        return Err("must be a URL in the characters of RFC 3986; percent-encode others");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("must be a URL without user info");
    }
    if authority.is_empty() || Url::parse(text).is_err() {
        return Err("must be a URL with a valid host");
    }
    Ok(())
}
