//! `drystone users show`: an account, and what its user may do and why.

use anyhow::Result;
use drystone::user::v1::GetEffectivePermissionsRequest;
use serde::Serialize;

use crate::{
    App,
    accounts::{Accounts, UserView},
    config::ConfigFile,
    operator, output, process,
    table::Table,
};

/// The flags of `drystone users show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// E-mail address or id of the user
    #[arg(value_name = "USER")]
    user: String,

    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// The JSON.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    user: UserView,
    permissions: Vec<String>,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    process::block_on(async {
        let mut accounts = Accounts::connect(app, &args.config)?;
        let user = accounts.find(&args.user).await?;
        let request = GetEffectivePermissionsRequest { user_id: user.id.clone() };
        let effective = accounts.roles.get_effective_permissions(request).await;
        let effective = effective.map_err(|status| operator::failure(&status))?.into_inner();
        let user = UserView::from(user);
        let held = effective.permissions.iter().filter(|one| one.granted).map(|one| one.permission.clone());
        if args.json {
            let shown = Shown { user, permissions: held.collect() };
            return output::print(serde_json::to_string_pretty(&shown)? + "\n");
        }
        let mut table = Table::new(["FIELD", "VALUE"]);
        for (field, value) in [
            ("id", user.id),
            ("email", user.email),
            ("display name", user.display_name),
            ("roles", user.roles.join(" ")),
            ("status", user.status),
            ("created", user.create_time),
            ("changed", user.update_time),
        ] {
            table.row([field.to_owned(), value]);
        }
        let mut permissions = Table::new(["PERMISSION", "HELD", "FROM"]);
        for one in effective.permissions {
            let held = if one.granted { "yes" } else { "no" };
            permissions.row([one.permission, held.to_owned(), one.derivation.join("; ")]);
        }
        output::print(format!("{table}\n{permissions}"))
    })
}
