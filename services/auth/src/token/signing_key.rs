//! Signing keys of access tokens: ES256, ECDSA on P-256 with SHA-256 (RFC 7518, section 3.4).

use std::fmt;

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use drystone::auth::v1::Jwk;
use drystone_mesh::clock::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use zeroize::Zeroizing;

use super::access_token_signer::TYPE;

/// The `alg` value in tokens and JWKs.
pub const ALGORITHM: &str = "ES256";

/// A private key, as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The key id: the thumbprint of the public key (RFC 7638).
    pub kid: String,
    /// The signature algorithm.
    pub algorithm: String,
    /// The private key, PKCS#8 in DER.
    pub private_key: Zeroizing<Vec<u8>>,
    /// When it was generated.
    pub created_at: Timestamp,
}

impl StoredKey {
    /// Generates a key.
    ///
    /// # Errors
    /// [`KeyError::Generate`] if the system's random number generator fails.
    pub fn generate(now: Timestamp) -> Result<Self, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| KeyError::Generate)?;
        let private_key = Zeroizing::new(document.as_ref().to_vec());
        let pair = parse(&private_key).ok_or(KeyError::Generate)?;
        let jwk = public_jwk(&pair).ok_or(KeyError::Generate)?;
        Ok(Self { kid: jwk.kid, algorithm: ALGORITHM.to_owned(), private_key, created_at: now })
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No key could be generated.
    #[error("cannot generate a signing key")]
    Generate,
    /// This version does not support the algorithm of the key.
    #[error(
        "the signing key `{kid}` has the unsupported algorithm {algorithm}; run the version that generated the key"
    )]
    Algorithm {
        /// The key id.
        kid: String,
        /// The algorithm of the key.
        algorithm: String,
    },
    /// The key is corrupt.
    #[error("the signing key `{kid}` in the auth database is corrupt; restore the database from a backup")]
    Corrupt {
        /// The key id.
        kid: String,
    },
}

/// A parsed signing key.
#[derive(Debug)]
pub struct SigningKey {
    private: EncodingKey,
    /// Of the tokens that it signs.
    header: Header,
    jwk: Jwk,
}

impl SigningKey {
    /// Parses a stored key.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] or [`KeyError::Corrupt`].
    pub fn load(stored: &StoredKey) -> Result<Self, KeyError> {
        let kid = stored.kid.clone();
        if stored.algorithm != ALGORITHM {
            return Err(KeyError::Algorithm { kid, algorithm: stored.algorithm.clone() });
        }
        match parse(&stored.private_key).as_ref().and_then(public_jwk) {
            Some(jwk) if jwk.kid == kid => {
                let header = Header { typ: Some(TYPE.to_owned()), kid: Some(kid), ..Header::new(Algorithm::ES256) };
                Ok(Self { private: EncodingKey::from_ec_der(&stored.private_key), header, jwk })
            }
            _ => Err(KeyError::Corrupt { kid }),
        }
    }

    /// The key id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.jwk.kid
    }

    /// The header of the tokens that it signs.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The public key, to be published.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The private key. Zeroized on drop and redacted in `Debug`.
    #[must_use]
    pub fn private(&self) -> &EncodingKey {
        &self.private
    }
}

fn parse(pkcs8: &[u8]) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()
}

fn public_jwk(pair: &EcdsaKeyPair) -> Option<Jwk> {
    // SEC 1, section 2.3.3, uncompressed: 4, x, y.
    let [4, coordinates @ ..] = pair.public_key().as_ref() else { return None };
    let (x, y) = coordinates.split_at_checked(32).filter(|(_, y)| y.len() == 32)?;
    let (x, y) = (BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y));
    let kid = thumbprint(&[("crv", "P-256"), ("kty", "EC"), ("x", &x), ("y", &y)]);
    Some(Jwk {
        kty: "EC".into(),
        r#use: "sig".into(),
        alg: ALGORITHM.into(),
        kid,
        crv: Some("P-256".into()),
        x: Some(x),
        y: Some(y),
        ..Jwk::default()
    })
}

/// The thumbprint of a public key (RFC 7638): SHA-256 over its required members, ordered by name. The values need no
/// escaping: they are curve names and base64url.
fn thumbprint(members: &[(&str, &str)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    let json = format!("{{{}}}", members.join(","));
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use drystone_mesh::clock::Clock;

    use super::*;

    fn new_key() -> StoredKey {
        StoredKey::generate(Clock::system().now()).unwrap()
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        // RFC 7638, section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        assert_eq!(
            thumbprint(&[("e", "AQAB"), ("kty", "RSA"), ("n", n)]),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
        // RFC 8037, appendix A.3.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        assert_eq!(
            thumbprint(&[("crv", "Ed25519"), ("kty", "OKP"), ("x", x)]),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }

    #[test]
    fn a_published_jwk_conforms_to_rfc_7517() {
        let stored = new_key();
        let key = SigningKey::load(&stored).unwrap();
        let Jwk { kty, r#use, alg, kid, crv, x, y, n, e } = key.jwk().clone();
        assert_eq!((n, e), (None, None), "members of an RSA key");
        let (crv, x, y) = (crv.unwrap(), x.unwrap(), y.unwrap());
        assert_eq!([kty, r#use, alg, crv], ["EC", "sig", "ES256", "P-256"]);
        assert_eq!(kid, stored.kid);
        assert_eq!(kid, thumbprint(&[("crv", "P-256"), ("kty", "EC"), ("x", &x), ("y", &y)]));
        // 32 bytes each, leading zeros kept.
        assert_eq!((x.len(), y.len()), (43, 43));
    }

    #[test]
    fn the_public_key_of_the_rfc_7517_example_is_derived() {
        // RFC 7517, appendix A.2: the private key that belongs to the first key of appendix A.1.
        let member = |text| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        let (x, y) = ("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
        let d = member("870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE");
        let point = [vec![4], member(x), member(y)].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &d, &point).unwrap();
        let jwk = public_jwk(&pair).unwrap();
        assert_eq!((jwk.x.as_deref(), jwk.y.as_deref()), (Some(x), Some(y)));
    }

    #[test]
    fn generated_keys_differ() {
        assert_ne!(new_key().kid, new_key().kid);
    }

    #[test]
    fn a_key_with_another_kid_is_corrupt() {
        let other = StoredKey { kid: new_key().kid, ..new_key() };
        assert!(matches!(SigningKey::load(&other), Err(KeyError::Corrupt { .. })));
    }

    #[test]
    fn a_truncated_key_is_corrupt() {
        let mut key = new_key();
        key.private_key.truncate(40);
        assert!(matches!(SigningKey::load(&key), Err(KeyError::Corrupt { .. })));
    }

    #[test]
    fn an_unsupported_algorithm_is_named_in_the_error() {
        let key = StoredKey { algorithm: "ES512".into(), ..new_key() };
        let error = SigningKey::load(&key).unwrap_err();
        assert!(error.to_string().contains("ES512"), "{error}");
    }

    #[test]
    fn debug_output_has_no_private_key() {
        let key = new_key();
        let output = format!("{key:?}");
        assert!(output.contains(&key.kid) && !output.contains("private"), "{output}");
        let output = format!("{:?}", SigningKey::load(&key).unwrap().private());
        assert!(output.contains("[redacted]"), "{output}");
    }
}
