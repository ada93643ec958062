//! Public keys of authenticators (COSE, RFC 9052 and 9053; section 6.5.1.1) and their signatures.

use std::ops::Range;

use aws_lc_rs::{
    rsa::PublicKeyComponents,
    signature::{ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256},
};
use minicbor::{Decoder, data::Type};

use crate::cbor;

/// The algorithms, in the order of preference: EdDSA with Ed25519, ES256, and RS256, which Windows has.
pub(crate) const ALGORITHMS: [i64; 3] = [EDDSA, ES256, RS256];
const ES256: i64 = -7;
const EDDSA: i64 = -8;
const RS256: i64 = -257;

/// The key types.
const OKP: i64 = 1;
const EC2: i64 = 2;
const RSA: i64 = 3;

/// The curves.
const P256: i64 = 1;
const CURVE_ED25519: i64 = 6;

/// The length of an RSA modulus, in bytes: 2,048 to 4,096 bits.
const MIN_MODULUS: usize = 256;
const MAX_MODULUS: usize = 512;
/// 2 to 33 bits, which is what aws-lc verifies with.
const EXPONENTS: Range<u64> = 3..1 << 33;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// As an uncompressed point.
    Es256([u8; 65]),
    Ed25519([u8; 32]),
    Rs256 {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

/// The members of a key, as far as any algorithm has them.
#[derive(Default)]
struct Members<'a> {
    kind: Option<i64>,
    algorithm: Option<i64>,
    /// -1: the curve, or the modulus.
    curve: Option<i64>,
    modulus: Option<&'a [u8]>,
    /// -2: the x-coordinate, or the exponent.
    x: Option<&'a [u8]>,
    /// -3: the y-coordinate.
    y: Option<&'a [u8]>,
}

impl PublicKey {
    /// Reads a key from the beginning of these bytes; returns its length as well. `None` if it is of another kind than [`ALGORITHMS`], or
    /// has members that such a key does not have.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut decoder = Decoder::new(bytes);
        let mut members = Members::default();
        for _ in 0..cbor::map(&mut decoder)? {
            let label = decoder.i64().ok()?;
            let is_bytes = decoder.datatype().ok()? == Type::Bytes;
            match label {
                1 => set(&mut members.kind, decoder.i64().ok()?)?,
                3 => set(&mut members.algorithm, decoder.i64().ok()?)?,
                -1 if is_bytes => set(&mut members.modulus, decoder.bytes().ok()?)?,
                -1 => set(&mut members.curve, decoder.i64().ok()?)?,
                -2 => set(&mut members.x, decoder.bytes().ok()?)?,
                -3 => set(&mut members.y, decoder.bytes().ok()?)?,
                _ => return None,
            }
        }
        let key = Self::of(&members)?;
        key.is_valid().then(|| (key, decoder.position()))
    }

    fn of(members: &Members<'_>) -> Option<Self> {
        match *members {
            Members {
                kind: Some(EC2),
                algorithm: Some(ES256),
                curve: Some(P256),
                modulus: None,
                x: Some(x),
                y: Some(y),
            } if x.len() == 32 && y.len() == 32 => {
                let mut point = [4; 65];
                point[1..33].copy_from_slice(x);
                point[33..].copy_from_slice(y);
                Some(Self::Es256(point))
            }
            Members {
                kind: Some(OKP),
                algorithm: Some(EDDSA),
                curve: Some(CURVE_ED25519),
                modulus: None,
                x: Some(x),
                y: None,
            } => Some(Self::Ed25519(x.try_into().ok().filter(|point| !has_small_order(point))?)),
            Members {
                kind: Some(RSA),
                algorithm: Some(RS256),
                curve: None,
                modulus: Some(modulus),
                x: Some(exponent),
                y: None,
            } if is_rsa(modulus, exponent) => {
                Some(Self::Rs256 { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
            }
            _ => None,
        }
    }

    /// The algorithm, as COSE numbers it.
    pub(crate) const fn algorithm(&self) -> i64 {
        match self {
            Self::Es256(_) => ES256,
            Self::Ed25519(_) => EDDSA,
            Self::Rs256 { .. } => RS256,
        }
    }

    /// Whether a point is on its curve. Of Ed25519 aws-lc finds that when it verifies a signature; numbers of RSA keys are checked before.
    fn is_valid(&self) -> bool {
        match self {
            Self::Es256(point) => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).is_ok(),
            Self::Ed25519(point) => ParsedPublicKey::new(&ED25519, point).is_ok(),
            Self::Rs256 { .. } => true,
        }
    }

    /// Whether a signature of a message is by this key.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Es256(point) => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                .is_ok_and(|key| key.verify_sig(message, signature).is_ok()),
            Self::Ed25519(point) => {
                ParsedPublicKey::new(&ED25519, point).is_ok_and(|key| key.verify_sig(message, signature).is_ok())
            }
            Self::Rs256 { modulus, exponent } => PublicKeyComponents { n: modulus, e: exponent }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
        }
    }
}

/// Whether these numbers can be an RSA key: without leading zeros, of supported lengths, and odd. A key that never verifies a signature
/// would be a passkey that nobody can use.
fn is_rsa(modulus: &[u8], exponent: &[u8]) -> bool {
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    let is_long = match *modulus {
        [first, ..] if modulus.len() == MIN_MODULUS => first & 0x80 != 0,
        [first, ..] => first != 0 && (MIN_MODULUS..=MAX_MODULUS).contains(&modulus.len()),
        [] => false,
    };
    let is_exponent = exponent.len() <= size_of::<u64>()
        && exponent.first().is_some_and(|first| *first != 0)
        && EXPONENTS.contains(&exponent.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    is_long && is_exponent && is_odd(modulus) && is_odd(exponent)
}

/// Whether a point of Ed25519 has a small order, in any encoding: signatures for such a key can be made without its private part.
fn has_small_order(point: &[u8; 32]) -> bool {
    // Two of order 8; the others are 0, 1, and three numbers around 2^255 - 19.
    const ORDER_8: [[u8; 32]; 2] = [
        *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
        *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
    ];
    // The highest bit is the sign of the other coordinate.
    let mut y = *point;
    y[31] &= 0x7f;
    let is_zero_or_one = y[0] <= 1 && y[1..].iter().all(|byte| *byte == 0);
    let is_at_the_prime = (0xec..=0xee).contains(&y[0]) && y[1..31].iter().all(|byte| *byte == 0xff) && y[31] == 0x7f;
    is_zero_or_one || is_at_the_prime || ORDER_8.contains(&y)
}

/// Sets a member that is not set yet: no label is twice.
fn set<T>(member: &mut Option<T>, value: T) -> Option<()> {
    member.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    /// The vectors of the specification; those of RS256 and EdDSA do not verify the user, so that no ceremony comes to their signatures.
    fn member(vector: &str, name: &str) -> Vec<u8> {
        let (_, rest) = include_str!("../tests/vectors.txt").split_once(&format!("[{vector}]\n")).unwrap();
        let hex = rest.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")).unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// The public key follows the id of the credential, and ends the attestation object.
    fn key(vector: &str) -> Vec<u8> {
        let (object, id) = (member(vector, "create.attestationObject"), member(vector, "create.credential_id"));
        let at = object.windows(id.len()).rposition(|window| window == id).unwrap();
        object[at + id.len()..].to_vec()
    }

    #[test]
    fn signatures_of_the_specification_are_verified() {
        for (vector, algorithm) in
            [("none-es256", ES256), ("packed-eddsa", EDDSA), ("packed-rs256", RS256), ("fido-u2f-es256", ES256)]
        {
            let encoded = key(vector);
            let (key, length) = PublicKey::read(&encoded).unwrap();
            assert_eq!((key.algorithm(), length), (algorithm, encoded.len()), "{vector}");
            let hash = digest(&SHA256, &member(vector, "get.clientDataJSON"));
            let mut signed = [&member(vector, "get.authenticatorData"), hash.as_ref()].concat();
            let signature = member(vector, "get.signature");
            assert!(key.verifies(&signed, &signature), "{vector}");
            signed[0] ^= 1;
            assert!(!key.verifies(&signed, &signature), "{vector}");
        }
    }

    #[test]
    fn keys_of_other_algorithms_are_refused() {
        for vector in ["packed-es384", "packed-es512", "packed-ed448"] {
            assert_eq!(PublicKey::read(&key(vector)), None, "{vector}");
        }
    }
}
