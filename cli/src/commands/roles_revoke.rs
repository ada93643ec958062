//! `drystone roles revoke`: revokes a role from a user.

use anyhow::Result;
use drystone::user::v1::RevokeRoleRequest;

use crate::{App, accounts::Accounts, config::ConfigFile, operator, output, process};

/// The flags of `drystone roles revoke`.
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
        let user = accounts.find(&args.user).await?;
        let request = RevokeRoleRequest { user_id: user.id, role: args.role.clone() };
        accounts.roles.revoke_role(request).await.map_err(|status| operator::failure(&status))?;
        output::print(format!(
            "{} does not have the role `{}`; access tokens from before are void\n",
            user.email, args.role
        ))
    })
}
