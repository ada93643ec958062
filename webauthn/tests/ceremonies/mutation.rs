//! Random bytes, and random changes of valid responses: none verifies, and none panics.

use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Value;

use super::authenticator::*;

/// One of each algorithm: generating a key of RSA takes longer than a test of it.
static PASSKEYS: LazyLock<[Passkey; 3]> =
    LazyLock::new(|| [Key::es256(), Key::ed25519(), Key::rs256()].map(Passkey::new));

#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    /// Writes a part of the bytes a second time, elsewhere.
    Repeat(Index, Index, Index),
    Truncate(Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        let part = |a: &Index, b: &Index| {
            let (a, b) = (a.index(length), b.index(length));
            a.min(b)..a.max(b)
        };
        match self {
            Self::Set(at, value) => bytes[at.index(length)] = *value,
            Self::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Self::Insert(at, more) => drop(bytes.splice(at.index(length)..at.index(length), more.iter().copied())),
            Self::Remove(a, b) => drop(bytes.drain(part(a, b))),
            Self::Repeat(a, b, at) => {
                let copy = bytes[part(a, b)].to_vec();
                bytes.splice(at.index(length)..at.index(length), copy);
            }
            Self::Truncate(at) => bytes.truncate(at.index(length)),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, value)| Change::Set(at, value)),
        (index(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (index(), vec(any::<u8>(), 1..20)).prop_map(|(at, more)| Change::Insert(at, more)),
        (index(), index()).prop_map(|(a, b)| Change::Remove(a, b)),
        (index(), index(), index()).prop_map(|(a, b, at)| Change::Repeat(a, b, at)),
        index().prop_map(Change::Truncate),
    ]
}

fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        change.apply(&mut bytes);
    }
    bytes
}

proptest! {
    #[test]
    fn random_bytes_do_not_verify(
        client_data in vec(any::<u8>(), 0..300),
        data in vec(any::<u8>(), 0..300),
        signature in vec(any::<u8>(), 0..300),
        valid in any::<[bool; 3]>(),
    ) {
        // Two parts of three may be valid, so that the third is read.
        prop_assume!(valid != [true; 3]);
        let passkey = &PASSKEYS[0];
        let assertion = passkey.assertion();
        let good = [assertion.client_data.to_string().into_bytes(), assertion.data.encode(), assertion.signature()];
        let pick = |at: usize, random: &[u8]| if valid[at] { good[at].clone() } else { random.to_vec() };
        let json = assertion.json_with(&pick(0, &client_data), &pick(1, &data), &pick(2, &signature));
        prop_assert!(assertion.outcome_of(&json).is_err());

        let registration = passkey.registration();
        let json = registration.json_with(registration.client_data.to_string().as_bytes(), &data);
        prop_assert!(register(&json).is_err());
        let object = attestation_object("none", &map(&[]), &data);
        prop_assert!(registration.outcome_of(&object).is_err());
        let object = attestation_object("packed", &signature, &registration.data.encode());
        prop_assert!(registration.outcome_of(&object).is_err());
    }

    #[test]
    fn changed_assertions_do_not_verify(
        of in 0..3usize,
        part in 0..3usize,
        changes in vec(change(), 1..4),
    ) {
        let assertion = PASSKEYS[of].assertion();
        let mut parts = [assertion.client_data.to_string().into_bytes(), assertion.data.encode(), assertion.signature()];
        let new = changed(&parts[part], &changes);
        prop_assume!(new != parts[part]);
        parts[part] = new;
        let json = assertion.json_with(&parts[0], &parts[1], &parts[2]);
        prop_assert!(assertion.outcome_of(&json).is_err());
    }

    #[test]
    fn changed_registrations_with_self_attestation_do_not_verify(
        of in 0..3usize,
        part in 0..2usize,
        changes in vec(change(), 1..4),
    ) {
        let mut registration = PASSKEYS[of].registration();
        registration.attest();
        let mut parts = [registration.client_data.to_string().into_bytes(), registration.object()];
        let new = changed(&parts[part], &changes);
        prop_assume!(new != parts[part]);
        parts[part] = new;
        prop_assert!(register(&registration.json_with(&parts[0], &parts[1])).is_err());
    }

    // Without attestation nothing signs a registration: a change may verify, but no other id does.
    #[test]
    fn changed_registrations_do_not_panic(of in 0..3usize, changes in vec(change(), 1..4)) {
        let registration = PASSKEYS[of].registration();
        let data = changed(&registration.data.encode(), &changes);
        for object in [attestation_object("none", &map(&[]), &data), changed(&registration.object(), &changes)] {
            if let Ok(registered) = registration.outcome_of(&object) {
                prop_assert_eq!(&registered.id, &PASSKEYS[of].id);
            }
        }
    }

    #[test]
    fn changed_keys_do_not_verify(of in 0..3usize, changes in vec(change(), 1..4)) {
        let mut assertion = PASSKEYS[of].assertion();
        let stored = changed(&assertion.stored_key, &changes);
        // What follows a key is not read.
        prop_assume!(!stored.starts_with(&assertion.stored_key));
        assertion.stored_key = stored;
        prop_assert!(assertion.outcome().is_err());
    }

    #[test]
    fn changed_json_does_not_panic(changes in vec(change(), 1..4)) {
        let assertion = PASSKEYS[0].assertion();
        let text = changed(assertion.json().to_string().as_bytes(), &changes);
        if let Ok(json) = serde_json::from_slice::<Value>(&text) {
            let _ = assertion.outcome_of(&json);
            let _ = register(&json);
        }
    }
}
