//! The profile `OpaqueString` of PRECIS (RFC 8265, section 4.2), which gives a password one form, however the keyboard
//! and the system of its owner encode it, and says which characters a new password may have.
//!
//! The order is that of RFC 8264, section 7: spaces are mapped and the text is normalised (NFC) before any character is
//! judged, so that a Korean password that arrives decomposed is not taken for Old Hangul.

use drystone_mesh::text::{is_default_ignorable, joiner};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};
use zeroize::Zeroizing;

/// By how much NFC can lengthen a text in UTF-8, at most (UAX #15, section 9).
const MAX_GROWTH: usize = 3;

/// Why a character of a new password is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disallowed {
    /// A control character.
    #[error("must not have control characters")]
    Control,
    /// A character that is not displayed, or only together with others.
    #[error("must not have invisible characters; some emoji have them too")]
    Invisible,
    /// A code point that has no meaning yet: a later version of Unicode may normalise it to something else.
    #[error("must not have private-use or unassigned code points")]
    Unassigned,
    /// A character that is disallowed by itself.
    #[error("must not have archaic letters or marks that only lengthen or repeat others")]
    Other,
    /// A character that is allowed beside some others alone (RFC 5892, appendix A).
    #[error("has a character that is allowed only beside certain others, such as a middle dot")]
    Context,
}

/// The normal form of any text: every space is U+0020, and the text is in NFC. Case and width stay.
#[must_use]
pub fn normal_form(text: &str) -> Zeroizing<String> {
    // Large enough from the start: a buffer that grows leaves copies of the secret behind.
    let mut normal = Zeroizing::new(String::with_capacity(text.len() * MAX_GROWTH));
    normal.extend(text.chars().map(|character| if is_space(character) { ' ' } else { character }).nfc());
    normal
}

/// Whether each character of a normal form is in the `FreeformClass` (RFC 8264, section 4.3), and in its place.
///
/// # Errors
/// See [`Disallowed`].
pub fn check(normal: &str) -> Result<(), Disallowed> {
    let characters = Zeroizing::new(normal.chars().collect::<Vec<char>>());
    (0..characters.len()).try_for_each(|index| check_at(&characters, index))
}

fn is_space(character: char) -> bool {
    character.general_category() == GeneralCategory::SpaceSeparator
}

/// The algorithm of RFC 8264, section 8, for the `FreeformClass`. Compatibility characters need no case of their own:
/// all that are not refused before are letters, numbers, punctuation or symbols, and valid as such.
fn check_at(text: &[char], index: usize) -> Result<(), Disallowed> {
    use GeneralCategory as Is;
    let (before, after) = text.split_at(index);
    let [character, after @ ..] = after else { return Ok(()) };
    let character = *character;
    if needs_context(character) {
        return if is_in_context(character, before, after) { Ok(()) } else { Err(Disallowed::Context) };
    }
    if matches!(character, joiner::ZWJ | joiner::ZWNJ) {
        return if joiner::is_allowed(before, after) { Ok(()) } else { Err(Disallowed::Invisible) };
    }
    if is_disallowed(character) || is_old_hangul(character) {
        return Err(Disallowed::Other);
    }
    if is_default_ignorable(character) {
        return Err(Disallowed::Invisible);
    }
    match character.general_category() {
        Is::Control | Is::LineSeparator | Is::ParagraphSeparator => Err(Disallowed::Control),
        Is::Format => Err(Disallowed::Invisible),
        Is::PrivateUse | Is::Unassigned | Is::Surrogate => Err(Disallowed::Unassigned),
        _ => Ok(()),
    }
}

/// The exceptions of RFC 5892, section 2.6, that are disallowed: Arabic and N'Ko letters that only lengthen a word,
/// Hangul tone marks, and Japanese marks of repetition.
fn is_disallowed(character: char) -> bool {
    matches!(character, '\u{640}' | '\u{7fa}' | '\u{302e}'..='\u{302f}' | '\u{3031}'..='\u{3035}' | '\u{303b}')
}

/// Conjoining letters that are left after NFC (RFC 8264, section 9.9).
fn is_old_hangul(character: char) -> bool {
    matches!(character, '\u{1100}'..='\u{11ff}' | '\u{a960}'..='\u{a97c}' | '\u{d7b0}'..='\u{d7fb}')
}

/// The exceptions of RFC 5892, section 2.6, that need a context.
fn needs_context(character: char) -> bool {
    matches!(character,
        '\u{b7}' | '\u{375}' | '\u{5f3}' | '\u{5f4}' | '\u{30fb}' | '\u{660}'..='\u{669}' | '\u{6f0}'..='\u{6f9}')
}

/// RFC 5892, appendices A.3 to A.9.
fn is_in_context(character: char, before: &[char], after: &[char]) -> bool {
    let anywhere = |wanted: fn(char) -> bool| before.iter().chain(after).any(|other| wanted(*other));
    match character {
        // The middle dot of Catalan.
        '\u{b7}' => before.last() == Some(&'l') && after.first() == Some(&'l'),
        // The Greek lower numeral sign.
        '\u{375}' => after.first().is_some_and(|next| matches!(next, '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}')),
        // Hebrew geresh and gershayim.
        '\u{5f3}' | '\u{5f4}' => {
            before.last().is_some_and(|last| matches!(last, '\u{591}'..='\u{5f4}' | '\u{fb1d}'..='\u{fb4f}'))
        }
        '\u{30fb}' => anywhere(is_japanese),
        // The two kinds of Arabic digits are not mixed.
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
    fn one_password_has_one_form() {
        let same = [
            // The examples 1 to 4 of RFC 8265, section 4.3, are their own normal form but for the ideographic space.
            ("correct horse battery staple", "correct horse battery staple"),
            ("Correct Horse Battery Staple", "Correct Horse Battery Staple"),
            ("\u{3c0}\u{df}\u{e5}", "\u{3c0}\u{df}\u{e5}"),
            ("Jack of \u{2666}s", "Jack of \u{2666}s"),
            ("foo\u{1680}bar", "foo bar"),
            // Decomposed, as macOS may send it.
            ("cafe\u{301}", "caf\u{e9}"),
            ("\u{1112}\u{1161}\u{11ab}", "\u{d55c}"),
            ("a\u{a0}b\u{3000}c\u{202f}d", "a b c d"),
            // Full width and half width stay, and so does case.
            ("\u{ff21}\u{ff76}", "\u{ff21}\u{ff76}"),
            // What is not allowed in a new password has a form all the same.
            ("tab\tbed\u{378}", "tab\tbed\u{378}"),
        ];
        for (text, normal) in same {
            assert_eq!(*normal_form(text), normal, "{}", text.escape_unicode());
            assert_eq!(*normal_form(normal), normal, "{}: twice", text.escape_unicode());
        }
    }

    #[test]
    fn a_normal_form_never_outgrows_its_buffer() {
        // U+1D160 becomes three code points of four bytes each: the worst there is.
        for text in ["\u{1d160}", "\u{390}", "\u{fb2c}", "\u{958}", "a"] {
            let text = text.repeat(100);
            assert!(normal_form(&text).len() <= text.len() * MAX_GROWTH, "{}", text.escape_unicode());
        }
    }

    #[test]
    fn what_people_type_is_allowed() {
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
            assert_eq!(check(&normal_form(text)), Ok(()), "{}", text.escape_unicode());
        }
    }

    #[test]
    fn what_the_profile_refuses_is_refused() {
        let refused: [(Disallowed, &[&str]); 5] = [
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
                Disallowed::Other,
                &["\u{640}", "\u{7fa}", "\u{302e}", "\u{3031}", "\u{303b}", "\u{1112}\u{119e}", "\u{a960}"],
            ),
            (
                Disallowed::Context,
                &["\u{b7}", "L\u{b7}l", "\u{375}a", "a\u{5f3}", "\u{5f4}", "a\u{30fb}b", "\u{661}\u{6f1}"],
            ),
        ];
        for (error, texts) in refused {
            for text in texts {
                let text = format!("pass{text}word");
                assert_eq!(check(&normal_form(&text)), Err(error), "{}", text.escape_unicode());
            }
        }
    }
}
