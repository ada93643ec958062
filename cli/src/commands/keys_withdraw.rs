//! `drystone keys withdraw`: has every server refuse the access tokens of a compromised key.

use anyhow::Result;
use drystone::auth::v1::{WithdrawSigningKeyRequest, WithdrawSigningKeyResponse, key_service_client::KeyServiceClient};

use crate::{
    App,
    config::{Config, ConfigFile},
    operator::{self, Operator},
    output, process,
};

/// The flags of `drystone keys withdraw`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// The id of the key, as `drystone keys list` shows it
    // An id is base64url, and may begin with a hyphen.
    #[arg(value_name = "KID", allow_hyphen_values = true)]
    kid: String,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    process::block_on(async {
        let mut keys = KeyServiceClient::new(Operator::connect(app, &config)?.channel(drystone_auth::NAME)?);
        let response = keys.withdraw_signing_key(WithdrawSigningKeyRequest { kid: args.kid.clone() }).await;
        let response = response.map_err(|status| operator::failure(&status))?.into_inner();
        let WithdrawSigningKeyResponse { signing_kid, applied } = response;
        let revocation = if applied {
            "connected services refuse its tokens now, others within seconds"
        } else {
            "the revocation of its tokens is queued and is delivered as soon as possible"
        };
        let successor = if signing_kid.is_empty() {
            "nothing signs until the master key is available".to_owned()
        } else {
            format!("`{signing_kid}` signs now")
        };
        output::print(format!("withdrew the key `{}`; {revocation}. {successor}\n", args.kid))
    })
}
