//! The user service on SQLite, with ten thousand and with a million users: `drystone up`, called one call after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use drystone::user::v1::{
    BatchCheckRequest, CheckPermissionRequest, GetUserRequest, ListUsersRequest, LookUpForSignInRequest,
    look_up_for_sign_in_request::Key, role_service_client::RoleServiceClient, user_service_client::UserServiceClient,
};
use drystone_mesh::{clock::Clock, display_name::DisplayName, email::Email, page};
use drystone_store::{Db, Location};
use drystone_tests::{Home, Mesh};
use drystone_user::{MIGRATIONS, NewAccount, Profile, Status, UserStore, store::Import};
use tokio::process::Command;
use tonic::transport::Channel;

use super::{calls::operators_list, users::SeedUser};
use crate::report::{Measurement, micros};

const SMALL: u64 = 10_000;
const LARGE: u64 = 1_000_000;

/// Accounts that one call of the seeding imports.
const BATCH: u64 = 5_000;
/// Of one run; each run has other accounts.
const CALLS: u64 = 2_000;
const RUNS: u64 = 5;

/// The maximum ratio of the 99th percentiles.
const AIM: f64 = 1.5;

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Query {
    Account,
    Rights,
    RightsOfHundred,
    DeepPage,
    Search,
}

impl Query {
    const ALL: [(Self, &str); 5] = [
        (Self::Account, "GetUser"),
        (Self::Rights, "LookUpForSignIn"),
        (Self::RightsOfHundred, "BatchCheck of 100"),
        (Self::DeepPage, "ListUsers, a deep page of 50"),
        (Self::Search, "ListUsers, a search by prefix"),
    ];
}

/// Measures both sizes alternately.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let (small, large) = (Seeded::new(SMALL).await?, Seeded::new(LARGE).await?);
    // What seeding has written would go to the disk during the first calls.
    Command::new("sync").status().await?;
    let mut rows = Vec::new();
    for (query, name) in Query::ALL {
        small.p99(query, RUNS).await?;
        large.p99(query, RUNS).await?;
        let (mut small_runs, mut large_runs) = (Vec::new(), Vec::new());
        for round in 0..RUNS {
            small_runs.push(small.p99(query, round).await?);
            large_runs.push(large.p99(query, round).await?);
        }
        let name = |users: &str| format!("SQLite, {name}, {users} users, p99");
        let baseline = Measurement::plain(name("10 thousand"), micros(median(small_runs)), "us");
        rows.push(Measurement::plain(name("1 million"), micros(median(large_runs)), "us").within(&baseline, AIM));
        rows.push(baseline);
    }
    Ok(rows)
}

fn median(mut runs: Vec<Duration>) -> Duration {
    runs.sort_unstable();
    runs[runs.len() / 2]
}

/// A mesh with accounts.
struct Seeded {
    users: u64,
    as_auth: UserServiceClient<Channel>,
    as_operator: UserServiceClient<Channel>,
    roles: RoleServiceClient<Channel>,
    _mesh: Mesh,
}

impl Seeded {
    async fn new(users: u64) -> Result<Self> {
        let home = Home::new();
        std::fs::create_dir_all(home.data())?;
        let db = Db::open(Location::File(home.data().join("user.db")), MIGRATIONS).await?;
        let (store, clock) = (UserStore::new(db.clone(), Vec::new()), Clock::system());
        for batch in 0..users.div_ceil(BATCH) {
            let imports: Vec<_> = (batch * BATCH..((batch + 1) * BATCH).min(users))
                .map(|number| import(SeedUser(number), &clock))
                .collect::<Result<_>>()?;
            store.provision("seed", &imports, clock.now()).await?;
        }
        db.close().await;
        let mesh = Mesh::setup().home(home).start();
        Ok(Self {
            users,
            as_auth: UserServiceClient::new(mesh.channel("user", "auth")),
            as_operator: UserServiceClient::new(mesh.channel("user", "operator")),
            roles: RoleServiceClient::new(mesh.channel("user", "property")),
            _mesh: mesh,
        })
    }

    async fn p99(&self, query: Query, round: u64) -> Result<Duration> {
        let mut times = Vec::new();
        for number in 0..CALLS {
            let user = SeedUser((number * self.users / CALLS + 31 * round) % self.users);
            let started = Instant::now();
            self.call(query, user).await?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        times.get(times.len() * 99 / 100).copied().context("no calls")
    }

    async fn call(&self, query: Query, user: SeedUser) -> Result<()> {
        let id = user.user_id();
        let list = async |request| anyhow::Ok(self.as_operator.clone().list_users(request).await?.into_inner().users);
        match query {
            Query::Account => {
                self.as_operator.clone().get_user(GetUserRequest { id: id.to_string() }).await?;
            }
            Query::Rights => {
                let key = Some(Key::UserId(id.to_string()));
                self.as_auth.clone().look_up_for_sign_in(LookUpForSignInRequest { key }).await?;
            }
            Query::RightsOfHundred => {
                let users = (0..100).map(|step| SeedUser((user.0 + step * self.users / 100) % self.users));
                let checks = users.map(|user| CheckPermissionRequest {
                    user_id: user.user_id().to_string(),
                    permission: "users:read".to_owned(),
                });
                let request = BatchCheckRequest { checks: checks.collect() };
                let allowed = self.roles.clone().batch_check(request).await?.into_inner().allowed;
                ensure!(allowed.len() == 100, "{} results", allowed.len());
            }
            Query::DeepPage => {
                let page_token = page::token(&operators_list(), &(String::new(), id));
                list(ListUsersRequest { page_token, ..ListUsersRequest::default() }).await?;
            }
            Query::Search => {
                let search = (10 + user.0 % 90).to_string();
                let found = list(ListUsersRequest { search, ..ListUsersRequest::default() }).await?;
                ensure!(!found.is_empty(), "nobody found");
            }
        }
        Ok(())
    }
}

fn import(user: SeedUser, clock: &Clock) -> Result<Import> {
    let email = Email::parse(&format!("user-{}@example.com", user.0))?;
    let profile = Profile::new(DisplayName::parse(&format!("User {}", user.0))?);
    let is_manager = user.0.is_multiple_of(16);
    Ok(Import {
        external_id: email.key(),
        account: NewAccount { id: user.user_id(), email, profile },
        roles: if is_manager { vec!["manager".parse()?] } else { Vec::new() },
        status: Status::Active,
        telegram_id: None,
        created_at: clock.now(),
        email_verified: false,
    })
}
