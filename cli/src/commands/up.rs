//! `drystone up`: runs the whole mesh in one process, on embedded stores, with its own development CA.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use drystone_auth::password::huge_pages;
use drystone_mesh::{
    clock::Clock,
    config::{ConfigError, ConfigSources},
    error::Chain,
    identity::{Authority, Identity, TrustDomain},
    telemetry::logs,
};
use tempfile::TempDir;
use tracing::{info, warn};

use crate::{
    App,
    config::{Config, ConfigFile},
    process::{self, CertificatePaths, Plan},
};

/// How often certificates are renewed. They are valid for a day.
const RENEWAL: Duration = Duration::from_hours(8);

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
    let authority = Authority::open_or_create(&config.mesh.certs_dir, &config.mesh.trust_domain, Clock::system())?;
    let mut identities = BTreeMap::new();
    let mut certificates = CertificatePaths { ca: authority.certificate(), workloads: BTreeMap::new() };
    for name in &workloads {
        let files = authority.issue(name)?;
        if let Ok(module) = app.module(name) {
            identities.insert(module.name(), Identity::load(&files)?);
        }
        certificates.workloads.insert(name.clone(), files);
    }

    process::block_on(async {
        let (directory, domain) = (config.mesh.certs_dir.clone(), config.mesh.trust_domain.clone());
        tokio::spawn(renew(directory, domain, workloads, identities.clone()));
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

/// Renews the certificates before they expire, for running services and for readers of the files.
async fn renew(
    directory: PathBuf,
    domain: TrustDomain,
    workloads: Vec<String>,
    identities: BTreeMap<&'static str, Identity>,
) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        let renewed = || -> Result<()> {
            let authority = Authority::open_or_create(&directory, &domain, Clock::system())?;
            for name in &workloads {
                let files = authority.issue(name)?;
                if let Some(identity) = identities.get(name.as_str()) {
                    identity.replace(&files)?;
                }
            }
            Ok(())
        };
        match renewed() {
            Ok(()) => info!("certificates renewed"),
            Err(error) => warn!(cause = %Chain(error.as_ref()), "certificates not renewed; the old ones stay in use"),
        }
    }
}

fn take_free_ports(config: &mut Config) {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.services.iter_mut().for_each(|service| service.listen = free);
    config.mesh.admin.listen = free;
}
