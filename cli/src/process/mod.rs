//! One process of the mesh: which services it runs, from the first listener to the last goodbye.
//!
//! `up` and `serve` differ in where certificates and addresses come from ([`Plan`]); from there on there is one way:
//! bind, open, serve, wait, stop.

mod banner;
mod ready_file;
mod services;

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use drystone_mesh::{
    client::Peers,
    clock::Clock,
    health::{Health, State},
    identity::Identity,
    limit::Limits,
    node::TOKEN_CHECKS,
    store::redis::Redis,
    telemetry::{Metrics, admin},
};
use tokio::{net::TcpListener, runtime::Builder, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::{ready_file::CertificatePaths, services::databases};
use crate::{config::Config, output};

/// The workloads that a process can run.
pub(crate) const WORKLOADS: [&str; 5] = ["auth", "edge", "property", "session", "user"];

/// What a process is to run.
pub(crate) struct Plan {
    /// The configuration.
    pub(crate) config: Config,
    /// The workloads that run here, each with its certificate.
    pub(crate) identities: BTreeMap<&'static str, Identity>,
    /// Where every service of the mesh is; those that run here are filled in once they are bound.
    pub(crate) peers: Peers,
    /// Where the addresses are written once everything is ready.
    pub(crate) ready_file: Option<PathBuf>,
    /// The certificates that the ready file and the banner name.
    pub(crate) certificates: CertificatePaths,
    /// Whether to greet whoever started it.
    pub(crate) banner: bool,
}

/// What the services of one process share.
struct Process {
    config: Config,
    issuer: String,
    peers: Peers,
    clock: Clock,
    metrics: Metrics,
    health: Health,
    /// Opened by the first service that keeps something there.
    redis: OnceLock<Redis>,
    /// Made by the first that counts attempts.
    limits: OnceLock<Limits>,
    /// Ends the front doors, so that nothing new comes in.
    stop_front: CancellationToken,
    /// Ends the services behind them.
    stop_services: CancellationToken,
    /// Ends what the services stand on.
    stop_rest: CancellationToken,
}

/// The listeners of a process, bound before anything is started.
struct Listeners {
    workloads: BTreeMap<&'static str, TcpListener>,
    admin: TcpListener,
}

/// Does the process' work, on one thread a core.
///
/// # Errors
/// What the work fails with.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the threads of the process cannot be started")?;
    let outcome = runtime.block_on(work);
    // The system's look-up of a name cannot be broken off, and is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// Runs a plan until the process is told to stop.
///
/// # Errors
/// What kept it from starting, as one sentence; or a part that died.
pub(crate) async fn run(plan: Plan) -> Result<()> {
    let needs_data_dir = services::need_data_dir(&plan.config, plan.identities.keys().copied());
    let _lock = needs_data_dir.then(|| lock_data_dir(&plan.config.data_dir)).transpose()?;
    let listeners = bind(&plan).await?;

    let mut peers = plan.peers;
    let mut addresses = BTreeMap::new();
    for (name, listener) in &listeners.workloads {
        let address = listener.local_addr()?;
        // Where `[peers]` names the instances of a service, the one that runs here is among them.
        if !plan.config.names_peer(name) {
            peers.insert((*name).to_owned(), vec![address.to_string()]);
        }
        addresses.insert(*name, address);
    }
    let admin_address = listeners.admin.local_addr()?;
    let issuer = plan.config.issuer(addresses.get("edge").copied().unwrap_or(plan.config.edge.listen));

    let process = Process {
        config: plan.config,
        issuer,
        peers,
        clock: Clock::system(),
        metrics: Metrics::new(),
        health: Health::new(),
        redis: OnceLock::new(),
        limits: OnceLock::new(),
        stop_front: CancellationToken::new(),
        stop_services: CancellationToken::new(),
        stop_rest: CancellationToken::new(),
    };
    let mut parts = Parts::default();
    let admin =
        admin::serve(listeners.admin, process.health.clone(), process.metrics.clone(), process.stop_rest.clone());
    parts.rest.spawn(named("admin", admin));
    // Every other door is opened when everything is put together: a start that fails has served nobody. That may wait for
    // a database, and the admin port says so.
    let prepare = async {
        let mut prepared = Vec::new();
        for ((name, identity), listener) in plan.identities.into_iter().zip(listeners.workloads.into_values()) {
            prepared.push(services::prepare(&process, name, identity, listener).await?);
        }
        anyhow::Ok(prepared)
    };
    let prepared = tokio::select! {
        prepared = prepare => prepared?,
        outcome = parts.first_end() => return outcome,
        signal = stop_signal() => return finish(&process, parts, signal?).await,
    };
    for workload in prepared {
        workload.start(&mut parts);
    }

    tokio::select! {
        () = ready(&process.health) => {}
        outcome = parts.first_end() => return outcome,
        signal = stop_signal() => return finish(&process, parts, signal?).await,
    }
    if plan.banner {
        output::print(banner::text(&addresses, admin_address, &plan.certificates, &process.config))?;
    }
    if let Some(path) = &plan.ready_file {
        ready_file::write(path, &addresses, admin_address, &plan.certificates)?;
    }

    tokio::select! {
        signal = stop_signal() => finish(&process, parts, signal?).await,
        outcome = parts.first_end() => outcome,
    }
}

/// What runs, in the order in which it is stopped.
#[derive(Default)]
struct Parts {
    front: JoinSet<Result<()>>,
    services: JoinSet<Result<()>>,
    rest: JoinSet<Result<()>>,
}

impl Parts {
    /// A part that ends while nobody told it to has failed, whatever it says.
    async fn first_end(&mut self) -> Result<()> {
        let outcome = tokio::select! {
            Some(outcome) = self.front.join_next() => outcome,
            Some(outcome) = self.services.join_next() => outcome,
            Some(outcome) = self.rest.join_next() => outcome,
            else => bail!("there is nothing to run"),
        };
        outcome.context("a part of the process died")??;
        bail!("a part of the process ended by itself")
    }
}

/// Stops from the outside in: the front doors, then the services, then the admin port, which shows the stopping.
async fn finish(process: &Process, parts: Parts, signal: &'static str) -> Result<()> {
    info!(signal, "stopping");
    let Parts { front, services, rest } = parts;
    for (stop, mut parts) in
        [(&process.stop_front, front), (&process.stop_services, services), (&process.stop_rest, rest)]
    {
        stop.cancel();
        while let Some(outcome) = parts.join_next().await {
            outcome.context("a part of the process died")??;
        }
    }
    Ok(())
}

/// Waits until every part works that cannot be done without, and every service here can check tokens.
async fn ready(health: &Health) {
    const PACE: Duration = Duration::from_millis(5);
    const PATIENCE: Duration = Duration::from_secs(10);

    let mut complained = Instant::now();
    while !is_ready(health) {
        if complained.elapsed() > PATIENCE {
            complained = Instant::now();
            let components = health.report().components;
            let waiting = components.iter().filter(|(_, component)| component.state != State::Up);
            let waiting: Vec<String> =
                waiting.map(|(name, component)| format!("{name}: {}", component.detail)).collect();
            warn!(waiting_for = waiting.join("; "), "not ready yet");
        }
        tokio::time::sleep(PACE).await;
    }
}

fn is_ready(health: &Health) -> bool {
    let components = health.report().components;
    let mut checks = components.iter().filter(|(name, _)| name.ends_with(TOKEN_CHECKS));
    health.is_ready() && checks.all(|(_, component)| component.state == State::Up)
}

async fn named<E>(name: &'static str, part: impl Future<Output = Result<(), E>> + Send) -> Result<()>
where
    E: Into<anyhow::Error>,
{
    part.await.map_err(|error| error.into().context(format!("`{name}` failed")))
}

/// Waits for Ctrl-C or SIGTERM, and answers which it was.
async fn stop_signal() -> io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => "interrupt",
        _ = terminate.recv() => "terminate",
    })
}

async fn bind(plan: &Plan) -> Result<Listeners> {
    let mut workloads = BTreeMap::new();
    for name in plan.identities.keys().copied() {
        workloads.insert(name, listen(services::address(&plan.config, name), &format!("{name}.listen")).await?);
    }
    Ok(Listeners { workloads, admin: listen(plan.config.admin.listen, "admin.listen").await? })
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "the address {address} is taken by another process; stop that one, or set `{key}` to a free address"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!("this user may not listen on {address}; set `{key}` to a port above 1023")
        }
        _ => anyhow!("cannot listen on {address}: {error}; set `{key}` to an address of this machine"),
    })
}

/// Makes the data directory ours, and ours alone, until the file is dropped.
fn lock_data_dir(directory: &Path) -> Result<File> {
    let unusable = |error: io::Error| {
        anyhow!(
            "the data directory {} cannot be written: {error}; make it writable for this user, or set `data_dir` to another",
            directory.display()
        )
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
    let path = directory.join("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(unusable)?;
    lock.try_lock().map_err(|_| {
        anyhow!(
            "the data directory {} is in use by another drystone; stop that one, or set `data_dir` to another",
            directory.display()
        )
    })?;
    Ok(lock)
}
