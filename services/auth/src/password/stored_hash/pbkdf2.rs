//! PBKDF2 (RFC 8018), in three forms:
//!
//! - PHC: `$pbkdf2-sha256$i=600000,l=32$SALT$HASH`; `l`, the length of the output, may be missing;
//! - passlib: `$pbkdf2-sha256$29000$SALT$HASH`, in base64 with `.` instead of `+`;
//! - Django: `pbkdf2_sha256$600000$SALT$HASH`, where the salt is not encoded and the base64 has padding.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, Algorithm, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512};
use base64::engine::general_purpose::STANDARD;

use super::{SaltAndOutput, decimal, decode, parameter};
use crate::password::HashError;

/// Of all blocks of the output together: at most about half a second.
const MAX_ITERATIONS: u32 = 2_000_000;

pub(in crate::password) struct Pbkdf2Hash {
    algorithm: Algorithm,
    iterations: NonZeroU32,
    fields: SaltAndOutput,
}

impl Pbkdf2Hash {
    /// Parses the fields of the PHC form or of passlib's.
    pub(super) fn parse(name: &str, parameters: &str, salt: &str, output: &str) -> Result<Self, HashError> {
        if !parameters.starts_with("i=") {
            let fields = SaltAndOutput::decode(&salt.replace('.', "+"), &output.replace('.', "+"))?;
            return Self::new(name, decimal(parameters)?, fields);
        }
        let fields = SaltAndOutput::decode(salt, output)?;
        let (iterations, length) =
            parameters.split_once(',').map_or((parameters, None), |(first, second)| (first, Some(second)));
        if let Some(length) = length
            && parameter(length, "l")?.try_into() != Ok(fields.output.len())
        {
            return Err(HashError::Malformed);
        }
        Self::new(name, parameter(iterations, "i")?, fields)
    }

    pub(super) fn parse_django(name: &str, iterations: &str, salt: &str, output: &str) -> Result<Self, HashError> {
        let fields = SaltAndOutput::new(salt.as_bytes().to_vec(), decode(&STANDARD, output)?)?;
        Self::new(name, decimal(iterations)?, fields)
    }

    fn new(name: &str, iterations: u32, fields: SaltAndOutput) -> Result<Self, HashError> {
        let (algorithm, block_length) = match name {
            "pbkdf2-sha256" | "pbkdf2_sha256" => (PBKDF2_HMAC_SHA256, 32),
            "pbkdf2-sha512" => (PBKDF2_HMAC_SHA512, 64),
            "pbkdf2" | "pbkdf2_sha1" => (PBKDF2_HMAC_SHA1, 20),
            _ => return Err(HashError::Malformed),
        };
        let blocks = u32::try_from(fields.output.len().div_ceil(block_length)).map_err(|_| HashError::Cost)?;
        let iterations = NonZeroU32::new(iterations)
            .filter(|count| count.get() <= MAX_ITERATIONS / blocks)
            .ok_or(HashError::Cost)?;
        Ok(Self { algorithm, iterations, fields })
    }

    pub(super) fn output(&self) -> &[u8] {
        &self.fields.output
    }

    pub(super) fn compute(&self, password: &[u8], output: &mut [u8]) {
        pbkdf2::derive(self.algorithm, self.iterations, &self.fields.salt, password, output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::{
        PasswordHash,
        stored_hash::tests::{assert_correct_horse, assert_rejected},
    };

    const SALT: &str = "8PHy8/T19vf4+fr7/P3+/w";
    const OUTPUT: &str = "JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMU";
    const DJANGO_SALT: &str = "seasalt1A2b3C4d5E6f7G8";
    const DJANGO_OUTPUT: &str = "X4nieDmlxjx2mq6w7X6+XomNr4GJG06LYBFGECon4MY=";

    #[test]
    fn hashes_in_the_phc_form_are_verified() {
        // Computed by hashlib of Python 3.11.
        for hash in [
            "$pbkdf2-sha256$i=1000,l=32$8PHy8/T19vf4+fr7/P3+/w$JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMU",
            "$pbkdf2-sha512$i=1000,l=64$8PHy8/T19vf4+fr7/P3+/w$xqu1f3FSdHbs02z9AocIk0UpBf6S9uqlRTfcS56zkPqTxPMh\
             m+kj4D+e8E9DRlH/uXf/Pe1g59vHIM0MwcvtiA",
            "$pbkdf2$i=1000,l=20$8PHy8/T19vf4+fr7/P3+/w$+5QX0J046SbyM4zUrpWK1an1PdA",
            "$pbkdf2-sha256$i=1000,l=64$8PHy8/T19vf4+fr7/P3+/w$JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMXOFTA/\
             FRAmL2liI7G2o4+2Hu4XY9YNU9v6DTkptSo3RQ",
            "$pbkdf2-sha512$i=1000,l=16$8PHy8/T19vf4+fr7/P3+/w$xqu1f3FSdHbs02z9AocIkw",
            "$pbkdf2-sha256$i=1000$8PHy8/T19vf4+fr7/P3+/w$JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMU",
        ] {
            assert_correct_horse(hash);
        }
    }

    #[test]
    fn hashes_of_passlib_are_verified() {
        // Written by passlib 1.7.4. The first three have a salt with `.`.
        for hash in [
            "$pbkdf2$1000$8PHy8/T19vf4.fr7/P3./w$.5QX0J046SbyM4zUrpWK1an1PdA",
            "$pbkdf2-sha256$1000$8PHy8/T19vf4.fr7/P3./w$JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMU",
            "$pbkdf2-sha512$1000$8PHy8/T19vf4.fr7/P3./w$xqu1f3FSdHbs02z9AocIk0UpBf6S9uqlRTfcS56zkPqTxPMhm.kj4D.e8E9DRlH/\
             uXf/Pe1g59vHIM0MwcvtiA",
            "$pbkdf2$1000$e09pjXHuvbeWkjKG0LqX0g$/HnPtllt29oxjP73W2OlNYpJf84",
            "$pbkdf2-sha256$1000$f28tBYDwHmMshVBqbU0JIQ$.ISCAQUcNIyxF7OKqI9iuqIkFsOguo/ilooma3qEUOs",
        ] {
            assert_correct_horse(hash);
        }
    }

    #[test]
    fn hashes_of_django_are_verified() {
        // Written by Django 5.2.19.
        for hash in [
            "pbkdf2_sha256$1000$seasalt1A2b3C4d5E6f7G8$X4nieDmlxjx2mq6w7X6+XomNr4GJG06LYBFGECon4MY=",
            "pbkdf2_sha1$1000$seasalt1A2b3C4d5E6f7G8$jYIO7r8S5Phdw30Onla4ieNTdIc=",
        ] {
            assert_correct_horse(hash);
        }
    }

    #[test]
    fn a_cost_out_of_range_is_rejected() {
        for iterations in ["0", "2000001", "4294967295", "4294967296", "99999999999999999999"] {
            for hash in [
                format!("$pbkdf2-sha256$i={iterations}${SALT}${OUTPUT}"),
                format!("$pbkdf2-sha256$i={iterations},l=32${SALT}${OUTPUT}"),
                format!("$pbkdf2-sha256${iterations}${SALT}${OUTPUT}"),
                format!("$pbkdf2${iterations}${SALT}${OUTPUT}"),
                format!("pbkdf2_sha256${iterations}${DJANGO_SALT}${DJANGO_OUTPUT}"),
            ] {
                assert_rejected(&hash, &HashError::Cost);
            }
        }
        for iterations in ["1", "2000000"] {
            let hash = format!("$pbkdf2-sha512$i={iterations}${SALT}${OUTPUT}");
            assert!(hash.parse::<PasswordHash>().is_ok(), "{hash}");
        }
    }

    #[test]
    fn malformed_parameters_are_rejected() {
        for parameters in [
            "",
            "i=",
            "i=,l=32",
            "i=+1,l=32",
            "i=01,l=32",
            "i=-1",
            "i=1,",
            "i=1,l=",
            "i=1,l=31",
            "i=1,l=33",
            "i=1,x=32",
            "i=1,l=32,x=1",
            "l=32,i=1",
            "l=32",
            "I=1",
            "01",
            "+1",
            "-1",
            "1,l=32",
            "1e3",
        ] {
            assert_rejected(&format!("$pbkdf2-sha256${parameters}${SALT}${OUTPUT}"), &HashError::Malformed);
        }
    }

    #[test]
    fn malformed_salts_and_outputs_are_rejected() {
        let long = "A".repeat(87);
        let too_long = "A".repeat(90);
        for (salt, output) in [
            ("", OUTPUT),
            (SALT, ""),
            (SALT, "AAAAAAAAAAAAAAAAAAAA"),
            (SALT, &long),
            (&long, OUTPUT),
            (SALT, &too_long),
            ("8PHy8/T19vf4+fr7/P3+/w==", OUTPUT),
            ("8PHy8/T19vf4+fr7/P3+/x", OUTPUT),
            ("8PHy8_T19vf4-fr7_P3-_w", OUTPUT),
            (SALT, &format!("{OUTPUT}=")),
            (&OUTPUT[..41], OUTPUT),
        ] {
            for parameters in ["i=1000", "1000"] {
                assert_rejected(&format!("$pbkdf2-sha256${parameters}${salt}${output}"), &HashError::Malformed);
            }
        }
        // `.` instead of `+` is of passlib only.
        assert_rejected(&format!("$pbkdf2-sha256$i=1000$8PHy8/T19vf4.fr7/P3./w${OUTPUT}"), &HashError::Malformed);
    }

    #[test]
    fn malformed_django_hashes_are_rejected() {
        let long_salt = "s".repeat(65);
        for hash in [
            format!("pbkdf2_sha256$1000$${DJANGO_OUTPUT}"),
            format!("pbkdf2_sha256$1000${long_salt}${DJANGO_OUTPUT}"),
            format!("pbkdf2_sha256$1000${DJANGO_SALT}$"),
            format!("pbkdf2_sha256$1000${DJANGO_SALT}"),
            format!("pbkdf2_sha256$1000${DJANGO_SALT}$X4nieDmlxjx2mq6w7X4="),
            format!("pbkdf2_sha256$1000${DJANGO_SALT}${}", DJANGO_OUTPUT.trim_end_matches('=')),
            format!("pbkdf2_sha256$1000${DJANGO_SALT}${}", DJANGO_OUTPUT.replace('+', ".")),
            format!("pbkdf2_sha256$i=1000${DJANGO_SALT}${DJANGO_OUTPUT}"),
            format!("pbkdf2_sha256$01000${DJANGO_SALT}${DJANGO_OUTPUT}"),
            format!("pbkdf2_sha512$1000${DJANGO_SALT}${DJANGO_OUTPUT}"),
            format!("$pbkdf2_sha256$1000${DJANGO_SALT}${DJANGO_OUTPUT}"),
        ] {
            assert_rejected(&hash, &HashError::Malformed);
        }
    }
}
