//! `drystone certs`: development certificates for every workload of a mesh on this machine.

use std::path::PathBuf;

use anyhow::Result;
use drystone::contract::WORKLOADS;
use drystone_mesh::{
    clock::Clock,
    config::ConfigError,
    identity::{Authority, Identity},
};

use crate::{
    config::{Config, ConfigFile},
    output,
    table::Table,
};

/// The flags of `drystone certs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Issue a certificate for the workload NAME alone
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Keep the development CA and the certificates in DIR
    #[arg(long, value_name = "DIR")]
    certs_dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut sources = args.config.sources();
    if let Some(dir) = &args.certs_dir {
        let dir =
            dir.to_str().ok_or_else(|| ConfigError::new("--certs-dir is not valid UTF-8; name another directory"))?;
        sources = sources.flag("--certs-dir", "certs_dir", dir);
    }
    let config = Config::load(&sources)?;
    let names = args.name.as_deref().map_or_else(|| WORKLOADS.to_vec(), |name| vec![name]);

    let authority = Authority::open_or_create(&config.certs_dir, &config.trust_domain, Clock::system())?;
    let mut table = Table::new(["WORKLOAD", "VALID UNTIL", "CERTIFICATE", "KEY"]);
    for name in names {
        let files = authority.issue(name)?;
        // Read back, so that what is listed is what a service will accept.
        let svid = Identity::load(&files)?.svid();
        let valid_until = svid.not_after.format("%Y-%m-%d %H:%M UTC").to_string();
        let (certificate, key) = (files.certificate.display().to_string(), files.key.display().to_string());
        table.row([svid.id.to_string(), valid_until, certificate, key]);
    }
    let roots = authority.certificate();
    output::print(format!("{table}\nThe CA that vouches for them: {}\n", roots.display()))
}
