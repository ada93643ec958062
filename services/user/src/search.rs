//! The words that accounts are found by: the e-mail address, and the words of the names.

use std::collections::BTreeSet;

use drystone_mesh::{email::Email, text};

use crate::Profile;

/// The maximum number of words of one account.
const MAX_WORDS: usize = 12;

/// The maximum length of a word, in characters. Longer ones are found by their beginning.
const MAX_WORD_LENGTH: usize = 64;

/// The maximum number of words of one search.
const MAX_SEARCHED: usize = 4;

/// The words of an account, sorted.
#[must_use]
pub fn words(email: &Email, profile: &Profile) -> BTreeSet<String> {
    let names = [profile.display_name.as_str(), &profile.given_name, &profile.family_name];
    let mut words = BTreeSet::from([email.key()]);
    for word in names.into_iter().flat_map(split) {
        if words.len() == MAX_WORDS {
            break;
        }
        words.insert(word);
    }
    words
}

/// The beginnings of words that a search asks for, without those that others begin with. `None` if it asks for none, or for too many.
#[must_use]
pub fn prefixes(search: &str) -> Option<Vec<String>> {
    let given: Vec<_> = split(search).collect();
    let mut prefixes: Vec<String> = Vec::new();
    // The longest first: it matches the fewest accounts.
    let mut sorted = given;
    sorted.sort_by_key(|prefix| std::cmp::Reverse(prefix.chars().count()));
    for prefix in sorted {
        if !prefixes.iter().any(|longer| longer.starts_with(&prefix)) {
            prefixes.push(prefix);
        }
    }
    (1..=MAX_SEARCHED).contains(&prefixes.len()).then_some(prefixes)
}

/// The first text after all that begin with this one, in the order of code points.
#[must_use]
pub fn after_prefix(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

/// In lower case and NFC.
fn split(text: &str) -> impl Iterator<Item = String> {
    text.split(|character: char| character.is_whitespace() || character.is_control() || character == ',')
        .filter(|word| !word.is_empty())
        .map(|word| {
            let lower = word.chars().take(MAX_WORD_LENGTH).collect::<String>().to_lowercase();
            text::to_nfc(&lower).chars().take(MAX_WORD_LENGTH).collect()
        })
}

#[cfg(test)]
mod tests {
    use drystone_mesh::display_name::DisplayName;

    use super::*;

    fn profile(display_name: &str) -> Profile {
        Profile::new(DisplayName::parse(display_name).unwrap())
    }

    #[test]
    fn the_words_are_the_address_and_those_of_the_names() {
        let profile = Profile {
            given_name: "Ada".to_owned(),
            family_name: "King, Countess of LOVELACE".to_owned(),
            ..profile("Ada Lovelace")
        };
        let words = words(&Email::parse("Ada@Example.com").unwrap(), &profile);
        let expected = ["ada", "ada@example.com", "countess", "king", "lovelace", "of"];
        assert_eq!(words.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn words_are_bounded() {
        let many: Vec<_> = (10..60).map(|number| format!("w{number}")).collect();
        let words_of = |name: &str| words(&Email::parse("a@b").unwrap(), &profile(name));
        assert_eq!(words_of(&many[..40].join(" ")).len(), MAX_WORDS);
        assert!(words_of(&"İ".repeat(150)).iter().all(|word| word.chars().count() <= MAX_WORD_LENGTH));
    }

    #[test]
    fn a_search_is_split_like_names_with_the_longest_first() {
        let split = |search| prefixes(search).map(|all| all.join(" "));
        assert_eq!(split(" LOVE  ada@ ").as_deref(), Some("love ada@"));
        assert_eq!(split("ada adalbert").as_deref(), Some("adalbert"));
        assert_eq!(split("Sea\u{301}n").as_deref(), Some("seán"));
        assert_eq!(split(" , "), None);
        assert_eq!(split("a b c d e"), None);
    }

    #[test]
    fn everything_with_a_prefix_is_before_the_text_after_it() {
        for word in ["ada", "ada\u{10fffe}", "adaz"] {
            assert!(word < after_prefix("ada").as_str());
        }
        assert!(after_prefix("ada").as_str() < "adb");
    }
}
