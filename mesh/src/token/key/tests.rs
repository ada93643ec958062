use super::*;
use crate::token::testing::Signer;

/// The modulus of the RSA key in RFC 7517, appendix A.1.
const RSA_7517: &str = "\
    0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB\
    ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8\
    KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_\
    xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

/// The modulus of the key in RFC 7515, appendix A.2.
const RSA_7515: &str = "\
    ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
    T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB\
    dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia\
    GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

/// The signature of that key there.
const SIGNATURE_7515: &str = "\
    cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9\
    uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB\
    _eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq\
    Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

/// What is signed in RFC 7515, appendices A.2 and A.3, after the header.
const PAYLOAD_7515: &str = "\
    eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

#[test]
fn a_jwk_is_parsed_to_its_key() {
    let signer = Signer::new("key-1");
    assert_eq!(PublicKey::from_jwk(&signer.jwk()), Ok(signer.public()));
}

#[test]
fn an_ed25519_jwk_is_parsed() {
    let jwk = Jwk {
        kty: "OKP".to_owned(),
        r#use: "sig".to_owned(),
        alg: "EdDSA".to_owned(),
        kid: "ed".to_owned(),
        crv: Some("Ed25519".to_owned()),
        // RFC 8037, appendix A.2.
        x: Some("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned()),
        ..Jwk::default()
    };
    assert_eq!(PublicKey::from_jwk(&jwk).map(|key| key.algorithm()), Ok(Algorithm::EdDsa));
}

#[test]
fn an_unsupported_or_invalid_jwk_is_rejected() {
    let valid = Signer::new("key-1").jwk();
    let with = |change: fn(&mut Jwk)| {
        let mut jwk = valid.clone();
        change(&mut jwk);
        PublicKey::from_jwk(&jwk).map(drop)
    };
    assert_eq!(with(|jwk| jwk.kid.clear()), Err(PublicKeyError::KeyId));
    assert_eq!(with(|jwk| jwk.kid = "k".repeat(257)), Err(PublicKeyError::KeyId));
    assert_eq!(with(|jwk| jwk.r#use = "enc".to_owned()), Err(PublicKeyError::Use));
    assert_eq!(with(|jwk| jwk.r#use.clear()), Err(PublicKeyError::Use));
    assert_eq!(with(|jwk| jwk.alg = "HS256".to_owned()), Err(PublicKeyError::Type));
    assert_eq!(with(|jwk| jwk.alg = "EdDSA".to_owned()), Err(PublicKeyError::Type));
    assert_eq!(with(|jwk| jwk.kty = "oct".to_owned()), Err(PublicKeyError::Type));
    assert_eq!(with(|jwk| jwk.crv = Some("P-384".to_owned())), Err(PublicKeyError::Type));
    assert_eq!(with(|jwk| jwk.x.as_mut().unwrap().push('=')), Err(PublicKeyError::Material));
    assert_eq!(with(|jwk| jwk.y = None), Err(PublicKeyError::Material));
    // A point that is not on the curve.
    assert_eq!(with(|jwk| jwk.y = jwk.x.clone()), Err(PublicKeyError::Material));
}

fn rsa(n: &[u8], e: &[u8]) -> Jwk {
    Jwk {
        kty: "RSA".to_owned(),
        r#use: "sig".to_owned(),
        alg: "RS256".to_owned(),
        kid: "rsa".to_owned(),
        n: Some(URL_SAFE_NO_PAD.encode(n)),
        e: Some(URL_SAFE_NO_PAD.encode(e)),
        ..Jwk::default()
    }
}

fn rsa_of(n: &str) -> Jwk {
    rsa(&URL_SAFE_NO_PAD.decode(n).unwrap(), &RSA_EXPONENT)
}

fn verifies(jwk: &Jwk, signing_input: &str, signature: &str) -> bool {
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    PublicKey::from_jwk(jwk).unwrap().verify_signature(signing_input.as_bytes(), &signature)
}

#[test]
fn the_keys_of_rfc_7517_are_parsed_if_they_are_for_signatures() {
    // Appendix A.1.
    let ec = Jwk {
        kty: "EC".to_owned(),
        crv: Some("P-256".to_owned()),
        x: Some("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4".to_owned()),
        y: Some("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM".to_owned()),
        r#use: "enc".to_owned(),
        kid: "1".to_owned(),
        alg: "ES256".to_owned(),
        ..Jwk::default()
    };
    assert_eq!(PublicKey::from_jwk(&ec), Err(PublicKeyError::Use));
    assert!(PublicKey::from_jwk(&Jwk { r#use: "sig".to_owned(), ..ec }).is_ok());
    let key = PublicKey::from_jwk(&Jwk { kid: "2011-04-29".to_owned(), ..rsa_of(RSA_7517) }).unwrap();
    assert_eq!((key.kid(), key.algorithm()), ("2011-04-29", Algorithm::Rs256));
}

#[test]
fn the_signatures_of_rfc_7515_and_rfc_8037_verify() {
    let input = format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD_7515}");
    assert!(verifies(&rsa_of(RSA_7515), &input, SIGNATURE_7515));
    assert!(!verifies(&rsa_of(RSA_7517), &input, SIGNATURE_7515));
    assert!(!verifies(&rsa_of(RSA_7515), &input[1..], SIGNATURE_7515));
    // RFC 7515, appendix A.3.
    let ec = Jwk {
        kty: "EC".to_owned(),
        r#use: "sig".to_owned(),
        alg: "ES256".to_owned(),
        kid: "ec".to_owned(),
        crv: Some("P-256".to_owned()),
        x: Some("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU".to_owned()),
        y: Some("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0".to_owned()),
        ..Jwk::default()
    };
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    assert!(verifies(&ec, &format!("eyJhbGciOiJFUzI1NiJ9.{PAYLOAD_7515}"), signature));
    // RFC 8037, appendix A.4.
    let ed = Jwk {
        kty: "OKP".to_owned(),
        r#use: "sig".to_owned(),
        alg: "EdDSA".to_owned(),
        kid: "ed".to_owned(),
        crv: Some("Ed25519".to_owned()),
        x: Some("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned()),
        ..Jwk::default()
    };
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(verifies(&ed, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc", signature));
}

#[test]
fn an_rsa_jwk_is_strictly_what_rfc_7518_says() {
    let n = URL_SAFE_NO_PAD.decode(RSA_7515).unwrap();
    let parsed = |n: &[u8], e: &[u8]| PublicKey::from_jwk(&rsa(n, e)).map(drop);
    assert_eq!(parsed(&n, &RSA_EXPONENT), Ok(()));
    let padded = [&[0], n.as_slice()].concat();
    assert_eq!(parsed(&padded, &RSA_EXPONENT), Err(PublicKeyError::Material), "a leading zero");
    for e in [&[][..], &[3], &[17], &[0, 1, 0, 1], &[1, 0, 0], &[1, 0, 1, 1], &[1, 0, 0, 0, 0, 0, 0, 0, 1]] {
        assert_eq!(parsed(&n, e), Err(PublicKeyError::Material), "{e:?}");
    }
    let mut even = n.clone();
    *even.last_mut().unwrap() &= 0xfe;
    assert_eq!(parsed(&even, &RSA_EXPONENT), Err(PublicKeyError::Material));
    // 2047, 2048, 4096 and 4097 bits.
    let of_bits = |bits: usize| {
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] >>= 8 * n.len() - bits;
        parsed(&n, &RSA_EXPONENT)
    };
    assert_eq!(of_bits(2047), Err(PublicKeyError::Material));
    assert_eq!(of_bits(2048), Ok(()));
    assert_eq!(of_bits(4096), Ok(()));
    assert_eq!(of_bits(4097), Err(PublicKeyError::Material));
    assert_eq!(of_bits(8192), Err(PublicKeyError::Material));

    let valid = rsa(&n, &RSA_EXPONENT);
    let with = |change: fn(&mut Jwk)| {
        let mut jwk = valid.clone();
        change(&mut jwk);
        PublicKey::from_jwk(&jwk).map(drop)
    };
    assert_eq!(with(|jwk| jwk.n.as_mut().unwrap().push('=')), Err(PublicKeyError::Material));
    assert_eq!(with(|jwk| jwk.n.as_mut().unwrap().insert(5, '+')), Err(PublicKeyError::Material));
    // 256 bytes are 342 characters, of which the last has four unused bits: those must be zero.
    assert_eq!(with(|jwk| *jwk.n.as_mut().unwrap() = format!("{}R", &RSA_7515[..341])), Err(PublicKeyError::Material));
    assert_eq!(with(|jwk| jwk.n = None), Err(PublicKeyError::Material));
    assert_eq!(with(|jwk| jwk.e = None), Err(PublicKeyError::Material));
    assert_eq!(with(|jwk| jwk.alg = "PS256".to_owned()), Err(PublicKeyError::Type));
    assert_eq!(with(|jwk| jwk.alg = "RS512".to_owned()), Err(PublicKeyError::Type));
    assert_eq!(with(|jwk| jwk.crv = Some("P-256".to_owned())), Err(PublicKeyError::Type));
    assert_eq!(with(|jwk| jwk.x = Some("AQ".to_owned())), Err(PublicKeyError::Type));
    assert_eq!(with(|jwk| jwk.kid.clear()), Err(PublicKeyError::KeyId));
}
