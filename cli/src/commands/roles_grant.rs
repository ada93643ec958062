//! `drystone roles grant`: grants a role to a user.

use anyhow::Result;

use crate::{App, accounts::Accounts, config::ConfigFile, output, process};

/// The flags of `drystone roles grant`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// E-mail address or id of the user
    #[arg(value_name = "USER")]
    user: String,

    /// Name of the role
    #[arg(value_name = "ROLE")]
    role: String,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    process::block_on(async {
        let mut accounts = Accounts::connect(app, &args.config)?;
        output::print(accounts.grant(&args.user, &args.role).await?)
    })
}
