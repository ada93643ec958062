//! `drystone users export`: all accounts that are not deleted, as lines of JSON that `drystone users import` reads.

use anyhow::Result;
use drystone::user::v1::ExportUsersRequest;

use crate::{App, accounts::Accounts, config::ConfigFile, import_file::Record, operator, output, process};

/// The flags of `drystone users export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    process::block_on(async {
        let mut accounts = Accounts::connect(app, &args.config)?;
        let exported = accounts.users.export_users(ExportUsersRequest {}).await;
        let mut batches = exported.map_err(|status| operator::failure(&status))?.into_inner();
        while let Some(batch) = batches.message().await.map_err(|status| operator::failure(&status))? {
            let mut lines = String::new();
            for user in batch.users {
                lines.push_str(&serde_json::to_string(&Record::from(user))?);
                lines.push('\n');
            }
            output::print(lines)?;
        }
        Ok(())
    })
}
