//! `drystone users enable`: enables an account.

use anyhow::Result;
use drystone::user::v1::EnableUserRequest;

use crate::{App, accounts::Accounts, config::ConfigFile, operator, output, process};

/// The flags of `drystone users enable`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// E-mail address or id of the user
    #[arg(value_name = "USER")]
    user: String,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    process::block_on(async {
        let mut accounts = Accounts::connect(app, &args.config)?;
        let request = EnableUserRequest { id: accounts.find(&args.user).await?.id };
        let user = accounts.users.enable_user(request).await.map_err(|status| operator::failure(&status))?.into_inner();
        output::print(format!("{} is enabled, and may sign in\n", user.email))
    })
}
