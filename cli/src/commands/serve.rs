//! `drystone serve`: runs selected services in one process, with existing certificates.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Result, bail};
use drystone_auth::password::huge_pages;
use drystone_mesh::{
    identity::{Identity, IdentityFiles, SpiffeId},
    module::Module,
    telemetry::logs,
};

use crate::{
    App,
    config::{Config, ConfigFile},
    identity::ServiceIdentity,
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
    let modules = app.select(&args.names)?;
    process::block_on(async {
        let (identities, certificates) = match &config.mesh.certificates.workload_api {
            Some(endpoint) => (from_workload_api(endpoint, &config, &modules).await?, CertificatePaths::default()),
            None => from_files(&config, &modules)?,
        };
        process::run(Plan {
            contracts,
            peers: config.peers(),
            identities,
            ready_file: args.ready_file,
            certificates,
            banner: false,
            generates_master_key: false,
            config,
        })
        .await
    })
}

type Identities = BTreeMap<&'static str, ServiceIdentity>;

/// The identities of the services from files, which are listed in the ready file.
fn from_files(config: &Config, modules: &[Module]) -> Result<(Identities, CertificatePaths)> {
    let mut identities = BTreeMap::new();
    let ca = config.mesh.certificates.bundle(&config.mesh.certs_dir);
    let mut certificates = CertificatePaths { ca: Some(ca), workloads: BTreeMap::new() };
    for module in modules {
        let name = module.name();
        let files = config.identity_files(name);
        let loaded = ServiceIdentity::from_files(&files, &config.mesh.certificates)?;
        check_name(&loaded.identity, name, config, &files)?;
        identities.insert(name, loaded);
        certificates.workloads.insert(name.to_owned(), files);
    }
    Ok((identities, certificates))
}

fn check_name(identity: &Identity, name: &str, config: &Config, files: &IdentityFiles) -> Result<()> {
    if identity.trust_domain() == config.mesh.trust_domain && identity.id().workload() == Some(name) {
        return Ok(());
    }
    bail!(
        "{} is the certificate of {}, not of spiffe://{}/service/{name}; replace it, or set `certs_dir`",
        files.certificate.display(),
        identity.id(),
        config.mesh.trust_domain,
    )
}

/// The identities of the services from the agent, which is asked for the SPIFFE ID of each.
async fn from_workload_api(endpoint: &str, config: &Config, modules: &[Module]) -> Result<Identities> {
    let mut identities = BTreeMap::new();
    for module in modules {
        let id = SpiffeId::for_workload(&config.mesh.trust_domain, module.name())?;
        identities.insert(module.name(), ServiceIdentity::from_workload_api(endpoint, id).await?);
    }
    Ok(identities)
}
