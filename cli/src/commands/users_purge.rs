//! `drystone users purge`: removes a deleted account for good.

use anyhow::Result;
use drystone::user::v1::PurgeUserRequest;

use crate::{App, accounts::Accounts, config::ConfigFile, operator, output, process};

/// The flags of `drystone users purge`.
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
        let user = accounts.find(&args.user).await?;
        let request = PurgeUserRequest { id: user.id };
        accounts.users.purge_user(request).await.map_err(|status| operator::failure(&status))?;
        output::print(format!("{} is removed for good\n", user.email))
    })
}
