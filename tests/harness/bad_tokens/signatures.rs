//! Tokens with an invalid signature.

use aws_lc_rs::{digest, signature::Ed25519KeyPair};
use serde_json::{Value, json};

use super::{
    BadToken, GoodToken, bad,
    forge::{encode, segments, sign, sign_der, sign_segments, unknown_key},
};

/// The order of P-256's base point (FIPS 186-4, D.1.2.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Tokens with an invalid signature.
#[must_use]
pub fn bad_signatures(good: &GoodToken) -> Vec<BadToken> {
    let [header, payload] = [encode(good.header().to_string()), encode(good.claims_text())];
    let signed = format!("{header}.{payload}");
    let forged = forged_signatures(&sign(&good.key, &signed), &good.key, &signed);
    let mut tokens: Vec<_> =
        forged.into_iter().map(|(name, bytes)| bad(name, format!("{signed}.{}", encode(bytes)))).collect();
    tokens.extend(tampered(good));
    tokens.extend(by_other_keys(good, &header, &payload));
    tokens
}

/// Invalid replacements of a valid signature.
fn forged_signatures(valid: &[u8], key: &[u8], signed: &str) -> Vec<(&'static str, Vec<u8>)> {
    let (r, s) = valid.split_at(32);
    let (zero, one) = ([0; 32], [[0; 31].as_slice(), &[1]].concat());
    let flipped = |at: usize| {
        let mut bytes = valid.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let hash = digest::digest(&digest::SHA256, signed.as_bytes());
    vec![
        ("signature with its first bit flipped", flipped(0)),
        ("signature with its middle bit flipped", flipped(32)),
        ("signature with its last bit flipped", flipped(63)),
        ("signature as DER", sign_der(key, signed)),
        ("signature of zeros", vec![0; 64]),
        ("signature of ones", vec![0xff; 64]),
        ("signature with r zero", [&zero, s].concat()),
        ("signature with s zero", [r, &zero].concat()),
        ("signature with r and s 1", [one.clone(), one].concat()),
        ("signature with r and s the group's order", [ORDER, ORDER].concat()),
        ("signature with r and s exchanged", [s, r].concat()),
        ("signature without its last byte", valid[..63].to_vec()),
        ("signature with an extra byte", [valid, &[0]].concat()),
        ("signature after one byte", [&[0], valid].concat()),
        ("signature twice", [valid, valid].concat()),
        ("r alone", r.to_vec()),
        ("a hash for a signature", hash.as_ref().to_vec()),
        ("signature of the payload alone", sign(key, signed.split('.').next_back().unwrap_or_default())),
        ("signature of the hash instead of the message", sign(key, &encode(hash))),
    ]
}

/// A valid signature with another header or payload.
fn tampered(good: &GoodToken) -> Vec<BadToken> {
    let token = good.token();
    let [header, payload, signature] = segments(&token);
    let with = |claim: &str, value: Value| {
        let mut claims = good.claims.clone();
        claims.insert(claim.to_owned(), value);
        encode(Value::from(claims).to_string())
    };
    let another = good.sign_payload(format!("{} ", good.claims_text()));
    let [_, _, signature_of_another] = segments(&another);
    let typ = encode(good.header_with(&json!({ "typ": "application/at+jwt" })).to_string());
    vec![
        bad("payload with an added role", format!("{header}.{}.{signature}", with("roles", json!(["admin", "owner"])))),
        bad("payload with an added permission", format!("{header}.{}.{signature}", with("perms", json!(["all:all"])))),
        bad(
            "payload of another user",
            format!("{header}.{}.{signature}", with("sub", json!("01890a5d-ac96-774b-bcce-b302099a8057"))),
        ),
        bad(
            "payload that expires later",
            format!("{header}.{}.{signature}", with("exp", json!(good.number("exp") + 1))),
        ),
        bad("modified header", format!("{typ}.{payload}.{signature}")),
        bad("signature of another token", format!("{header}.{payload}.{signature_of_another}")),
    ]
}

/// The valid header and claims, signed with another key.
fn by_other_keys(good: &GoodToken, header: &str, payload: &str) -> Vec<BadToken> {
    let (other_key, _) = unknown_key();
    let ed25519 = Ed25519KeyPair::generate().expect("a new key");
    let signed = format!("{header}.{payload}");
    let with_ed25519 = encode(ed25519.sign(signed.as_bytes()));
    vec![
        bad("signed with another key of the same kind", sign_segments(&other_key, header, payload)),
        bad("signed with Ed25519", format!("{signed}.{with_ed25519}")),
        bad("signed over the claims without encoding", {
            let message = format!("{}.{}", good.header(), good.claims_text());
            format!("{signed}.{}", encode(sign(&good.key, &message)))
        }),
    ]
}
