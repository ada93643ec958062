//! A change of roles and the revocation that follows from it: neither without the other, whatever is killed.

use std::{env, time::Duration};

use drystone::{
    Reason,
    user::v1::{
        LookUpForSignInRequest, SetUserRolesRequest, look_up_for_sign_in_request::Key,
        user_service_client::UserServiceClient,
    },
};
use drystone_tests::{Mesh, Production, Setup, User, wait};
use tokio::time::sleep;
use tonic::transport::Channel;

/// Kills on each engine. `DRYSTONE_TEST_ROUNDS` makes it more.
pub fn rounds() -> u64 {
    env::var("DRYSTONE_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6)
}

/// Begins a change of roles that may be cut off.
fn begin(channel: Channel, id: &str) -> tokio::task::JoinHandle<bool> {
    let request = SetUserRolesRequest { id: id.to_owned(), roles: vec!["admin".to_owned()] };
    tokio::spawn(async move { UserServiceClient::new(channel).set_user_roles(request).await.is_ok() })
}

async fn is_admin(channel: Channel, id: &str) -> bool {
    let request = LookUpForSignInRequest { key: Some(Key::UserId(id.to_owned())) };
    let found = UserServiceClient::new(channel).look_up_for_sign_in(request).await.unwrap().into_inner();
    found.roles == ["admin"]
}

/// A moment within a change of roles, which takes a few milliseconds. Each round has another one.
fn moment(round: u64) -> Duration {
    Duration::from_micros(round * 977 % 12_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mesh_completes_the_changes_of_roles_that_it_has_stored() {
    let setup = || -> Setup { Mesh::setup().set("issuer", "https://id.example.com") };
    let mut mesh = setup().start();
    let mut changed = 0;
    for round in 0..rounds() {
        let (user, tokens) = User::signed_in(&mesh).await;
        let change = begin(mesh.channel("user", "operator"), &user.id);
        sleep(moment(round)).await;
        mesh = setup().home(mesh.kill()).start();
        let has_succeeded = change.await.unwrap();
        let is_changed = is_admin(mesh.channel("user", "auth"), &user.id).await;
        assert!(is_changed || !has_succeeded, "a change that succeeded is stored");
        if is_changed {
            changed += 1;
            wait::until("the token with the previous roles is void", async || {
                let answer = mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await;
                (answer.status == 401 && answer.reason() == Reason::TokenRevoked.name()).then_some(())
            })
            .await;
        }
    }
    println!("{changed} of {} changes were stored", rounds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_completes_the_changes_of_roles_of_a_killed_one() {
    let production = Production::lock().await;
    let cluster = &production.cluster;
    let mut changed = 0;
    for round in 0..rounds() {
        let user = User::register_at(cluster.rest(0)).await;
        let tokens = user.sign_in_at(cluster.rest(0)).await;
        let change = begin(cluster.channel("user", 0, "operator"), &user.id);
        sleep(moment(round)).await;
        cluster.kill_one("user", 0);
        let has_succeeded = change.await.unwrap();
        // What the killed instance had leased is free after 10 s; the other one is not told of the rest, and looks each second.
        let is_changed = is_admin(cluster.channel("user", 1, "auth"), &user.id).await;
        assert!(is_changed || !has_succeeded, "a change that succeeded is stored");
        if is_changed {
            changed += 1;
            wait::until("the token with the previous roles is void", async || {
                let answer = cluster.rest(1).get("/v1/users/me").bearer(&tokens.access).send().await;
                (answer.status == 401 && answer.reason() == Reason::TokenRevoked.name()).then_some(())
            })
            .await;
        }
        cluster.start_one("user", 0);
        cluster.wait_until_healthy().await;
    }
    println!("{changed} of {} changes were stored", rounds());
}
