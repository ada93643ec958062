//! `drystone users list`: accounts, oldest first.

use anyhow::Result;
use drystone::user::v1::ListUsersRequest;

use crate::{
    App,
    accounts::{Accounts, UserView},
    config::ConfigFile,
    operator, output, process,
    table::Table,
};

/// The number of accounts that are read at once.
const PAGE_SIZE: i32 = 200;

/// The flags of `drystone users list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Which accounts, such as `status = disabled AND role = manager` or `email = "ada@*"`
    #[arg(long, default_value = "")]
    filter: String,

    /// `create_time`, `email`, or one of them and ` desc`
    #[arg(long, value_name = "ORDER", default_value = "")]
    order_by: String,

    /// Beginnings of an e-mail address or of words of names
    #[arg(long, value_name = "WORDS", default_value = "")]
    search: String,

    /// Maximum number of accounts to show
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: usize,

    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    process::block_on(async {
        let mut accounts = Accounts::connect(app, &args.config)?;
        let (mut users, mut page_token) = (Vec::new(), String::new());
        while users.len() < args.limit {
            let page_size = i32::try_from(args.limit - users.len()).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
            let listed = accounts.users.list_users(ListUsersRequest {
                page_size,
                page_token,
                filter: args.filter.clone(),
                order_by: args.order_by.clone(),
                search: args.search.clone(),
            });
            let listed = listed.await;
            let listed = listed.map_err(|status| operator::failure(&status))?.into_inner();
            users.extend(listed.users.into_iter().map(UserView::from));
            page_token = listed.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        if args.json {
            return output::print(serde_json::to_string_pretty(&users)? + "\n");
        }
        let mut table = Table::new(["ID", "EMAIL", "NAME", "STATUS", "ROLES", "CREATED"]);
        for user in users {
            table.row([user.id, user.email, user.display_name, user.status, user.roles.join(" "), user.create_time]);
        }
        output::print(table.to_string())
    })
}
