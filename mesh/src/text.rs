//! Texts that people write and others read: what may be in a name, a label or a description.
//!
//! The rules are those of the `FreeformClass` of PRECIS (RFC 8264, section 4.3), which RFC 8266 applies to names, with
//! three differences that names of today need: emoji sequences are kept, joiners are kept wherever a script is written
//! with them ([`joiner`]), and Old Hangul letters are not refused.
//!
//! | refused | since |
//! |---|---|
//! | control characters, line and paragraph separators | the text would not stay on its line |
//! | bidirectional controls (UAX #9) | they reorder the text around a name: a name can look like another |
//! | invisible characters (`Default_Ignorable_Code_Point`), but for joiners, variation selectors and flags in their place | two names could look the same |
//! | private use, noncharacters, unassigned code points | nobody knows how they look, and how they are normalised |

pub mod joiner;

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategory, UnicodeEmoji, UnicodeGeneralCategory};

/// Why a text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing would be seen.
    #[error("must not be blank")]
    Blank,
    /// More characters than this.
    #[error("must have at most {0} characters")]
    TooLong(usize),
    /// It would not stay on its line.
    #[error("must not have line breaks or other control characters")]
    Control,
    /// It would reorder the text around it.
    #[error("must not have characters that change the direction of text")]
    Direction,
    /// A part of it would not be seen.
    #[error("must not have invisible characters")]
    Invisible,
    /// A part of it has no meaning.
    #[error("must not have private-use or unassigned code points")]
    Unassigned,
}

/// Whether a text may have more than one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// One line: no line breaks and no tabs.
    One,
    /// Any number of lines.
    Many,
}

/// Checks a text and answers its normal form, NFC (UAX #15), of at most `max` code points. A blank text is valid here:
/// see [`is_blank`].
///
/// # Errors
/// See [`TextError`].
pub fn normalize(text: &str, lines: Lines, max: usize) -> Result<Cow<'_, str>, TextError> {
    let text = if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) };
    let characters: Vec<char> = text.chars().collect();
    if characters.len() > max {
        return Err(TextError::TooLong(max));
    }
    (0..characters.len()).try_for_each(|index| check(&characters, index, lines))?;
    Ok(text)
}

/// Whether nothing of a text would be seen: it has no letter, number, punctuation or symbol with a shape of its own.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    !text.chars().any(is_visible)
}

/// Whether a code point has the property `Default_Ignorable_Code_Point` of the Unicode Character Database: it is
/// displayed as nothing, by default.
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
    use GeneralCategory as Is;
    // Both are symbols without ink: BRAILLE PATTERN BLANK and MUSICAL SYMBOL NULL NOTEHEAD.
    if is_default_ignorable(character) || matches!(character, '\u{2800}' | '\u{1d159}') {
        return false;
    }
    !matches!(
        character.general_category(),
        Is::SpaceSeparator
            | Is::LineSeparator
            | Is::ParagraphSeparator
            | Is::Control
            | Is::Format
            | Is::Surrogate
            | Is::PrivateUse
            | Is::Unassigned
            // A mark has a shape on a letter, and none of its own.
            | Is::NonspacingMark
            | Is::SpacingMark
            | Is::EnclosingMark
    )
}

fn check(text: &[char], index: usize, lines: Lines) -> Result<(), TextError> {
    use GeneralCategory as Is;
    let Some(&character) = text.get(index) else { return Ok(()) };
    if character.is_ascii_graphic() || character == ' ' {
        return Ok(());
    }
    if is_bidi_control(character) {
        return Err(TextError::Direction);
    }
    if is_default_ignorable(character) || matches!(character, '\u{fff9}'..='\u{fffb}') {
        return if is_in_place(text, index) { Ok(()) } else { Err(TextError::Invisible) };
    }
    match character.general_category() {
        Is::Control if lines == Lines::Many && matches!(character, '\n' | '\r' | '\t') => Ok(()),
        Is::LineSeparator | Is::ParagraphSeparator if lines == Lines::Many => Ok(()),
        Is::Control | Is::LineSeparator | Is::ParagraphSeparator => Err(TextError::Control),
        Is::PrivateUse | Is::Unassigned | Is::Surrogate => Err(TextError::Unassigned),
        _ => Ok(()),
    }
}

/// Whether an ignorable code point does something to what it stands beside.
fn is_in_place(text: &[char], index: usize) -> bool {
    let (before, after) = text.split_at(index);
    let [character, after @ ..] = after else { return false };
    match *character {
        joiner::ZWJ => joins_emoji(before, after) || joiner::is_allowed(before, after),
        joiner::ZWNJ => joiner::is_allowed(before, after),
        // Variation selectors (The Unicode Standard, section 23.4) come directly after what they vary.
        '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => before.last().copied().is_some_and(is_visible),
        // Mongolian variation selectors, and the separator before a final vowel.
        '\u{180b}'..='\u{180f}' => before.last().is_some_and(|last| matches!(last, '\u{1820}'..='\u{18aa}')),
        '\u{e0020}'..='\u{e007f}' => is_in_flag(before, *character, after),
        _ => false,
    }
}

/// Whether a ZWJ stands between two emoji, each of which may have its presentation and skin tone: an emoji ZWJ sequence
/// (UTS #51, ED-16).
fn joins_emoji(before: &[char], after: &[char]) -> bool {
    let left = before.iter().rev().find(|character| **character != '\u{fe0f}');
    left.is_some_and(|left| is_emoji(*left)) && after.first().is_some_and(|right| is_emoji(*right))
}

/// Whether a tag is part of the flag of a subdivision, such as Scotland's: a black flag, three to six tags that spell a
/// region, and the end (UTS #51, ED-14a). Nothing else is written with tags today.
fn is_in_flag(before: &[char], tag: char, after: &[char]) -> bool {
    const END: char = '\u{e007f}';
    let is_spelling = |tag: &char| matches!(tag, '\u{e0030}'..='\u{e0039}' | '\u{e0061}'..='\u{e007a}');
    let left = before.iter().rev().take_while(|tag| is_spelling(tag)).count();
    let base = before.len().checked_sub(left + 1).and_then(|base| before.get(base));
    let (right, ends) = if tag == END {
        (0, true)
    } else if is_spelling(&tag) {
        let right = after.iter().take_while(|tag| is_spelling(tag)).count();
        (right + 1, after.get(right) == Some(&END))
    } else {
        (0, false)
    };
    base == Some(&'\u{1f3f4}') && ends && (3..=6).contains(&(left + right))
}

/// Digits, `#` and `*` have the property too, as the bases of keycaps.
fn is_emoji(character: char) -> bool {
    !character.is_ascii() && character.is_emoji_char()
}

#[cfg(test)]
mod tests;
