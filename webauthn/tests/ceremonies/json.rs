//! The JSON of responses: members, base64url, and bounds.

use drystone_webauthn::{AuthenticationResponse, Failure, MAX_CREDENTIAL_ID, RegistrationResponse};
use serde_json::{Value, json};

use super::authenticator::*;

fn registration(json: &Value) -> Result<(), Failure> {
    register(json).map(|_| ())
}

/// The outcome of an assertion after a change of its JSON.
fn assertion(change: impl FnOnce(&mut Value)) -> Result<(), Failure> {
    let passkey = Passkey::new(Key::es256());
    let assertion = passkey.assertion();
    let mut json = assertion.json();
    change(&mut json);
    assertion.outcome_of(&json).map(|_| ())
}

/// With another encoding of a text of base64url.
fn recoded(value: &Value, change: impl FnOnce(&str) -> String) -> Value {
    Value::String(change(value.as_str().unwrap()))
}

fn padded(text: &str) -> String {
    format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4))
}

#[test]
fn unknown_members_are_ignored() {
    let passkey = Passkey::new(Key::es256());
    let mut json = passkey.registration().json();
    json["authenticatorAttachment"] = json!("platform");
    json["clientExtensionResults"] = json!({"credProps": {"rk": true}});
    json["response"]["publicKeyAlgorithm"] = json!(-257);
    json["response"]["publicKey"] = json!("AAAA");
    json["response"]["authenticatorData"] = json!("AAAA");
    assert_eq!(registration(&json), Ok(()));
    let changed = assertion(|json| {
        json["authenticatorAttachment"] = json!("cross-platform");
        json["clientExtensionResults"] = json!({"appid": true});
        json["response"]["attestationObject"] = json!("AAAA");
    });
    assert_eq!(changed, Ok(()));
}

#[test]
fn missing_members_are_named() {
    let passkey = Passkey::new(Key::es256());
    let both = [("/id", "id"), ("/rawId", "rawId"), ("/type", "type"), ("/response", "response")];
    let without = |json: &mut Value, path: &str| {
        let (parent, name) = path.rsplit_once('/').unwrap();
        json.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    };
    let created =
        [("/response/clientDataJSON", "clientDataJSON"), ("/response/attestationObject", "attestationObject")];
    for (path, name) in both.into_iter().chain(created) {
        let mut json = passkey.registration().json();
        json.pointer_mut(path).unwrap().take();
        assert_eq!(registration(&json.clone()), Err(Failure::Malformed(name)), "{path} null");
        without(&mut json, path);
        assert_eq!(registration(&json), Err(Failure::Malformed(name)), "without {path}");
    }
    let got = [
        ("/response/clientDataJSON", "clientDataJSON"),
        ("/response/authenticatorData", "authenticatorData"),
        ("/response/signature", "signature"),
    ];
    for (path, name) in both.into_iter().chain(got) {
        assert_eq!(assertion(|json| without(json, path)), Err(Failure::Malformed(name)), "without {path}");
    }
}

#[test]
fn members_of_other_types_are_refused() {
    let malformed = Err(Failure::Malformed("the credential"));
    for path in ["/id", "/rawId", "/type", "/response", "/response/signature", "/response/userHandle"] {
        let set = |json: &mut Value| *json.pointer_mut(path).unwrap() = json!(1);
        assert_eq!(assertion(set), malformed, "{path}");
    }
    for json in [json!(null), json!("credential"), json!([]), json!(1)] {
        assert_eq!(registration(&json.clone()), malformed, "{json}");
    }
    assert_eq!(registration(&json!({})), Err(Failure::Malformed("type")));
    for kind in ["password", "Public-Key", ""] {
        assert_eq!(assertion(|json| json["type"] = json!(kind)), Err(Failure::Malformed("type")), "{kind}");
    }
}

#[test]
fn a_response_of_the_other_ceremony_is_refused() {
    let passkey = Passkey::new(Key::es256());
    let outcome = RegistrationResponse::from_json(&passkey.assertion().json().to_string());
    assert_eq!(outcome, Err(Failure::Malformed("attestationObject")));
    let outcome = AuthenticationResponse::from_json(&passkey.registration().json().to_string());
    assert_eq!(outcome, Err(Failure::Malformed("authenticatorData")));
}

#[test]
fn id_and_raw_id_are_the_same() {
    let mismatch = Err(Failure::Malformed("rawId"));
    for member in ["id", "rawId"] {
        assert_eq!(assertion(|json| json[member] = json!(base64url(b"another"))), mismatch, "{member}");
    }
    assert_eq!(assertion(|json| (json["id"], json["rawId"]) = (json!(""), json!(""))), mismatch);
}

#[test]
fn padding_is_accepted() {
    let passkey = Passkey::new(Key::es256());
    let mut json = passkey.registration().json();
    for path in ["/id", "/rawId", "/response/clientDataJSON", "/response/attestationObject"] {
        let value = json.pointer_mut(path).unwrap();
        *value = recoded(value, padded);
    }
    assert_eq!(registration(&json), Ok(()));
    let all = assertion(|json| {
        json["id"] = recoded(&json["id"], padded);
        for member in json["response"].as_object_mut().unwrap().values_mut() {
            *member = recoded(member, padded);
        }
    });
    assert_eq!(all, Ok(()));
}

#[test]
fn other_encodings_than_base64url_are_refused() {
    let malformed = Err(Failure::Malformed("id"));
    let changed = |change: &dyn Fn(&str) -> String| {
        assertion(|json| {
            let id = recoded(&json["id"], change);
            assert_ne!(id, json["id"]);
            json["id"] = id;
        })
    };
    assert_eq!(changed(&|id| id.replace('-', "+")), malformed, "+ of standard base64");
    assert_eq!(changed(&|id| id.replace('_', "/")), malformed, "/ of standard base64");
    assert_eq!(changed(&|id| format!(" {id}")), malformed, "a space");
    assert_eq!(changed(&|id| format!("{id}\n")), malformed, "a line feed");
    assert_eq!(changed(&|id| format!("{id}====")), malformed, "too much padding");
    assert_eq!(changed(&|id| format!("=={id}")), malformed, "padding at the beginning");
    assert_eq!(changed(&|id| format!("{id}\u{e9}")), malformed, "other text");
    // The last character has bits that belong to no byte.
    assert_eq!(assertion(|json| (json["id"], json["rawId"]) = (json!("AB"), json!("AA"))), malformed, "trailing bits");
}

#[test]
fn values_over_their_bounds_are_refused() {
    for (name, max) in [("clientDataJSON", 4096), ("authenticatorData", 4096), ("signature", 1024), ("userHandle", 64)]
    {
        let of_length = |length: usize| {
            let passkey = Passkey::new(Key::es256());
            let mut json = passkey.assertion().json();
            json["response"][name] = json!(base64url(vec![0; length]));
            AuthenticationResponse::from_json(&json.to_string()).map(|_| ())
        };
        assert_eq!(of_length(max), Ok(()), "{name}");
        assert_eq!(of_length(max + 1), Err(Failure::Malformed(name)), "{name}");
        assert_eq!(of_length(max * 100), Err(Failure::Malformed(name)), "{name}");
    }
    for (name, max) in [("clientDataJSON", 4096), ("attestationObject", 16 * 1024)] {
        let of_length = |length: usize| {
            let passkey = Passkey::new(Key::es256());
            let mut json = passkey.registration().json();
            json["response"][name] = json!(base64url(vec![0; length]));
            RegistrationResponse::from_json(&json.to_string()).map(|_| ())
        };
        assert_eq!(of_length(max), Ok(()), "{name}");
        assert_eq!(of_length(max + 1), Err(Failure::Malformed(name)), "{name}");
    }
    let with_id = |length: usize| {
        assertion(|json| {
            let id = json!(base64url(vec![7; length]));
            (json["id"], json["rawId"]) = (id.clone(), id);
        })
    };
    assert_eq!(with_id(MAX_CREDENTIAL_ID), Ok(()));
    assert_eq!(with_id(MAX_CREDENTIAL_ID + 1), Err(Failure::Malformed("id")));
}

#[test]
fn transports_are_optional_and_bounded() {
    let transports = |value: Value| {
        let passkey = Passkey::new(Key::es256());
        let mut json = passkey.registration().json();
        json["response"]["transports"] = value;
        register(&json).map(|registered| registered.transports)
    };
    assert_eq!(transports(json!(null)), Ok(vec![]));
    assert_eq!(transports(json!([])), Ok(vec![]));
    assert_eq!(
        transports(json!(["usb", "", "smart-card", "<script>", "NFC", "a b", "x".repeat(33), "new-one2"])).unwrap(),
        ["usb", "smart-card", "new-one2"]
    );
    assert_eq!(transports(json!(vec!["usb"; 1000])).unwrap().len(), 8);
    assert_eq!(transports(json!("usb")), Err(Failure::Malformed("the credential")));
}
