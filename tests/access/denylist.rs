//! Workloads and certificates on the denylist.

use std::{fs, time::Duration};

use drystone::{
    Reason,
    user::v1::{GetMeRequest, user_service_client::UserServiceClient},
};
use drystone_tests::{
    Home, Mesh, User,
    certs::{LeafParams, TRUST_DOMAIN},
    grpc::{reason, with_token},
    wait,
};
use tonic::Status;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// A mesh with an empty denylist, which it looks at often.
fn mesh_with_denylist(home: &Home) -> (Mesh, std::path::PathBuf) {
    let list = home.path().join("denylist");
    fs::write(&list, "# nobody\n").unwrap();
    let mesh = Mesh::setup()
        .set("certificates.denylist", list.to_str().unwrap())
        .set("certificates.check_interval", "100ms")
        .start();
    (mesh, list)
}

async fn refused_handshakes(mesh: &Mesh) -> f64 {
    mesh.metrics().await.sum("drystone_handshakes_refused_total", &[("service", "user"), ("reason", "denied")])
}

/// Whether a call was refused for the denylist, on the open connection or in a new handshake.
fn assert_denied(status: &Status) {
    assert!(matches!(reason(status), None | Some(Reason::CallerRevoked)), "{status:?}");
}

#[tokio::test]
async fn a_denied_certificate_is_refused_on_open_connections_and_in_handshakes() {
    let home = Home::new();
    let (mesh, list) = mesh_with_denylist(&home);
    let (_, tokens) = User::signed_in(&mesh).await;
    let stolen = mesh.certificates().authority().issue(&LeafParams::of(TRUST_DOMAIN, "edge"));
    let (chain, _) = stolen.clone().into_parts();
    let (_, parsed) = X509Certificate::from_der(&chain[0]).unwrap();
    let serial = parsed.raw_serial_as_string();

    let mut users = UserServiceClient::new(mesh.channel_with("user", Some(stolen.clone())));
    users.get_me(with_token(GetMeRequest {}, &tokens.access)).await.unwrap();
    let mut watching = HealthClient::new(mesh.channel_with("user", Some(stolen.clone())));
    let request = HealthCheckRequest { service: String::new() };
    let mut stream = watching.watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();

    fs::write(&list, format!("{serial} # stolen\n")).unwrap();
    let end =
        tokio::time::timeout(Duration::from_secs(20), async { while let Ok(Some(_)) = stream.message().await {} });
    end.await.expect("the stream ends");
    let refused = users.get_me(with_token(GetMeRequest {}, &tokens.access)).await.unwrap_err();
    assert_denied(&refused);
    let mut anew = UserServiceClient::new(mesh.channel_with("user", Some(stolen)));
    assert_denied(&anew.get_me(with_token(GetMeRequest {}, &tokens.access)).await.unwrap_err());
    wait::until("the refused handshakes are counted", async || (refused_handshakes(&mesh).await >= 1.0).then_some(()))
        .await;

    // Another certificate of the same workload is not denied.
    let mut other = UserServiceClient::new(mesh.channel("user", "edge"));
    other.get_me(with_token(GetMeRequest {}, &tokens.access)).await.unwrap();
}

#[tokio::test]
async fn a_denied_workload_is_refused_with_every_certificate_until_it_is_removed_from_the_list() {
    let home = Home::new();
    let (mesh, list) = mesh_with_denylist(&home);
    let (_, tokens) = User::signed_in(&mesh).await;
    let get_me = async |workload| {
        let mut users = UserServiceClient::new(mesh.channel("user", workload));
        users.get_me(with_token(GetMeRequest {}, &tokens.access)).await
    };
    get_me("ingress").await.unwrap();
    fs::write(&list, format!("spiffe://{TRUST_DOMAIN}/service/ingress\n")).unwrap();
    let refused = wait::until("the workload is denied", async || get_me("ingress").await.err()).await;
    assert_denied(&refused);
    get_me("edge").await.unwrap();

    // A list that cannot be read changes nothing, and says so.
    fs::write(&list, "spiffe://nobody\n").unwrap();
    wait::until("the refusal is logged", async || mesh.log().contains("new denylist refused").then_some(())).await;
    assert_denied(&get_me("ingress").await.unwrap_err());
    fs::write(&list, "").unwrap();
    wait::until("the workload is accepted again", async || get_me("ingress").await.ok()).await;
}
