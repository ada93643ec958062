//! What a user is told about a refused password: a closed list of sentences, none of which has the password in it.

use std::fmt;

use zxcvbn::feedback::{Feedback, Suggestion, Warning};

use super::{MAX_PASSWORD_LENGTH, own_words::WordSource};

/// The kind of a [`Weakness`], for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeaknessKind {
    /// Fewer code points than the minimum.
    TooShort,
    /// More code points than the maximum.
    TooLong,
    /// Equal to a word of the account or the service, apart from case, spaces and punctuation.
    OwnWord,
    /// Little more than words of the account or the service.
    SimilarToOwnWord,
    /// In the built-in list of common passwords.
    Common,
    /// In the operator's list of leaked passwords.
    Leaked,
    /// The strength estimate is below the minimum.
    Guessable,
}

impl WeaknessKind {
    /// The name in an API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::OwnWord => "own_word",
            Self::SimilarToOwnWord => "similar_to_own_word",
            Self::Common => "common",
            Self::Leaked => "leaked",
            Self::Guessable => "guessable",
        }
    }
}

/// Why a password is refused, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weakness {
    /// For programs.
    pub kind: WeaknessKind,
    /// For the user. Never has the password, nor a part of it.
    pub text: String,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Weakness {}

impl Weakness {
    pub(super) fn too_short(minimum: usize) -> Self {
        Self::new(WeaknessKind::TooShort, format!("the password is too short: use at least {minimum} characters"))
    }

    pub(super) fn too_long() -> Self {
        let text = format!("the password is too long: use at most {MAX_PASSWORD_LENGTH} characters");
        Self::new(WeaknessKind::TooLong, text)
    }

    pub(super) fn own_word(source: WordSource) -> Self {
        let word = match source {
            WordSource::Email => "the e-mail address or part of it",
            WordSource::Name => "the name of the account or part of it",
            WordSource::Service => "the name of this service or part of it",
        };
        Self::new(WeaknessKind::OwnWord, format!("the password is {word}; choose another one"))
    }

    pub(super) fn similar_to_own_word() -> Self {
        let text = "the password is too similar to the e-mail address, a name of the account or the name of this \
                    service; choose words that have nothing to do with them";
        Self::new(WeaknessKind::SimilarToOwnWord, text)
    }

    pub(super) fn common() -> Self {
        Self::new(WeaknessKind::Common, "the password is one of the 100,000 commonest; choose another one")
    }

    pub(super) fn leaked() -> Self {
        let text = "the password is in a list of passwords that have leaked; choose another one";
        Self::new(WeaknessKind::Leaked, text)
    }

    pub(super) fn guessable(feedback: Option<&Feedback>) -> Self {
        let mut text = "the password is easy to guess: ".to_owned();
        if let Some(warning) = feedback.and_then(Feedback::warning) {
            text.push_str(cause(warning));
            text.push_str("; ");
        }
        text.push_str("add another word or two; uncommon words are better");
        for help in feedback.map(Feedback::suggestions).unwrap_or_default().iter().filter_map(|hint| help(*hint)) {
            text.push_str("; ");
            text.push_str(help);
        }
        Self::new(WeaknessKind::Guessable, text)
    }

    fn new(kind: WeaknessKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

fn cause(warning: Warning) -> &'static str {
    match warning {
        Warning::StraightRowsOfKeysAreEasyToGuess => "it is a row of keys",
        Warning::ShortKeyboardPatternsAreEasyToGuess => "it is a short pattern on the keyboard",
        Warning::RepeatsLikeAaaAreEasyToGuess => "it repeats a character",
        Warning::RepeatsLikeAbcAbcAreOnlySlightlyHarderToGuess => "it repeats itself",
        Warning::ThisIsATop10Password | Warning::ThisIsATop100Password | Warning::ThisIsACommonPassword => {
            "it is a common password"
        }
        Warning::ThisIsSimilarToACommonlyUsedPassword => "it is similar to a common password",
        Warning::SequencesLikeAbcAreEasyToGuess => "it is a sequence, such as `abc` or `6543`",
        Warning::RecentYearsAreEasyToGuess => "it is a recent year",
        Warning::AWordByItselfIsEasyToGuess => "it is a single word",
        Warning::DatesAreOftenEasyToGuess => "it is a date",
        Warning::NamesAndSurnamesByThemselvesAreEasyToGuess | Warning::CommonNamesAndSurnamesAreEasyToGuess => {
            "it is a common name"
        }
    }
}

/// What helps beyond another word. `None` where that, or the cause, says it already.
fn help(suggestion: Suggestion) -> Option<&'static str> {
    match suggestion {
        Suggestion::CapitalizationDoesntHelpVeryMuch | Suggestion::AllUppercaseIsAlmostAsEasyToGuessAsAllLowercase => {
            Some("capital letters help little")
        }
        Suggestion::ReversedWordsArentMuchHarderToGuess => Some("reversed words help little"),
        Suggestion::PredictableSubstitutionsDontHelpVeryMuch => Some("substitutions such as `@` for `a` help little"),
        Suggestion::AvoidYearsThatAreAssociatedWithYou | Suggestion::AvoidDatesAndYearsThatAreAssociatedWithYou => {
            Some("avoid dates and years that have to do with you")
        }
        Suggestion::UseAFewWordsAvoidCommonPhrases
        | Suggestion::NoNeedForSymbolsDigitsOrUppercaseLetters
        | Suggestion::AddAnotherWordOrTwo
        | Suggestion::UseALongerKeyboardPatternWithMoreTurns
        | Suggestion::AvoidRepeatedWordsAndCharacters
        | Suggestion::AvoidSequences
        | Suggestion::AvoidRecentYears => None,
    }
}
