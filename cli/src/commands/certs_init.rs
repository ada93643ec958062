//! `drystone certs init`: development certificates for every workload of a mesh on this machine.

use anyhow::Result;

use crate::{App, certificates, output};

/// The flags of `drystone certs init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    directory: certificates::CertsDir,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = args.directory.config(app)?;
    let names: Vec<String> = config.contracts(app)?.workloads().iter().cloned().collect();
    output::print(certificates::issue(&certificates::authority(&config)?, &names)?)
}
