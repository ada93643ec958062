//! `drystone config check`: validates the configuration.

use anyhow::Result;

use crate::{
    App,
    config::{Config, ConfigFile},
    output,
};

/// The flags of `drystone config check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    config.contracts(app)?;
    config.shadow_rules()?;
    output::print("the configuration can be used\n")
}
