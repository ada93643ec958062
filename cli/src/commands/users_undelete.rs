//! `drystone users undelete`: restores a deleted account.

use anyhow::Result;
use drystone::user::v1::UndeleteUserRequest;

use crate::{
    App,
    accounts::{self, Accounts},
    config::ConfigFile,
    operator, output, process,
};

/// The flags of `drystone users undelete`.
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
        let request = UndeleteUserRequest { id: accounts.find(&args.user).await?.id };
        let user =
            accounts.users.undelete_user(request).await.map_err(|status| operator::failure(&status))?.into_inner();
        let status = accounts::status_name(user.status());
        output::print(format!("{} is restored, and {status}\n", user.email))
    })
}
