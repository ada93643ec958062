//! One process of the mesh, from start to shutdown.
//!
//! `up` and `serve` differ in the source of certificates and addresses ([`Plan`]). Everything else is common: bind, open,
//! serve, wait for a signal, drain.

mod banner;
mod database;
mod master_key;
mod ready_file;

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use drystone::contract::Contracts;
use drystone_mesh::{
    access::ShadowRules,
    client::Peers,
    clock::Clock,
    health::{Health, Kind, State},
    identity::{CertificateMetrics, Follower, Identity, WatchedFiles},
    limit::{LimitStore, SharedLimits},
    module::{Context, Module, Notice, Shared, ShutdownStage},
    node::TOKEN_CHECKS,
    telemetry::{Metrics, admin},
    token::TokenVerifierConfig,
};
use drystone_store::{Address, Db, limit::RedisLimits, redis::SharedRedis};
use http::Extensions;
use tokio::{net::TcpListener, runtime::Builder, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub(crate) use self::ready_file::CertificatePaths;
use crate::{
    config::{Config, LimitStoreKind, MeshConfig, ServiceConfig},
    identity::ServiceIdentity,
    output,
};

/// The services to run, and their configuration.
pub(crate) struct Plan {
    /// The configuration.
    pub(crate) config: Config,
    /// The contracts of the mesh.
    pub(crate) contracts: Contracts,
    /// The services that run here, each with its certificate.
    pub(crate) identities: BTreeMap<&'static str, ServiceIdentity>,
    /// The addresses of all services. Those of this process are added when their listeners are bound.
    pub(crate) peers: Peers,
    /// The file that receives the addresses when everything is ready.
    pub(crate) ready_file: Option<PathBuf>,
    /// The certificates listed in the ready file and the banner.
    pub(crate) certificates: CertificatePaths,
    /// Whether to print the start banner.
    pub(crate) banner: bool,
    /// Whether a missing master key is generated.
    pub(crate) generates_master_key: bool,
}

/// The stop tokens of each stage.
struct ShutdownTokens {
    /// Stops the entry points first: no new requests.
    front: CancellationToken,
    /// Stops the other services.
    services: CancellationToken,
    /// Stops what services depend on.
    rest: CancellationToken,
}

/// Runs a future to completion on a runtime with one thread per core.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the threads of the process cannot be started")?;
    let outcome = runtime.block_on(work);
    // A DNS lookup of the system cannot be cancelled, and is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// Runs a plan until a stop signal.
///
/// # Errors
/// A start error in one sentence, or a task that failed.
pub(crate) async fn run(plan: Plan) -> Result<()> {
    let Plan { config, contracts, mut identities, mut peers, ready_file, certificates, banner, generates_master_key } =
        plan;
    let shadow_rules = config.shadow_rules()?;
    let running: Vec<&ServiceConfig> =
        config.services.iter().filter(|service| identities.contains_key(service.module.name())).collect();
    master_key::check(&config.mesh, generates_master_key, &running)?;
    let keeps_files = running.iter().any(|service| uses_data_dir(service));
    let _lock = keeps_files.then(|| lock_data_dir(&config.mesh.data_dir)).transpose()?;

    let mut listeners = Vec::new();
    let mut addresses = BTreeMap::new();
    for service in &running {
        let name = service.module.name();
        let listener = listen(service.listen, &format!("{name}.listen")).await?;
        let address = listener.local_addr()?;
        // An explicit `[peers]` entry includes the instance of this process.
        if service.module.shutdown_stage() == ShutdownStage::Service && !config.names_peer(name) {
            peers.entry(name.to_owned()).or_default().addresses = vec![address.to_string()];
        }
        addresses.insert(name, address);
        listeners.push(listener);
    }
    let admin_listener = listen(config.mesh.admin.listen, "admin.listen").await?;
    let admin_address = admin_listener.local_addr()?;

    let stops = ShutdownTokens {
        front: CancellationToken::new(),
        services: CancellationToken::new(),
        rest: CancellationToken::new(),
    };
    let redis = SharedRedis::new(config.mesh.redis.clone());
    let shared = Arc::new(shared(&config, contracts, shadow_rules, peers, &addresses, redis.clone()));
    let mut tasks = RunningTasks::default();
    let admin = admin::serve(admin_listener, shared.health.clone(), shared.metrics.clone(), stops.rest.clone());
    tasks.rest.spawn(named("admin", admin));
    follow_certificates(&config.mesh, &identities, &shared, &mut tasks, &stops.rest)?;
    // The admin port opens first and reports what the start waits for, such as a database. Services accept connections only
    // after all of them have been prepared.
    let prepare = async {
        let mut opened = Vec::new();
        for (service, listener) in running.iter().zip(listeners) {
            opened.push(open(service, listener, &config, &shared, &stops).await?);
        }
        let keys = master_key::load(&config.mesh, generates_master_key, &opened).await?;
        let mut prepared = Vec::new();
        for opened in opened {
            let name = opened.service.module.name();
            let identity = identities.remove(name).context("the service has no certificate")?.identity;
            let mut resources = Extensions::new();
            resources.insert(redis.clone());
            if let Some(keys) = &keys {
                resources.insert(keys.clone());
            }
            prepared.push(prepare(opened, &shared, resources, &stops, identity).await?);
        }
        anyhow::Ok(prepared)
    };
    let prepared = tokio::select! {
        prepared = prepare => prepared?,
        outcome = tasks.first_end() => return outcome,
        signal = stop_signal() => return finish(&stops, tasks, signal?).await,
    };
    let mut notices = Vec::new();
    for mut service in prepared {
        notices.extend(service.notice.take());
        service.start(&mut tasks);
    }

    tokio::select! {
        () = ready(&shared.health) => {}
        outcome = tasks.first_end() => return outcome,
        signal = stop_signal() => return finish(&stops, tasks, signal?).await,
    }
    if banner {
        output::print(banner::text(&addresses, admin_address, &certificates, &config, &notices))?;
    }
    if let Some(path) = &ready_file {
        ready_file::write(path, &addresses, admin_address, &certificates)?;
    }

    tokio::select! {
        signal = stop_signal() => finish(&stops, tasks, signal?).await,
        outcome = tasks.first_end() => outcome,
    }
}

/// Keeps the identities of the services up to date with their sources, and with the denylist.
fn follow_certificates(
    config: &MeshConfig,
    identities: &BTreeMap<&'static str, ServiceIdentity>,
    shared: &Shared,
    tasks: &mut RunningTasks,
    stop: &CancellationToken,
) -> Result<()> {
    let interval = config.certificates.check_interval.duration();
    let metrics = CertificateMetrics::of(&shared.metrics);
    for (name, ServiceIdentity { identity, source }) in identities {
        let (identity, source) = (identity.clone(), source.clone());
        let mut follower = Follower::new(name, identity, source, metrics.clone(), shared.clock.clone());
        if let Some(denylist) = &config.certificates.denylist {
            follower = follower.with_denylist(WatchedFiles::new(denylist.clone(), interval))?;
        }
        let health = shared.health.component(format!("{name} certificate"), Kind::Vital);
        let following = follower.run(health, stop.clone());
        tasks.rest.spawn(async move {
            following.await;
            Ok(())
        });
    }
    Ok(())
}

/// What the services of this process share.
fn shared(
    config: &Config,
    contracts: Contracts,
    shadow_rules: ShadowRules,
    peers: Peers,
    addresses: &BTreeMap<&'static str, SocketAddr>,
    redis: SharedRedis,
) -> Shared {
    let edge = addresses.get(drystone_edge::NAME);
    let issuer = edge.map_or_else(|| config.configured_issuer(), |edge| config.issuer(*edge));
    let metrics = Metrics::new(&contracts);
    let store = config.mesh.limits.store;
    let limits = SharedLimits::new(&metrics, move || {
        Ok(match store {
            LimitStoreKind::Memory => None,
            LimitStoreKind::Redis => Some(Arc::new(RedisLimits::new(redis.get()?)) as Arc<dyn LimitStore>),
        })
    });
    Shared {
        tokens: TokenVerifierConfig::new(issuer.clone(), drystone_auth::AUDIENCE),
        issuer,
        peers,
        data_dir: config.mesh.data_dir.clone(),
        clock: Clock::system(),
        metrics,
        contracts,
        shadow_rules,
        health: Health::new(),
        limits_per_minute: config.mesh.limits.per_minute(),
        limits,
        server_limits: config.mesh.server.limits(),
    }
}

/// Whether the service has a database file in the data directory.
fn uses_data_dir(service: &ServiceConfig) -> bool {
    service.database().is_some_and(|database| matches!(database.url, Address::File(_)))
}

/// A service that is ready to serve.
struct Prepared {
    module: Module,
    notice: Option<Notice>,
    run: Pin<Box<dyn Future<Output = io::Result<()>> + Send>>,
}

impl Prepared {
    /// Starts serving.
    fn start(self, tasks: &mut RunningTasks) {
        let stage = match self.module.shutdown_stage() {
            ShutdownStage::EntryPoint => &mut tasks.front,
            ShutdownStage::Service => &mut tasks.services,
        };
        stage.spawn(named(self.module.name(), self.run));
    }
}

/// A service with its listener and its database.
struct Opened<'a> {
    service: &'a ServiceConfig,
    listener: TcpListener,
    database: Option<Db>,
    /// The background tasks of the service, and what stops them.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Opens the database of a service, if it has one.
async fn open<'a>(
    service: &'a ServiceConfig,
    listener: TcpListener,
    config: &Config,
    shared: &Shared,
    stops: &ShutdownTokens,
) -> Result<Opened<'a>> {
    let (tasks, stop) = (TaskTracker::new(), stops.rest.child_token());
    let database = match service.location(&config.mesh.data_dir) {
        Some(location) => Some(database::open(service.module, location, shared, &tasks, &stop).await?),
        None => None,
    };
    Ok(Opened { service, listener, database, tasks, stop })
}

/// Creates the server of a service. Errors before serving are returned from here.
async fn prepare(
    opened: Opened<'_>,
    shared: &Arc<Shared>,
    mut resources: Extensions,
    stops: &ShutdownTokens,
    identity: Identity,
) -> Result<Prepared> {
    let Opened { service, listener, database, tasks, stop } = opened;
    let module = service.module;
    let stop_serving = match module.shutdown_stage() {
        ShutdownStage::EntryPoint => stops.front.clone(),
        ShutdownStage::Service => stops.services.clone(),
    };
    if let Some(database) = database {
        resources.insert(database);
    }
    let started = module
        .start(Context {
            name: module.name(),
            config: service.own.clone(),
            identity,
            resources,
            shared: shared.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            stop_serving: stop_serving.clone(),
        })
        .await
        .map_err(|error| anyhow!(error))?;
    let notice = started.notice().cloned();
    let run = Box::pin(async move {
        let outcome = started.run(listener, stop_serving).await;
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        outcome
    });
    Ok(Prepared { module, notice, run })
}

/// The running tasks, in the order in which they are stopped.
#[derive(Default)]
struct RunningTasks {
    front: JoinSet<Result<()>>,
    services: JoinSet<Result<()>>,
    rest: JoinSet<Result<()>>,
}

impl RunningTasks {
    /// A task that ends without a stop request has failed, whatever its result.
    async fn first_end(&mut self) -> Result<()> {
        let outcome = tokio::select! {
            Some(outcome) = self.front.join_next() => outcome,
            Some(outcome) = self.services.join_next() => outcome,
            Some(outcome) = self.rest.join_next() => outcome,
            else => bail!("no task to run"),
        };
        outcome.context("a task of the process panicked")??;
        bail!("a task of the process ended unexpectedly")
    }
}

/// Drains the entry points, then the services, then the admin port. A second signal ends the process at once.
async fn finish(stops: &ShutdownTokens, tasks: RunningTasks, signal: StopSignal) -> Result<()> {
    info!(signal = signal.name(), "stopping; a second signal ends the process at once");
    let RunningTasks { front, services, rest } = tasks;
    let drain = async {
        for (stop, mut tasks) in [(&stops.front, front), (&stops.services, services), (&stops.rest, rest)] {
            stop.cancel();
            while let Some(outcome) = tasks.join_next().await {
                outcome.context("a task of the process panicked")??;
            }
        }
        Ok(())
    };
    tokio::select! {
        outcome = drain => outcome,
        second = stop_signal() => Err(SecondSignal(second?).into()),
    }
}

/// The process received a second stop signal while draining. Calls in flight were aborted.
#[derive(Debug, thiserror::Error)]
#[error("stopped at once by a second signal ({}); calls in flight were aborted", .0.name())]
pub(crate) struct SecondSignal(StopSignal);

impl SecondSignal {
    /// The exit code of a process that was ended by the signal, by shell convention.
    pub(crate) fn exit_code(&self) -> u8 {
        128 + self.0 as u8
    }
}

/// A stop signal and its number.
#[derive(Debug, Clone, Copy)]
enum StopSignal {
    Interrupt = 2,
    Terminate = 15,
}

impl StopSignal {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Terminate => "terminate",
        }
    }
}

/// Waits until every vital component works, and every service of the process can verify tokens.
async fn ready(health: &Health) {
    const POLL_INTERVAL: Duration = Duration::from_millis(5);
    const LOG_INTERVAL: Duration = Duration::from_secs(10);

    let mut logged = Instant::now();
    while !is_ready(health) {
        if logged.elapsed() > LOG_INTERVAL {
            logged = Instant::now();
            let components = health.report().components;
            let waiting = components.iter().filter(|(_, component)| component.state != State::Up);
            let waiting: Vec<String> =
                waiting.map(|(name, component)| format!("{name}: {}", component.detail)).collect();
            warn!(waiting_for = waiting.join("; "), "not ready yet");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
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

/// Waits for SIGINT or SIGTERM.
async fn stop_signal() -> io::Result<StopSignal> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => StopSignal::Interrupt,
        _ = terminate.recv() => StopSignal::Terminate,
    })
}

async fn listen(address: SocketAddr, key: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow!("the address {address} is in use by another process; stop it, or set `{key}` to a free address")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("this user may not listen on {address}; set `{key}` to a port above 1023")
        }
        _ => anyhow!("cannot listen on {address}: {error}; set `{key}` to an address of this machine"),
    })
}

/// Creates the data directory and locks it until the file is dropped.
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
