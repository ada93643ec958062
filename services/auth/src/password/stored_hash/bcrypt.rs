//! bcrypt: `$2b$12$` and 53 characters, the salt and the output. The versions `2a`, `2b` and `2y` are the same function.
//!
//! bcrypt hashes the first 72 bytes of a password, so a longer password matches if these are equal. What such a match was typed
//! with may not be the password: it does not replace the hash.

use base64::{
    alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use zeroize::Zeroizing;

use super::decode;
use crate::password::HashError;

const MIN_COST: u32 = 4;
/// A cost of 12 takes about a quarter of a second; each step doubles it.
const MAX_COST: u32 = 14;
const MAX_PASSWORD_LENGTH: usize = 72;
const ENCODED_SALT_LENGTH: usize = 22;
const SALT_LENGTH: usize = 16;
/// The last byte of the 24 is not stored.
const OUTPUT_LENGTH: usize = 23;

// Some libraries write salts whose unused bits are not zero.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

pub(in crate::password) struct BcryptHash {
    cost: u32,
    salt: [u8; SALT_LENGTH],
    output: [u8; OUTPUT_LENGTH],
}

impl BcryptHash {
    pub(super) fn parse(cost: &str, salt_and_output: &str) -> Result<Self, HashError> {
        let is_cost = cost.len() == 2 && cost.bytes().all(|byte| byte.is_ascii_digit());
        let cost = if is_cost { cost.parse().ok() } else { None }.ok_or(HashError::Malformed)?;
        let (salt, output) = salt_and_output.split_at_checked(ENCODED_SALT_LENGTH).ok_or(HashError::Malformed)?;
        let hash = Self {
            cost,
            salt: decode(&BASE64, salt)?.try_into().map_err(|_| HashError::Malformed)?,
            output: decode(&BASE64, output)?.try_into().map_err(|_| HashError::Malformed)?,
        };
        if (MIN_COST..=MAX_COST).contains(&cost) { Ok(hash) } else { Err(HashError::Cost) }
    }

    pub(super) fn output(&self) -> &[u8] {
        &self.output
    }

    pub(super) fn compute(&self, password: &[u8], output: &mut [u8]) {
        // The NUL at the end of the string belongs to the input.
        let mut input = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD_LENGTH));
        input.extend(password.iter().copied().chain([0]).take(MAX_PASSWORD_LENGTH));
        let computed = Zeroizing::new(bcrypt::bcrypt(self.cost, self.salt, &input));
        output.copy_from_slice(&computed[..OUTPUT_LENGTH]);
    }
}

/// Whether bytes of the password do not count.
pub(super) fn is_truncated(password: &[u8]) -> bool {
    password.len() >= MAX_PASSWORD_LENGTH
}

/// Whether the password has no NUL, at which some implementations end the password and others do not.
pub(super) fn supports(password: &[u8]) -> bool {
    !password.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::{
        PasswordHash, Verification,
        stored_hash::tests::{assert_correct_horse, assert_rejected, verify},
    };

    // Vectors without a note are written by the Python library bcrypt 5.0.0.
    const HASH: &str = "$2b$04$QngHF5oa/jfYB7FuZ7UN7.nBpB8.oMxB4P8qD0ILfS9T5KaLK.oPG";

    #[test]
    fn each_version_is_verified() {
        assert_correct_horse(HASH);
        assert_correct_horse("$2a$04$VXVggmLAzxJ6fbcnC56teufijtUDgsYNxNzBG4K/.8pkp.VM5iKC2");
        // libxcrypt.
        assert_correct_horse("$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2");
    }

    #[test]
    fn empty_and_non_ascii_passwords_are_verified() {
        for (hash, password) in [
            ("$2b$04$aZG7oSsALrWUiOOtRDLkNumoae.x62Sq8P3oOsPOepkm55Wh0K4T.", ""),
            ("$2b$04$OeDVjV5sr9/GTQRVq2dcvOfg3AB.HsjS3Dua9zJ1eZvfSaLMKiJSe", "pässwörd ünïcode"),
        ] {
            assert_eq!(verify(hash, password), Ok(Verification::MatchNeedsRehash));
            assert_eq!(verify(hash, "wrong"), Ok(Verification::Mismatch));
        }
    }

    #[test]
    fn a_password_is_truncated_to_72_bytes() {
        // Of 72 and 71 bytes.
        let full = "$2b$04$2PsffA0O0TcCs6mD2yDprusotGBZbVL3KCmkDzj16CRMqRZWXrUw2";
        let short = "$2b$04$6gR7B49LilUzhVENRQO5/.CT6dJFXeAkVDHRwkXZO2hxE2f7VRkxu";
        for (hash, length, expected) in [
            (full, 71, Verification::Mismatch),
            (full, 72, Verification::MatchOfBeginning),
            (full, 73, Verification::MatchOfBeginning),
            (full, 1000, Verification::MatchOfBeginning),
            (short, 71, Verification::MatchNeedsRehash),
            (short, 72, Verification::Mismatch),
        ] {
            assert_eq!(verify(hash, &"a".repeat(length)), Ok(expected), "{length}");
        }
    }

    #[test]
    fn a_password_with_nul_matches_nothing() {
        // The hash of the empty password.
        let empty = "$2b$04$aZG7oSsALrWUiOOtRDLkNumoae.x62Sq8P3oOsPOepkm55Wh0K4T.";
        for password in ["\0", "\0\0", "\0correct horse"] {
            assert_eq!(verify(empty, password), Ok(Verification::Mismatch));
        }
        // The first 72 bytes have no NUL.
        let full = "$2b$04$2PsffA0O0TcCs6mD2yDprusotGBZbVL3KCmkDzj16CRMqRZWXrUw2";
        assert_eq!(verify(full, &format!("{}\0", "a".repeat(72))), Ok(Verification::Mismatch));
    }

    #[test]
    fn unused_bits_of_the_salt_are_ignored() {
        // The last character of the salt has two used bits; `.` and `K` differ in the others.
        assert_correct_horse(&HASH.replace("7UN7.nBp", "7UN7KnBp"));
    }

    #[test]
    fn a_cost_out_of_range_is_rejected() {
        for cost in ["00", "03", "15", "31", "99"] {
            assert_rejected(&HASH.replace("$04$", &format!("${cost}$")), &HashError::Cost);
        }
        assert!(HASH.replace("$04$", "$14$").parse::<PasswordHash>().is_ok());
    }

    #[test]
    fn malformed_hashes_are_rejected() {
        for text in [
            HASH.replace("$04$", "$4$"),
            HASH.replace("$04$", "$004$"),
            HASH.replace("$04$", "$+4$"),
            HASH.replace("$04$", "$$"),
            HASH.replace("$2b$", "$2$"),
            HASH.replace("$2b$", "$2x$"),
            HASH.replace('/', "+"),
            HASH[..HASH.len() - 1].to_owned(),
            HASH[..30].to_owned(),
            HASH[..20].to_owned(),
            format!("{HASH}A"),
            format!("{HASH}="),
            HASH[1..].to_owned(),
        ] {
            assert_rejected(&text, &HashError::Malformed);
        }
    }
}
