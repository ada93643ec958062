//! Backup codes: each serves once in place of another factor.
//!
//! A code is a digit, which says which of the ten it is, and eleven random characters of Crockford's Base32 (55 bits). It is stored as
//! a hash, like a password: one hash is computed to check a code.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::password::Password;

/// How many a user gets.
pub const COUNT: u8 = 10;

/// The length of a code without hyphens.
const LENGTH: usize = 12;

/// How many characters are between hyphens.
const GROUP: usize = 4;

/// Without I, L, O and U, which are easy to confuse.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A backup code.
#[derive(Clone)]
pub struct BackupCode {
    number: u8,
    text: Zeroizing<String>,
}

impl BackupCode {
    /// A random code with this number; `None` if the system's random number generator fails.
    #[must_use]
    pub fn generate(number: u8) -> Option<Self> {
        let mut random = Zeroizing::new([0; LENGTH - 1]);
        SystemRandom::new().fill(random.as_mut_slice()).ok()?;
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        text.push(char::from(ALPHABET[usize::from(number % COUNT)]));
        text.extend(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])));
        Some(Self { number: number % COUNT, text })
    }

    /// Reads what a user has typed: case, spaces and hyphens do not matter, nor do letters that look like others. `None` if it is no
    /// code.
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        for c in typed.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let c = match c.to_ascii_uppercase() {
                'I' | 'L' => '1',
                'O' => '0',
                c => c,
            };
            let is_valid = u8::try_from(c).is_ok_and(|byte| ALPHABET.contains(&byte));
            if !is_valid || text.len() == LENGTH {
                return None;
            }
            text.push(c);
        }
        let number = text.as_bytes().first().filter(|first| first.is_ascii_digit())? - b'0';
        (text.len() == LENGTH).then_some(Self { number, text })
    }

    /// Which of the ten it is.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// As users see it.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut shown = String::with_capacity(LENGTH + LENGTH / GROUP);
        for (i, c) in self.text.chars().enumerate() {
            if i > 0 && i % GROUP == 0 {
                shown.push('-');
            }
            shown.push(c);
        }
        shown
    }

    /// What is hashed.
    #[must_use]
    pub fn to_password(&self) -> Password {
        Password::new(self.text.as_str().to_owned())
    }
}

impl std::fmt::Debug for BackupCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackupCode({}, ..)", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_it_is_typed() {
        for number in 0..COUNT {
            let code = BackupCode::generate(number).unwrap();
            let shown = code.shown();
            assert_eq!((shown.len(), code.number()), (14, number), "{shown}");
            for typed in [shown.clone(), shown.to_lowercase(), shown.replace('-', " "), format!(" {shown}\n")] {
                let read = BackupCode::parse(&typed).unwrap();
                assert_eq!((read.number(), &read.text), (number, &code.text), "{typed}");
            }
        }
        assert_eq!(BackupCode::parse("1oIl-0000-0000").unwrap().shown(), "1011-0000-0000");
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for typed in [
            "",
            "1234-5678-9AB",
            "1234-5678-9ABCD",
            "A234-5678-9ABC",
            "1234-5678-9AB!",
            "1234-5678-9ABU",
            "١234-5678-9ABC",
        ] {
            assert!(BackupCode::parse(typed).is_none(), "{typed}");
        }
    }
}
