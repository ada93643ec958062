//! Imports that are killed: repeated, they are complete, and count nobody twice.

use std::{fmt::Write as _, fs, net::SocketAddr, path::PathBuf, time::Duration};

use drystone::user::v1::{ListUsersRequest, user_service_client::UserServiceClient};
use drystone_tests::{
    Mesh, Production, RestClient, Setup,
    process::{ProcessOutput, drystone, run_to_end},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{task::spawn_blocking, time::sleep};
use tonic::transport::Channel;

use crate::role_changes::rounds;

/// More than one message, so that a kill finds some answered and some not.
const ACCOUNTS: usize = 1_200;

/// Of the password "correct horse", by bcrypt 5.0 of Python.
const HASH: &str = "$2a$04$VXVggmLAzxJ6fbcnC56teufijtUDgsYNxNzBG4K/.8pkp.VM5iKC2";

/// The accounts of one round.
struct Import {
    directory: TempDir,
    round: u64,
}

impl Import {
    fn new(round: u64) -> Self {
        let directory = TempDir::new().unwrap();
        let mut lines = String::new();
        for number in 0..ACCOUNTS {
            let email = Self::email(round, number);
            writeln!(lines, r#"{{"email":"{email}","displayName":"Ada","roles":["manager"],"passwordHash":"{HASH}"}}"#)
                .unwrap();
        }
        fs::write(directory.path().join("users.ndjson"), lines).unwrap();
        Self { directory, round }
    }

    fn email(round: u64, number: usize) -> String {
        format!("of{round}.user{number}@import.example")
    }

    /// Runs the command in the background.
    fn run(&self, certificates: PathBuf, auth: SocketAddr) -> tokio::task::JoinHandle<ProcessOutput> {
        let file = self.directory.path().join("users.ndjson");
        spawn_blocking(move || {
            let mut command = drystone(&["users", "import", file.to_str().unwrap()]);
            command.env("DRYSTONE_CERTS_DIR", certificates);
            run_to_end(command.env("DRYSTONE_PEERS__AUTH", auth.to_string()))
        })
    }

    /// Asserts that each account is there once and that its user can sign in.
    async fn assert_complete(&self, again: &ProcessOutput, users: Channel, rest: &RestClient) -> u64 {
        assert!(again.status.success(), "{again:?}");
        let counts: Vec<u64> = again.stdout.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert_eq!((counts[0] + counts[1], counts[2]), (ACCOUNTS as u64, 0), "{again:?}");
        let mut users = UserServiceClient::new(users);
        let of_round = ListUsersRequest {
            page_size: 200,
            filter: format!("email = \"of{}.*\"", self.round),
            order_by: "email".to_owned(),
            ..ListUsersRequest::default()
        };
        let (mut found, mut page_token) = (0, String::new());
        loop {
            let page =
                users.list_users(ListUsersRequest { page_token, ..of_round.clone() }).await.unwrap().into_inner();
            found += page.users.iter().filter(|user| user.roles == ["manager", "member"]).count();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(found, ACCOUNTS, "each account once, with its role");
        // At the borders of messages, and within.
        for number in [0, 499, 500, 777, 999, 1000, ACCOUNTS - 1] {
            let body = json!({"email": Self::email(self.round, number), "password": "correct horse"});
            rest.post("/v1/auth/login", body).send().await.expect(200);
        }
        counts[0]
    }
}

/// A moment within an import. Each round has another one.
fn moment(round: u64) -> Duration {
    Duration::from_millis(20 + round * 97 % 700)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_into_a_killed_mesh_goes_on_where_it_was() {
    let setup = || -> Setup { Mesh::setup().set("issuer", "https://id.example.com") };
    let certificates = |mesh: &Mesh| mesh.certificates().ca().parent().unwrap().to_owned();
    let mut mesh = setup().start();
    let mut interrupted = 0;
    for round in 0..rounds() {
        let import = Import::new(round);
        let run = import.run(certificates(&mesh), mesh.grpc_address("auth"));
        sleep(moment(round)).await;
        mesh = setup().home(mesh.kill()).start();
        interrupted += u64::from(!run.await.unwrap().status.success());
        let again = import.run(certificates(&mesh), mesh.grpc_address("auth")).await.unwrap();
        import.assert_complete(&again, mesh.channel("user", "operator"), &mesh.rest()).await;
    }
    println!("{interrupted} of {} imports were interrupted", rounds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_through_a_killed_instance_goes_on_through_another_one() {
    let production = Production::lock().await;
    let cluster = &production.cluster;
    let certificates = || cluster.certificates().ca().parent().unwrap().to_owned();
    let mut interrupted = 0;
    for round in 0..rounds() {
        let import = Import::new(round);
        let run = import.run(certificates(), cluster.address("auth", 0));
        sleep(moment(round)).await;
        // The one that the command is connected to, or one that it may have called.
        let killed = if round % 2 == 0 { "auth" } else { "user" };
        cluster.kill_one(killed, 0);
        interrupted += u64::from(!run.await.unwrap().status.success());
        let again = import.run(certificates(), cluster.address("auth", 1)).await.unwrap();
        import.assert_complete(&again, cluster.channel("user", 1, "operator"), &cluster.rest(1)).await;
        cluster.start_one(killed, 0);
        cluster.wait_until_healthy().await;
    }
    println!("{interrupted} of {} imports were interrupted", rounds());
}
