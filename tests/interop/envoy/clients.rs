//! gRPC clients without client certificates.

use std::process::Command;

use drystone::Reason;
use drystone_tests::{
    Envoy, Mesh, User,
    grpc::{call_raw, reason, with_token},
    process, readme,
};
use serde_json::{Value, json};
use tonic::{Request, transport::Endpoint};

/// gRPC without a client certificate.
#[tokio::test]
async fn grpc_passes_with_deadline_and_status() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let (user, tokens) = User::signed_in(&mesh).await;
    let channel = Endpoint::from_shared(format!("http://{}", envoy.address)).unwrap().connect_lazy();
    let me = "/drystone.user.v1.UserService/GetMe";
    let answer = call_raw(channel.clone(), me, with_token(Vec::new(), &tokens.access), false).await.unwrap();
    assert!(answer.windows(user.email.len()).any(|window| window == user.email.as_bytes()));
    let refused = call_raw(channel, me, Request::new(Vec::new()), false).await.unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::TokenMissing), "{refused:?}");
    // A password cannot be hashed in 1 ms.
    let body = json!({"email": user.email, "password": user.password});
    let hurried = envoy.rest().post("/v1/auth/login", body).header("grpc-timeout", "1m").send().await;
    assert_eq!(hurried.status, 504, "{}", hurried.text());
}

#[tokio::test]
async fn grpcurl_calls_with_the_exported_descriptor_set() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let (user, tokens) = User::signed_in(&mesh).await;
    let mut grpcurl = Command::new(readme::tool("grpcurl"));
    grpcurl.args(["-plaintext", "-protoset"]).arg(envoy.directory.join("drystone.binpb"));
    grpcurl.arg("-H").arg(format!("authorization: Bearer {}", tokens.access));
    let output = process::run_to_end(grpcurl.arg(envoy.address.to_string()).arg("drystone.user.v1.UserService/GetMe"));
    assert!(output.status.success(), "{output:?}");
    let me: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(me["email"], json!(user.email));
}
