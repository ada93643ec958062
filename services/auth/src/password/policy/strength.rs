//! The strength estimate: how many guesses an attacker needs who knows dictionaries, names, dates, keyboard patterns and
//! the account's own words. By zxcvbn (Wheeler, "zxcvbn: Low-Budget Password Strength Estimation", USENIX Security 2016).
//!
//! Two properties of zxcvbn are worked around here:
//!
//! - Its time grows with the square of the length, and with the product of the substitutions that it has to try for
//!   characters such as `@` and `4`: 100 characters made for it take 0.5 s. So a long or complicated password is
//!   estimated in pieces of bounded cost. A guess of the whole contains a guess of each piece, so that the guesses for
//!   the strongest piece are a lower bound. For the same reason, nothing beyond 100 characters has to be estimated.
//! - It counts an unknown character as ten guesses, which suits letters but not ideographs: see [`is_ideograph`].

use zxcvbn::{Entropy, matching::patterns::MatchPattern};

use super::weakness::Weakness;

/// The maximum length that is estimated, in code points.
const MAX_ESTIMATED_LENGTH: usize = 100;

/// The maximum work for a piece, in dictionary lookups per dictionary: about 5 ms. A password of 20 random printable
/// ASCII characters rarely needs as much.
const MAX_PIECE_WORK: usize = 500_000;

/// The lookups that cost as much as preparing an own word.
const WORK_PER_WORD: usize = 8;

/// For each letter that zxcvbn substitutes, the characters that can stand for it.
const SUBSTITUTES: [&str; 12] = ["4@", "8", "({[<", "3", "69", "1!|", "1|7", "0", "$5", "+7", "%", "2"];

/// The substitutes of two letters. Each doubles the alternatives.
const SHARED_SUBSTITUTES: [char; 3] = ['1', '|', '7'];

/// The guesses from which zxcvbn gives the scores 0 to 4.
const GUESSES: [u64; 5] = [0, 1_000 + 5, 1_000_000 + 5, 100_000_000 + 5, 10_000_000_000 + 5];

/// The minimum of the score of the estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MinimumScore {
    guesses: u64,
}

impl MinimumScore {
    /// `None` if out of range.
    pub(super) fn new(score: u8) -> Option<Self> {
        GUESSES.get(usize::from(score)).map(|guesses| Self { guesses: *guesses })
    }
}

/// Estimates the strength of a password, given the account's own words in lower case.
pub(super) fn check(password: &str, own_words: &[&str], minimum: MinimumScore) -> Result<(), Weakness> {
    if minimum.guesses == 0 {
        return Ok(());
    }
    let mut rest = first_characters(password, MAX_ESTIMATED_LENGTH);
    let mut strongest: Option<Entropy> = None;
    while !rest.is_empty() {
        let (piece, after) = split_piece(rest, own_words.len());
        rest = after;
        let entropy = zxcvbn::zxcvbn(piece, own_words);
        if guesses(piece, &entropy) >= minimum.guesses {
            return Ok(());
        }
        if strongest.as_ref().is_none_or(|strongest| strongest.guesses() < entropy.guesses()) {
            strongest = Some(entropy);
        }
    }
    Err(match strongest {
        Some(entropy) if is_mainly_own_words(&entropy, own_words) => Weakness::similar_to_own_word(),
        strongest => Weakness::guessable(strongest.as_ref().and_then(Entropy::feedback)),
    })
}

fn guesses(piece: &str, entropy: &Entropy) -> u64 {
    let mut ideographs: Vec<char> = piece.chars().filter(|character| is_ideograph(*character)).collect();
    ideographs.sort_unstable();
    ideographs.dedup();
    let factor = u32::try_from(ideographs.len()).map_or(u64::MAX, |count| 10_u64.saturating_pow(count));
    entropy.guesses().saturating_mul(factor)
}

/// Whether a character is one of thousands: a CJK ideograph, a Hangul syllable or an emoji. It counts as a hundred guesses
/// instead of ten, once for each different one, so that repeating it adds nothing. Without this, eight ideographs, a
/// sentence, would be as weak as a word of eight letters.
fn is_ideograph(character: char) -> bool {
    matches!(character,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3ffff}')
}

fn first_characters(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(end, _)| text.split_at(end).0)
}

/// The longest beginning of at most [`MAX_PIECE_WORK`], and the rest.
fn split_piece(text: &str, own_words: usize) -> (&str, &str) {
    let is_cheap = |piece: &str| work(piece, own_words) <= MAX_PIECE_WORK;
    if is_cheap(text) {
        return (text, "");
    }
    let ends = text.char_indices().map(|(end, _)| end).skip(1);
    let end = ends.take_while(|end| is_cheap(text.split_at(*end).0)).last();
    text.split_at(end.unwrap_or(text.len()))
}

fn work(piece: &str, own_words: usize) -> usize {
    let is_present = |character: &char| piece.contains(*character);
    let alternatives: usize =
        SUBSTITUTES.iter().map(|letter| letter.chars().filter(is_present).count().max(1)).product();
    let shared = SHARED_SUBSTITUTES.iter().filter(|character| is_present(character)).count();
    (alternatives << shared) * (piece.chars().count().pow(2) + WORK_PER_WORD * own_words)
}

/// Whether at least half of the characters are in own words.
fn is_mainly_own_words(entropy: &Entropy, own_words: &[&str]) -> bool {
    let (mut own, mut all) = (0, 0);
    for part in entropy.sequence() {
        let length = part.j + 1 - part.i;
        all += length;
        if matches!(&part.pattern, MatchPattern::Dictionary(word) if own_words.contains(&word.matched_word.as_str())) {
            own += length;
        }
    }
    own * 2 >= all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::password::policy::WeaknessKind;

    /// All characters that zxcvbn substitutes.
    const SUBSTITUTED: &str = "4@8({[<369!1|0$5+7%2";

    fn score(password: &str) -> u8 {
        let is_at_least = |score: &u8| check(password, &[], MinimumScore::new(*score).unwrap()).is_ok();
        (0..=4).take_while(is_at_least).last().unwrap()
    }

    #[test]
    fn scores_of_known_passwords() {
        for (password, expected) in [
            ("password", 0),
            ("aaaaaaaaaaaaaaaa", 0),
            ("Password1!", 1),
            ("summer2024!", 2),
            ("correct horse", 3),
            ("Tr0ub4dor&3", 4),
            ("correct horse battery", 4),
            ("blue coffee river 9", 4),
            ("735194028617", 3),
            ("1234567890 correct horse battery", 4),
            ("qX7!mZ2#vL9@kR4$wP6%", 4),
            ("мама мыла раму", 4),
            ("синий кофе река", 4),
            ("我喜欢喝蓝色咖啡", 4),
            ("正确的马电池订书钉", 4),
            ("我爱你我爱你我爱你", 2),
            ("\u{1f40e}\u{1f50b}\u{1f4ce}\u{2705}\u{1f30a}\u{2615}\u{1f308}\u{1f3b8}", 4),
            (&"\u{1f40e}".repeat(16), 1),
        ] {
            assert_eq!(score(password), expected, "{password}");
        }
    }

    #[test]
    fn the_first_100_characters_decide() {
        let strong = "blue coffee river";
        assert_eq!(score(&format!("{}{strong}", "a".repeat(40))), 4);
        assert_eq!(score(&format!("{}{strong}", "a".repeat(100))), 1);
        assert_eq!(score(&format!("{strong}{}", "a".repeat(200))), 4);
    }

    #[test]
    fn an_expensive_password_is_estimated_in_pieces() {
        let expensive = SUBSTITUTED.repeat(5);
        let (mut rest, mut pieces) = (expensive.as_str(), Vec::new());
        while !rest.is_empty() {
            let (piece, after) = split_piece(rest, 32);
            assert!(work(piece, 32) <= MAX_PIECE_WORK);
            pieces.push(piece);
            rest = after;
        }
        assert!(pieces.len() < 15, "{pieces:?}");
        assert_eq!(pieces.concat(), expensive);
        assert_eq!(score(&expensive), 4);
        // Cheap passwords are not split.
        for password in [&"1234567890".repeat(10), "qX7!mZ2#vL9@kR4$wP6%", &"correct horse ".repeat(7)] {
            assert_eq!(split_piece(password, 32), (password, ""));
        }
    }

    #[test]
    fn own_words_are_weak_and_said_to_be() {
        let own_words = &["aleksandrina", "petrovskaya", "jane"];
        let minimum = MinimumScore::new(3).unwrap();
        for password in ["aleksandrina99", "petrovskaya!", "ayaksvortep1", "P3trovskaya"] {
            let weakness = check(password, own_words, minimum).unwrap_err();
            assert_eq!(weakness.kind, WeaknessKind::SimilarToOwnWord, "{password}: {weakness}");
            check(password, &[], minimum).unwrap();
        }
        check("petrovskaya likes blue coffee", own_words, minimum).unwrap();
    }

    #[test]
    fn score_0_turns_the_estimate_off() {
        assert_eq!(check("password", &[], MinimumScore::new(0).unwrap()), Ok(()));
        assert_eq!(MinimumScore::new(5), None);
    }

    proptest! {
        #[test]
        fn no_password_panics(
            password in prop_oneof!["\\PC{0,120}", "[4@8({\\[<369!1|0$5+7%2a-c]{0,120}", "(?s).{0,60}", "[0-9/ .-]{0,40}"],
            own_words in proptest::collection::vec("\\PC{0,12}", 0..4),
        ) {
            let own_words: Vec<&str> = own_words.iter().map(String::as_str).collect();
            let _ = check(&password, &own_words, MinimumScore::new(4).unwrap());
        }
    }
}
