//! Contexts in which ZERO WIDTH JOINER and ZERO WIDTH NON-JOINER are valid.
//!
//! RFC 5892, appendices A.1 and A.2, allows both after a virama, and the second between two letters of a cursive script.
//! Two more contexts are allowed here, since common words need them: before a virama (Bengali `ra` with ya-phalaa, and
//! similar in Kannada), and between any two letters of a cursive script regardless of their joining type (Persian plurals
//! after `re`).

use unicode_normalization::char::{canonical_combining_class, is_combining_mark};

/// ZERO WIDTH NON-JOINER.
pub const ZWNJ: char = '\u{200c}';

/// ZERO WIDTH JOINER.
pub const ZWJ: char = '\u{200d}';

/// The canonical combining class of a virama.
const VIRAMA: u8 = 9;

/// Whether a joiner is valid between these characters.
#[must_use]
pub fn is_allowed(before: &[char], after: &[char]) -> bool {
    let Some(&last) = before.last() else { return false };
    if is_virama(last) {
        return true;
    }
    if after.first().is_some_and(|next| is_virama(*next)) {
        return last.is_alphabetic();
    }
    starts_with_cursive(before.iter().rev()) && starts_with_cursive(after.iter())
}

/// Whether the first character that is not a combining mark is a letter of a cursive script.
fn starts_with_cursive<'a>(mut characters: impl Iterator<Item = &'a char>) -> bool {
    characters.find(|character| !is_combining_mark(**character)).is_some_and(|letter| is_cursive(*letter))
}

fn is_virama(character: char) -> bool {
    canonical_combining_class(character) == VIRAMA
}

/// Whether a character is a letter of a cursive script.
fn is_cursive(character: char) -> bool {
    character.is_alphabetic()
        && matches!(character,
            // Arabic, Syriac, Arabic Supplement, N'Ko, Mandaic, Syriac Supplement, Arabic Extended.
            '\u{600}'..='\u{77f}' | '\u{7c0}'..='\u{7ff}' | '\u{840}'..='\u{8ff}'
            // Mongolian, Phags-pa.
            | '\u{1800}'..='\u{18af}' | '\u{a840}'..='\u{a87f}'
            // Manichaean, Psalter Pahlavi, Hanifi Rohingya, Arabic Extended-C, Sogdian, Chorasmian, Adlam.
            | '\u{10ac0}'..='\u{10aff}' | '\u{10b80}'..='\u{10baf}' | '\u{10d00}'..='\u{10d3f}'
            | '\u{10ec0}'..='\u{10fdf}' | '\u{1e900}'..='\u{1e95f}')
}
