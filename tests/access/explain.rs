//! `drystone access explain` beside a running mesh, with its keys.

use drystone::Reason;
use drystone_tests::{
    Home, Mesh, User,
    process::{ProcessOutput, drystone, run_to_end},
};

/// Runs the command as the operator of the mesh, for a call of the edge at this time.
fn explain(mesh: &Mesh, issuer: &str, token: &str, arguments: &[&str]) -> ProcessOutput {
    let home = Home::new();
    home.write("token", &format!("{token}\n"));
    let mut command = drystone(&["access", "explain", "--caller", "edge", "--token-file", "token"]);
    command.args(arguments).current_dir(home.path()).env("DRYSTONE_ISSUER", issuer);
    command.env("DRYSTONE_CERTS_DIR", mesh.certificates().ca().parent().unwrap());
    command.env("DRYSTONE_PEERS__AUTH", mesh.grpc_address("auth").to_string());
    let ended = run_to_end(&mut command);
    let shown = [ended.stdout.as_str(), &ended.stderr].concat();
    assert!(!token.split('.').any(|segment| shown.contains(segment)), "the token is shown: {shown}");
    ended
}

#[tokio::test]
async fn access_explain_verifies_a_token_with_the_keys_of_the_auth_service() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let metadata = mesh.rest().get("/.well-known/oauth-authorization-server").send().await.expect(200).json();
    let issuer = metadata["issuer"].as_str().unwrap();
    let explain = |issuer: &str, arguments: &[&str]| explain(mesh, issuer, &tokens.access, arguments);

    let allowed = explain(issuer, &["UserService/GetMe"]);
    assert!(allowed.status.success() && allowed.stdout.starts_with("allowed\n"), "{allowed:?}");
    let denied = explain(issuer, &["UserService/ListUsers"]);
    let expected = "denied by `permission`: PERMISSION_MISSING\n\
        the call needs the permission `users:read`, which the signed-in user does not hold\n";
    assert!(denied.status.code() == Some(1) && denied.stdout.starts_with(expected), "{denied:?}");
    // The server denies the same call with the same text.
    let answer = mesh.rest().get("/v1/users").bearer(&tokens.access).send().await;
    assert!(answer.text().contains("the call needs the permission `users:read`"), "{}", answer.text());
    answer.refused(Reason::PermissionMissing);

    // Whether a server has a current view of revocations, only the server knows.
    let fresh = explain(issuer, &["UserService/DeleteUser"]).stdout;
    let part = |name: &str| fresh.lines().find(|line| line.starts_with(name)).map(str::to_owned).unwrap_or_default();
    assert!(part("fresh_revocations ").ends_with(" fresh             not checked"), "{fresh}");
    assert!(part("permission ").ends_with(" denied") && fresh.contains("the denylist and the expiry"), "{fresh}");

    let later = explain(issuer, &["UserService/GetMe", "--at", "2999-01-01T00:00:00Z"]);
    assert!(later.status.code() == Some(1) && later.stdout.contains("`subject`: TOKEN_EXPIRED"), "{later:?}");
    let other = explain("https://other.example", &["UserService/GetMe"]);
    assert!(other.status.code() == Some(1) && other.stdout.contains("its issuer is not the expected one"), "{other:?}");

    // Revocations are not seen, and the output says so.
    mesh.rest().post("/v1/auth/logout", serde_json::json!({})).bearer(&tokens.access).send().await.expect(200);
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.refused(Reason::TokenRevoked);
    let revoked = explain(issuer, &["UserService/GetMe"]);
    assert!(revoked.status.success() && revoked.stdout.contains("Not checked: revocations"), "{revoked:?}");
}
