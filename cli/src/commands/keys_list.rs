//! `drystone keys list`: the keys that sign access tokens, and what each does.

use anyhow::Result;
use drystone::auth::v1::{ListSigningKeysRequest, SigningKey, key_service_client::KeyServiceClient};
use serde::Serialize;

use crate::{
    App,
    accounts::time,
    config::{Config, ConfigFile},
    operator::{self, Operator},
    output, process,
    table::Table,
};

/// The flags of `drystone keys list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A key, as it is printed.
#[derive(Debug, Serialize)]
struct View {
    kid: String,
    algorithm: String,
    state: String,
    since: String,
    until: String,
}

impl From<SigningKey> for View {
    fn from(key: SigningKey) -> Self {
        Self {
            state: key.state().as_str_name().trim_start_matches("SIGNING_KEY_STATE_").to_ascii_lowercase(),
            since: time(key.since_time.as_ref()),
            until: time(key.until_time.as_ref()),
            kid: key.kid,
            algorithm: key.algorithm,
        }
    }
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    process::block_on(async {
        let mut keys = KeyServiceClient::new(Operator::connect(app, &config)?.channel(drystone_auth::NAME)?);
        let listed = keys.list_signing_keys(ListSigningKeysRequest {}).await;
        let listed = listed.map_err(|status| operator::failure(&status))?.into_inner();
        let views: Vec<View> = listed.keys.into_iter().map(Into::into).collect();
        if args.json {
            return output::print(serde_json::to_string_pretty(&views)? + "\n");
        }
        let mut table = Table::new(["KID", "ALGORITHM", "STATE", "SINCE", "UNTIL"]);
        for View { kid, algorithm, state, since, until } in views {
            table.row([kid, algorithm, state, since, until]);
        }
        output::print(table.to_string())
    })
}
