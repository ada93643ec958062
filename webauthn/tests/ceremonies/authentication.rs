//! Authentications: client data, authenticator data, signatures, users and counters.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use drystone_webauthn::{Authenticated, AuthenticationResponse, Failure};
use serde_json::{Value, json};

use super::authenticator::*;

const DATA: Failure = Failure::Malformed("authenticatorData");

/// The outcome of a changed assertion, which is signed after the change.
fn outcome(change: impl FnOnce(&mut Assertion<'_>)) -> Result<Authenticated, Failure> {
    let passkey = Passkey::new(Key::es256());
    let mut assertion = passkey.assertion();
    change(&mut assertion);
    assertion.outcome()
}

#[test]
fn authentications_of_all_three_algorithms_pass() {
    for key in [Key::es256(), Key::ed25519(), Key::rs256()] {
        let passkey = Passkey::new(key);
        let mut assertion = passkey.assertion();
        assertion.stored_key = passkey.registration().outcome().unwrap().public_key;
        assert_eq!(assertion.outcome(), Ok(Authenticated { sign_count: 4, is_backed_up: true }));
    }
}

#[test]
fn a_response_tells_its_credential_and_user_before_it_is_verified() {
    let passkey = Passkey::new(Key::es256());
    let response = AuthenticationResponse::from_json(&passkey.assertion().json().to_string()).unwrap();
    assert_eq!(response.credential_id(), passkey.id);
    assert_eq!(response.user_handle(), Some(USER_HANDLE));
}

#[test]
fn changed_client_data_is_refused() {
    for (member, value, failure) in [
        ("type", json!("webauthn.create"), Failure::Type("webauthn.get")),
        ("type", json!("payment.get"), Failure::Type("webauthn.get")),
        ("challenge", json!("dGhpcyBpcyBub3QgcmFuZG9u"), Failure::Challenge),
        ("origin", json!("https://evil.com"), Failure::Origin("https://evil.com".to_owned())),
        ("crossOrigin", json!(true), Failure::CrossOrigin),
        ("topOrigin", json!(ORIGIN), Failure::CrossOrigin),
    ] {
        assert_eq!(outcome(|it| it.client_data[member] = value.clone()), Err(failure), "{member}: {value}");
    }
}

#[test]
fn changed_authenticator_data_is_refused() {
    type Change = fn(&mut Assertion<'_>);
    let changes: [(&str, Change, Failure); 10] = [
        ("another RP ID", |it| it.data.rp_id = "example.org", Failure::RelyingPartyId),
        ("user not present", |it| it.data.flags &= !UP, Failure::UserPresent),
        ("user not verified", |it| it.data.flags &= !UV, Failure::UserVerified),
        ("backed up, but not eligible", |it| it.data.flags = UP | UV | BS, Failure::BackupFlags),
        ("no longer eligible", |it| it.data.flags = UP | UV, Failure::BackupFlags),
        ("newly eligible", |it| it.is_backup_eligible = false, Failure::BackupFlags),
        (
            "a credential",
            |it| {
                it.data.flags |= AT;
                it.data.rest = attested(&it.passkey.id, &it.passkey.key.cose());
            },
            DATA,
        ),
        ("trailing byte", |it| it.data.rest.push(0), DATA),
        ("the flag without extensions", |it| it.data.flags |= ED, DATA),
        (
            "extensions that are no map",
            |it| {
                it.data.flags |= ED;
                it.data.rest = int(1);
            },
            DATA,
        ),
    ];
    for (name, change, failure) in changes {
        assert_eq!(outcome(change), Err(failure), "{name}");
    }
}

#[test]
fn extensions_that_are_a_map_are_accepted() {
    let with_extensions = |it: &mut Assertion<'_>| {
        it.data.flags |= ED;
        it.data.rest = map(&[(text("hmac-secret"), bytes(&[7; 48]))]);
    };
    outcome(with_extensions).unwrap();
}

#[test]
fn a_credential_that_is_not_backed_up_passes() {
    assert_eq!(
        outcome(|it| (it.data.flags, it.is_backup_eligible) = (UP | UV, false)),
        Ok(Authenticated { sign_count: 4, is_backed_up: false })
    );
}

#[test]
fn truncated_authenticator_data_is_refused_at_every_length() {
    let passkey = Passkey::new(Key::es256());
    let mut assertion = passkey.assertion();
    assertion.data.flags |= ED;
    assertion.data.rest = map(&[(text("credProtect"), int(3))]);
    let data = assertion.data.encode();
    for length in 0..data.len() {
        let client_data = assertion.client_data.to_string();
        let json = assertion.json_with(client_data.as_bytes(), &data[..length], &assertion.signature());
        assert_eq!(assertion.outcome_of(&json), Err(DATA), "{length}");
    }
}

#[test]
fn a_change_of_any_byte_after_signing_is_refused() {
    for key in [Key::es256(), Key::ed25519(), Key::rs256()] {
        let passkey = Passkey::new(key);
        let assertion = passkey.assertion();
        let (client_data, data) = (assertion.client_data.to_string().into_bytes(), assertion.data.encode());
        let signature = assertion.signature();
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        for at in 0..signature.len() {
            let json = assertion.json_with(&client_data, &data, &flipped(&signature, at));
            assert_eq!(assertion.outcome_of(&json), Err(Failure::Signature), "signature, {at}");
        }
        // The counter, the last four bytes, is read after the signature.
        for at in 33..data.len() {
            let json = assertion.json_with(&client_data, &flipped(&data, at), &signature);
            assert_eq!(assertion.outcome_of(&json), Err(Failure::Signature), "authenticator data, {at}");
        }
        for at in 0..33 {
            let json = assertion.json_with(&client_data, &flipped(&data, at), &signature);
            assert!(assertion.outcome_of(&json).is_err(), "authenticator data, {at}");
        }
        for at in 0..client_data.len() {
            let json = assertion.json_with(&flipped(&client_data, at), &data, &signature);
            assert!(assertion.outcome_of(&json).is_err(), "client data, {at}");
        }
    }
}

#[test]
fn client_data_is_signed_byte_by_byte() {
    let passkey = Passkey::new(Key::es256());
    let assertion = passkey.assertion();
    let data = assertion.data.encode();
    let spaced = format!(" {}", assertion.client_data);
    let json = assertion.json_with(spaced.as_bytes(), &data, &assertion.signature());
    assert_eq!(assertion.outcome_of(&json), Err(Failure::Signature));
}

#[test]
fn signatures_of_other_forms_are_refused() {
    for key in [Key::es256(), Key::ed25519(), Key::rs256()] {
        let passkey = Passkey::new(key);
        let assertion = passkey.assertion();
        let (client_data, data) = (assertion.client_data.to_string(), assertion.data.encode());
        let good = assertion.signature();
        for signature in [vec![], good[1..].to_vec(), [good.as_slice(), &[0]].concat(), vec![0; good.len()]] {
            let json = assertion.json_with(client_data.as_bytes(), &data, &signature);
            assert_eq!(assertion.outcome_of(&json), Err(Failure::Signature), "{signature:x?}");
        }
    }
    // ECDSA signatures are ASN.1, not two numbers of fixed length.
    let fixed = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let pkcs8 = fixed.to_pkcs8v1().unwrap();
    let asn1 = EcdsaKeyPair::from_pkcs8(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    let passkey = Passkey::new(Key::Es256(asn1));
    let assertion = passkey.assertion();
    assertion.outcome().unwrap();
    let (client_data, data) = (assertion.client_data.to_string(), assertion.data.encode());
    let signature = fixed.sign(&SystemRandom::new(), &assertion.signed()).unwrap();
    let json = assertion.json_with(client_data.as_bytes(), &data, signature.as_ref());
    assert_eq!(assertion.outcome_of(&json), Err(Failure::Signature));
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let keys = [Key::es256(), Key::ed25519(), Key::rs256(), Key::es256(), Key::ed25519()];
    let passkeys = keys.map(Passkey::new);
    for (at, passkey) in passkeys.iter().enumerate() {
        for (other, foreign) in passkeys.iter().enumerate() {
            let mut assertion = passkey.assertion();
            assertion.stored_key = foreign.key.cose();
            let expected = if at == other { Ok(()) } else { Err(Failure::Signature) };
            assert_eq!(assertion.outcome().map(|_| ()), expected, "{at} by {other}");
        }
    }
}

#[test]
fn a_stored_key_that_is_none_is_refused() {
    for stored in [vec![], vec![0xa0], vec![0xff; 77]] {
        assert_eq!(outcome(|it| it.stored_key = stored), Err(Failure::PublicKey));
    }
}

#[test]
fn the_user_handle_is_that_of_the_user_if_there_is_one() {
    let with = |handle: Value| outcome(|it| it.user_handle = handle).map(|_| ());
    assert_eq!(with(json!(base64url(b"user-2"))), Err(Failure::UserHandle));
    assert_eq!(with(json!(base64url(b"user-"))), Err(Failure::UserHandle));
    assert_eq!(with(json!(base64url(b"user-11"))), Err(Failure::UserHandle));
    assert_eq!(with(json!("")), Ok(()));
    assert_eq!(with(json!(null)), Ok(()));

    let passkey = Passkey::new(Key::es256());
    let assertion = passkey.assertion();
    let mut json = assertion.json();
    json["response"].as_object_mut().unwrap().remove("userHandle");
    assertion.outcome_of(&json).unwrap();
    assert_eq!(AuthenticationResponse::from_json(&json.to_string()).unwrap().user_handle(), None);
}

#[test]
fn the_counter_increases_unless_there_is_none() {
    let with = |stored, new| {
        outcome(|it| (it.stored_count, it.data.sign_count) = (stored, new)).map(|result| result.sign_count)
    };
    for (stored, new) in [(0, 0), (0, 1), (3, 4), (3, u32::MAX), (u32::MAX - 1, u32::MAX)] {
        assert_eq!(with(stored, new), Ok(new), "{stored}, {new}");
    }
    for (stored, new) in [(3, 3), (3, 2), (3, 0), (1, 0), (1, 1), (u32::MAX, u32::MAX), (u32::MAX, 1)] {
        assert_eq!(with(stored, new), Err(Failure::Counter), "{stored}, {new}");
    }
}

#[test]
fn a_counter_is_not_looked_at_without_a_valid_signature() {
    let foreign = Key::es256().cose();
    assert_eq!(outcome(|it| (it.stored_key, it.data.sign_count) = (foreign, 1)), Err(Failure::Signature));
}
