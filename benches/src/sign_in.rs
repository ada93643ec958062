//! Sign-ins through a mesh, compared with bare Argon2id hashes of the same parameters.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use drystone::auth::v1::{RegisterRequest, SignInRequest, auth_service_client::AuthServiceClient};
use drystone_tests::Mesh;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    load::{self, LoadResult},
    report::{Measurement, micros},
};

/// The default parameters of the auth service.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

const RUN: Duration = Duration::from_secs(3);
const RUNS: usize = 5;
/// Enough to keep the hashing threads busy.
const IN_FLIGHT: usize = 16;

/// Measures both alternately.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let mesh = Mesh::start();
    let client = AuthServiceClient::new(mesh.channel("auth", "edge"));
    let password = "correct horse battery staple";
    for user in 0..IN_FLIGHT {
        let request = RegisterRequest {
            email: email(user),
            password: password.to_owned(),
            display_name: "Bench".to_owned(),
            request_id: String::new(),
        };
        client.clone().register(request).await.context("registering")?;
    }

    let (mut hashes, mut sign_ins) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        hashes.push(tokio::task::spawn_blocking(bare_hashes).await??);
        sign_ins.push(sign_in_run(&client, password).await.context("signing in")?);
    }
    hashes.sort_by(f64::total_cmp);
    let baseline = Measurement::plain("bare Argon2id hashes, one thread a core", hashes[RUNS / 2], "hashes/s");
    let result = load::median(sign_ins);
    let rows = vec![
        Measurement::plain(format!("SignIn, {IN_FLIGHT} in flight"), result.rate, "calls/s")
            .compared_with(&baseline, Some(0.9)),
        Measurement::plain(format!("SignIn, {IN_FLIGHT} in flight, p50"), micros(result.p50), "us"),
        Measurement::plain(format!("SignIn, {IN_FLIGHT} in flight, p99"), micros(result.p99), "us"),
        baseline,
    ];
    drop(mesh.stop());
    Ok(rows)
}

async fn sign_in_run(
    client: &AuthServiceClient<tonic::transport::Channel>,
    password: &'static str,
) -> Result<LoadResult> {
    let mut next = 0;
    load::closed_loop(IN_FLIGHT, RUN, || {
        let (client, email) = (client.clone(), email(next));
        next += 1;
        move || {
            let (mut client, email) = (client.clone(), email.clone());
            async move {
                client
                    .sign_in(SignInRequest { email, password: password.to_owned(), ..SignInRequest::default() })
                    .await?;
                Ok(())
            }
        }
    })
    .await
}

fn email(user: usize) -> String {
    format!("bench-{user}@example.com")
}

/// Hashes per second on all cores in parallel, with reused memory.
///
/// Each thread is bound to its own core. Threads that never sleep are moved only by the kernel's load balancing, which
/// considers whole groups of processes: beside a running compiler, two threads were observed on one core all the time.
/// The service's threads sometimes wait for work and wake up on an idle core, so without binding the service reached
/// 1.5 times its baseline.
fn bare_hashes() -> Result<f64> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| anyhow!("{error}"))?;
    let argon2 = Arc::new(Argon2::new(Algorithm::Argon2id, Version::V0x13, params));
    let started = Instant::now();
    let cores = sched_getaffinity(None)?;
    let threads: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|core| cores.is_set(*core))
        .map(|core| {
            let argon2 = argon2.clone();
            thread::spawn(move || -> Result<u32> {
                let mut alone = CpuSet::new();
                alone.set(core);
                sched_setaffinity(None, &alone)?;
                let mut memory = vec![Block::new(); MEMORY_KIB as usize];
                let (mut hashes, mut output) = (0, [0; 32]);
                while started.elapsed() < RUN {
                    argon2
                        .hash_password_into_with_memory(
                            b"correct horse battery staple",
                            b"a salt of sixteen",
                            &mut output,
                            &mut memory,
                        )
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
