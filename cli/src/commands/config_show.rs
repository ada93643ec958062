//! `drystone config show`: the configuration as it takes effect.

use anyhow::Result;
use drystone_mesh::config;

use crate::{
    config::{Config, ConfigFile},
    output,
};

/// The flags of `drystone config show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let config = Config::load(&args.config.sources())?;
    output::print(config::show(&config)?)
}
