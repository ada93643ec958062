//! The forms of password hashes that a store or an import can contain.

mod argon2;
mod bcrypt;
mod pbkdf2;
mod scrypt;

use ::argon2::Params;
use aws_lc_rs::constant_time;
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use zeroize::Zeroizing;

use self::{argon2::Argon2Hash, bcrypt::BcryptHash, pbkdf2::Pbkdf2Hash, scrypt::ScryptHash};
use crate::password::{HashError, argon2::HashMemory};

const MAX_LENGTH: usize = 512;
const MIN_OUTPUT_LENGTH: usize = 16;
const MAX_OUTPUT_LENGTH: usize = 64;
const MAX_SALT_LENGTH: usize = 64;

/// A parsed hash. Its cost is within limits.
pub(super) enum StoredHash {
    Argon2(Argon2Hash),
    Bcrypt(BcryptHash),
    Pbkdf2(Pbkdf2Hash),
    Scrypt(ScryptHash),
}

impl StoredHash {
    pub(super) fn parse(text: &str) -> Result<Self, HashError> {
        if text.len() > MAX_LENGTH || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HashError::Malformed);
        }
        let fields: Vec<&str> = text.split('$').collect();
        match *fields {
            ["", "argon2id" | "argon2i" | "argon2d", ..] => Argon2Hash::parse(text).map(Self::Argon2),
            ["", "2a" | "2b" | "2y", cost, salt_and_output] => {
                BcryptHash::parse(cost, salt_and_output).map(Self::Bcrypt)
            }
            ["", name @ ("pbkdf2-sha256" | "pbkdf2-sha512" | "pbkdf2"), parameters, salt, output] => {
                Pbkdf2Hash::parse(name, parameters, salt, output).map(Self::Pbkdf2)
            }
            [name @ ("pbkdf2_sha256" | "pbkdf2_sha1"), iterations, salt, output] => {
                Pbkdf2Hash::parse_django(name, iterations, salt, output).map(Self::Pbkdf2)
            }
            ["", "scrypt", parameters, salt, output] => ScryptHash::parse(parameters, salt, output).map(Self::Scrypt),
            _ => Err(HashError::Malformed),
        }
    }

    /// Whether this is the hash of the password. `memory` is that of Argon2.
    pub(super) fn matches(&self, password: &[u8], memory: &mut HashMemory) -> Result<bool, HashError> {
        let expected = self.output();
        let mut buffer = Zeroizing::new([0; MAX_OUTPUT_LENGTH]);
        let output = buffer.get_mut(..expected.len()).ok_or(HashError::Malformed)?;
        match self {
            Self::Argon2(hash) => hash.compute(password, memory, output)?,
            Self::Bcrypt(hash) => hash.compute(password, output),
            Self::Pbkdf2(hash) => hash.compute(password, output),
            Self::Scrypt(hash) => hash.compute(password, output)?,
        }
        let is_equal = constant_time::verify_slices_are_equal(output, expected).is_ok();
        // After the computation, so that its duration does not depend on the password.
        Ok(is_equal && self.supports(password))
    }

    /// Whether the hash is Argon2id of version 1.3 with these parameters and a salt of sufficient length.
    pub(super) fn is_current(&self, params: &Params) -> bool {
        matches!(self, Self::Argon2(hash) if hash.is_current(params))
    }

    /// Whether a match says nothing about the end of the password.
    pub(super) fn is_truncated(&self, password: &[u8]) -> bool {
        matches!(self, Self::Bcrypt(_)) && bcrypt::is_truncated(password)
    }

    fn output(&self) -> &[u8] {
        match self {
            Self::Argon2(hash) => hash.output(),
            Self::Bcrypt(hash) => hash.output(),
            Self::Pbkdf2(hash) => hash.output(),
            Self::Scrypt(hash) => hash.output(),
        }
    }

    fn supports(&self, password: &[u8]) -> bool {
        !matches!(self, Self::Bcrypt(_)) || bcrypt::supports(password)
    }
}

/// The salt and the output of PBKDF2 and scrypt.
struct SaltAndOutput {
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl SaltAndOutput {
    fn new(salt: Vec<u8>, output: Vec<u8>) -> Result<Self, HashError> {
        let is_valid = (1..=MAX_SALT_LENGTH).contains(&salt.len()) && is_output_length(output.len());
        if is_valid { Ok(Self { salt, output }) } else { Err(HashError::Malformed) }
    }

    /// Decodes the base64 of PHC strings: the standard alphabet without padding.
    fn decode(salt: &str, output: &str) -> Result<Self, HashError> {
        Self::new(decode(&STANDARD_NO_PAD, salt)?, decode(&STANDARD_NO_PAD, output)?)
    }
}

fn is_output_length(length: usize) -> bool {
    (MIN_OUTPUT_LENGTH..=MAX_OUTPUT_LENGTH).contains(&length)
}

fn decode(engine: &impl Engine, text: &str) -> Result<Vec<u8>, HashError> {
    engine.decode(text).map_err(|_| HashError::Malformed)
}

/// Parses a parameter of a PHC string, such as `ln=16`.
fn parameter(text: &str, name: &str) -> Result<u32, HashError> {
    let value = text.strip_prefix(name).and_then(|text| text.strip_prefix('='));
    decimal(value.ok_or(HashError::Malformed)?)
}

/// Parses a decimal number without sign and leading zeros. Numbers of more than 32 bits are costs out of range.
fn decimal(text: &str) -> Result<u32, HashError> {
    let is_canonical = text == "0" || !text.starts_with('0');
    if text.is_empty() || !is_canonical || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HashError::Malformed);
    }
    text.parse().map_err(|_| HashError::Cost)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::password::{Cost, Password, PasswordHash, PasswordHasher, Verification};

    /// Parses a hash and verifies a password with it.
    pub(super) fn verify(hash: &str, password: &str) -> Result<Verification, HashError> {
        let mut hasher = PasswordHasher::new(Cost { memory_kib: 64, iterations: 1, parallelism: 1 })?;
        hasher.verify(&Password::new(password.to_owned()), &hash.parse()?)
    }

    /// Asserts that the hash is that of "correct horse", in another form than that of new hashes.
    pub(super) fn assert_correct_horse(hash: &str) {
        assert_eq!(verify(hash, "correct horse"), Ok(Verification::MatchNeedsRehash), "{hash}");
        for wrong in ["correct horsf", "correct hors", "correct horse ", "Correct horse", ""] {
            assert_eq!(verify(hash, wrong), Ok(Verification::Mismatch), "{hash} {wrong:?}");
        }
    }

    pub(super) fn assert_rejected(hash: &str, error: &HashError) {
        assert_eq!(hash.parse::<PasswordHash>().as_ref(), Err(error), "{hash}");
    }

    const VALID: [&str; 6] = [
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        "$2b$04$QngHF5oa/jfYB7FuZ7UN7.nBpB8.oMxB4P8qD0ILfS9T5KaLK.oPG",
        "$pbkdf2-sha256$i=1000,l=32$8PHy8/T19vf4+fr7/P3+/w$JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMU",
        "$pbkdf2$1000$8PHy8/T19vf4.fr7/P3./w$.5QX0J046SbyM4zUrpWK1an1PdA",
        "pbkdf2_sha1$1000$seasalt1A2b3C4d5E6f7G8$jYIO7r8S5Phdw30Onla4ieNTdIc=",
        "$scrypt$ln=4,r=8,p=1$8PHy8/T19vf4+fr7/P3+/w$JvJWJIKH0DvalOuZloYFzm7z/NOUGrOUSepHfp4u5bk",
    ];

    #[test]
    fn each_form_is_parsed_and_kept_as_it_is() {
        for text in VALID {
            assert_eq!(text.parse::<PasswordHash>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn other_characters_and_forms_are_rejected() {
        for text in VALID {
            for malformed in [
                format!(" {text}"),
                format!("{text}\n"),
                format!("{text}\0"),
                format!("{text}ä"),
                format!("{text}$"),
                format!("${text}"),
                text.trim_start_matches('$').replacen("pbkdf2_", "$pbkdf2_", 1),
                text.to_uppercase(),
            ] {
                assert_rejected(&malformed, &HashError::Malformed);
            }
        }
        for text in ["", "$", "$$", "$$$$", "$1$salt$hash", "$5$salt$hash", "$2$04$x", "md5$salt$hash", "{SHA}x"] {
            assert_rejected(text, &HashError::Malformed);
        }
    }

    #[test]
    fn a_string_of_more_than_512_characters_is_rejected() {
        let salt = "s".repeat(MAX_LENGTH);
        assert_rejected(&format!("pbkdf2_sha1$1000${salt}$jYIO7r8S5Phdw30Onla4ieNTdIc="), &HashError::Malformed);
    }

    #[test]
    fn only_canonical_decimals_are_numbers() {
        assert_eq!(decimal("0"), Ok(0));
        assert_eq!(decimal("4294967295"), Ok(u32::MAX));
        assert_eq!(decimal("4294967296"), Err(HashError::Cost));
        for text in ["", "+1", "-1", "01", "00", "1 ", "1_000", "1.0", "0x10", "1e3", "٣"] {
            assert_eq!(decimal(text), Err(HashError::Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_any_string_does_not_panic(text in any::<String>()) {
            let _ = text.parse::<PasswordHash>();
        }

        #[test]
        fn parsing_strings_of_similar_form_does_not_panic(
            name in "(argon2id|argon2d|2a|2b|pbkdf2|pbkdf2-sha512|scrypt|pbkdf2_sha1)",
            fields in "(\\$(v=[0-9]{1,3}|([a-z]{1,2}=[0-9]{1,12},?){1,4}|[0-9]{1,12}|[A-Za-z0-9+/.=]{0,90})){0,5}",
        ) {
            let _ = format!("${name}{fields}").parse::<PasswordHash>();
            let _ = format!("{name}{fields}").parse::<PasswordHash>();
        }

        #[test]
        fn parsing_a_changed_hash_does_not_panic(
            index in 0..VALID.len(),
            start in 0..60_usize,
            length in 0..4_usize,
            inserted in "[ -~]{0,4}",
        ) {
            let mut text = VALID[index].to_owned();
            text.replace_range(start..text.len().min(start + length), &inserted);
            let _ = text.parse::<PasswordHash>();
        }
    }
}
