//! `drystone roles show`: one role.

use anyhow::Result;
use drystone::user::v1::GetRoleRequest;

use crate::{
    App,
    accounts::{Accounts, RoleView},
    config::ConfigFile,
    operator, output, process,
    table::Table,
};

/// The flags of `drystone roles show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Name of the role
    #[arg(value_name = "ROLE")]
    role: String,

    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    process::block_on(async {
        let mut accounts = Accounts::connect(app, &args.config)?;
        let request = GetRoleRequest { name: args.role.clone() };
        let role = accounts.roles.get_role(request).await.map_err(|status| operator::failure(&status))?;
        let role = RoleView::from(role.into_inner());
        if args.json {
            return output::print(serde_json::to_string_pretty(&role)? + "\n");
        }
        let mut table = Table::new(["FIELD", "VALUE"]);
        let permissions = if role.name == "admin" { "all".to_owned() } else { role.permissions.join(" ") };
        for (field, value) in [
            ("name", role.name),
            ("description", role.description),
            ("level", role.level.to_string()),
            ("inherits", role.inherits.join(" ")),
            ("permissions", permissions),
            ("built in", role.built_in.to_string()),
        ] {
            table.row([field.to_owned(), value]);
        }
        output::print(table.to_string())
    })
}
