//! `drystone keys seal`: encrypts and replaces the keys that an earlier release stored unencrypted.

use anyhow::Result;
use drystone::auth::v1::{SealKeysRequest, key_service_client::KeyServiceClient};

use crate::{
    App,
    config::{Config, ConfigFile},
    operator::{self, Operator},
    output, process,
};

/// The flags of `drystone keys seal`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    process::block_on(async {
        let mut keys = KeyServiceClient::new(Operator::connect(app, &config)?.channel(drystone_auth::NAME)?);
        let sealed =
            keys.seal_keys(SealKeysRequest {}).await.map_err(|status| operator::failure(&status))?.into_inner().sealed;
        output::print(match sealed {
            0 => "all keys were encrypted already; earlier bytes were removed from the files of the database\n"
                .to_owned(),
            count => format!(
                "encrypted and replaced {count} keys; the new ones sign in five minutes, and tokens stay valid\n"
            ),
        })
    })
}
