//! `drystone keys rotate`: publishes a new key that signs access tokens soon.

use anyhow::Result;
use drystone::auth::v1::{RotateSigningKeyRequest, RotateSigningKeyResponse, key_service_client::KeyServiceClient};

use crate::{
    App,
    accounts::time,
    config::{Config, ConfigFile},
    operator::{self, Operator},
    output, process,
};

/// The flags of `drystone keys rotate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    process::block_on(async {
        let mut keys = KeyServiceClient::new(Operator::connect(app, &config)?.channel(drystone_auth::NAME)?);
        let response = keys.rotate_signing_key(RotateSigningKeyRequest {}).await;
        let response = response.map_err(|status| operator::failure(&status))?.into_inner();
        let RotateSigningKeyResponse { kid, algorithm, sign_time, was_pending } = response;
        let what = if was_pending { "a rotation had begun already: the key" } else { "published the key" };
        let at = time(sign_time.as_ref());
        output::print(format!("{what} `{kid}` ({algorithm}), which signs from {at} on; tokens stay valid\n"))
    })
}
