//! `drystone config check`: whether the configuration can be used.

use anyhow::Result;

use crate::{
    config::{Config, ConfigFile},
    output,
};

/// The flags of `drystone config check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    Config::load(&args.config.sources())?;
    output::print("the configuration can be used\n")
}
