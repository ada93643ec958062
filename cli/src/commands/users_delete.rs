//! `drystone users delete`: deletes an account, which can be restored for some time.

use anyhow::Result;
use drystone::user::v1::DeleteUserRequest;

use crate::{
    App,
    accounts::{self, Accounts},
    config::ConfigFile,
    operator, output, process,
};

/// The flags of `drystone users delete`.
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
        let request = DeleteUserRequest { id: accounts.find(&args.user).await?.id, etag: String::new() };
        let user = accounts.users.delete_user(request).await.map_err(|status| operator::failure(&status))?.into_inner();
        let purge_time = accounts::time(user.purge_time.as_ref());
        output::print(format!("{} is deleted, and can be restored until {purge_time}\n", user.email))
    })
}
