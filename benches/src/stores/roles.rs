//! The evaluation of permissions, and a change of a role that a hundred thousand users have.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use drystone::{
    Reason,
    user::v1::{
        CreateRoleRequest, GetMeRequest, Role as RoleMessage, UpdateRoleRequest,
        role_service_client::RoleServiceClient, user_service_client::UserServiceClient,
    },
};
use drystone_mesh::{clock::Clock, error::reason_of};
use drystone_user::role::{Definitions, Effect, Grant, Override, Permission, Role, evaluation::evaluate};
use sqlx::{Connection, PgConnection};
use tonic::{Request, transport::Channel};

use super::{
    processes::MeshProcesses,
    seed, servers,
    users::{ActiveUser, SeedUsers},
};
use crate::report::Measurement;

const HOLDERS: u64 = 100_000;
/// How many of them call during the change.
const CALLERS: u64 = 400;
const EVALUATIONS: u32 = 200_000;
const RUNS: usize = 5;

/// Measures both.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let mut runs: Vec<_> = (0..RUNS).map(|_| evaluation()).collect::<Result<_>>()?;
    runs.sort_unstable();
    let median = runs[RUNS / 2].as_secs_f64() * 1e9;
    let evaluation =
        Measurement::plain("evaluation of a user with 5 roles and 4 overrides", median, "ns").under(1000.0);
    let change = change().await?.as_secs_f64() * 1e3;
    let change = Measurement::plain("role of 100,000 users changed, until their tokens are refused", change, "ms");
    Ok(vec![evaluation, change.under(1000.0)])
}

/// The time of one evaluation: of 150 permissions and 50 roles, each of which inherits another one.
fn evaluation() -> Result<Duration> {
    let now = Clock::system().now();
    let permissions = (0..150).map(|number| Permission {
        name: format!("resource{number}:write"),
        description: String::new(),
        registered_by: None,
    });
    let role = |number: u16| {
        let inherits = if number == 0 { Vec::new() } else { vec![format!("role{}", number - 1).parse()?] };
        let permissions = (0..3).map(|one| format!("resource{}:write", 3 * number + one)).collect();
        let (name, description) = (format!("role{number}").parse()?, String::new());
        anyhow::Ok(Role {
            name,
            description,
            level: number + 1,
            inherits,
            permissions,
            version: 1,
            created_at: now,
            updated_at: now,
        })
    };
    let roles = (0..50).map(role).collect::<Result<Vec<_>>>()?;
    let definitions = Definitions::new(1, permissions, roles);
    let grant = |number: u16| anyhow::Ok(Grant { role: format!("role{number}").parse()?, expires_at: None });
    let grants = [3, 11, 25, 40, 48].map(grant).into_iter().collect::<Result<Vec<_>>>()?;
    let exception =
        |number: u16, effect| Override { permission: format!("resource{number}:write"), effect, expires_at: None };
    let overrides = [(1, Effect::Deny), (149, Effect::Grant), (70, Effect::Deny), (148, Effect::Grant)]
        .map(|(number, effect)| exception(number, effect));
    let started = Instant::now();
    for _ in 0..EVALUATIONS {
        black_box(evaluate(black_box(&definitions), black_box(&grants), black_box(&overrides), now));
    }
    Ok(started.elapsed() / EVALUATIONS)
}

/// From the call that changes the role until the tokens of all who call are refused.
async fn change() -> Result<Duration> {
    let (postgres, redis) = (servers::postgres().await, servers::redis().await?);
    let database = postgres.database().await;
    let processes = MeshProcesses::start(database.as_str(), redis.url());
    seed::fill(database.as_str(), redis.url(), HOLDERS).await?;
    let mut roles = RoleServiceClient::new(processes.channel_as("operator", "user")?);
    let role = RoleMessage {
        name: "support".to_owned(),
        level: 200,
        permissions: vec!["users:read".to_owned()],
        ..RoleMessage::default()
    };
    roles.create_role(CreateRoleRequest { role: Some(role.clone()) }).await?;
    let mut connection = PgConnection::connect(database.as_str()).await?;
    let grants = "INSERT INTO drystone_user.role_grant (user_id, role, granted_by, granted_at)
         SELECT id, 'support', 'operator', created_at FROM drystone_user.account";
    sqlx::raw_sql(grants).execute(&mut connection).await?;
    connection.close().await?;
    let users = SeedUsers::of(database.as_str(), HOLDERS).await?;
    let holders = users.active_users_with(&["member", "support"], CALLERS, 0)?;
    let client = UserServiceClient::new(processes.channel("user")?);
    for holder in &holders {
        ensure!(!is_refused(client.clone(), holder).await?, "a token is refused before the change");
    }
    let update_mask = Some(prost_types::FieldMask { paths: vec!["permissions".to_owned()] });
    let change = UpdateRoleRequest { role: Some(RoleMessage { permissions: Vec::new(), ..role }), update_mask };
    let started = Instant::now();
    roles.update_role(change).await.context("changing the role")?;
    for holder in &holders {
        while !is_refused(client.clone(), holder).await? {
            ensure!(started.elapsed() < Duration::from_secs(30), "a token is not refused");
        }
    }
    Ok(started.elapsed())
}

async fn is_refused(mut client: UserServiceClient<Channel>, holder: &ActiveUser) -> Result<bool> {
    let mut request = Request::new(GetMeRequest {});
    request.metadata_mut().insert("authorization", holder.bearer.clone());
    match client.get_me(request).await {
        Ok(_) => Ok(false),
        Err(status) if reason_of(&status) == Some(Reason::TokenRevoked) => Ok(true),
        Err(status) => Err(status).context("calling with a token"),
    }
}
