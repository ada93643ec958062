//! Tokens with an invalid header, signed with the valid key where the algorithm allows it.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    BadToken, GoodToken, bad,
    forge::{encode, jwk, sign_segments, unknown_key},
};

/// Tokens with an invalid header.
#[must_use]
pub fn bad_headers(good: &GoodToken) -> Vec<BadToken> {
    [
        changed_members(good),
        missing_members(good),
        public_key_as_secret(good),
        embedded_keys(good),
        duplicate_members(good),
        malformed_headers(good),
    ]
    .concat()
}

fn changed_members(good: &GoodToken) -> Vec<BadToken> {
    let kid = good.kid.as_str();
    let algorithms = [
        "none", "None", "NONE", "nOnE", "HS256", "HS384", "HS512", "RS256", "RS512", "PS256", "ES384", "ES512",
        "ES256K", "EdDSA", "Ed25519", "es256", "ES256 ", "",
    ];
    let types = ["JWT", "jwt", "at+JWT", "at+jwt ", "application/jwt", "refresh+jwt", "dpop+jwt", ""];
    let kids = [
        "",
        "unknown",
        "../../../../dev/null",
        "' OR '1'='1",
        &format!("{kid} "),
        &format!("{kid}\0"),
        &"k".repeat(300),
    ];
    let invalid = [
        json!({ "alg": ["ES256"] }),
        json!({ "alg": 256 }),
        json!({ "alg": { "name": "ES256" } }),
        json!({ "typ": ["at+jwt"] }),
        json!({ "typ": 1 }),
        json!({ "kid": [kid] }),
        json!({ "kid": 1 }),
        json!({ "crit": [] }),
        json!({ "crit": ["exp"] }),
        json!({ "crit": ["urn:example:must-know"], "urn:example:must-know": true }),
        json!({ "crit": ["b64"], "b64": false }),
        json!({ "b64": false }),
        json!({ "b64": true }),
        json!({ "cty": "JWT" }),
        json!({ "zip": "DEF" }),
        json!({ "enc": "A256GCM" }),
        json!({ "iss": good.text("iss") }),
        json!({ "x5t": "AAAA" }),
        json!({ "x5t#S256": "AAAA" }),
        json!({ "nonce": "AAAA" }),
        json!({ "Alg": "ES256" }),
    ];
    let strings = (algorithms.iter().map(|alg| json!({ "alg": alg })))
        .chain(types.iter().map(|typ| json!({ "typ": typ })))
        .chain(kids.iter().map(|kid| json!({ "kid": kid })));
    strings.chain(invalid).map(|change| changed(good, &change)).collect()
}

fn changed(good: &GoodToken, change: &Value) -> BadToken {
    let mut name = change.to_string();
    name.truncate(80);
    bad(format!("header with {name}"), good.sign(&good.header_with(change), good.claims_text()))
}

fn missing_members(good: &GoodToken) -> Vec<BadToken> {
    let mut tokens = vec![];
    for member in ["alg", "typ", "kid"] {
        let mut header = good.header();
        header[member] = Value::Null;
        tokens.push(bad(format!("header with {member} null"), good.sign(&header, good.claims_text())));
        header.as_object_mut().expect("an object").remove(member);
        tokens.push(bad(format!("header without {member}"), good.sign(&header, good.claims_text())));
    }
    tokens
}

/// Algorithm confusion: the public key as the secret of an HMAC (RFC 8725, section 2.1).
fn public_key_as_secret(good: &GoodToken) -> Vec<BadToken> {
    let (point, der) = good.public_key();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
    let jwk = jwk(&point).to_string();
    let secrets: [(&str, &[u8]); 5] =
        [("point", &point), ("DER", &der), ("PEM", pem.as_bytes()), ("JWK", jwk.as_bytes()), ("empty secret", b"")];
    let mut tokens = vec![];
    for (name, secret) in secrets {
        let header = good.header_with(&json!({ "alg": "HS256" }));
        tokens.push(bad(
            format!("HS256 keyed with the public key ({name})"),
            good.hmac(hmac::HMAC_SHA256, &header, secret),
        ));
        let hs512 = good.hmac(hmac::HMAC_SHA512, &good.header_with(&json!({ "alg": "HS512" })), secret);
        tokens.push(bad(format!("HS512 keyed with the public key ({name})"), hs512));
    }
    tokens
}

/// A key, or a reference to one, in the header.
fn embedded_keys(good: &GoodToken) -> Vec<BadToken> {
    let (key, point) = unknown_key();
    let (other, mut named) = (jwk(&point), jwk(&point));
    named["kid"] = json!(good.kid);
    let members = [
        ("jwk", json!({ "jwk": other })),
        ("jwk with the valid kid", json!({ "jwk": named })),
        ("jwk with an unknown kid", json!({ "jwk": other, "kid": "embedded" })),
        ("jku", json!({ "jku": "https://attacker.example/jwks.json" })),
        ("jku with an unknown kid", json!({ "jku": "https://attacker.example/jwks.json", "kid": "embedded" })),
        ("x5u", json!({ "x5u": "https://attacker.example/chain.pem" })),
        ("x5c", json!({ "x5c": ["MIIB"] })),
    ];
    let payload = encode(good.claims_text());
    let mut tokens = vec![];
    for (name, member) in members {
        let header = good.header_with(&member);
        let signed_by_other = sign_segments(&key, &encode(header.to_string()), &payload);
        tokens.push(bad(format!("signed with an embedded key: {name}"), signed_by_other));
        tokens
            .push(bad(format!("valid signature and an embedded key: {name}"), good.sign(&header, good.claims_text())));
    }
    tokens
}

fn duplicate_members(good: &GoodToken) -> Vec<BadToken> {
    let kid = Value::from(good.kid.as_str());
    let rest = format!(r#""typ":"at+jwt","kid":{kid}"#);
    let headers = [
        ("duplicate alg, none first", format!(r#"{{"alg":"none","alg":"ES256",{rest}}}"#)),
        ("duplicate alg, none last", format!(r#"{{"alg":"ES256",{rest},"alg":"none"}}"#)),
        ("duplicate alg, both valid", format!(r#"{{"alg":"ES256","alg":"ES256",{rest}}}"#)),
        ("duplicate alg, one with an escape sequence", format!(r#"{{"alg":"ES256","\u0061lg":"ES256",{rest}}}"#)),
        ("duplicate typ", format!(r#"{{"alg":"ES256",{rest},"typ":"at+jwt"}}"#)),
        ("duplicate kid", format!(r#"{{"alg":"ES256",{rest},"kid":{kid}}}"#)),
    ];
    headers.into_iter().map(|(name, header)| bad(name, good.sign_raw(header, good.claims_text()))).collect()
}

fn malformed_headers(good: &GoodToken) -> Vec<BadToken> {
    let valid = good.header().to_string();
    let open = valid.trim_end_matches('}');
    let deep = format!(r#"{open},"deep":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    let mut invalid_utf8 = open.as_bytes().to_vec();
    invalid_utf8.extend(b",\"\xFF\":1}");
    let headers: [(&str, Vec<u8>); 14] = [
        ("an array of the valid values", json!(["ES256", "at+jwt", good.kid]).to_string().into()),
        ("an array around the valid object", format!("[{valid}]").into()),
        ("a string", Value::from(valid.as_str()).to_string().into()),
        ("null", "null".into()),
        ("a number", "1".into()),
        ("an empty object", "{}".into()),
        ("not JSON", "ES256".into()),
        ("a truncated object", open.into()),
        ("data after the object", format!("{valid}{{}}").into()),
        ("a trailing comma", format!("{open},}}").into()),
        ("a comment", format!("{valid}/**/").into()),
        ("a byte order mark", format!("\u{feff}{valid}").into()),
        ("invalid UTF-8", invalid_utf8),
        ("deep nesting", deep.into()),
    ];
    headers
        .into_iter()
        .map(|(name, header)| bad(format!("header: {name}"), good.sign_raw(header, good.claims_text())))
        .collect()
}
