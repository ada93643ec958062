//! `drystone up`: runs the whole mesh in one process, on embedded stores, with its own development CA.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use chrono::TimeDelta;
use drystone_auth::password::huge_pages;
use drystone_mesh::{
    clock::Clock,
    config::{ConfigError, ConfigSources},
    error::Chain,
    identity::{Authority, RotationStep, TrustDomain},
    telemetry::logs,
};
use tempfile::TempDir;
use tracing::{info, warn};

use crate::{
    App,
    config::{Config, ConfigFile},
    identity::ServiceIdentity,
    process::{self, CertificatePaths, Plan},
};

/// How often certificates are renewed. They are valid for a day.
const RENEWAL: TimeDelta = TimeDelta::hours(8);

/// How often it is checked whether they are due.
const RENEWAL_CHECK: Duration = Duration::from_mins(1);

/// When the rotation of the root begins: it takes three renewals, and a root with less than two days left is replaced at a start.
const ROTATION_MARGIN: TimeDelta = TimeDelta::days(4);

/// The flags of `drystone up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) config: ConfigFile,

    /// Take free ports instead of the configured ones, and a temporary directory without --data-dir, for tests
    #[arg(long)]
    pub(crate) ephemeral: bool,

    /// Write the addresses and certificates to FILE as JSON once everything is ready
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,

    /// Store the databases in DIR, and with --ephemeral the certificates in DIR/certs
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Do not start the service NAME, to test the others without it
    #[arg(long, value_name = "NAME")]
    pub(crate) without: Vec<String>,
}

/// Runs until Ctrl-C.
pub(crate) fn run(app: &App, args: Args) -> Result<()> {
    huge_pages::switch_off();
    let directory = args.directory()?;
    let mut config = Config::load(app, &sources(&args, directory.path())?)?;
    logs::init(&config.mesh.log)?;
    if args.ephemeral {
        take_free_ports(&mut config);
    }
    app.select(&args.without)?;
    let contracts = config.contracts(app)?;
    let workloads: Vec<String> = contracts.workloads().iter().cloned().collect();
    config.mesh.certificates.check_files().map_err(ConfigError::new)?;
    config.mesh.certificates.check_names().map_err(ConfigError::new)?;
    let authority = Authority::open_or_create(&config.mesh.certs_dir, &config.mesh.trust_domain, Clock::system())?;
    let mut identities = BTreeMap::new();
    let mut certificates = CertificatePaths { ca: Some(authority.certificate()), workloads: BTreeMap::new() };
    for name in &workloads {
        let files = authority.issue(name)?;
        if let Ok(module) = app.module(name) {
            identities.insert(module.name(), ServiceIdentity::from_files(&files, &config.mesh.certificates)?);
        }
        certificates.workloads.insert(name.clone(), files);
    }

    process::block_on(async {
        let (directory, domain) = (config.mesh.certs_dir.clone(), config.mesh.trust_domain.clone());
        tokio::spawn(renew(directory, domain, workloads));
        identities.retain(|name, _| !args.without.iter().any(|left_out| left_out == name));
        process::run(Plan {
            // A service that is left out gets an address where nothing listens, like an unavailable one.
            peers: config.peers(),
            contracts,
            identities,
            ready_file: args.ready_file,
            certificates,
            banner: !args.ephemeral,
            generates_master_key: true,
            config,
        })
        .await
    })
}

/// The data directory.
enum Directory {
    /// `data_dir` of the configuration.
    Configured,
    Given(PathBuf),
    /// Removed with its contents when the process ends.
    Temporary(TempDir),
}

impl Directory {
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Configured => None,
            Self::Given(path) => Some(path),
            Self::Temporary(directory) => Some(directory.path()),
        }
    }
}

impl Args {
    fn directory(&self) -> Result<Directory> {
        Ok(match &self.data_dir {
            Some(path) => Directory::Given(path.clone()),
            None if self.ephemeral => {
                let directory = tempfile::Builder::new().prefix("drystone-").tempdir();
                Directory::Temporary(directory.context("no temporary directory can be made; name one with --data-dir")?)
            }
            None => Directory::Configured,
        })
    }
}

fn sources(args: &Args, directory: Option<&Path>) -> Result<ConfigSources, ConfigError> {
    let mut sources = args.config.sources();
    if let Some(directory) = directory {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| ConfigError::new("--data-dir is not valid UTF-8; name another directory"))
        };
        sources = sources.flag("--data-dir", "data_dir", text(directory)?);
        if args.ephemeral {
            sources = sources.flag("--data-dir", "certs_dir", text(&directory.join("certs"))?);
        }
    }
    Ok(sources)
}

/// Renews the certificates before they expire, for running services and for other readers of the files, and rotates the root
/// in time, one step with each renewal. A step of a rotation that was begun by a command is taken as well.
async fn renew(directory: PathBuf, domain: TrustDomain, workloads: Vec<String>) {
    let mut renewed_at = Clock::system().now();
    loop {
        tokio::time::sleep(RENEWAL_CHECK).await;
        // By the clock, which goes on while the machine sleeps.
        let now = Clock::system().now();
        if (now - renewed_at).abs() < RENEWAL {
            continue;
        }
        match renew_once(&directory, &domain, &workloads) {
            Ok(()) => {
                renewed_at = now;
                info!("certificates renewed");
            }
            Err(error) => warn!(cause = %Chain(error.as_ref()), "certificates not renewed; the old ones stay in use"),
        }
    }
}

fn renew_once(directory: &Path, domain: &TrustDomain, workloads: &[String]) -> Result<()> {
    let mut authority = Authority::open(directory, domain, Clock::system())?;
    // Certificates are renewed whether or not a step can be taken.
    if let Err(error) = rotate_once(&mut authority) {
        warn!(cause = %Chain(error.as_ref()), "step of the rotation of the root not taken; it is tried again with the next renewal");
    }
    let names: BTreeSet<String> = workloads.iter().cloned().chain(authority.workloads()?).collect();
    for name in &names {
        authority.issue(name)?;
    }
    Ok(())
}

fn rotate_once(authority: &mut Authority) -> Result<()> {
    let step = authority.next_rotation_step()?;
    if step != RotationStep::Add || authority.remaining_lifetime() < ROTATION_MARGIN {
        authority.rotate(step)?;
        info!(%step, "step of the rotation of the root taken");
    }
    Ok(())
}

fn take_free_ports(config: &mut Config) {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.services.iter_mut().for_each(|service| service.listen = free);
    config.mesh.admin.listen = free;
}
