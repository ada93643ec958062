//! Codes of authenticator apps: TOTP (RFC 6238) over HOTP (RFC 4226), with SHA-1, six digits and 30 seconds, which every app knows.

use std::fmt::Write as _;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    hmac,
    rand::{self, SystemRandom},
};
use drystone_mesh::clock::Timestamp;
use zeroize::Zeroizing;

/// The length of a secret in bytes (RFC 4226, section 4, R6).
const SECRET_LENGTH: usize = 20;

/// The time step, in seconds.
const PERIOD: i64 = 30;

/// How many steps the clock of an app may differ (RFC 6238, section 5.2).
const MAX_DRIFT: i64 = 1;

const DIGITS: usize = 6;
const MODULUS: u32 = 1_000_000;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The secret that an app and this service share.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A random secret; `None` if the system's random number generator fails.
    #[must_use]
    pub fn generate() -> Option<Self> {
        let mut bytes = Zeroizing::new(vec![0; SECRET_LENGTH]);
        rand::SecureRandom::fill(&SystemRandom::new(), &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The secret with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// In Base32 without padding (RFC 4648, section 6).
    #[must_use]
    pub fn to_base32(&self) -> String {
        let mut text = String::with_capacity(self.0.len().div_ceil(5) * 8);
        for chunk in self.0.chunks(5) {
            let bits = chunk.iter().enumerate().fold(0_u64, |bits, (i, byte)| bits | u64::from(*byte) << (32 - 8 * i));
            for i in 0..(chunk.len() * 8).div_ceil(5) {
                text.push(char::from(BASE32[usize::try_from(bits >> (35 - 5 * i) & 31).unwrap_or_default()]));
            }
        }
        text
    }

    /// The URI that apps read, as in Google Authenticator's "Key Uri Format".
    #[must_use]
    pub fn to_uri(&self, issuer: &str, account: &str) -> String {
        let (issuer, account) = (percent_encoded(issuer), percent_encoded(account));
        format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={PERIOD}",
            self.to_base32()
        )
    }

    /// The step whose code this is, of those that are valid now. Compares with each in constant time.
    #[must_use]
    pub fn step_of(&self, code: &str, now: Timestamp) -> Option<i64> {
        let code: Zeroizing<String> = Zeroizing::new(code.chars().filter(|c| !c.is_whitespace()).collect());
        let current = step_at(now);
        let mut found = None;
        for step in current - MAX_DRIFT..=current + MAX_DRIFT {
            let expected = Zeroizing::new(self.code(step.cast_unsigned()));
            if verify_slices_are_equal(expected.as_bytes(), code.as_bytes()).is_ok() {
                found = Some(step);
            }
        }
        found
    }

    /// The code of a step, or counter (RFC 4226, section 5.3).
    #[must_use]
    pub fn code(&self, counter: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &counter.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag[tag.len() - 1] & 0xf);
        let mut truncated = [0; 4];
        truncated.copy_from_slice(&tag[offset..offset + 4]);
        format!("{:06}", (u32::from_be_bytes(truncated) & 0x7fff_ffff) % MODULUS)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The step of a time.
#[must_use]
pub fn step_at(now: Timestamp) -> i64 {
    now.timestamp().div_euclid(PERIOD)
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn of(bytes: &[u8]) -> Secret {
        Secret::from_bytes(Zeroizing::new(bytes.to_vec()))
    }

    /// RFC 4226, appendix D.
    #[test]
    fn codes_are_those_of_rfc_4226() {
        let expected =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (counter, expected) in (0..).zip(expected) {
            assert_eq!(of(b"12345678901234567890").code(counter), expected, "{counter}");
        }
    }

    /// RFC 6238, appendix B, for SHA-1: the last six of its eight digits.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        let cases = [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ];
        for (seconds, expected) in cases {
            let now = DateTime::from_timestamp(seconds, 0).unwrap();
            let secret = of(b"12345678901234567890");
            assert_eq!(secret.code(step_at(now).cast_unsigned()), expected, "{seconds}");
            assert_eq!(secret.step_of(expected, now), Some(step_at(now)));
        }
    }

    #[test]
    fn a_code_is_valid_for_one_step_of_drift_and_not_for_two() {
        let (secret, now) = (Secret::generate().unwrap(), DateTime::from_timestamp(1_700_000_015, 0).unwrap());
        let code = secret.code(step_at(now).cast_unsigned());
        for (seconds, is_valid) in [(0, true), (30, true), (-30, true), (60, false), (-60, false)] {
            let found = secret.step_of(&code, now + TimeDelta::seconds(seconds));
            assert_eq!(found, is_valid.then(|| step_at(now)), "{seconds}");
        }
        let spaced = format!(" {} {}\t", &code[..3], &code[3..]);
        assert_eq!(secret.step_of(&spaced, now), Some(step_at(now)));
        for wrong in ["", "1", &code[..5], &format!("{code}0"), "١٢٣٤٥٦"] {
            assert_eq!(secret.step_of(wrong, now), None, "{wrong}");
        }
    }

    /// RFC 4648, section 10.
    #[test]
    fn base32_is_that_of_rfc_4648() {
        let cases =
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foob", "MZXW6YQ"), ("fooba", "MZXW6YTB")];
        for (text, expected) in cases {
            assert_eq!(of(text.as_bytes()).to_base32(), expected);
        }
        assert_eq!(of(b"foobar").to_base32(), "MZXW6YTBOI");
    }

    #[test]
    fn a_uri_has_everything_encoded() {
        let uri = of(b"foobar").to_uri("https://id.example.com", "ada+1@example.com");
        let expected = "otpauth://totp/https%3A%2F%2Fid.example.com:ada%2B1%40example.com?secret=MZXW6YTBOI\
                        &issuer=https%3A%2F%2Fid.example.com&algorithm=SHA1&digits=6&period=30";
        assert_eq!(uri, expected);
    }
}
