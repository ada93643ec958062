//! Public keys of registrations (COSE).

use drystone_webauthn::Failure;

use super::authenticator::*;

/// The outcome of a registration of this key, which need not be one.
fn outcome(key: &[u8]) -> Result<(), Failure> {
    let passkey = Passkey::new(Key::es256());
    let mut registration = passkey.registration();
    registration.data.rest = attested(&passkey.id, key);
    let registered = registration.outcome()?;
    assert_eq!(registered.public_key, key);
    Ok(())
}

fn refused(name: &str, entries: &[(i64, Vec<u8>)]) {
    assert_eq!(outcome(&cose(entries)), Err(Failure::PublicKey), "{name}");
}

/// These entries, with one of them changed or added.
fn with(entries: &Entries, label: i64, value: Vec<u8>) -> Entries {
    let mut entries = entries.clone();
    match entries.iter_mut().find(|entry| entry.0 == label) {
        Some(entry) => entry.1 = value,
        None => entries.push((label, value)),
    }
    entries
}

/// The bytes of an entry, without their head.
fn value(entries: &Entries, label: i64) -> Vec<u8> {
    let (_, value) = entries.iter().find(|entry| entry.0 == label).unwrap();
    minicbor::Decoder::new(value).bytes().unwrap().to_vec()
}

fn keys() -> [Entries; 3] {
    [Key::es256().entries(), Key::ed25519().entries(), Key::rs256().entries()]
}

#[test]
fn members_may_be_in_any_order() {
    for mut entries in keys() {
        entries.reverse();
        assert_eq!(outcome(&cose(&entries)), Ok(()));
    }
}

#[test]
fn each_member_is_needed() {
    for entries in keys() {
        for at in 0..entries.len() {
            let mut fewer = entries.clone();
            let (label, _) = fewer.remove(at);
            refused(&format!("without {label}"), &fewer);
        }
    }
}

#[test]
fn no_member_is_twice_and_there_are_no_others() {
    for entries in keys() {
        for (label, value) in &entries {
            let twice = [entries.as_slice(), &[(*label, value.clone())]].concat();
            refused(&format!("{label} twice"), &twice);
        }
        let others = [
            (2, bytes(b"kid")),
            (4, cbor(|out| drop(out.array(0)))),
            (5, bytes(b"iv")),
            (-4, bytes(&[7; 32])),
            (i64::MAX, int(1)),
            (i64::MIN, int(1)),
        ];
        for other in others {
            refused(&format!("more: {}", other.0), &[entries.as_slice(), &[other]].concat());
        }
        let mut named: Vec<_> = entries.iter().map(|(label, value)| (int(*label), value.clone())).collect();
        named.push((text("more"), int(1)));
        assert_eq!(outcome(&map(&named)), Err(Failure::PublicKey));
    }
    // As a curve and as a modulus, label -1 is one label.
    let [ec, _, rsa] = keys();
    refused("a modulus and a curve", &[rsa.as_slice(), &[(-1, int(1))]].concat());
    refused("a curve and a modulus", &[ec.as_slice(), &[(-1, bytes(&[0xff; 256]))]].concat());
}

#[test]
fn keys_of_other_algorithms_types_and_curves_are_refused() {
    for entries in keys() {
        let own = entries.clone();
        // ES384, ES512, ES256K, PS256, RS1, ESP256, Ed25519 in its fully-specified form, ECDH, and none.
        for algorithm in [-7, -8, -257, -35, -36, -47, -37, -65535, -9, -19, -25, 0, 7] {
            let changed = with(&entries, 3, int(algorithm));
            if changed != own {
                refused(&format!("algorithm {algorithm}"), &changed);
            }
        }
        for kind in [0, 1, 2, 3, 4] {
            let changed = with(&entries, 1, int(kind));
            if changed != own {
                refused(&format!("type {kind}"), &changed);
            }
        }
        for curve in 0..10 {
            let changed = with(&entries, -1, int(curve));
            if changed != own {
                refused(&format!("curve {curve}"), &changed);
            }
        }
        refused("the algorithm as text", &with(&entries, 3, text("ES256")));
    }
}

#[test]
fn points_of_p256_are_on_the_curve_and_whole() {
    let entries = Key::es256().entries();
    let (x, y) = (value(&entries, -2), value(&entries, -3));
    let mut off = y.clone();
    off[31] ^= 1;
    refused("off the curve", &with(&entries, -3, bytes(&off)));
    refused("x for y", &with(&entries, -3, bytes(&x)));
    refused("zero", &with(&with(&entries, -2, bytes(&[0; 32])), -3, bytes(&[0; 32])));
    refused("greater than the field", &with(&entries, -2, bytes(&[0xff; 32])));
    for (label, coordinate) in [(-2, &x), (-3, &y)] {
        refused("short", &with(&entries, label, bytes(&coordinate[1..])));
        refused("long", &with(&entries, label, bytes(&[&[0], coordinate.as_slice()].concat())));
        refused("empty", &with(&entries, label, bytes(&[])));
        refused("text", &with(&entries, label, text(&"a".repeat(32))));
    }
    let sign = cbor(|out| drop(out.bool(y[31] & 1 == 1)));
    refused("compressed", &with(&entries, -3, sign));
}

#[test]
fn keys_of_ed25519_have_32_bytes_and_no_y() {
    let entries = Key::ed25519().entries();
    let x = value(&entries, -2);
    refused("short", &with(&entries, -2, bytes(&x[1..])));
    refused("long", &with(&entries, -2, bytes(&[x.as_slice(), &[0]].concat())));
    refused("with y", &with(&entries, -3, bytes(&x)));
}

// It is found when a signature is verified, not before: there is none by such a key.
#[test]
fn a_key_of_ed25519_that_is_no_point_verifies_nothing() {
    let passkey = Passkey::new(Key::ed25519());
    let mut no_point = [0; 32];
    no_point[0] = 2;
    let mut assertion = passkey.assertion();
    assertion.stored_key = cose(&with(&passkey.key.entries(), -2, bytes(&no_point)));
    assert_eq!(assertion.outcome(), Err(Failure::Signature));
    assert_eq!(outcome(&assertion.stored_key), Ok(()));
}

// Anybody can sign for such a key.
#[test]
fn keys_of_ed25519_have_no_small_order() {
    let entries = Key::ed25519().entries();
    let at_the_prime = |first: u8| {
        let mut y = [0xff; 32];
        (y[0], y[31]) = (first, 0x7f);
        y
    };
    let mut one = [0; 32];
    one[0] = 1;
    let mut points = vec![[0; 32], one, at_the_prime(0xec), at_the_prime(0xed), at_the_prime(0xee)];
    points.extend(points.clone().into_iter().map(|mut y| {
        y[31] |= 0x80;
        y
    }));
    for point in points {
        refused(&format!("{point:x?}"), &with(&entries, -2, bytes(&point)));
    }
}

#[test]
fn moduli_have_2048_to_4096_bits() {
    let entries = Key::rs256().entries();
    let modulus = |bits: usize| {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= modulus.len() * 8 - bits;
        with(&entries, -1, bytes(&modulus))
    };
    for bits in [2048, 2049, 3072, 4096] {
        assert_eq!(outcome(&cose(&modulus(bits))), Ok(()), "{bits}");
    }
    for bits in [8, 512, 1024, 2040, 2041, 2047, 4097, 8192] {
        refused(&format!("{bits} bits"), &modulus(bits));
    }
    let mut even = value(&entries, -1);
    even[255] &= 0xfe;
    refused("even", &with(&entries, -1, bytes(&even)));
    refused("empty", &with(&entries, -1, bytes(&[])));
    let padded = [&[0], value(&entries, -1).as_slice()].concat();
    refused("with a leading zero", &with(&entries, -1, bytes(&padded)));
}

#[test]
fn exponents_are_odd_and_have_2_to_33_bits() {
    let entries = Key::rs256().entries();
    for exponent in [&[3][..], &[1, 0, 1], &[0xff; 4], &[1, 0xff, 0xff, 0xff, 0xff]] {
        assert_eq!(outcome(&cose(&with(&entries, -2, bytes(exponent)))), Ok(()), "{exponent:x?}");
    }
    for exponent in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[0, 1, 0, 1], &[2, 0, 0, 0, 1], &[0xff; 8], &[0xff; 9]] {
        refused(&format!("{exponent:x?}"), &with(&entries, -2, bytes(exponent)));
    }
}

#[test]
fn keys_are_one_map_of_definite_length() {
    for entries in keys() {
        let key = cose(&entries);
        let indefinite = [&[0xbf], &key[1..], &[0xff]].concat();
        for bad in [vec![], vec![0xa0], vec![0x80], vec![0xf6], bytes(&key), indefinite] {
            assert_eq!(outcome(&bad), Err(Failure::PublicKey), "{bad:x?}");
        }
        let trailing = [key.as_slice(), &[0]].concat();
        assert_eq!(outcome(&trailing), Err(Failure::Malformed("authenticatorData")));
    }
}
