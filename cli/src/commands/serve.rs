//! `drystone serve`: runs selected services in one process, with existing certificates.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Result, bail};
use drystone_auth::password::huge_pages;
use drystone_mesh::{
    identity::{Identity, IdentityFiles},
    telemetry::logs,
};

use crate::{
    App,
    config::{Config, ConfigFile},
    process::{self, CertificatePaths, Plan},
};

/// The flags of `drystone serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The services to run
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(crate) config: ConfigFile,

    /// Write the addresses and certificates to FILE as JSON once everything is ready
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

/// Runs until Ctrl-C.
pub(crate) fn run(app: &App, args: Args) -> Result<()> {
    huge_pages::switch_off();
    let config = Config::load(app, &args.config.sources())?;
    logs::init(&config.mesh.log)?;
    let contracts = config.contracts(app)?;
    let mut identities = BTreeMap::new();
    let mut certificates = CertificatePaths { ca: config.mesh.certs_dir.join("ca.pem"), workloads: BTreeMap::new() };
    for module in app.select(&args.names)? {
        let name = module.name();
        let files = IdentityFiles {
            certificate: config.mesh.certs_dir.join(format!("{name}.pem")),
            key: config.mesh.certs_dir.join(format!("{name}.key")),
            bundle: certificates.ca.clone(),
        };
        let identity = Identity::load(&files)?;
        if identity.trust_domain() != config.mesh.trust_domain || identity.id().workload() != Some(name) {
            bail!(
                "{} is the certificate of {}, not of spiffe://{}/service/{name}; replace it, or set `certs_dir`",
                files.certificate.display(),
                identity.id(),
                config.mesh.trust_domain,
            );
        }
        identities.insert(name, identity);
        certificates.workloads.insert(name.to_owned(), files);
    }
    let peers = config.peers();
    let plan = Plan {
        contracts,
        peers,
        identities,
        ready_file: args.ready_file,
        certificates,
        banner: false,
        generates_master_key: false,
        config,
    };
    process::block_on(process::run(plan))
}
