//! The PRECIS profile `OpaqueString` for passwords (RFC 8265, section 4.2). Normalization makes passwords comparable,
//! however the keyboard and the operating system encode them; the string class limits the characters of new passwords.
//!
//! The rules are applied in the order of RFC 8264, section 7: the additional mapping rule (spaces), the normalization
//! rule (NFC), then the behavioral rules of the string class. So decomposed Korean is composed before Old Hangul Jamo
//! are disallowed.

use drystone_mesh::text::{is_default_ignorable, joiner};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use zeroize::Zeroizing;

/// The maximum expansion factor of NFC in UTF-8 (UAX #15, section 9).
const MAX_NFC_EXPANSION: usize = 3;

/// Why the `FreeformClass` disallows a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disallowed {
    /// A control character.
    #[error("must not have control characters")]
    Control,
    /// An ignorable or format character, or a joiner outside its context (CONTEXTJ).
    #[error("must not have invisible characters; some emoji have them too")]
    Invisible,
    /// An unassigned or private-use code point: a later version of Unicode may normalize it differently.
    #[error("must not have private-use or unassigned code points")]
    Unassigned,
    /// A disallowed exception of RFC 5892, or an Old Hangul Jamo.
    #[error("must not have archaic letters or marks that only lengthen or repeat others")]
    Exception,
    /// A character outside the context that its rule requires (CONTEXTO; RFC 5892, appendix A).
    #[error("has a character that is allowed only next to certain others, such as a middle dot")]
    ContextRule,
}

/// Applies the additional mapping rule and the normalization rule: maps every space to U+0020 and normalizes to NFC.
/// Preserves case and width. Accepts any string.
#[must_use]
pub fn normalize(text: &str) -> Zeroizing<String> {
    // Allocated at the maximum size: a buffer that grows leaves copies of the secret in memory.
    let mut normalized = Zeroizing::new(String::with_capacity(text.len() * MAX_NFC_EXPANSION));
    normalized.extend(text.chars().map(|character| if is_space(character) { ' ' } else { character }).nfc());
    normalized
}

/// Applies the behavioral rules of the `FreeformClass` (RFC 8264, section 4.3) to a normalized string.
///
/// # Errors
/// See [`Disallowed`].
pub fn check_freeform_class(normalized: &str) -> Result<(), Disallowed> {
    let characters = Zeroizing::new(normalized.chars().collect::<Vec<char>>());
    (0..characters.len()).try_for_each(|index| check_at(&characters, index))
}

fn is_space(character: char) -> bool {
    character.general_category() == GeneralCategory::SpaceSeparator
}

/// The algorithm of RFC 8264, section 8, for the `FreeformClass`. The category HasCompat needs no branch: those of its
/// characters that are not disallowed before are letters, numbers, punctuation or symbols, which are valid.
fn check_at(text: &[char], index: usize) -> Result<(), Disallowed> {
    use GeneralCategory as Category;
    let (before, after) = text.split_at(index);
    let [character, after @ ..] = after else { return Ok(()) };
    let character = *character;
    if is_contexto(character) {
        return if satisfies_contexto(character, before, after) { Ok(()) } else { Err(Disallowed::ContextRule) };
    }
    if matches!(character, joiner::ZWJ | joiner::ZWNJ) {
        return if joiner::is_allowed(before, after) { Ok(()) } else { Err(Disallowed::Invisible) };
    }
    if is_disallowed_exception(character) || is_old_hangul_jamo(character) {
        return Err(Disallowed::Exception);
    }
    if is_default_ignorable(character) {
        return Err(Disallowed::Invisible);
    }
    match character.general_category() {
        Category::Control | Category::LineSeparator | Category::ParagraphSeparator => Err(Disallowed::Control),
        Category::Format => Err(Disallowed::Invisible),
        Category::PrivateUse | Category::Unassigned | Category::Surrogate => Err(Disallowed::Unassigned),
        _ => Ok(()),
    }
}

/// The disallowed exceptions of RFC 5892, section 2.6: Arabic tatweel, N'Ko lajanyalan, Hangul tone marks, and Japanese
/// repeat marks.
fn is_disallowed_exception(character: char) -> bool {
    matches!(character, '\u{640}' | '\u{7fa}' | '\u{302e}'..='\u{302f}' | '\u{3031}'..='\u{3035}' | '\u{303b}')
}

/// Conjoining Jamo that NFC does not compose (OldHangulJamo; RFC 8264, section 9.9).
fn is_old_hangul_jamo(character: char) -> bool {
    matches!(character, '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97c}' | '\u{d7b0}'..='\u{d7fb}')
}

/// The CONTEXTO exceptions of RFC 5892, section 2.6.
fn is_contexto(character: char) -> bool {
    matches!(character,
        '\u{b7}' | '\u{375}' | '\u{5f3}' | '\u{5f4}' | '\u{30fb}' | '\u{660}'..='\u{669}' | '\u{6f0}'..='\u{6f9}')
}

/// The contextual rules of RFC 5892, appendices A.3 to A.9.
fn satisfies_contexto(character: char, before: &[char], after: &[char]) -> bool {
    let anywhere = |wanted: fn(char) -> bool| before.iter().chain(after).any(|other| wanted(*other));
    match character {
        // Middle dot, for Catalan.
        '\u{b7}' => before.last() == Some(&'l') && after.first() == Some(&'l'),
        // Greek lower numeral sign.
        '\u{375}' => after.first().is_some_and(|next| matches!(next, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}')),
        // Hebrew geresh and gershayim.
        '\u{5f3}' | '\u{5f4}' => {
            before.last().is_some_and(|last| matches!(last, '\u{591}'..='\u{5f4}' | '\u{fb1d}'..='\u{fb4f}'))
        }
        // Katakana middle dot.
        '\u{30fb}' => anywhere(is_japanese),
        // Arabic-Indic and extended Arabic-Indic digits are not mixed.
        '\u{660}'..='\u{669}' => !anywhere(|other| matches!(other, '\u{6f0}'..='\u{6f9}')),
        '\u{6f0}'..='\u{6f9}' => !anywhere(|other| matches!(other, '\u{660}'..='\u{669}')),
        _ => false,
    }
}

/// Hiragana, Katakana or Han.
fn is_japanese(character: char) -> bool {
    matches!(character,
        '\u{3041}'..='\u{3096}' | '\u{309d}'..='\u{309f}' | '\u{30a1}'..='\u{30fa}' | '\u{30fd}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}' | '\u{32d0}'..='\u{32fe}' | '\u{3300}'..='\u{3357}' | '\u{ff66}'..='\u{ff6f}'
        | '\u{ff71}'..='\u{ff9d}' | '\u{1b000}'..='\u{1b167}' | '\u{2e80}'..='\u{2fd5}'
        | '\u{3005}' | '\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3038}'..='\u{303a}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_has_one_normalized_form() {
        let cases = [
            // Examples 1 to 4 of RFC 8265, section 4.3.
            ("correct horse battery staple", "correct horse battery staple"),
            ("Correct Horse Battery Staple", "Correct Horse Battery Staple"),
            ("\u{3c0}\u{df}\u{e5}", "\u{3c0}\u{df}\u{e5}"),
            ("Jack of \u{2666}s", "Jack of \u{2666}s"),
            ("foo\u{1680}bar", "foo bar"),
            // Decomposed, as macOS may send it.
            ("cafe\u{301}", "caf\u{e9}"),
            ("\u{1112}\u{1161}\u{11ab}", "\u{d55c}"),
            ("a\u{a0}b\u{3000}c\u{202f}d", "a b c d"),
            // Width and case are preserved.
            ("\u{ff21}\u{ff76}", "\u{ff21}\u{ff76}"),
            // Disallowed characters are normalized too.
            ("tab\tbed\u{378}", "tab\tbed\u{378}"),
        ];
        for (text, normalized) in cases {
            assert_eq!(*normalize(text), normalized, "{}", text.escape_unicode());
            assert_eq!(*normalize(normalized), normalized, "{}: not idempotent", text.escape_unicode());
        }
    }

    #[test]
    fn normalization_does_not_exceed_its_buffer() {
        // U+1D160 becomes three code points of four bytes each, the maximum.
        for text in ["\u{1d160}", "\u{390}", "\u{fb2c}", "\u{958}", "a"] {
            let text = text.repeat(100);
            assert!(normalize(&text).len() <= text.len() * MAX_NFC_EXPANSION, "{}", text.escape_unicode());
        }
    }

    #[test]
    fn freeform_characters_are_allowed() {
        let allowed = [
            "correct horse",
            "p\u{e4}ssw\u{f6}rt",
            "\u{43f}\u{430}\u{440}\u{43e}\u{43b}\u{44c}",
            "\u{5bc6}\u{7801}",
            "\u{2603}\u{1f40e}",
            "~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./",
            "\u{ff41}\u{ff42}",
            "\u{2163}",
            "l\u{b7}l",
            "\u{375}\u{3b1}",
            "\u{5d0}\u{5f3}",
            "\u{30a2}\u{30fb}",
            "\u{661}\u{662}",
            "\u{6f1}\u{6f2}",
            "\u{915}\u{94d}\u{200d}\u{937}",
            "\u{6cc}\u{200c}\u{62e}",
            "\u{d55c}\u{ae00}",
            "\u{df}\u{3c2}\u{3007}",
        ];
        for text in allowed {
            assert_eq!(check_freeform_class(&normalize(text)), Ok(()), "{}", text.escape_unicode());
        }
    }

    #[test]
    fn disallowed_characters_are_rejected() {
        let disallowed: [(Disallowed, &[&str]); 5] = [
            (Disallowed::Control, &["\0", "\t", "\n", "\u{1b}", "\u{7f}", "\u{85}", "\u{2028}", "\u{2029}"]),
            (
                Disallowed::Invisible,
                &[
                    "\u{ad}",
                    "\u{200b}",
                    "\u{200c}",
                    "\u{200d}",
                    "\u{200e}",
                    "\u{202e}",
                    "\u{2060}",
                    "\u{2764}\u{fe0f}",
                    "\u{feff}",
                    "\u{3164}",
                    "\u{ffa0}",
                    "\u{fff9}",
                    "\u{e0061}",
                    "\u{1f468}\u{200d}\u{1f469}",
                ],
            ),
            (Disallowed::Unassigned, &["\u{378}", "\u{e000}", "\u{fdd0}", "\u{ffff}", "\u{10ffff}"]),
            (
                Disallowed::Exception,
                &["\u{640}", "\u{7fa}", "\u{302e}", "\u{3031}", "\u{303b}", "\u{1112}\u{119e}", "\u{a960}"],
            ),
            (
                Disallowed::ContextRule,
                &["\u{b7}", "L\u{b7}l", "\u{375}a", "a\u{5f3}", "\u{5f4}", "a\u{30fb}b", "\u{661}\u{6f1}"],
            ),
        ];
        for (error, texts) in disallowed {
            for text in texts {
                let text = format!("pass{text}word");
                assert_eq!(check_freeform_class(&normalize(&text)), Err(error), "{}", text.escape_unicode());
            }
        }
    }
}
