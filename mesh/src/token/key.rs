//! Public keys that verify tokens.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone::auth::v1::Jwk;

/// The allowed signature algorithms (RFC 7518, RFC 8037). `none` and HMAC are not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256; keys of at least 2048 bits.
    Rs256,
}

impl Algorithm {
    /// The name in a token's `alg`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::EdDsa => &ED25519,
            Self::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

/// A parsed public key with its `kid` and its algorithm.
pub struct PublicKey {
    kid: String,
    algorithm: Algorithm,
    key: ParsedPublicKey,
}

impl PublicKey {
    /// Creates a key from its bytes: the uncompressed point for ES256, the 32 bytes of RFC 8032 for EdDSA, the DER
    /// `RSAPublicKey` of RFC 8017 for RS256.
    ///
    /// # Errors
    /// The `kid` is empty or longer than 256 bytes, or the bytes are not a key of the algorithm.
    pub fn new(kid: impl Into<String>, algorithm: Algorithm, bytes: &[u8]) -> Result<Self, PublicKeyError> {
        let kid = kid.into();
        if kid.is_empty() || kid.len() > 256 {
            return Err(PublicKeyError::KeyId);
        }
        let key = ParsedPublicKey::new(algorithm.verification(), bytes).map_err(|_| PublicKeyError::Material)?;
        Ok(Self { kid, algorithm, key })
    }

    /// Creates a key from a JWK (RFC 7517).
    ///
    /// # Errors
    /// The key is not for signatures, of an unsupported type, or invalid.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, PublicKeyError> {
        if jwk.r#use != "sig" {
            return Err(PublicKeyError::Use);
        }
        let is_absent = |member: &Option<String>| member.as_deref().unwrap_or_default().is_empty();
        match (jwk.kty.as_str(), jwk.crv.as_deref().unwrap_or_default(), jwk.alg.as_str()) {
            ("EC", "P-256", "ES256") => {
                let mut point = vec![4];
                point.extend(coordinate(jwk.x.as_deref())?);
                point.extend(coordinate(jwk.y.as_deref())?);
                Self::new(&jwk.kid, Algorithm::Es256, &point)
            }
            ("OKP", "Ed25519", "EdDSA") if is_absent(&jwk.y) => {
                Self::new(&jwk.kid, Algorithm::EdDsa, &coordinate(jwk.x.as_deref())?)
            }
            _ => Err(PublicKeyError::Type),
        }
    }

    /// The key id, as in the `kid` of a token.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm of the key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Verifies a signature. For ECDSA it is `r || s`, not DER (RFC 7518, section 3.4).
    pub(super) fn verify_signature(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.algorithm == other.algorithm && self.key.as_ref() == other.key.as_ref()
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Why a key is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Its `kid` is empty or longer than 256 bytes.
    #[error("the key has no valid kid")]
    KeyId,
    /// It is not for signatures.
    #[error("the key's use is not sig")]
    Use,
    /// Its combination of kty, crv and alg is not supported.
    #[error("the key's combination of kty, crv and alg is not supported")]
    Type,
    /// Its parameters are not a valid key of its type.
    #[error("the key's parameters are not a valid key of its type")]
    Material,
}

fn coordinate(text: Option<&str>) -> Result<Vec<u8>, PublicKeyError> {
    let bytes = URL_SAFE_NO_PAD.decode(text.unwrap_or_default()).map_err(|_| PublicKeyError::Material)?;
    if bytes.len() == 32 { Ok(bytes) } else { Err(PublicKeyError::Material) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::testing::Signer;

    #[test]
    fn a_jwk_is_parsed_to_its_key() {
        let signer = Signer::new("key-1");
        assert_eq!(PublicKey::from_jwk(&signer.jwk()), Ok(signer.public()));
    }

    #[test]
    fn an_ed25519_jwk_is_parsed() {
        let jwk = Jwk {
            kty: "OKP".to_owned(),
            r#use: "sig".to_owned(),
            alg: "EdDSA".to_owned(),
            kid: "ed".to_owned(),
            crv: Some("Ed25519".to_owned()),
            // RFC 8037, appendix A.2.
            x: Some("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned()),
            ..Jwk::default()
        };
        assert_eq!(PublicKey::from_jwk(&jwk).map(|key| key.algorithm()), Ok(Algorithm::EdDsa));
    }

    #[test]
    fn an_unsupported_or_invalid_jwk_is_rejected() {
        let valid = Signer::new("key-1").jwk();
        let with = |change: fn(&mut Jwk)| {
            let mut jwk = valid.clone();
            change(&mut jwk);
            PublicKey::from_jwk(&jwk).map(drop)
        };
        assert_eq!(with(|jwk| jwk.kid.clear()), Err(PublicKeyError::KeyId));
        assert_eq!(with(|jwk| jwk.kid = "k".repeat(257)), Err(PublicKeyError::KeyId));
        assert_eq!(with(|jwk| jwk.r#use = "enc".to_owned()), Err(PublicKeyError::Use));
        assert_eq!(with(|jwk| jwk.r#use.clear()), Err(PublicKeyError::Use));
        assert_eq!(with(|jwk| jwk.alg = "HS256".to_owned()), Err(PublicKeyError::Type));
        assert_eq!(with(|jwk| jwk.alg = "EdDSA".to_owned()), Err(PublicKeyError::Type));
        assert_eq!(with(|jwk| jwk.kty = "oct".to_owned()), Err(PublicKeyError::Type));
        assert_eq!(with(|jwk| jwk.crv = Some("P-384".to_owned())), Err(PublicKeyError::Type));
        assert_eq!(with(|jwk| jwk.x.as_mut().unwrap().push('=')), Err(PublicKeyError::Material));
        assert_eq!(with(|jwk| jwk.y = None), Err(PublicKeyError::Material));
        // A point that is not on the curve.
        assert_eq!(with(|jwk| jwk.y = jwk.x.clone()), Err(PublicKeyError::Material));
    }
}
