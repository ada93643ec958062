//! Validates free-form text: names, labels, descriptions.
//!
//! The rules are those of the `FreeformClass` of PRECIS (RFC 8264, section 4.3), which RFC 8266 applies to nicknames, with
//! three differences: emoji sequences are allowed, joiners are allowed wherever a script uses them ([`joiner`]), and Old
//! Hangul letters are allowed.
//!
//! | rejected | reason |
//! |---|---|
//! | control characters, line and paragraph separators | the text would span several lines |
//! | bidirectional controls (UAX #9) | they reorder surrounding text: a name can look like another |
//! | invisible characters (`Default_Ignorable_Code_Point`), except joiners, variation selectors and tags in valid sequences | two names could look the same |
//! | private use, noncharacters, unassigned code points | their appearance and normalization are undefined |

pub mod joiner;

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategory, UnicodeEmoji, UnicodeGeneralCategory};

/// Why a text is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It has no visible character.
    #[error("must not be blank")]
    Blank,
    /// It has more characters than this.
    #[error("must have at most {0} characters")]
    TooLong(usize),
    /// It has a control character or a line break.
    #[error("must not have line breaks or other control characters")]
    Control,
    /// It has a bidirectional control character.
    #[error("must not have characters that change the direction of text")]
    Direction,
    /// It has an invisible character.
    #[error("must not have invisible characters")]
    Invisible,
    /// It has a private-use, noncharacter or unassigned code point.
    #[error("must not have private-use or unassigned code points")]
    Unassigned,
}

/// Whether a text may have several lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineMode {
    /// One line: no line breaks and no tabs.
    Single,
    /// Any number of lines.
    Multi,
}

/// Validates a text and returns it in NFC (UAX #15), of at most `max` code points. A blank text is valid: see
/// [`is_blank`].
///
/// # Errors
/// See [`TextError`].
pub fn normalize(text: &str, mode: LineMode, max: usize) -> Result<Cow<'_, str>, TextError> {
    let text = to_nfc(text);
    let characters: Vec<char> = text.chars().collect();
    if characters.len() > max {
        return Err(TextError::TooLong(max));
    }
    (0..characters.len()).try_for_each(|index| check_code_point(&characters, index, mode))?;
    Ok(text)
}

/// The text in NFC (UAX #15).
#[must_use]
pub fn to_nfc(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// Whether a text is invisible: it has no letter, number, punctuation or visible symbol.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    !text.chars().any(is_visible)
}

/// Whether a code point has the property `Default_Ignorable_Code_Point` of the Unicode Character Database: it is
/// invisible by default.
#[must_use]
pub fn is_default_ignorable(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a code point has the property `Bidi_Control`.
fn is_bidi_control(character: char) -> bool {
    matches!(character,
        '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_visible(character: char) -> bool {
    use GeneralCategory as Category;
    // Both are blank symbols: BRAILLE PATTERN BLANK and MUSICAL SYMBOL NULL NOTEHEAD.
    if is_default_ignorable(character) || matches!(character, '\u{2800}' | '\u{1d159}') {
        return false;
    }
    !matches!(
        character.general_category(),
        Category::SpaceSeparator
            | Category::LineSeparator
            | Category::ParagraphSeparator
            | Category::Control
            | Category::Format
            | Category::Surrogate
            | Category::PrivateUse
            | Category::Unassigned
            // A mark is visible only on a base character.
            | Category::NonspacingMark
            | Category::SpacingMark
            | Category::EnclosingMark
    )
}

fn check_code_point(text: &[char], index: usize, mode: LineMode) -> Result<(), TextError> {
    use GeneralCategory as Category;
    let Some(&character) = text.get(index) else { return Ok(()) };
    if character.is_ascii_graphic() || character == ' ' {
        return Ok(());
    }
    if is_bidi_control(character) {
        return Err(TextError::Direction);
    }
    if is_default_ignorable(character) || matches!(character, '\u{fff9}'..='\u{fffb}') {
        return if is_valid_ignorable(text, index) { Ok(()) } else { Err(TextError::Invisible) };
    }
    match character.general_category() {
        Category::Control if mode == LineMode::Multi && matches!(character, '\n' | '\r' | '\t') => Ok(()),
        Category::LineSeparator | Category::ParagraphSeparator if mode == LineMode::Multi => Ok(()),
        Category::Control | Category::LineSeparator | Category::ParagraphSeparator => Err(TextError::Control),
        Category::PrivateUse | Category::Unassigned | Category::Surrogate => Err(TextError::Unassigned),
        _ => Ok(()),
    }
}

/// Whether an ignorable code point is in a context where it has an effect.
fn is_valid_ignorable(text: &[char], index: usize) -> bool {
    let (before, after) = text.split_at(index);
    let [character, after @ ..] = after else { return false };
    match *character {
        joiner::ZWJ => is_emoji_zwj_sequence(before, after) || joiner::is_allowed(before, after),
        joiner::ZWNJ => joiner::is_allowed(before, after),
        // Variation selectors (The Unicode Standard, section 23.4) directly follow their base character.
        '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => before.last().copied().is_some_and(is_visible),
        // Mongolian variation selectors, and the separator before a final vowel.
        '\u{180b}'..='\u{180f}' => before.last().is_some_and(|last| matches!(last, '\u{1820}'..='\u{18aa}')),
        '\u{e0020}'..='\u{e007f}' => is_in_tag_sequence(before, *character, after),
        _ => false,
    }
}

/// Whether a ZWJ is between two emoji, each optionally with a presentation selector and skin tone: an emoji ZWJ sequence
/// (UTS #51, ED-16).
fn is_emoji_zwj_sequence(before: &[char], after: &[char]) -> bool {
    let left = before.iter().rev().find(|character| **character != '\u{fe0f}');
    left.is_some_and(|left| is_emoji(*left)) && after.first().is_some_and(|right| is_emoji(*right))
}

/// Whether a tag is part of the flag of a subdivision, such as Scotland's: a black flag, three to six tags that spell a
/// region, and the cancel tag (UTS #51, ED-14a), the only use of tags.
fn is_in_tag_sequence(before: &[char], tag: char, after: &[char]) -> bool {
    const CANCEL_TAG: char = '\u{e007f}';
    let is_tag_spec = |tag: &char| matches!(tag, '\u{e0030}'..='\u{e0039}' | '\u{e0061}'..='\u{e007a}');
    let left = before.iter().rev().take_while(|tag| is_tag_spec(tag)).count();
    let base = before.len().checked_sub(left + 1).and_then(|base| before.get(base));
    let (right, ends) = if tag == CANCEL_TAG {
        (0, true)
    } else if is_tag_spec(&tag) {
        let right = after.iter().take_while(|tag| is_tag_spec(tag)).count();
        (right + 1, after.get(right) == Some(&CANCEL_TAG))
    } else {
        (0, false)
    };
    base == Some(&'\u{1f3f4}') && ends && (3..=6).contains(&(left + right))
}

/// Digits, `#` and `*` have the property too, as bases of keycaps, but are not emoji by themselves.
fn is_emoji(character: char) -> bool {
    !character.is_ascii() && character.is_emoji_char()
}

#[cfg(test)]
mod tests;
