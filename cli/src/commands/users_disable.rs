//! `drystone users disable`: disables an account.

use anyhow::Result;
use drystone::user::v1::DisableUserRequest;

use crate::{App, accounts::Accounts, config::ConfigFile, operator, output, process};

/// The flags of `drystone users disable`.
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
        let request = DisableUserRequest { id: accounts.find(&args.user).await?.id };
        let user =
            accounts.users.disable_user(request).await.map_err(|status| operator::failure(&status))?.into_inner();
        output::print(format!("{} is disabled, and all sessions have ended\n", user.email))
    })
}
