//! scrypt (RFC 7914), as PHC strings, which passlib writes too: `$scrypt$ln=16,r=8,p=1$SALT$HASH`.

use scrypt::Params;

use super::{SaltAndOutput, parameter};
use crate::password::HashError;

/// In bytes, 128 * r * N.
const MAX_MEMORY: u64 = 64 * 1024 * 1024;
const MAX_R: u32 = 64;
const MAX_P: u32 = 16;
/// In bytes, 128 * r * N * p: the lanes are computed one after the other. At most about a second.
const MAX_WORK: u64 = 512 * 1024 * 1024;

pub(in crate::password) struct ScryptHash {
    params: Params,
    fields: SaltAndOutput,
}

impl ScryptHash {
    pub(super) fn parse(parameters: &str, salt: &str, output: &str) -> Result<Self, HashError> {
        let parameters: Vec<&str> = parameters.split(',').collect();
        let [log_n, r, p] = *parameters else { return Err(HashError::Malformed) };
        let (log_n, r, p) = (parameter(log_n, "ln")?, parameter(r, "r")?, parameter(p, "p")?);
        Ok(Self { fields: SaltAndOutput::decode(salt, output)?, params: params(log_n, r, p)? })
    }

    pub(super) fn output(&self) -> &[u8] {
        &self.fields.output
    }

    pub(super) fn compute(&self, password: &[u8], output: &mut [u8]) -> Result<(), HashError> {
        scrypt::scrypt(password, &self.fields.salt, &self.params, output).map_err(|_| HashError::Malformed)
    }
}

fn params(log_n: u32, r: u32, p: u32) -> Result<Params, HashError> {
    if log_n == 0 || !(1..=MAX_R).contains(&r) || !(1..=MAX_P).contains(&p) {
        return Err(HashError::Cost);
    }
    let n = 1_u64.checked_shl(log_n).ok_or(HashError::Cost)?;
    if n > MAX_MEMORY / (128 * u64::from(r)) || n > MAX_WORK / (128 * u64::from(r) * u64::from(p)) {
        return Err(HashError::Cost);
    }
    let log_n = u8::try_from(log_n).map_err(|_| HashError::Cost)?;
    Params::new(log_n, r, p).map_err(|_| HashError::Cost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::{
        PasswordHash,
        stored_hash::tests::{assert_correct_horse, assert_rejected},
    };

    const SALT: &str = "8PHy8/T19vf4+fr7/P3+/w";
    const OUTPUT: &str = "JvJWJIKH0DvalOuZloYFzm7z/NOUGrOUSepHfp4u5bk";

    #[test]
    fn hashes_of_passlib_are_verified() {
        // Written by passlib 1.7.4. The first salt has `+` and `/`.
        for hash in [
            "$scrypt$ln=4,r=8,p=1$8PHy8/T19vf4+fr7/P3+/w$JvJWJIKH0DvalOuZloYFzm7z/NOUGrOUSepHfp4u5bk",
            "$scrypt$ln=4,r=1,p=16$8PHy8/T19vf4+fr7/P3+/w$XxxhJlxFAP6/gzoGe71/4kBW2XDo2oIZCyyiH0oUYZc",
            "$scrypt$ln=10,r=4,p=3$GQNgDAHAWGvtPQcAACDkHA$5e7BQ0eXJlb89GQXu7WU8FQjqw6pmyZgAgD8HggPA48",
        ] {
            assert_correct_horse(hash);
        }
    }

    #[test]
    fn a_cost_out_of_range_is_rejected() {
        for parameters in [
            "ln=0,r=8,p=1",
            "ln=17,r=8,p=1",
            "ln=16,r=9,p=1",
            "ln=20,r=1,p=1",
            "ln=63,r=1,p=1",
            "ln=64,r=1,p=1",
            "ln=256,r=8,p=1",
            "ln=4294967295,r=8,p=1",
            "ln=4294967296,r=8,p=1",
            "ln=4,r=0,p=1",
            "ln=4,r=65,p=1",
            "ln=4,r=4294967295,p=1",
            "ln=4,r=8,p=0",
            "ln=4,r=8,p=17",
            "ln=16,r=8,p=9",
            "ln=4,r=4294967295,p=4294967295",
        ] {
            assert_rejected(&format!("$scrypt${parameters}${SALT}${OUTPUT}"), &HashError::Cost);
        }
        for parameters in ["ln=1,r=1,p=1", "ln=16,r=8,p=8", "ln=13,r=64,p=1", "ln=19,r=1,p=1"] {
            let hash = format!("$scrypt${parameters}${SALT}${OUTPUT}");
            assert!(hash.parse::<PasswordHash>().is_ok(), "{hash}");
        }
    }

    #[test]
    fn malformed_hashes_are_rejected() {
        for parameters in [
            "",
            "ln=4",
            "ln=4,r=8",
            "r=8,p=1,ln=4",
            "ln=4,r=8,p=1,",
            "ln=4,r=8,p=1,x=1",
            "ln=4,r=8,q=1",
            "n=4,r=8,p=1",
            "ln=04,r=8,p=1",
            "ln=+4,r=8,p=1",
            "ln=,r=8,p=1",
            "ln=4,r=8,p=-1",
            "4,8,1",
        ] {
            assert_rejected(&format!("$scrypt${parameters}${SALT}${OUTPUT}"), &HashError::Malformed);
        }
        let long = "A".repeat(87);
        for (salt, output) in [
            ("", OUTPUT),
            (SALT, ""),
            (SALT, "AAAAAAAAAAAAAAAAAAAA"),
            (SALT, &long),
            (&long, OUTPUT),
            ("8PHy8/T19vf4.fr7/P3./w", OUTPUT),
            ("8PHy8/T19vf4+fr7/P3+/w==", OUTPUT),
            (SALT, &format!("{OUTPUT}=")),
        ] {
            assert_rejected(&format!("$scrypt$ln=4,r=8,p=1${salt}${output}"), &HashError::Malformed);
        }
    }
}
