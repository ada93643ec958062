//! The words that an attacker who knows the account tries first.

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Bounds the cost of the strength estimate, which looks for every word everywhere.
const MAX_WORDS: usize = 32;

/// The maximum length of a word for the strength estimate, in bytes.
const MAX_WORD_LENGTH: usize = 100;

/// The minimum length of a word for the strength estimate, in code points. Shorter ones are in good passwords too.
const MIN_WORD_LENGTH: usize = 3;

/// What is known of the account whose password is set. All that is known should be given.
#[derive(Clone, Copy, Default)]
pub struct OwnWords<'a> {
    /// The e-mail address.
    pub email: Option<&'a str>,
    /// The display name.
    pub display_name: Option<&'a str>,
    /// The given name.
    pub given_name: Option<&'a str>,
    /// The family name.
    pub family_name: Option<&'a str>,
}

/// Where a word comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordSource {
    Email,
    Name,
    Service,
}

/// The words, in lower case, the whole ones before their parts. No duplicates.
pub(super) struct WordList(Vec<(WordSource, String)>);

impl OwnWords<'_> {
    pub(super) fn collect(&self, service_names: &[String]) -> WordList {
        let mut words = WordList(Vec::new());
        if let Some(email) = self.email {
            words.add(WordSource::Email, email);
            let (local_part, domain) = email.rsplit_once('@').unwrap_or((email, ""));
            words.add(WordSource::Email, local_part);
            words.add(WordSource::Email, domain);
        }
        let names = [self.display_name, self.given_name, self.family_name];
        for name in names.into_iter().flatten() {
            words.add(WordSource::Name, name);
        }
        if let (Some(given), Some(family)) = (self.given_name, self.family_name) {
            words.add(WordSource::Name, &format!("{given}{family}"));
            words.add(WordSource::Name, &format!("{family}{given}"));
        }
        for name in service_names {
            words.add(WordSource::Service, name);
        }
        words.add_parts();
        words
    }
}

impl WordList {
    /// The source of the word that is equal to the password without regard to case, width, spaces and punctuation.
    pub(super) fn equal_to(&self, password: &str) -> Option<WordSource> {
        let password = fold(password);
        if password.is_empty() {
            return None;
        }
        self.0.iter().find(|(_, word)| *fold(word) == *password).map(|(source, _)| *source)
    }

    /// The words for the strength estimate, in lower case.
    pub(super) fn for_estimate(&self) -> Vec<&str> {
        let is_useful = |word: &&str| word.len() <= MAX_WORD_LENGTH && word.chars().count() >= MIN_WORD_LENGTH;
        self.0.iter().map(|(_, word)| word.as_str()).filter(is_useful).take(MAX_WORDS).collect()
    }

    fn add(&mut self, source: WordSource, word: &str) {
        let word = word.trim().to_lowercase();
        if !word.is_empty() && !self.0.iter().any(|(_, known)| *known == word) {
            self.0.push((source, word));
        }
    }

    /// Adds the parts of words: `jane`, `doe` and `example` of `jane.doe@example.com`.
    fn add_parts(&mut self) {
        for (source, word) in self.0.clone() {
            for part in word.split(|character: char| !character.is_alphanumeric()).take(MAX_WORDS) {
                self.add(source, part);
            }
        }
    }
}

/// Maps to lower case, width and other compatibility variants to one form (NFKC), and keeps only letters and digits.
fn fold(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.nfkc().flat_map(char::to_lowercase).filter(|character| character.is_alphanumeric()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const JANE: OwnWords<'_> = OwnWords {
        email: Some("Jane.Doe-Smith@mail.example.com"),
        display_name: Some("Jane the Gardener"),
        given_name: Some("Jane"),
        family_name: Some("Doe Smith"),
    };

    #[test]
    fn case_width_spaces_and_punctuation_do_not_matter() {
        let words = JANE.collect(&["Dry Stone".to_owned()]);
        for (password, source) in [
            ("jane.doe-smith@mail.example.com", WordSource::Email),
            ("JANE DOE SMITH!", WordSource::Email),
            ("mail example com", WordSource::Email),
            ("--example--", WordSource::Email),
            ("Jane-The-Gardener", WordSource::Name),
            ("gardener", WordSource::Name),
            ("doe smith, jane", WordSource::Name),
            ("drystone", WordSource::Service),
            ("\u{ff24}\u{ff32}\u{ff39} stone", WordSource::Service),
        ] {
            assert_eq!(words.equal_to(password), Some(source), "{password}");
        }
        for password in ["", "--------", "gardener7", "jane gardener", "correct horse"] {
            assert_eq!(words.equal_to(password), None, "{password}");
        }
    }

    #[test]
    fn nothing_known_matches_nothing() {
        let words = OwnWords { email: Some(""), display_name: Some(" - "), ..OwnWords::default() }.collect(&[]);
        assert_eq!(words.equal_to("--------"), None);
        assert_eq!(words.equal_to("correct horse"), None);
    }

    #[test]
    fn the_words_for_the_estimate_are_bounded() {
        let name = (0..100).map(|index| format!("word{index} ")).collect::<Vec<_>>().concat();
        let words = OwnWords { display_name: Some(&name), email: Some("al@example.com"), ..OwnWords::default() };
        let words = words.collect(&[]);
        let words = words.for_estimate();
        assert_eq!(words.len(), MAX_WORDS);
        assert!(words.contains(&"example.com") && words.contains(&"word0"));
        assert!(!words.contains(&"al") && !words.iter().any(|word| word.len() > MAX_WORD_LENGTH));
    }
}
