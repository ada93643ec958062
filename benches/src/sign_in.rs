//! Sign-ins through a mesh, compared with bare Argon2id hashes of the same parameters; GetMe while sign-ins use up the hashing pool;
//! and refreshes. Clients keep their device token, as clients do: a sign-in on a new device also tells its user by mail.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use argon2_rust::{Algorithm, Argon2, Params, Version, params::Memory};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use drystone::{
    auth::v1::{RefreshRequest, RegisterRequest, SignInRequest, auth_service_client::AuthServiceClient},
    user::v1::{GetMeRequest, user_service_client::UserServiceClient},
};
use drystone_tests::{Mesh, grpc::with_token};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    elsewhere,
    load::{self, LoadResult},
    process::processor_seconds,
    report::{Measurement, micros},
};

/// The default parameters of the auth service.
const MEMORY_KIB: u64 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

const RUN: Duration = Duration::from_secs(3);
const RUNS: usize = 5;
/// Enough to keep the hashing threads busy.
const IN_FLIGHT: usize = 16;
/// Users who sign in. With so many, none of them reaches the maximum number of sessions, beyond which each sign-in ends another one.
const USERS: usize = 400;

/// A client that has signed in.
#[derive(Clone, Default)]
struct KnownClient {
    email: String,
    device_token: String,
    access_token: String,
    refresh_token: String,
}

impl KnownClient {
    async fn signed_in(client: &AuthServiceClient<Channel>, email: String, password: &str) -> Result<Self> {
        let request = SignInRequest { email: email.clone(), password: password.to_owned(), ..Default::default() };
        let signed_in = client.clone().sign_in(request).await.context("signing in")?.into_inner();
        Ok(Self {
            email,
            device_token: signed_in.device_token.unwrap_or_default(),
            access_token: signed_in.access_token.unwrap_or_default(),
            refresh_token: signed_in.refresh_token.unwrap_or_default(),
        })
    }
}

/// Measures them alternately.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let mesh = Arc::new(Mesh::start());
    let client = AuthServiceClient::new(mesh.channel("auth", "edge"));
    let password = "correct horse battery staple";
    for user in 0..=USERS {
        let request = RegisterRequest {
            email: email(user),
            password: password.to_owned(),
            display_name: "Bench".to_owned(),
            request_id: String::new(),
        };
        client.clone().register(request).await.context("registering")?;
    }

    let mut clients = Vec::new();
    for user in 0..USERS {
        clients.push(KnownClient::signed_in(&client, email(user), password).await?);
    }
    // A user has a limited number of sessions: the one that reads signs in once.
    let reader = KnownClient::signed_in(&client, email(USERS), password).await?;

    let (mut hashes, mut sign_ins) = (Vec::new(), Vec::new());
    let (mut idle, mut flooded) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        hashes.push(tokio::task::spawn_blocking(bare_hashes).await??);
        idle.push(get_me_run(&mesh, &reader).await.context("GetMe")?);
        let (sign_in, get_me) = tokio::join!(sign_in_run(&client, &clients, password), get_me_run(&mesh, &reader),);
        flooded.push(get_me.context("GetMe beside sign-ins")?);
        sign_in.context("signing in")?;
        sign_ins.push(sign_in_run(&client, &clients, password).await.context("signing in")?);
    }
    let mut fresh = Vec::new();
    for user in 0..IN_FLIGHT {
        fresh.push(KnownClient::signed_in(&client, email(user), password).await?);
    }
    let refreshes = refreshes_per_core_second(&mesh, &client, &fresh).await.context("refreshing")?;
    let idle = Measurement::plain("GetMe, 1 in flight, p99", micros(load::median(idle).p99), "us");
    let flooded = micros(load::median(flooded).p99);
    let flooded = Measurement::plain("GetMe, 1 in flight, beside 16 sign-ins, p99", flooded, "us").within(&idle, 3.0);
    hashes.sort_by(f64::total_cmp);
    let baseline = Measurement::plain("bare Argon2id hashes, one thread a core", hashes[RUNS / 2], "hashes/s");
    let result = load::median(sign_ins);
    let rows = vec![
        Measurement::plain(format!("SignIn, {IN_FLIGHT} in flight"), result.rate, "calls/s")
            .compared_with(&baseline, Some(0.92)),
        Measurement::plain(format!("SignIn, {IN_FLIGHT} in flight, p50"), micros(result.p50), "us"),
        Measurement::plain(format!("SignIn, {IN_FLIGHT} in flight, p99"), micros(result.p99), "us"),
        baseline,
        idle,
        flooded,
        Measurement::plain("Refresh, for each second of processor time of the whole mesh", refreshes, "calls")
            .at_least(2000.0),
    ];
    drop(Arc::into_inner(mesh).context("a caller still has the mesh")?.stop());
    Ok(rows)
}

async fn sign_in_run(
    client: &AuthServiceClient<Channel>,
    clients: &[KnownClient],
    password: &'static str,
) -> Result<LoadResult> {
    let mut groups = clients.chunks(clients.len() / IN_FLIGHT);
    load::closed_loop(IN_FLIGHT, RUN, || {
        let (client, mut next) = (client.clone(), groups.next().unwrap_or_default().to_vec().into_iter().cycle());
        move || {
            let (mut client, known) = (client.clone(), next.next().unwrap_or_default());
            async move {
                let KnownClient { email, device_token, .. } = known;
                client.sign_in(SignInRequest { email, password: password.to_owned(), device_token }).await?;
                Ok(())
            }
        }
    })
    .await
}

/// The caller is elsewhere, as it were.
async fn get_me_run(mesh: &Arc<Mesh>, reader: &KnownClient) -> Result<LoadResult> {
    let (mesh, token) = (Arc::clone(mesh), reader.access_token.clone());
    elsewhere::caller(async move || {
        let users = UserServiceClient::new(mesh.channel("user", "edge"));
        load::closed_loop(1, RUN, || {
            let (users, token) = (users.clone(), token.clone());
            move || {
                let (mut users, request) = (users.clone(), with_token(GetMeRequest {}, &token));
                async move {
                    users.get_me(request).await?;
                    Ok(())
                }
            }
        })
        .await
    })
    .await
}

/// How often each client refreshes its session, one after the other, in a second of the mesh's processor time.
async fn refreshes_per_core_second(
    mesh: &Mesh,
    client: &AuthServiceClient<Channel>,
    clients: &[KnownClient],
) -> Result<f64> {
    let (before, started) = (processor_seconds(mesh.id())?, Instant::now());
    let mut refreshing = JoinSet::new();
    for known in clients {
        let (mut client, mut refresh_token) = (client.clone(), known.refresh_token.clone());
        refreshing.spawn(async move {
            let mut count = 0_u32;
            while started.elapsed() < RUN {
                refresh_token = client.refresh(RefreshRequest { refresh_token }).await?.into_inner().refresh_token;
                count += 1;
            }
            Ok::<_, tonic::Status>(count)
        });
    }
    let mut count = 0;
    while let Some(refreshed) = refreshing.join_next().await {
        count += refreshed??;
    }
    Ok(f64::from(count) / (processor_seconds(mesh.id())? - before))
}

fn email(user: usize) -> String {
    format!("bench-{user}@example.com")
}

/// As the service hashes by default.
fn argon2() -> Result<Argon2> {
    let params = Params::builder().memory(Memory::kib(MEMORY_KIB)).passes(PASSES).lanes(LANES).threads(1);
    let params = params.build().map_err(|error| anyhow!("{error}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash of a password, for an import. It has the cost of the service's own, which does not replace it.
pub(crate) fn password_hash(password: &str) -> Result<String> {
    let (salt, mut output) = ([7; 16], [0; 32]);
    argon2()?.hash_into(password.as_bytes(), &salt, &mut output).map_err(|error| anyhow!("{error}"))?;
    let [salt, output] = [&salt[..], &output].map(|bytes| STANDARD_NO_PAD.encode(bytes));
    Ok(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${output}"))
}

/// Hashes per second on all cores in parallel, with reused memory.
///
/// Each thread is bound to its own core. Threads that never sleep are moved only by the kernel's load balancing, which
/// considers whole groups of processes: beside a running compiler, two threads were observed on one core all the time.
/// The service's threads sometimes wait for work and wake up on an idle core, so without binding the service reached
/// 1.5 times its baseline.
fn bare_hashes() -> Result<f64> {
    let argon2 = argon2()?;
    let started = Instant::now();
    let cores = sched_getaffinity(None)?;
    let threads: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|core| cores.is_set(*core))
        .map(|core| {
            thread::spawn(move || -> Result<u32> {
                let mut alone = CpuSet::new();
                alone.set(core);
                sched_setaffinity(None, &alone)?;
                let (mut memory, mut hashes, mut output) = (argon2.hasher(), 0, [0; 32]);
                while started.elapsed() < RUN {
                    memory
                        .hash_into(b"correct horse battery staple", b"a salt of sixteen", &mut output)
                        .map_err(|error| anyhow!("{error}"))?;
                    hashes += 1;
                }
                Ok(hashes)
            })
        })
        .collect();
    let mut hashes = 0;
    for thread in threads {
        hashes += thread.join().map_err(|_| anyhow!("a hashing thread panicked"))??;
    }
    Ok(f64::from(hashes) / started.elapsed().as_secs_f64())
}
