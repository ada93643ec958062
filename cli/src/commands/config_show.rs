//! `drystone config show`: prints the effective configuration.

use anyhow::Result;

use crate::{
    App,
    config::{Config, ConfigFile},
    output,
};

/// The flags of `drystone config show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    output::print(config.show()?)
}
