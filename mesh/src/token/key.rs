//! Public keys that verify tokens.

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    VerificationAlgorithm,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone::auth::v1::Jwk;

/// The sizes of the modulus of an RSA key from a JWK, in bits. A greater one costs each verification more.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The exponent of an RSA key from a JWK: 65537, as all common software generates it.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

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
    kid: Arc<str>,
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
        check_kid(&kid)?;
        let key = ParsedPublicKey::new(algorithm.verification(), bytes).map_err(|_| PublicKeyError::Material)?;
        Ok(Self { kid: kid.into(), algorithm, key })
    }

    /// Creates a key from a JWK (RFC 7517).
    ///
    /// # Errors
    /// The key is not for signatures, of an unsupported type, or invalid.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, PublicKeyError> {
        if jwk.r#use != "sig" {
            return Err(PublicKeyError::Use);
        }
        check_kid(&jwk.kid)?;
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
            ("RSA", "", "RS256") if is_absent(&jwk.x) && is_absent(&jwk.y) => {
                let key = rsa_key(&decode(jwk.n.as_deref())?, &decode(jwk.e.as_deref())?)?;
                Ok(Self { kid: jwk.kid.as_str().into(), algorithm: Algorithm::Rs256, key })
            }
            _ => Err(PublicKeyError::Type),
        }
    }

    /// The key id, as in the `kid` of a token.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key id, for those who keep it.
    pub(super) fn shared_kid(&self) -> &Arc<str> {
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

fn check_kid(kid: &str) -> Result<(), PublicKeyError> {
    if kid.is_empty() || kid.len() > 256 { Err(PublicKeyError::KeyId) } else { Ok(()) }
}

/// An RSA key from its modulus and exponent, big-endian in as few bytes as possible (RFC 7518, section 6.3.1).
fn rsa_key(n: &[u8], e: &[u8]) -> Result<ParsedPublicKey, PublicKeyError> {
    let leading_zeros = n.first().map_or(0, |first| first.leading_zeros() as usize);
    let is_valid = leading_zeros < 8
        && RSA_BITS.contains(&(8 * n.len() - leading_zeros))
        && n.last().is_some_and(|last| last % 2 == 1)
        && e == RSA_EXPONENT;
    if !is_valid {
        return Err(PublicKeyError::Material);
    }
    let components = RsaPublicKeyComponents { n, e };
    components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).map_err(|_| PublicKeyError::Material)
}

/// Decodes canonical base64url without padding.
fn decode(text: Option<&str>) -> Result<Vec<u8>, PublicKeyError> {
    URL_SAFE_NO_PAD.decode(text.unwrap_or_default()).map_err(|_| PublicKeyError::Material)
}

fn coordinate(text: Option<&str>) -> Result<Vec<u8>, PublicKeyError> {
    let bytes = decode(text)?;
    if bytes.len() == 32 { Ok(bytes) } else { Err(PublicKeyError::Material) }
}

#[cfg(test)]
mod tests;
