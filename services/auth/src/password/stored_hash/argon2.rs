//! Argon2 (RFC 9106), as PHC strings: `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`.

use argon2::{
    Algorithm, MIN_SALT_LEN, Params, Version,
    password_hash::phc::{self, Output, Salt},
};

use super::is_output_length;
use crate::password::{
    Cost, HashError, SALT_LENGTH,
    argon2::{HashMemory, Variant},
};

pub(in crate::password) struct Argon2Hash {
    variant: Variant,
    salt: Salt,
    output: Output,
}

impl Argon2Hash {
    pub(super) fn parse(text: &str) -> Result<Self, HashError> {
        let hash = phc::PasswordHash::new(text).map_err(|_| HashError::Malformed)?;
        let params = Params::try_from(&hash).map_err(|_| HashError::Malformed)?;
        let cost = Cost { memory_kib: params.m_cost(), iterations: params.t_cost(), parallelism: params.p_cost() };
        if !cost.is_within_limits() {
            return Err(HashError::Cost);
        }
        let algorithm = Algorithm::new(hash.algorithm.as_str()).map_err(|_| HashError::Malformed)?;
        // A PHC string without a version has version 1.0.
        let version = hash.version.map_or(Ok(Version::V0x10), Version::try_from).map_err(|_| HashError::Malformed)?;
        Ok(Self {
            variant: Variant { algorithm, version, params },
            salt: hash.salt.filter(|salt| salt.len() >= MIN_SALT_LEN).ok_or(HashError::Malformed)?,
            output: hash.hash.filter(|output| is_output_length(output.len())).ok_or(HashError::Malformed)?,
        })
    }

    pub(super) fn output(&self) -> &[u8] {
        self.output.as_bytes()
    }

    pub(super) fn compute(&self, password: &[u8], memory: &mut HashMemory, output: &mut [u8]) -> Result<(), HashError> {
        memory.compute(&self.variant, password, &self.salt, output)
    }

    pub(super) fn is_current(&self, params: &Params) -> bool {
        let Variant { algorithm, version, params: own } = &self.variant;
        *algorithm == Algorithm::Argon2id
            && *version == Version::V0x13
            && own == params
            && self.salt.len() >= SALT_LENGTH
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::{
        MAX_MEMORY_KIB, Verification,
        stored_hash::tests::{assert_correct_horse, assert_rejected, verify},
    };

    const SALT: &str = "8PHy8/T19vf4+fr7/P3+/w";
    const OUTPUT: &str = "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn each_variant_and_version_is_verified() {
        // Written by argon2-cffi 25.1.0.
        for hash in [
            "$argon2d$v=19$m=64,t=1,p=2$8PHy8/T19vf4+fr7/P3+/w$zwhqNjCfLW8jiT2+6e9bSoX0nddRH9MckOBtkSNPDS4",
            "$argon2i$v=19$m=64,t=1,p=2$8PHy8/T19vf4+fr7/P3+/w$TCV/WlETHrcmjT0OEhnc0hQogMpnlHk8mUJHvzUZsdg",
            "$argon2id$v=19$m=64,t=1,p=2$8PHy8/T19vf4+fr7/P3+/w$g0epbLmb8yOSFp1n3vOFyTrjtYTWlIlezTZUqiqdfVw",
            "$argon2id$v=16$m=64,t=1,p=1$8PHy8/T19vf4+fr7/P3+/w$rW7irlwHCecoZUhaQim+Aw",
        ] {
            assert_correct_horse(hash);
        }
    }

    #[test]
    fn only_argon2id_with_current_parameters_and_salt_length_needs_no_rehash() {
        // Written by argon2-cffi 25.1.0.
        for (hash, expected) in [
            (
                "$argon2id$v=19$m=64,t=1,p=1$8PHy8/T19vf4+fr7/P3+/w$x6aLFry6ItGdIrPHy63U9myJ5f4ADzJP9IZWDcvHs64",
                Verification::Match,
            ),
            (
                "$argon2id$v=19$m=64,t=1,p=1$8PHy8/T19vf4+fr7/P3+$XrVt/A/EI/w/Z8kGi2KqHx6ah2EKWN1Fk//O8u0wVMw",
                Verification::MatchNeedsRehash,
            ),
            (
                "$argon2id$v=19$m=64,t=1,p=1$8PHy8/T19vf4+fr7/P3+/w$T+PwKlG4XXkPvHgyYLongQ",
                Verification::MatchNeedsRehash,
            ),
            (
                "$argon2id$v=16$m=64,t=1,p=1$8PHy8/T19vf4+fr7/P3+/w$19A+jqjtNrN+JWVt2G3/JovOzB/rovRt6PZqBhVUI44",
                Verification::MatchNeedsRehash,
            ),
            (
                "$argon2i$v=19$m=64,t=1,p=1$8PHy8/T19vf4+fr7/P3+/w$afnrldDLxJSOW8y15SCN9IeR1dtHd1Rq+YlKLJ1Gpuo",
                Verification::MatchNeedsRehash,
            ),
            (
                "$argon2d$v=19$m=64,t=1,p=1$8PHy8/T19vf4+fr7/P3+/w$awuQ5/Bv2D2O3UgVd2r3g5omjk1VY2zgG3Yrsvad/5k",
                Verification::MatchNeedsRehash,
            ),
        ] {
            assert_eq!(verify(hash, "correct horse"), Ok(expected), "{hash}");
        }
    }

    #[test]
    fn a_cost_out_of_range_is_rejected() {
        let over = MAX_MEMORY_KIB + 1;
        for parameters in
            [&format!("m={over},t=1,p=1"), "m=1048576,t=5,p=1", "m=64,t=4294967295,p=1", "m=8,t=524289,p=1"]
        {
            assert_rejected(&format!("$argon2id$v=19${parameters}${SALT}${OUTPUT}"), &HashError::Cost);
        }
    }

    #[test]
    fn malformed_hashes_are_rejected() {
        for fields in [
            format!("v=19$m=64,t=1,p=1${SALT}"),
            format!("v=19$m=64,t=1,p=1$c2FsdA${OUTPUT}"),
            format!("v=19$m=64,t=1,p=1${SALT}$CTFhFdXPJO1aFaMaO6Mm"),
            format!("v=19$m=64,t=1,p=1${SALT}${}", "A".repeat(87)),
            format!("v=19$m=64,t=1,p=1${SALT}${OUTPUT}="),
            format!("v=19$m=64,t=0,p=1${SALT}${OUTPUT}"),
            format!("v=19$m=64,t=1,p=9${SALT}${OUTPUT}"),
            format!("v=18$m=64,t=1,p=1${SALT}${OUTPUT}"),
            format!("v=19$m=64,t=1,p=1,x=1${SALT}${OUTPUT}"),
            format!("v=19$m=064,t=1,p=1${SALT}${OUTPUT}"),
        ] {
            assert_rejected(&format!("$argon2id${fields}"), &HashError::Malformed);
        }
        assert_rejected(&format!("$argon2x$v=19$m=64,t=1,p=1${SALT}${OUTPUT}"), &HashError::Malformed);
    }
}
