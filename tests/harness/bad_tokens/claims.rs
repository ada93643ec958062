//! Tokens with a valid signature and invalid claims.

use serde_json::{Value, json};

use super::{BadToken, GoodToken, bad};

/// Tokens with invalid claims.
#[must_use]
pub fn bad_claims(good: &GoodToken) -> Vec<BadToken> {
    [
        missing(good),
        wrong_times(good),
        wrong_parties(good),
        wrong_ids(good),
        wrong_lists(good),
        duplicates(good),
        malformed_payloads(good),
    ]
    .concat()
}

/// The valid claims with these replaced.
fn with(good: &GoodToken, changes: &Value) -> BadToken {
    let mut name = changes.to_string();
    name.truncate(80);
    let mut claims = good.claims.clone();
    claims.extend(changes.as_object().expect("an object of changes").clone());
    bad(format!("claims with {name}"), good.sign_payload(Value::from(claims).to_string()))
}

fn all_with(good: &GoodToken, changes: impl IntoIterator<Item = Value>) -> Vec<BadToken> {
    changes.into_iter().map(|change| with(good, &change)).collect()
}

fn missing(good: &GoodToken) -> Vec<BadToken> {
    let mut tokens = vec![];
    for claim in ["iss", "aud", "sub", "sid", "jti", "iat", "exp", "auth_time"] {
        let mut claims = good.claims.clone();
        claims.remove(claim).expect("a claim of the good token");
        tokens.push(bad(format!("claims without {claim}"), good.sign_payload(Value::from(claims).to_string())));
        tokens.push(with(good, &json!({ claim: null })));
    }
    tokens
}

fn wrong_times(good: &GoodToken) -> Vec<BadToken> {
    let (iat, exp) = (good.number("iat"), good.number("exp"));
    let shifts = [
        ("expired two hours ago", -(exp - iat) - 7200),
        ("expired a minute ago", -(exp - iat) - 60),
        ("issued one minute in the future", 60),
        ("issued two hours in the future", 7200),
    ];
    let mut tokens: Vec<_> =
        shifts.iter().map(|(name, by)| bad(*name, good.sign_payload(shifted_by(good, *by)))).collect();
    let numbers = [
        json!({ "exp": iat }),
        json!({ "exp": iat - 1 }),
        json!({ "exp": 0 }),
        json!({ "exp": -1 }),
        json!({ "exp": -exp }),
        json!({ "exp": iat + 2 * 86_400 }),
        json!({ "exp": iat + 10 * 365 * 86_400 }),
        json!({ "exp": exp * 1000 }),
        json!({ "exp": i64::MAX }),
        json!({ "exp": i64::MIN }),
        json!({ "exp": u64::MAX }),
        json!({ "exp": u64::from(u32::MAX) }),
        json!({ "iat": i64::MIN }),
        json!({ "iat": i64::MAX }),
        json!({ "iat": 0 }),
        json!({ "iat": iat * 1000 }),
        json!({ "iat": -iat }),
        json!({ "iat": i64::MIN, "exp": i64::MAX }),
        json!({ "iat": i64::MAX, "exp": i64::MIN }),
        json!({ "nbf": iat + 3600 }),
        json!({ "nbf": i64::MAX }),
        json!({ "nbf": null }),
        json!({ "auth_time": iat + 3600 }),
        json!({ "auth_time": -1 }),
    ];
    tokens.extend(all_with(good, numbers));
    for claim in ["exp", "iat", "nbf", "auth_time"] {
        let number = good.claims.get(claim).and_then(Value::as_i64).unwrap_or(iat);
        let fraction = serde_json::from_str::<Value>(&format!("{number}.5")).expect("a number");
        let whole = serde_json::from_str::<Value>(&format!("{number}.0")).expect("a number");
        let others = [
            json!(number.to_string()),
            fraction,
            whole,
            json!(true),
            json!([number]),
            json!({ "seconds": number }),
            json!(""),
        ];
        tokens.extend(all_with(good, others.map(|value| json!({ claim: value }))));
    }
    for number in ["1e400", "999999999999999999999999999999", "2e9", "-0"] {
        tokens.push(bad(format!("exp of {number}"), good.sign_payload(replaced(good, "exp", number))));
    }
    tokens
}

/// The claims of the same token, issued this many seconds later.
fn shifted_by(good: &GoodToken, seconds: i64) -> String {
    let iat = good.number("iat") + seconds;
    let auth_time = (good.number("auth_time") + seconds).min(iat);
    let mut claims = good.claims.clone();
    let times = [("iat", json!(iat)), ("exp", json!(good.number("exp") + seconds)), ("auth_time", json!(auth_time))];
    claims.extend(times.map(|(claim, value)| (claim.to_owned(), value)));
    claims.insert("jti".to_owned(), id_of(good, iat).into());
    Value::from(claims).to_string()
}

/// The token id for this issue time: a UUIDv7 starts with the time in milliseconds.
fn id_of(good: &GoodToken, seconds: i64) -> String {
    let millis = format!("{:012x}", seconds * 1000);
    format!("{}-{}{}", &millis[..8], &millis[8..], &good.text("jti")[13..])
}

fn wrong_parties(good: &GoodToken) -> Vec<BadToken> {
    let (iss, aud) = (good.text("iss"), good.text("aud"));
    all_with(
        good,
        [
            json!({ "iss": "https://attacker.example" }),
            json!({ "iss": format!("{iss}/") }),
            json!({ "iss": format!("{iss}.attacker.example") }),
            json!({ "iss": format!(" {iss}") }),
            json!({ "iss": iss.to_uppercase() }),
            json!({ "iss": "" }),
            json!({ "iss": [iss] }),
            json!({ "iss": { "name": iss } }),
            json!({ "aud": "someone-else" }),
            json!({ "aud": format!("{aud} ") }),
            json!({ "aud": aud.to_uppercase() }),
            json!({ "aud": format!("{aud},someone-else") }),
            json!({ "aud": "" }),
            json!({ "aud": "*" }),
            json!({ "aud": [aud] }),
            json!({ "aud": [aud, "someone-else"] }),
            json!({ "aud": [] }),
            json!({ "aud": { "name": aud } }),
            json!({ "client_id": "" }),
            json!({ "client_id": null }),
            json!({ "client_id": 1 }),
            json!({ "client_id": ["drystone"] }),
            json!({ "client_id": { "name": "drystone" } }),
            json!({ "client_id": "drystone\n" }),
        ],
    )
}

fn wrong_ids(good: &GoodToken) -> Vec<BadToken> {
    let mut tokens = vec![];
    for claim in ["sub", "sid", "jti"] {
        let id = good.text(claim);
        let spellings = [
            json!(""),
            json!(" "),
            json!("admin"),
            json!("00000000-0000-0000-0000-000000000000"),
            json!(id.to_uppercase()),
            json!(id.replace('-', "")),
            json!(format!("{{{id}}}")),
            json!(format!("urn:uuid:{id}")),
            json!(format!("{id} ")),
            json!(&id[..35]),
            json!(1),
            json!([id]),
        ];
        tokens.extend(all_with(good, spellings.map(|value| json!({ claim: value }))));
    }
    let version_4 = json!({ "jti": "0b7d1f4e-6c0a-4a7e-9f53-3d5a8f5b2c11" });
    let later = json!({ "jti": id_of(good, good.number("iat") + 600) });
    let earlier = json!({ "jti": id_of(good, good.number("iat") - 600) });
    tokens.extend(all_with(good, [version_4, later, earlier]));
    tokens
}

fn wrong_lists(good: &GoodToken) -> Vec<BadToken> {
    let mut tokens = vec![];
    for claim in ["amr", "roles", "perms"] {
        let values = [
            json!("admin"),
            json!(null),
            json!([1]),
            json!([null]),
            json!([["admin"]]),
            json!({ "admin": true }),
            json!(true),
        ];
        tokens.extend(all_with(good, values.map(|value| json!({ claim: value }))));
    }
    let values = [
        json!("owner"),
        json!(null),
        json!(["owner"]),
        json!({ "p": 1 }),
        json!({ "p": ["owner"] }),
        json!({ "p": null }),
    ];
    tokens.extend(all_with(good, values.map(|value| json!({ "props": value }))));
    tokens
}

/// The valid claims as JSON, with the value of one written as this text.
fn replaced(good: &GoodToken, claim: &str, text: &str) -> String {
    let mut claims = good.claims.clone();
    claims.remove(claim);
    format!(r#"{{"{claim}":{text},{}"#, &Value::from(claims).to_string()[1..])
}

fn duplicates(good: &GoodToken) -> Vec<BadToken> {
    let mut tokens = vec![];
    for (claim, value) in &good.claims {
        let text = prefixed(good, &format!(r#""{claim}":{value}"#));
        tokens.push(bad(format!("duplicate claim {claim}, both valid"), good.sign_payload(text)));
    }
    let members = [
        ("duplicate exp, one far in the future", r#""exp":9999999999"#),
        ("duplicate sub, one of another user", r#""sub":"01890a5d-ac96-774b-bcce-b302099a8057""#),
        ("duplicate roles, one with admin", r#""roles":["admin"]"#),
        ("duplicate sub, one with an escape sequence", r#""\u0073ub":"01890a5d-ac96-774b-bcce-b302099a8057""#),
        ("duplicate unknown claim", r#""x":1,"x":1"#),
        ("duplicate member inside an unknown claim", r#""x":{"a":1,"a":2}"#),
        ("duplicate member inside a list of an unknown claim", r#""x":[{"a":1,"a":2}]"#),
    ];
    tokens.extend(members.map(|(name, member)| bad(name, good.sign_payload(prefixed(good, member)))));
    let duplicate = replaced(good, "props", r#"{"p":"guest","p":"owner"}"#);
    tokens.push(bad("duplicate property", good.sign_payload(duplicate)));
    tokens
}

/// The valid claims as JSON, after this member.
fn prefixed(good: &GoodToken, member: &str) -> String {
    format!("{{{member},{}", &good.claims_text()[1..])
}

fn malformed_payloads(good: &GoodToken) -> Vec<BadToken> {
    let valid = good.claims_text();
    let open = &valid[..valid.len() - 1];
    let in_order = [
        "iss",
        "aud",
        "sub",
        "sid",
        "jti",
        "client_id",
        "iat",
        "exp",
        "nbf",
        "auth_time",
        "amr",
        "roles",
        "perms",
        "props",
    ];
    let in_order = Value::from(
        in_order.map(|claim| good.claims.get(claim).cloned().unwrap_or(json!(good.number("iat")))).to_vec(),
    );
    let utf16: Vec<u8> = valid.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let with_bytes = |bytes: &[u8]| [open.as_bytes(), b",\"x\":\"", bytes, b"\"}"].concat();
    let payloads: Vec<(&str, Vec<u8>)> = vec![
        ("an array of the valid values", in_order.to_string().into()),
        ("an array around the valid object", format!("[{valid}]").into()),
        ("a string", Value::from(valid.as_str()).to_string().into()),
        ("a number", "1".into()),
        ("null", "null".into()),
        ("true", "true".into()),
        ("an empty object", "{}".into()),
        ("a space", " ".into()),
        ("not JSON", "sub=admin".into()),
        ("another token", good.token().into()),
        ("a truncated object", open.into()),
        ("data after the object", format!("{valid}{{}}").into()),
        ("a NUL after the object", format!("{valid}\0").into()),
        ("a trailing comma", format!("{open},}}").into()),
        ("a comment", format!("{valid}//").into()),
        ("a byte order mark", format!("\u{feff}{valid}").into()),
        ("UTF-16", utf16),
        ("invalid UTF-8", with_bytes(b"\xff")),
        ("an overlong encoding in UTF-8", with_bytes(b"\xc0\xaf")),
        ("a surrogate in UTF-8", with_bytes(b"\xed\xa0\x80")),
        ("a lone surrogate escape", with_bytes(br"\ud800")),
        ("a control character in a string", with_bytes(b"\x01")),
        ("NaN", format!(r#"{open},"x":NaN}}"#).into()),
        ("a number with a leading zero", format!(r#"{open},"x":01}}"#).into()),
        ("single quotes", valid.replace('"', "'").into()),
        ("deep nesting of lists", format!(r#"{open},"x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000)).into()),
        ("deep nesting of objects", format!(r#"{open},"x":{}1{}}}"#, "{\"a\":".repeat(500), "}".repeat(500)).into()),
        ("deep nesting, not closed", format!(r#"{open},"x":{}"#, "[".repeat(3000)).into()),
    ];
    payloads.into_iter().map(|(name, payload)| bad(format!("payload: {name}"), good.sign_payload(payload))).collect()
}
