//! `drystone users promote`: grants a role to a user, such as the first administrator.

use anyhow::Result;

use crate::{App, accounts::Accounts, config::ConfigFile, output, process};

/// The flags of `drystone users promote`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// E-mail address or id of the user
    #[arg(value_name = "EMAIL")]
    user: String,

    /// Name of the role
    #[arg(long, value_name = "ROLE", default_value = "admin")]
    role: String,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    process::block_on(async {
        let mut accounts = Accounts::connect(app, &args.config)?;
        output::print(accounts.grant(&args.user, &args.role).await?)
    })
}
