//! Tokens with invalid segments or encoding, which can be refused without a key.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use serde_json::json;

use super::{
    BadToken, GoodToken, bad,
    forge::{encode, segments},
};

/// Tokens with invalid segments or encoding.
#[must_use]
pub fn bad_shapes(good: &GoodToken) -> Vec<BadToken> {
    [wrong_segments(good), wrong_encodings(good)].concat()
}

fn wrong_segments(good: &GoodToken) -> Vec<BadToken> {
    let token = good.token();
    let [header, payload, signature] = segments(&token);
    let none = encode(good.header_with(&json!({ "alg": "none" })).to_string());
    let filler = "a".repeat(8 * 1024);
    let mut oversize = good.claims.clone();
    oversize.insert("filler".to_owned(), filler.into());
    let flattened = json!({ "protected": header, "payload": payload, "signature": signature }).to_string();
    vec![
        bad("a lone dot", "."),
        bad("two dots and nothing else", ".."),
        bad("one segment", payload),
        bad("two segments", format!("{header}.{payload}")),
        bad("four segments", format!("{token}.{signature}")),
        bad("four segments, the last one empty", format!("{token}.")),
        bad("four segments, the first one empty", format!(".{token}")),
        bad(
            "five segments, as an encrypted token has",
            format!("{header}.{payload}.{signature}.{payload}.{signature}"),
        ),
        bad("empty header", format!(".{payload}.{signature}")),
        bad("empty payload", format!("{header}..{signature}")),
        bad("empty signature", format!("{header}.{payload}.")),
        bad("alg none and an empty signature", format!("{none}.{payload}.")),
        bad("commas instead of dots", token.replace('.', ",")),
        bad("JSON serialisation of JWS", flattened),
        bad("too long, otherwise valid", good.sign_payload(serde_json::Value::from(oversize).to_string())),
    ]
}

fn wrong_encodings(good: &GoodToken) -> Vec<BadToken> {
    let token = good.token();
    let [header, payload, signature] = segments(&token);
    let (padded_header, padded_payload) = (padded(good.header().to_string()), padded(good.claims_text()));
    let (head, tail) = payload.split_at(payload.len() / 2);
    let standard_payload = STANDARD_NO_PAD.encode(with_special_digits(good));
    vec![
        bad("padded header, signed with its padding", good.sign_segments(&padded_header, payload)),
        bad("padded payload, signed with its padding", good.sign_segments(header, &padded_payload)),
        bad("padded signature", format!("{header}.{payload}.{signature}==")),
        bad("signature with half its padding", format!("{header}.{payload}.{signature}=")),
        bad("stray bits at the end of the header", good.sign_segments(&stray_bits(good.header().to_string()), payload)),
        bad("stray bits at the end of the payload", good.sign_segments(header, &stray_bits(good.claims_text()))),
        bad("stray bits at the end of the signature", format!("{header}.{payload}.{}", next_digit(signature))),
        bad("standard alphabet in the payload", good.sign_segments(header, &standard_payload)),
        bad("standard alphabet in the signature", standard_signature(good)),
        bad("a space in the payload", good.sign_segments(header, &format!("{head} {tail}"))),
        bad("a tab in the payload", good.sign_segments(header, &format!("{head}\t{tail}"))),
        bad("a space before the payload", format!("{header}. {payload}.{signature}")),
        bad("a space after the header", format!("{header} .{payload}.{signature}")),
        bad("percent encoding", good.sign_segments(header, &format!("{head}%20{tail}"))),
        bad("a payload that is not base64", good.sign_segments(header, &good.claims_text().replace('.', "-"))),
        bad("a segment of impossible length", format!("{header}.{payload}.{signature}AAA")),
    ]
}

/// Appends spaces until the last base64 digit of the JSON has unused bits.
fn unaligned(mut json: String) -> String {
    while json.len().is_multiple_of(3) {
        json.push(' ');
    }
    json
}

fn padded(json: String) -> String {
    base64::engine::general_purpose::URL_SAFE.encode(unaligned(json))
}

fn stray_bits(json: String) -> String {
    next_digit(&encode(unaligned(json)))
}

/// The same bytes in a non-canonical encoding: an unused bit of the last digit is set.
fn next_digit(segment: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = segment.split_at(segment.len() - 1);
    let digit = DIGITS.iter().position(|digit| [*digit] == last.as_bytes()).expect("a digit of base64url");
    format!("{rest}{}", char::from(DIGITS[digit | 1]))
}

/// Valid claims, and one whose encoding contains both digits in which the base64 alphabets differ.
fn with_special_digits(good: &GoodToken) -> String {
    let mut claims = good.claims.clone();
    claims.insert("filler".to_owned(), ">>>>>>??????".into());
    serde_json::Value::from(claims).to_string()
}

/// A signature in the standard alphabet. Signatures are randomised; most contain a digit in which the alphabets differ.
fn standard_signature(good: &GoodToken) -> String {
    loop {
        let token = good.token();
        let [header, payload, signature] = segments(&token);
        let standard = signature.replace('-', "+").replace('_', "/");
        if standard != signature {
            return format!("{header}.{payload}.{standard}");
        }
    }
}
