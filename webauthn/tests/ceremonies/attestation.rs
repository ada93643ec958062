//! Attestation objects and statements.

use drystone_webauthn::Failure;

use super::authenticator::*;

const OBJECT: Failure = Failure::Malformed("attestationObject");

#[test]
fn members_may_be_in_any_order() {
    let passkey = Passkey::new(Key::es256());
    let mut registration = passkey.registration();
    registration.attest();
    let mut statement = registration.self_attestation();
    statement.reverse();
    let object = map(&[
        (text("authData"), bytes(&registration.data.encode())),
        (text("attStmt"), map(&statement)),
        (text("fmt"), text("packed")),
    ]);
    registration.outcome_of(&object).unwrap();
}

#[test]
fn other_formats_are_refused() {
    let passkey = Passkey::new(Key::es256());
    for format in ["tpm", "android-key", "android-safetynet", "fido-u2f", "apple", "compound", "", "None", "none "] {
        let mut registration = passkey.registration();
        registration.format = format;
        assert_eq!(registration.outcome(), Err(Failure::AttestationFormat), "{format}");
    }
}

#[test]
fn a_statement_of_the_format_none_is_empty() {
    let passkey = Passkey::new(Key::es256());
    let mut registration = passkey.registration();
    registration.attest();
    let attestation = registration.statement;
    registration = passkey.registration();
    for statement in [attestation, map(&[(text("x"), int(1))]), vec![0x80], vec![0xf6], text(""), vec![0xb8, 0]] {
        registration.statement = statement;
        assert_eq!(registration.outcome(), Err(OBJECT), "{:x?}", registration.statement);
    }
}

#[test]
fn packed_attestation_by_certificates_is_refused() {
    let passkey = Passkey::new(Key::es256());
    let mut registration = passkey.registration();
    registration.format = "packed";
    for certificates in [cbor(|out| drop(out.array(1).unwrap().bytes(b"DER"))), vec![0x80], vec![0xf6]] {
        let mut statement = registration.self_attestation();
        statement.push((text("x5c"), certificates));
        registration.statement = map(&statement);
        assert_eq!(registration.outcome(), Err(Failure::AttestationFormat));
    }
}

#[test]
fn a_packed_statement_has_one_algorithm_and_one_signature() {
    let passkey = Passkey::new(Key::es256());
    let mut registration = passkey.registration();
    registration.format = "packed";
    let good = registration.self_attestation();
    let (algorithm, signature) = (good[0].clone(), good[1].clone());
    for statement in [
        vec![],
        vec![algorithm.clone()],
        vec![signature.clone()],
        vec![algorithm.clone(), signature.clone(), signature.clone()],
        vec![algorithm.clone(), algorithm.clone(), signature.clone()],
        vec![algorithm.clone(), signature.clone(), (text("more"), int(1))],
        vec![(text("alg"), text("ES256")), signature.clone()],
        vec![algorithm.clone(), (text("sig"), text("sig"))],
        vec![algorithm.clone(), (int(1), signature.1.clone())],
    ] {
        registration.statement = map(&statement);
        assert_eq!(registration.outcome(), Err(Failure::AttestationFormat), "{statement:x?}");
    }
}

#[test]
fn a_self_attestation_is_by_the_key_and_of_its_algorithm() {
    for key in [Key::es256(), Key::ed25519(), Key::rs256()] {
        let passkey = Passkey::new(key);
        let mut registration = passkey.registration();
        registration.attest();
        registration.outcome().unwrap();
        for algorithm in [-7, -8, -257, -37, 0].into_iter().filter(|other| *other != passkey.key.algorithm()) {
            let mut statement = registration.self_attestation();
            statement[0].1 = int(algorithm);
            registration.statement = map(&statement);
            assert_eq!(registration.outcome(), Err(Failure::Attestation), "{algorithm}");
        }
        for signature in [vec![], vec![0; 64], Key::es256().sign(b"something else")] {
            let mut statement = registration.self_attestation();
            statement[1].1 = bytes(&signature);
            registration.statement = map(&statement);
            assert_eq!(registration.outcome(), Err(Failure::Attestation), "{signature:x?}");
        }
    }
}

#[test]
fn a_self_attestation_signs_all_of_the_data() {
    type Change = fn(&mut Registration<'_>);
    let changes: [(&str, Change); 5] = [
        ("the counter", |it| it.data.sign_count += 1),
        ("the backup state", |it| it.data.flags |= BS),
        ("the AAGUID", |it| it.data.rest[0] ^= 1),
        ("client data", |it| it.client_data["more"] = 1.into()),
        ("the key", |it| it.data.rest = attested(&it.passkey.id, &Key::es256().cose())),
    ];
    let passkey = Passkey::new(Key::es256());
    for (name, change) in changes {
        let mut registration = passkey.registration();
        registration.attest();
        change(&mut registration);
        assert_eq!(registration.outcome(), Err(Failure::Attestation), "{name}");
    }
}

#[test]
fn an_object_has_each_member_once_and_no_others() {
    let passkey = Passkey::new(Key::es256());
    let registration = passkey.registration();
    let good = [
        (text("fmt"), text("none")),
        (text("attStmt"), map(&[])),
        (text("authData"), bytes(&registration.data.encode())),
    ];
    registration.outcome_of(&map(&good)).unwrap();
    for at in 0..good.len() {
        let mut fewer = good.to_vec();
        fewer.remove(at);
        assert_eq!(registration.outcome_of(&map(&fewer)), Err(OBJECT), "without {at}");
        let twice = [&good[..], &good[at..=at]].concat();
        assert_eq!(registration.outcome_of(&map(&twice)), Err(OBJECT), "{at} twice");
        let mut changed = good.to_vec();
        changed[at].1 = vec![0xf6];
        let failure = registration.outcome_of(&map(&changed)).unwrap_err();
        assert_eq!(failure, OBJECT, "{at} null");
    }
    // As CTAP2 has it: with numbers for names.
    let numbered: Vec<_> = (1..).zip(&good).map(|(label, (_, value))| (int(label), value.clone())).collect();
    for others in [numbered, [&good[..], &[(text("epAtt"), int(1))]].concat()] {
        assert_eq!(registration.outcome_of(&map(&others)), Err(OBJECT));
    }
}

#[test]
fn objects_of_other_forms_are_refused() {
    let passkey = Passkey::new(Key::es256());
    let mut registration = passkey.registration();
    registration.attest();
    let good = registration.object();
    let statement_at = good.windows(8).position(|window| window == b"\x67attStmt").unwrap() + 8;
    let data = bytes(&registration.data.encode());
    let data_at = good.len() - data.len();
    let indefinite_data = [&good[..data_at], &[0x5f], data.as_slice(), &[0xff]].concat();
    let indefinite_statement =
        [&good[..statement_at], &[0xbf], &good[statement_at + 1..data_at - 9], &[0xff], &good[data_at - 9..]].concat();
    for (name, object) in [
        ("empty", vec![]),
        ("empty map", vec![0xa0]),
        ("list", vec![0x80]),
        ("trailing byte", [good.as_slice(), &[0]].concat()),
        ("twice", [good.as_slice(), &good].concat()),
        ("tagged", [&[0xd9, 0xd9, 0xf7], good.as_slice()].concat()),
        ("indefinite map", [&[0xbf], &good[1..], &[0xff]].concat()),
        ("indefinite data", indefinite_data),
        ("indefinite statement", indefinite_statement),
        ("JSON", b"{\"fmt\":\"none\"}".to_vec()),
    ] {
        assert_eq!(registration.outcome_of(&object), Err(OBJECT), "{name}");
    }
}

#[test]
fn truncated_objects_are_refused_at_every_length() {
    for key in [Key::es256(), Key::ed25519(), Key::rs256()] {
        let passkey = Passkey::new(key);
        let mut registration = passkey.registration();
        for attest in [false, true] {
            if attest {
                registration.attest();
            }
            let object = registration.object();
            for length in 0..object.len() {
                assert_eq!(registration.outcome_of(&object[..length]), Err(OBJECT), "{length}");
            }
        }
    }
}
