//! `drystone certs`: development certificates for every workload of a mesh on this machine.

use std::path::PathBuf;

use anyhow::Result;
use drystone_mesh::{
    clock::Clock,
    config::ConfigError,
    identity::{Authority, Identity},
};

use crate::{
    App,
    config::{Config, ConfigFile},
    output,
    table::Table,
};

/// The flags of `drystone certs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Store the development CA and the certificates in DIR
    #[arg(long, value_name = "DIR", global = true)]
    certs_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Issue a certificate only for the workload NAME, such as a service that is not compiled in
    Issue {
        /// The workload
        #[arg(value_name = "NAME")]
        name: String,
    },
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let mut sources = args.config.sources();
    if let Some(dir) = &args.certs_dir {
        let dir =
            dir.to_str().ok_or_else(|| ConfigError::new("--certs-dir is not valid UTF-8; name another directory"))?;
        sources = sources.flag("--certs-dir", "certs_dir", dir);
    }
    let config = Config::load(app, &sources)?;
    let names: Vec<String> = match &args.command {
        Some(Command::Issue { name }) => vec![name.clone()],
        None => config.contracts(app)?.workloads().iter().cloned().collect(),
    };

    let authority = Authority::open_or_create(&config.mesh.certs_dir, &config.mesh.trust_domain, Clock::system())?;
    let mut table = Table::new(["WORKLOAD", "VALID UNTIL", "CERTIFICATE", "KEY"]);
    for name in names {
        let files = authority.issue(&name)?;
        // Read back, so that what is listed is what a service will accept.
        let svid = Identity::load(&files)?.svid();
        let valid_until = svid.not_after.format("%Y-%m-%d %H:%M UTC").to_string();
        let (certificate, key) = (files.certificate.display().to_string(), files.key.display().to_string());
        table.row([svid.id.to_string(), valid_until, certificate, key]);
    }
    let roots = authority.certificate();
    output::print(format!("{table}\nThe CA that issued them: {}\n", roots.display()))
}
