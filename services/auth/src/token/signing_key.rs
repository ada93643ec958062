//! Signing keys of access tokens.

use std::fmt;

use aws_lc_rs::{
    digest,
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use drystone::auth::v1::Jwk;
use drystone_mesh::{clock::Timestamp, token::Claims};
use zeroize::Zeroizing;

use super::{
    access_token_signer::TYPE,
    key_spec::{KeyAlgorithm, KeySpec},
};

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
    /// Generates a key. One of RSA takes up to seconds: use [`Self::generate_apart`] where something else waits.
    ///
    /// # Errors
    /// [`KeyError::Generate`] if the system's random number generator fails.
    pub fn generate(spec: KeySpec, now: Timestamp) -> Result<Self, KeyError> {
        let private_key = generate_pkcs8(spec).ok_or(KeyError::Generate)?;
        let jwk = Pair::parse(spec.algorithm(), &private_key).and_then(|pair| pair.jwk()).ok_or(KeyError::Generate)?;
        Ok(Self { kid: jwk.kid, algorithm: jwk.alg, private_key, created_at: now })
    }

    /// Generates a key on a thread that may block.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub async fn generate_apart(spec: KeySpec, now: Timestamp) -> Result<Self, KeyError> {
        let generated = tokio::task::spawn_blocking(move || Self::generate(spec, now)).await;
        generated.map_err(|_| KeyError::Generate)?
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

/// Why a token cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The claims cannot be written.
    #[error("the claims cannot be written as JSON")]
    Claims(#[from] serde_json::Error),
    /// The key does not sign.
    #[error("the signing key does not sign")]
    Key,
}

/// A parsed signing key. The cryptographic library clears the private key on drop.
pub struct SigningKey {
    pair: Pair,
    /// The header of the tokens that it signs, encoded.
    header: String,
    jwk: Jwk,
}

impl SigningKey {
    /// Parses a stored key.
    ///
    /// # Errors
    /// [`KeyError::Algorithm`] or [`KeyError::Corrupt`].
    pub fn load(stored: &StoredKey) -> Result<Self, KeyError> {
        let kid = stored.kid.clone();
        let Some(algorithm) = KeyAlgorithm::parse(&stored.algorithm) else {
            return Err(KeyError::Algorithm { kid, algorithm: stored.algorithm.clone() });
        };
        let pair = Pair::parse(algorithm, &stored.private_key);
        match pair.and_then(|pair| pair.jwk().map(|jwk| (pair, jwk))) {
            Some((pair, jwk)) if jwk.kid == kid => {
                // Neither value needs escaping: a thumbprint is base64url.
                let header = format!(r#"{{"alg":"{}","typ":"{TYPE}","kid":"{kid}"}}"#, algorithm.name());
                Ok(Self { pair, header: BASE64_URL_SAFE_NO_PAD.encode(header), jwk })
            }
            _ => Err(KeyError::Corrupt { kid }),
        }
    }

    /// The key id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.jwk.kid
    }

    /// The algorithm, and the size of the key.
    #[must_use]
    pub fn spec(&self) -> KeySpec {
        self.pair.spec()
    }

    /// The public key, to be published.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// A token with these claims (RFC 7515, section 7.1).
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, claims: &Claims) -> Result<String, SignError> {
        let mut token = self.header.clone();
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims)?, &mut token);
        let signature = self.pair.sign(token.as_bytes()).ok_or(SignError::Key)?;
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.jwk.kid).field("alg", &self.jwk.alg).finish_non_exhaustive()
    }
}

/// A private key with its public key.
enum Pair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

impl Pair {
    fn parse(algorithm: KeyAlgorithm, pkcs8: &[u8]) -> Option<Self> {
        match algorithm {
            KeyAlgorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok().map(Self::Es256)
            }
            KeyAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8).ok().map(Self::EdDsa),
            KeyAlgorithm::Rs256 => RsaKeyPair::from_pkcs8(pkcs8).ok().map(Self::Rs256),
        }
    }

    fn spec(&self) -> KeySpec {
        match self {
            Self::Es256(_) => KeySpec::Es256,
            Self::EdDsa(_) => KeySpec::EdDsa,
            Self::Rs256(pair) if pair.public_modulus_len() <= KeySize::Rsa2048.len() => {
                KeySpec::Rs256(KeySize::Rsa2048)
            }
            Self::Rs256(_) => KeySpec::Rs256(KeySize::Rsa3072),
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Es256(pair) => Some(pair.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec()),
            Self::EdDsa(pair) => Some(pair.try_sign(message).ok()?.as_ref().to_vec()),
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }

    fn jwk(&self) -> Option<Jwk> {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let jwk = Jwk { r#use: "sig".into(), alg: self.spec().algorithm().name().into(), ..Jwk::default() };
        match self {
            Self::Es256(pair) => {
                // SEC 1, section 2.3.3, uncompressed: 4, x, y.
                let [4, coordinates @ ..] = pair.public_key().as_ref() else { return None };
                let (x, y) = coordinates.split_at_checked(32).filter(|(_, y)| y.len() == 32)?;
                let (x, y) = (encode(x), encode(y));
                let kid = thumbprint(&[("crv", "P-256"), ("kty", "EC"), ("x", &x), ("y", &y)]);
                Some(Jwk { kty: "EC".into(), kid, crv: Some("P-256".into()), x: Some(x), y: Some(y), ..jwk })
            }
            Self::EdDsa(pair) => {
                let x = encode(pair.public_key().as_ref());
                let kid = thumbprint(&[("crv", "Ed25519"), ("kty", "OKP"), ("x", &x)]);
                Some(Jwk { kty: "OKP".into(), kid, crv: Some("Ed25519".into()), x: Some(x), ..jwk })
            }
            Self::Rs256(pair) => {
                let (n, e) = rsa_components(pair.public_key().as_ref())?;
                let (n, e) = (encode(n), encode(e));
                let kid = thumbprint(&[("e", &e), ("kty", "RSA"), ("n", &n)]);
                Some(Jwk { kty: "RSA".into(), kid, n: Some(n), e: Some(e), ..jwk })
            }
        }
    }
}

/// A new private key, PKCS#8 in DER.
fn generate_pkcs8(spec: KeySpec) -> Option<Zeroizing<Vec<u8>>> {
    let random = SystemRandom::new();
    let bytes = match spec {
        KeySpec::Es256 => {
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).ok()?.as_ref().to_vec()
        }
        KeySpec::EdDsa => Ed25519KeyPair::generate_pkcs8(&random).ok()?.as_ref().to_vec(),
        KeySpec::Rs256(size) => {
            let document: Pkcs8V1Der<'static> = RsaKeyPair::generate(size).ok()?.as_der().ok()?;
            document.as_ref().to_vec()
        }
    };
    Some(Zeroizing::new(bytes))
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017, appendix A.1.1), big-endian in as few bytes as possible.
fn rsa_components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    let (sequence, []) = der_value(SEQUENCE, der)? else { return None };
    let (n, rest) = der_integer(sequence)?;
    let (e, []) = der_integer(rest)? else { return None };
    Some((n, e))
}

/// A positive integer, and what follows it.
fn der_integer(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const INTEGER: u8 = 0x02;
    let (value, rest) = der_value(INTEGER, der)?;
    // A zero byte keeps the first bit from being a sign.
    Some((value.strip_prefix(&[0]).unwrap_or(value), rest))
}

/// The content of a DER value with this tag, and what follows it.
fn der_value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[first, length], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    if first == tag { rest.split_at_checked(length) } else { None }
}

/// The thumbprint of a public key (RFC 7638): SHA-256 over its required members, ordered by name. The values need no
/// escaping: they are names of curves and types, and base64url.
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
        StoredKey::generate(KeySpec::Es256, Clock::system().now()).unwrap()
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
        let jwk = Pair::Es256(pair).jwk().unwrap();
        assert_eq!((jwk.x.as_deref(), jwk.y.as_deref()), (Some(x), Some(y)));
    }

    #[test]
    fn keys_of_every_algorithm_sign_what_verifiers_accept() {
        let now = Clock::system().now();
        let claims = Claims {
            iss: "https://id.example.com".to_owned(),
            aud: "drystone".to_owned(),
            sub: uuid::Uuid::now_v7(),
            sid: uuid::Uuid::now_v7(),
            jti: drystone_mesh::id::v7_at(now),
            client_id: Some("drystone".to_owned()),
            iat: now.timestamp(),
            exp: now.timestamp() + 300,
            nbf: None,
            auth_time: now.timestamp(),
            amr: vec!["pwd".to_owned()],
            roles: Vec::new(),
            perms: Vec::new(),
            props: [].into(),
        };
        for spec in [KeySpec::Es256, KeySpec::EdDsa, KeySpec::Rs256(KeySize::Rsa2048), KeySpec::Rs256(KeySize::Rsa3072)]
        {
            let stored = StoredKey::generate(spec, now).unwrap();
            let key = SigningKey::load(&stored).unwrap();
            assert_eq!((key.spec(), stored.algorithm.as_str()), (spec, spec.algorithm().name()));
            let token = key.sign(&claims).unwrap();
            let keys = drystone_mesh::token::KeySet::new();
            keys.replace(vec![drystone_mesh::token::PublicKey::from_jwk(key.jwk()).unwrap()]);
            let config = drystone_mesh::token::TokenVerifierConfig::new("https://id.example.com", "drystone");
            let verifier = drystone_mesh::token::TokenVerifier::for_entry_point(config, keys, Clock::system());
            let principal = verifier.verify(&token).unwrap();
            assert_eq!((principal.user_id, &*principal.key_id), (claims.sub, key.kid()));
            // Of another algorithm it is corrupt.
            for other in ["ES256", "EdDSA", "RS256"].into_iter().filter(|other| *other != stored.algorithm) {
                let renamed = StoredKey { algorithm: other.to_owned(), ..stored.clone() };
                assert!(matches!(SigningKey::load(&renamed), Err(KeyError::Corrupt { .. })), "{spec:?} as {other}");
            }
        }
    }

    #[test]
    fn the_components_of_an_rsa_key_are_read_strictly() {
        let der = [0x30, 0x08, 0x02, 0x02, 0x00, 0x81, 0x02, 0x02, 0x01, 0x01];
        assert_eq!(rsa_components(&der), Some((&[0x81][..], &[1, 1][..])));
        for end in 0..der.len() {
            assert_eq!(rsa_components(&der[..end]), None, "{end} bytes");
        }
        assert_eq!(rsa_components(&[&der[..], &[0]].concat()), None);
        assert_eq!(rsa_components(&[0x31, 0x00]), None);
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
        let output = format!("{:?}", SigningKey::load(&key).unwrap());
        assert_eq!(output, format!("SigningKey {{ kid: {:?}, alg: \"ES256\", .. }}", key.kid));
    }
}
