//! Signatures of Standard Webhooks 1.0, by HMAC-SHA256.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use std::ops::RangeInclusive;

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

/// The length of a secret in bytes.
const LENGTH: RangeInclusive<usize> = 24..=64;

/// A secret that an endpoint's receiver has too.
#[derive(Debug)]
pub(super) struct SigningSecret(hmac::Key);

impl SigningSecret {
    /// Reads `whsec_` and the base64 of 24 to 64 bytes; `None` if the text is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix("whsec_")?;
        let bytes = BASE64_STANDARD.decode(encoded).map(Zeroizing::new).ok()?;
        LENGTH.contains(&bytes.len()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

/// The value of `webhook-signature`: a signature with each secret. The timestamp is in seconds since the Unix epoch.
pub(super) fn signatures(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(bytes: usize) -> Option<SigningSecret> {
        SigningSecret::parse(&format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes])))
    }

    /// The example of the specification, and one that version 1.1.0 of its Python library signed.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let specified = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signatures(&[specified], id, 1_614_265_330, br#"{"test": 2432232314}"#), expected);

        let library = SigningSecret::parse("whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=").unwrap();
        let body = r#"{"type":"new_device","timestamp":"2026-10-31T12:00:00.123456Z","data":{"user":"Zoë"}}"#;
        let expected = "v1,vf4C8ysjnQs9JLaS111iUB8zMFcwAHgTHPl6nzmzhLA=";
        let id = "019a3a1e-6c00-7000-8000-000000000001";
        assert_eq!(signatures(&[library], id, 1_793_448_000, body.as_bytes()), expected);
    }

    #[test]
    fn while_a_secret_is_rotated_there_is_a_signature_with_each() {
        let (old, new) = (secret(24).unwrap(), secret(32).unwrap());
        let each = [&old, &new].map(|secret| secret.sign("id", 1, b"body"));
        assert_ne!(each[0], each[1]);
        assert_eq!(signatures(&[old, new], "id", 1, b"body"), each.join(" "));
    }

    #[test]
    fn a_secret_is_whsec_and_the_base64_of_24_to_64_bytes() {
        for length in [24, 25, 32, 64] {
            assert!(secret(length).is_some(), "{length}");
        }
        for length in [0, 23, 65] {
            assert!(secret(length).is_none(), "{length}");
        }
        let encoded = BASE64_STANDARD.encode([7; 25]);
        for bad in [encoded.clone(), format!("WHSEC_{encoded}"), format!("whsec_{}", encoded.trim_end_matches('='))] {
            assert!(SigningSecret::parse(&bad).is_none(), "{bad}");
        }
        assert!(SigningSecret::parse(&format!("whsec_{encoded}\n")).is_none());
        assert!(!format!("{:?}", secret(24).unwrap()).contains("BwcH"));
    }
}
