//! What a relying party refuses (Web Authentication, sections 7.1 and 7.2), with a foreign authenticator that makes one fault at a time.

use drystone::Reason;
use serde_json::{Value, json};

use crate::{
    authenticator::Authenticator,
    passkeys::{add, begin, register, sign_in, start, use_alone, verified},
};

/// The faults that either ceremony has, and what the error says.
fn faults() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"origin": "https://evil.example"}), "origin"),
        (json!({"origin": "https://app.example.com:8443"}), "origin"),
        (json!({"origin": "http://app.example.com"}), "origin"),
        (json!({"rp_id": "example.org"}), "RP ID"),
        (json!({"challenge": "AAAAAAAAAAAAAAAAAAAAAA"}), "challenge"),
        (json!({"type": "webauthn.other"}), "ceremony"),
        (json!({"cross_origin": true}), "frame"),
        (json!({"cross_origin": true, "top_origin": "https://evil.example"}), "frame"),
        (json!({"user_present": false}), "present"),
        (json!({"user_verified": false}), "verify the user"),
        (json!({"backup_eligible": false, "backed_up": true}), "backup"),
        (json!({"extra": "AA"}), "authenticatorData"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_with_any_fault_is_refused() {
    let (smtp, mesh) = start();
    let (_, tokens) = verified(&mesh, &smtp).await;
    let mut device = Authenticator::new();
    let mut faults = faults();
    faults.extend([
        (json!({"algorithm": -35}), "key"),
        (json!({"key": "off_curve", "algorithm": -7}), "key"),
        (json!({"key": "compressed", "algorithm": -7}), "key"),
        (json!({"key": "missing_parameter", "algorithm": -7}), "key"),
        (json!({"key": "other_curve", "algorithm": -7}), "key"),
        (json!({"key": "other_algorithm", "algorithm": -7}), "key"),
        (json!({"key": "small_rsa", "algorithm": -257}), "key"),
        (json!({"attestation": "packed-self-wrong"}), "attestation"),
    ]);
    for malformed in ["truncated", "trailing", "empty", "duplicate_key", "indefinite", "not_a_map", "huge_length"] {
        faults.push((json!({"small_cbor_faults": malformed}), "attestationObject"));
    }
    for (fault, text) in faults {
        let options = begin(&mesh, "Registration", json!({}), Some(&tokens.access)).await;
        let credential = device.create(&options, &fault);
        let message = register(&mesh, &tokens.access, &credential).await.refused(Reason::PasskeyInvalid).text();
        assert!(message.contains(text), "{fault}: {message}");
    }
    let malformed =
        register(&mesh, &tokens.access, &json!("{\"id\": \"AA\"}")).await.refused(Reason::PasskeyInvalid).text();
    assert!(malformed.contains("toJSON"), "{malformed}");
    let listed = mesh.rest().get("/v1/factors").bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(listed["factors"], json!([]));
    // What the specification allows is accepted.
    let (mut other, mut token) = (Authenticator::new(), tokens.access);
    add(&mesh, &mut other, &token, &json!({})).await;
    for right in [
        json!({"attestation": "packed-self"}),
        json!({"ignore_exclude": true, "algorithm": -257}),
        json!({"ignore_exclude": true, "client_data": {"other_keys_can_be_added_here": "x"}}),
        json!({"ignore_exclude": true, "authenticator_extensions": {"credProtect": 2}}),
    ] {
        // A session that has used the factor before.
        let used = use_alone(&mesh, &mut other, &json!({})).await.expect(200).json();
        used["accessToken"].as_str().unwrap().clone_into(&mut token);
        let options = begin(&mesh, "Registration", json!({}), Some(&token)).await;
        register(&mesh, &token, &device.create(&options, &right)).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_with_any_fault_is_refused() {
    let (smtp, mesh) = start();
    let (_, tokens) = verified(&mesh, &smtp).await;
    let mut device = Authenticator::new();
    add(&mesh, &mut device, &tokens.access, &json!({})).await;
    let mut faults = faults();
    faults.extend([
        (json!({"flip_signature": true}), "signature"),
        (json!({"foreign": true}), "signature"),
        (json!({"user_handle": "AZwBAAAAcACAAAAAAAAAAA"}), "user handle"),
        (json!({"user_handle": null}), "user handle"),
        (json!({"backup_eligible": true}), "backup"),
        (json!({"counter": 0}), "counter"),
    ]);
    // A counter above zero first.
    use_alone(&mesh, &mut device, &json!({"counter": 7})).await.expect(200);
    faults.push((json!({"counter": 7}), "counter"));
    faults.push((json!({"counter": 6}), "counter"));
    for (fault, text) in faults {
        let message = use_alone(&mesh, &mut device, &fault).await.refused(Reason::PasskeyInvalid).text();
        assert!(message.contains(text), "{fault}: {message}");
    }
    let unknown = json!({"credential_id": "AAAAAAAAAAAAAAAAAAAAAA"});
    use_alone(&mesh, &mut device, &unknown).await.refused(Reason::PasskeyUnknown);
    use_alone(&mesh, &mut device, &json!({"counter": 8})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_serves_once_and_for_one_purpose() {
    let (smtp, mesh) = start();
    let (_, tokens) = verified(&mesh, &smtp).await;
    let (_, stranger) = verified(&mesh, &smtp).await;
    let mut device = Authenticator::new();
    let token = Some(tokens.access.as_str());

    // Two registrations at once: one wins.
    let options = begin(&mesh, "Registration", json!({}), token).await;
    let credential = device.create(&options, &json!({}));
    register(&mesh, &stranger.access, &credential).await.refused(Reason::PasskeyInvalid);
    let (one, two) =
        tokio::join!(register(&mesh, &tokens.access, &credential), register(&mesh, &tokens.access, &credential));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert!(statuses[0] == 200 && statuses[1] >= 400, "{statuses:?}");
    // The credential is taken for all users.
    let parsed: Value = serde_json::from_str(credential.as_str().unwrap()).unwrap();
    let id = parsed["id"].as_str().unwrap();
    let options = begin(&mesh, "Registration", json!({}), Some(&stranger.access)).await;
    let copy = Authenticator::new().create(&options, &json!({"credential_id": id}));
    register(&mesh, &stranger.access, &copy).await.refused(Reason::PasskeyRegistered);

    // One proof twice at once: one wins.
    let options = begin(&mesh, "SignIn", json!({}), None).await;
    let proof = device.get(&options, &json!({}));
    let (one, two) = tokio::join!(sign_in(&mesh, &proof), sign_in(&mesh, &proof));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
    sign_in(&mesh, &proof).await.refused(Reason::PasskeyInvalid);
    // A challenge of another ceremony.
    let options = begin(&mesh, "Verification", json!({}), token).await;
    sign_in(&mesh, &device.get(&options, &json!({}))).await.refused(Reason::PasskeyInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_without_a_counter_is_refused_for_its_challenge() {
    let (smtp, mesh) = start();
    let (_, tokens) = verified(&mesh, &smtp).await;
    let mut device = Authenticator::new();
    let synced = json!({"backup_eligible": true, "backed_up": true});
    add(&mesh, &mut device, &tokens.access, &synced).await;
    let options = begin(&mesh, "SignIn", json!({}), None).await;
    let proof = device.get(&options, &json!({"counter": 0}));
    sign_in(&mesh, &proof).await.expect(200);
    let message = sign_in(&mesh, &proof).await.refused(Reason::PasskeyInvalid).text();
    assert!(message.contains("was used"), "{message}");
    use_alone(&mesh, &mut device, &json!({"counter": 0})).await.expect(200);
}
