//! Signing keys that one of several instances of auth replaces or withdraws.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use drystone::auth::v1::{
    RotateSigningKeyRequest, SignInRequest, WithdrawSigningKeyRequest, auth_service_client::AuthServiceClient,
    key_service_client::KeyServiceClient,
};
use drystone_tests::{Production, User, wait};
use serde_json::Value;

use super::direct_clients::DirectClients;

fn kid(token: &str) -> String {
    let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_of_auth_make_one_key_and_none_signs_with_a_withdrawn_one() {
    let mesh = Production::lock().await;
    let (cluster, edges, direct) = (&mesh.cluster, mesh.cluster.edges(), DirectClients::connect(&mesh.cluster));
    let keys = |number| KeyServiceClient::new(cluster.channel("auth", number, "operator"));
    let (mut one, mut other) = (keys(0), keys(1));
    let rotations = tokio::join!(
        one.rotate_signing_key(RotateSigningKeyRequest {}),
        other.rotate_signing_key(RotateSigningKeyRequest {}),
    );
    let (first, second) = (rotations.0.unwrap().into_inner(), rotations.1.unwrap().into_inner());
    assert_eq!(first.kid, second.kid);
    assert_ne!(first.was_pending, second.was_pending);

    let user = User::register_at(edges.next()).await;
    // First the pending key takes over, then a new one.
    for instance in 0..cluster.instances() {
        let tokens = user.sign_in_at(edges.next()).await;
        wait::until("the key is known", async || direct.is_accepted_everywhere(&tokens).await.then_some(())).await;
        let request = WithdrawSigningKeyRequest { kid: kid(&tokens.access) };
        let withdrawn = keys(instance).withdraw_signing_key(request).await.unwrap().into_inner();
        assert!(withdrawn.applied);
        direct.assert_revoked(&tokens).await;
        // The other instance has read it as well, and signs with no other.
        for number in 0..cluster.instances() {
            let (email, password) = (user.email.clone(), user.password.clone());
            let request = SignInRequest { email, password, ..SignInRequest::default() };
            let mut auth = AuthServiceClient::new(cluster.channel("auth", number, "edge"));
            let signed_in = auth.sign_in(request).await.unwrap().into_inner();
            assert_eq!(kid(&signed_in.access_token.unwrap()), withdrawn.signing_kid);
        }
        let refreshed = tokens.refresh(edges.next()).await;
        assert_eq!(kid(&refreshed.access), withdrawn.signing_kid);
        wait::until("the key is known", async || direct.is_accepted_everywhere(&refreshed).await.then_some(())).await;
    }
}
