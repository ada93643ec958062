//! The store of accounts on SQLite, with ten thousand and with a million users: without RPCs, which are the same on each engine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use drystone_mesh::{clock::Clock, display_name::DisplayName, email::Email};
use drystone_store::{Db, Location};
use drystone_user::{
    MIGRATIONS, NewAccount, Profile, Status, UserStore,
    store::{Import, ListPage, ListQuery},
};
use tempfile::TempDir;

use super::users::SeedUser;
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
        (Self::Account, "an account (GetMe)"),
        (Self::Rights, "what a user may do (LookUpForSignIn)"),
        (Self::RightsOfHundred, "what 100 users may do (BatchCheck)"),
        (Self::DeepPage, "a deep page of 50 (ListUsers)"),
        (Self::Search, "a search by prefix (ListUsers)"),
    ];
}

/// Measures both sizes alternately.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let (small, large) = (Seeded::new(SMALL).await?, Seeded::new(LARGE).await?);
    let mut rows = Vec::new();
    for (query, name) in Query::ALL {
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

/// A store with accounts.
struct Seeded {
    store: UserStore,
    users: u64,
    clock: Clock,
    _directory: TempDir,
}

impl Seeded {
    async fn new(users: u64) -> Result<Self> {
        let directory = TempDir::new()?;
        let db = Db::open(Location::File(directory.path().join("user.db")), MIGRATIONS).await?;
        let (store, clock) = (UserStore::new(db, Vec::new()), Clock::system());
        for batch in 0..users.div_ceil(BATCH) {
            let imports: Vec<_> = (batch * BATCH..((batch + 1) * BATCH).min(users))
                .map(|number| import(SeedUser(number), &clock))
                .collect::<Result<_>>()?;
            store.provision("seed", &imports, clock.now()).await?;
        }
        Ok(Self { store, users, clock, _directory: directory })
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
        let (id, now) = (user.user_id(), self.clock.now());
        let list = async |query: &ListQuery, after| self.store.list(query, &ListPage { size: 50, after }, now).await;
        match query {
            Query::Account => {
                self.store.find(id).await?.context("no account")?;
            }
            Query::Rights => {
                self.store.rights(id).await?.context("no account")?;
            }
            Query::RightsOfHundred => {
                let ids: Vec<_> =
                    (0..100).map(|step| SeedUser((user.0 + step * self.users / 100) % self.users).user_id()).collect();
                ensure!(self.store.rights_of_all(&ids).await?.len() == 100, "accounts are missing");
            }
            Query::DeepPage => {
                list(&ListQuery::default(), Some((String::new(), id))).await?;
            }
            Query::Search => {
                let prefixes = vec![(10 + user.0 % 90).to_string()];
                let found = list(&ListQuery { prefixes, ..ListQuery::default() }, None).await?;
                ensure!(!found.accounts.is_empty(), "nobody found");
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
    })
}
