//! `drystone roles list`: all roles.

use anyhow::Result;
use drystone::user::v1::ListRolesRequest;

use crate::{
    App,
    accounts::{Accounts, RoleView},
    config::ConfigFile,
    operator, output, process,
    table::Table,
};

/// The flags of `drystone roles list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    process::block_on(async {
        let mut accounts = Accounts::connect(app, &args.config)?;
        let listed =
            accounts.roles.list_roles(ListRolesRequest {}).await.map_err(|status| operator::failure(&status))?;
        let roles: Vec<RoleView> = listed.into_inner().roles.into_iter().map(Into::into).collect();
        if args.json {
            return output::print(serde_json::to_string_pretty(&roles)? + "\n");
        }
        let mut table = Table::new(["ROLE", "LEVEL", "INHERITS", "PERMISSIONS", "DESCRIPTION"]);
        for RoleView { name, description, level, inherits, permissions, .. } in roles {
            let all = if name == "admin" { "all".to_owned() } else { permissions.join(" ") };
            table.row([name, level.to_string(), inherits.join(" "), all, description]);
        }
        output::print(table.to_string())
    })
}
