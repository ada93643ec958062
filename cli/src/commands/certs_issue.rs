//! `drystone certs issue`: a development certificate for one workload.

use anyhow::Result;

use crate::{App, certificates, output};

/// The flags of `drystone certs issue`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The workload
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    directory: certificates::CertsDir,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = args.directory.config(app)?;
    output::print(certificates::issue(&certificates::authority(&config)?, std::slice::from_ref(&args.name))?)
}
