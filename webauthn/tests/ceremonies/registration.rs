//! Registrations: client data, authenticator data and attested credentials.

use drystone_webauthn::{Failure, Registered};
use serde_json::json;

use super::authenticator::*;

const DATA: Failure = Failure::Malformed("authenticatorData");

/// That a change of a valid registration is refused with this failure.
fn refused(name: &str, change: impl FnOnce(&mut Registration<'_>), failure: &Failure) {
    let passkey = Passkey::new(Key::es256());
    let mut registration = passkey.registration();
    change(&mut registration);
    assert_eq!(registration.outcome().as_ref(), Err(failure), "{name}");
}

#[test]
fn registrations_of_all_three_algorithms_pass() {
    for key in [Key::es256(), Key::ed25519(), Key::rs256()] {
        let passkey = Passkey::new(key);
        let mut registration = passkey.registration();
        let expected = Registered {
            id: passkey.id.clone(),
            public_key: passkey.key.cose(),
            sign_count: 3,
            is_backup_eligible: true,
            is_backed_up: false,
            aaguid: AAGUID,
            transports: vec!["internal".to_owned(), "hybrid".to_owned()],
        };
        assert_eq!(registration.outcome().as_ref(), Ok(&expected));
        registration.attest();
        assert_eq!(registration.outcome(), Ok(expected));
    }
}

#[test]
fn changed_client_data_is_refused() {
    let ceremony = Failure::Type("webauthn.create");
    let malformed = Failure::Malformed("clientDataJSON");
    let origin = |text: &str| Failure::Origin(text.to_owned());
    for (member, value, failure) in [
        ("type", json!("webauthn.get"), &ceremony),
        ("type", json!("webauthn.Create"), &ceremony),
        ("type", json!(null), &malformed),
        ("challenge", json!("dGhpcyBpcyBub3QgcmFuZG9u"), &Failure::Challenge),
        ("challenge", json!(format!("{CHALLENGE}=")), &Failure::Challenge),
        ("challenge", json!(""), &Failure::Challenge),
        ("challenge", json!(1), &malformed),
        ("origin", json!("https://example.com"), &origin("https://example.com")),
        ("origin", json!("http://app.example.com"), &origin("http://app.example.com")),
        ("origin", json!("https://app.example.com:8443"), &origin("https://app.example.com:8443")),
        ("origin", json!("https://app.example.com.evil.com"), &origin("https://app.example.com.evil.com")),
        ("origin", json!("HTTPS://app.example.com"), &origin("HTTPS://app.example.com")),
        ("origin", json!(""), &origin("")),
        ("crossOrigin", json!(true), &Failure::CrossOrigin),
        ("crossOrigin", json!("true"), &malformed),
        ("topOrigin", json!("https://example.com"), &Failure::CrossOrigin),
        ("topOrigin", json!(ORIGIN), &Failure::CrossOrigin),
    ] {
        refused(&format!("{member}: {value}"), |it| it.client_data[member] = value, failure);
    }
}

#[test]
fn client_data_needs_each_member_but_those_about_frames() {
    for member in ["type", "challenge", "origin"] {
        let remove = |it: &mut Registration<'_>| drop(it.client_data.as_object_mut().unwrap().remove(member));
        refused(member, remove, &Failure::Malformed("clientDataJSON"));
    }
    let passkey = Passkey::new(Key::es256());
    let mut registration = passkey.registration();
    registration.client_data.as_object_mut().unwrap().remove("crossOrigin");
    registration.client_data["more"] = json!({"nested": [1, {"type": "webauthn.get"}]});
    registration.outcome().unwrap();
}

#[test]
fn client_data_that_is_no_object_is_refused() {
    let passkey = Passkey::new(Key::es256());
    let registration = passkey.registration();
    let good = registration.client_data.to_string();
    let list = json!(["webauthn.create", CHALLENGE, ORIGIN, false, null]).to_string();
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let twice = good.replacen('{', r#"{"\u0074ype":"webauthn.create","#, 1);
    for text in ["", "{}", "null", "\"\"", &list, &deep, &good[1..], &format!("{good}{good}"), &twice] {
        let json = registration.json_with(text.as_bytes(), &registration.object());
        assert_eq!(register(&json), Err(Failure::Malformed("clientDataJSON")), "{text}");
    }
    let not_utf8 = [good.trim_end_matches('}').as_bytes(), b",\"x\xff\":1}"].concat();
    let json = registration.json_with(&not_utf8, &registration.object());
    assert_eq!(register(&json), Err(Failure::Malformed("clientDataJSON")));
    let marked = [b"\xef\xbb\xbf", good.as_bytes()].concat();
    register(&registration.json_with(&marked, &registration.object())).unwrap();
}

#[test]
fn changed_authenticator_data_is_refused() {
    type Change = fn(&mut Data);
    let changes: [(&str, Change, Failure); 12] = [
        ("another RP ID", |data| data.rp_id = "app.example.com", Failure::RelyingPartyId),
        ("the origin as RP ID", |data| data.rp_id = ORIGIN, Failure::RelyingPartyId),
        ("user not present", |data| data.flags &= !UP, Failure::UserPresent),
        ("user not verified", |data| data.flags &= !UV, Failure::UserVerified),
        ("backed up, but not eligible", |data| data.flags = UP | UV | BS | AT, Failure::BackupFlags),
        ("no credential", |data| (data.flags, data.rest) = (UP | UV | BE, vec![]), DATA),
        ("a credential without its flag", |data| data.flags &= !AT, DATA),
        ("the flag without a credential", |data| data.rest.clear(), DATA),
        ("trailing byte", |data| data.rest.push(0), DATA),
        ("extensions without their flag", |data| data.rest.extend(map(&[])), DATA),
        ("the flag without extensions", |data| data.flags |= ED, DATA),
        (
            "extensions before the credential",
            |data| {
                data.flags |= ED;
                data.rest.splice(..0, map(&[]));
            },
            // The first byte is taken as one of the AAGUID, so that all the others are off by one.
            DATA,
        ),
    ];
    for (name, change, failure) in changes {
        refused(name, |it| change(&mut it.data), &failure);
    }
}

#[test]
fn flags_that_are_reserved_are_ignored() {
    let passkey = Passkey::new(Key::es256());
    let mut registration = passkey.registration();
    registration.data.flags |= 0x22;
    registration.outcome().unwrap();
}

#[test]
fn extensions_are_one_map() {
    let passkey = Passkey::new(Key::es256());
    let outcome = |extensions: &[u8]| {
        let mut registration = passkey.registration();
        registration.data.flags |= ED;
        registration.data.rest.extend(extensions);
        registration.attest();
        registration.outcome().map(|_| ())
    };
    let nested = map(&[
        (text("uvm"), cbor(|out| drop(out.array(1).unwrap().array(3).unwrap().u8(2).unwrap().u8(4).unwrap().u8(2)))),
        (text("credProtect"), int(3)),
        (text("hmac-secret"), cbor(|out| drop(out.bool(true)))),
    ]);
    for good in [&map(&[]), &nested] {
        assert_eq!(outcome(good), Ok(()), "{good:x?}");
    }
    for bad in [
        &[][..],
        &int(1),
        &text("credProtect"),
        &[0x80],
        &[0xf6],
        &[nested.as_slice(), &[0]].concat(),
        &[nested.as_slice(), &map(&[])].concat(),
        &nested[..nested.len() - 1],
        // Of indefinite length.
        &[0xbf, 0xff],
        // More entries than there are bytes.
        &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert_eq!(outcome(bad), Err(DATA), "{bad:x?}");
    }
}

#[test]
fn the_id_of_the_credential_is_the_attested_one() {
    let id = Failure::Malformed("id");
    refused("another id", |it| it.data.rest = attested(b"another", &it.passkey.key.cose()), &id);
    refused("a prefix", |it| it.data.rest = attested(b"credential", &it.passkey.key.cose()), &id);
}

#[test]
fn ids_have_1_to_1023_bytes() {
    for length in [1, 16, 1023] {
        let passkey = Passkey { key: Key::es256(), id: vec![7; length] };
        assert_eq!(passkey.registration().outcome().unwrap().id, passkey.id);
    }
    let empty = Passkey { key: Key::es256(), id: vec![] };
    assert_eq!(empty.registration().outcome(), Err(Failure::Malformed("rawId")));
    let long = Passkey { key: Key::es256(), id: vec![7; 1024] };
    assert_eq!(long.registration().outcome(), Err(Failure::Malformed("id")));

    refused("attested, empty", |it| it.data.rest = attested(b"", &it.passkey.key.cose()), &DATA);
    refused("attested, long", |it| it.data.rest = attested(&[7; 1024], &it.passkey.key.cose()), &DATA);
    refused("attested, beyond the end", |it| it.data.rest[16..18].fill(0xff), &DATA);
}

#[test]
fn truncated_authenticator_data_is_refused_at_every_length() {
    for key in [Key::es256(), Key::ed25519(), Key::rs256()] {
        let passkey = Passkey::new(key);
        let mut registration = passkey.registration();
        registration.data.flags |= ED;
        registration.data.rest.extend(map(&[(text("credProtect"), int(3))]));
        registration.outcome().unwrap();
        let data = registration.data.encode();
        for length in 0..data.len() {
            let object = attestation_object("none", &map(&[]), &data[..length]);
            let failure = registration.outcome_of(&object).unwrap_err();
            assert!(matches!(failure, DATA | Failure::PublicKey), "{length}: {failure:?}");
        }
    }
}
