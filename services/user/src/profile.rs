//! What users say about themselves. Everything but the display name may be empty.

use std::collections::BTreeMap;

use drystone_mesh::{
    display_name::DisplayName,
    text::{LineMode, TextError, normalize},
};

// Maximum lengths in code points after normalization. The contract has the same limits for requests.
const MAX_NAME_LENGTH: usize = 100;
const MAX_LOCALE_LENGTH: usize = 35;
const MAX_TIME_ZONE_LENGTH: usize = 64;
const MAX_AVATAR_LENGTH: usize = 512;
const MAX_PREFERENCE_LENGTH: usize = 256;

/// The maximum number of preferences.
pub const MAX_PREFERENCES: usize = 32;
/// The maximum size of all preferences together, in bytes: of their names and values.
pub const MAX_PREFERENCES_BYTES: usize = 8192;

/// The profile of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The display name.
    pub display_name: DisplayName,
    /// The given name.
    pub given_name: String,
    /// The family name.
    pub family_name: String,
    /// The phone number (E.164).
    pub phone: String,
    /// The language (BCP 47).
    pub locale: String,
    /// The time zone, by its name in the IANA database.
    pub time_zone: String,
    /// Where the avatar is: an https URL.
    pub avatar: String,
    /// Settings of the product, by name.
    pub preferences: BTreeMap<String, String>,
}

/// The fields of a profile to be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileChange {
    /// The display name.
    pub display_name: Option<DisplayName>,
    /// The given name.
    pub given_name: Option<String>,
    /// The family name.
    pub family_name: Option<String>,
    /// The phone number.
    pub phone: Option<String>,
    /// The language.
    pub locale: Option<String>,
    /// The time zone.
    pub time_zone: Option<String>,
    /// The avatar.
    pub avatar: Option<String>,
    /// All settings.
    pub preferences: Option<BTreeMap<String, String>>,
}

/// Why a field of a profile is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProfile {
    /// The text is invalid.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Not a phone number.
    #[error("must be a phone number in the form of E.164, such as +442071838750")]
    Phone,
    /// Not a language tag.
    #[error("must be a language tag of BCP 47, such as en-GB")]
    Locale,
    /// Not the name of a time zone.
    #[error("must be the name of a time zone, such as Europe/London")]
    TimeZone,
    /// Not an https URL.
    #[error("must be an https URL of at most {MAX_AVATAR_LENGTH} characters")]
    Avatar,
    /// Not the name of a preference.
    #[error("must have names such as mail.digest: a letter, then up to 62 of `a-z 0-9 . - _`")]
    PreferenceName,
    /// Too many preferences.
    #[error("must have at most {MAX_PREFERENCES} entries")]
    TooManyPreferences,
    /// Too large preferences.
    #[error("must have at most {MAX_PREFERENCES_BYTES} bytes together, names and values")]
    PreferencesTooLarge,
}

impl Profile {
    /// A profile with a display name alone.
    #[must_use]
    pub fn new(display_name: DisplayName) -> Self {
        let empty = String::new;
        Self {
            display_name,
            given_name: empty(),
            family_name: empty(),
            phone: empty(),
            locale: empty(),
            time_zone: empty(),
            avatar: empty(),
            preferences: BTreeMap::new(),
        }
    }

    /// The profile with a change.
    #[must_use]
    pub fn with(self, change: ProfileChange) -> Self {
        Self {
            display_name: change.display_name.unwrap_or(self.display_name),
            given_name: change.given_name.unwrap_or(self.given_name),
            family_name: change.family_name.unwrap_or(self.family_name),
            phone: change.phone.unwrap_or(self.phone),
            locale: change.locale.unwrap_or(self.locale),
            time_zone: change.time_zone.unwrap_or(self.time_zone),
            avatar: change.avatar.unwrap_or(self.avatar),
            preferences: change.preferences.unwrap_or(self.preferences),
        }
    }
}

/// A given or family name: one line in NFC, without surrounding white space; may be empty.
///
/// # Errors
/// See [`TextError`].
pub fn parse_name(text: &str) -> Result<String, InvalidProfile> {
    Ok(normalize(text.trim(), LineMode::Single, MAX_NAME_LENGTH)?.into_owned())
}

/// A phone number (E.164); may be empty.
///
/// # Errors
/// [`InvalidProfile::Phone`].
pub fn parse_phone(text: &str) -> Result<String, InvalidProfile> {
    let is_number = |digits: &str| {
        (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0')
    };
    let is_valid = text.is_empty() || text.strip_prefix('+').is_some_and(is_number);
    if is_valid { Ok(text.to_owned()) } else { Err(InvalidProfile::Phone) }
}

/// A language tag (BCP 47) that is well-formed; may be empty.
///
/// # Errors
/// [`InvalidProfile::Locale`].
pub fn parse_locale(text: &str) -> Result<String, InvalidProfile> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let mut tags = text.split('-');
    let language = tags.next().unwrap_or_default();
    let is_language = (2..=3).contains(&language.len()) && language.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_tag = |tag: &str| (1..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_valid = text.len() <= MAX_LOCALE_LENGTH && is_language && tags.clone().count() <= 4 && tags.all(is_tag);
    if is_valid { Ok(text.to_owned()) } else { Err(InvalidProfile::Locale) }
}

/// A time zone that could be one of the IANA database, which changes several times a year; may be empty.
///
/// # Errors
/// [`InvalidProfile::TimeZone`].
pub fn parse_time_zone(text: &str) -> Result<String, InvalidProfile> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let is_part = |part: &str| {
        (1..=32).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte))
    };
    let is_valid = text.len() <= MAX_TIME_ZONE_LENGTH && text.split('/').count() <= 3 && text.split('/').all(is_part);
    if is_valid { Ok(text.to_owned()) } else { Err(InvalidProfile::TimeZone) }
}

/// Where an avatar is; may be empty. Only https: clients show it, and other schemes could run code there.
///
/// # Errors
/// [`InvalidProfile::Avatar`].
pub fn parse_avatar(text: &str) -> Result<String, InvalidProfile> {
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let is_url = text.len() <= MAX_AVATAR_LENGTH
        && !rest.is_empty()
        && !rest.starts_with('/')
        && rest.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || is_url { Ok(text.to_owned()) } else { Err(InvalidProfile::Avatar) }
}

/// Preferences; may be empty.
///
/// # Errors
/// See [`InvalidProfile`].
pub fn parse_preferences(
    given: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, InvalidProfile> {
    let (mut preferences, mut bytes) = (BTreeMap::new(), 0);
    for (name, value) in given {
        let is_name = name.len() <= 63
            && name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte));
        if !is_name {
            return Err(InvalidProfile::PreferenceName);
        }
        let value = normalize(&value, LineMode::Multi, MAX_PREFERENCE_LENGTH)?.into_owned();
        bytes += name.len() + value.len();
        preferences.insert(name, value);
        if preferences.len() > MAX_PREFERENCES {
            return Err(InvalidProfile::TooManyPreferences);
        }
    }
    if bytes > MAX_PREFERENCES_BYTES { Err(InvalidProfile::PreferencesTooLarge) } else { Ok(preferences) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parse: fn(&str) -> Result<String, InvalidProfile>, valid: &[&str], invalid: &[&str]) {
        for text in valid.iter().chain([&""]) {
            assert_eq!(parse(text).as_deref(), Ok(*text));
        }
        for text in invalid {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_normalized_and_bounded() {
        assert_eq!(parse_name(" Ada "), Ok("Ada".to_owned()));
        assert_eq!(parse_name("Sea\u{301}n"), Ok("Seán".to_owned()));
        assert_eq!(parse_name(&"x".repeat(101)), Err(InvalidProfile::Text(TextError::TooLong(100))));
        check(parse_name, &["李小龍"], &["a\nb", "a\u{202e}b"]);
    }

    #[test]
    fn phone_numbers_are_of_e164() {
        let invalid =
            ["442071838750", "+0442071838750", "+44 2071838750", "+123456", "+1234567890123456", "+44x0718387"];
        check(parse_phone, &["+442071838750", "+1234567", "+123456789012345"], &invalid);
    }

    #[test]
    fn locales_are_well_formed() {
        let invalid = ["e", "english", "en_GB", "en-", "-GB", "12", "en-123456789", "en-a-b-c-d-e", "é"];
        check(parse_locale, &["en", "en-GB", "zh-Hant-TW", "de-CH-1996", "sr-Latn-RS-x-a"], &invalid);
    }

    #[test]
    fn time_zones_look_like_those_of_iana() {
        let valid = ["UTC", "Europe/London", "America/Argentina/Buenos_Aires", "Etc/GMT+12", "America/Port-au-Prince"];
        check(parse_time_zone, &valid, &["Europe/", "/London", "a b", "../../etc/passwd", "a/b/c/d", "Zürich"]);
    }

    #[test]
    fn avatars_are_https_urls() {
        let invalid = [
            "http://example.com/a.png",
            "javascript:alert(1)",
            "https://",
            "https:///a",
            "https://a b",
            "https://é",
            "HTTPS://a",
        ];
        check(parse_avatar, &["https://example.com/a.png?x=1#y"], &invalid);
        assert_eq!(parse_avatar(&format!("https://{}", "x".repeat(505))), Err(InvalidProfile::Avatar));
    }

    #[test]
    fn preferences_are_bounded_in_number_and_bytes() {
        let many = |count: usize, length: usize| {
            parse_preferences((0..count).map(|index| (format!("name.{index:02}"), "x".repeat(length))))
        };
        assert_eq!(many(32, 10).map(|all| all.len()), Ok(32));
        assert_eq!(many(33, 10), Err(InvalidProfile::TooManyPreferences));
        assert_eq!(many(32, 249).map(|all| all.len()), Ok(32));
        assert_eq!(many(32, 250), Err(InvalidProfile::PreferencesTooLarge));
        assert_eq!(many(1, 257), Err(InvalidProfile::Text(TextError::TooLong(256))));
        for name in ["", "Mail", "1st", "a b", "é", &"a".repeat(64)] {
            let given = [(name.to_owned(), String::new())];
            assert_eq!(parse_preferences(given), Err(InvalidProfile::PreferenceName), "{name}");
        }
    }
}
