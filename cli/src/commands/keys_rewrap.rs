//! `drystone keys rewrap`: puts encrypted keys and messages under the master key that encrypts now.

use anyhow::Result;
use drystone::{
    auth::v1::{RewrapKeysRequest, key_service_client::KeyServiceClient},
    notification::v1::{RewrapParametersRequest, notification_service_client::NotificationServiceClient},
};

use crate::{
    App,
    config::{Config, ConfigFile},
    operator::{self, Operator},
    output, process,
};

/// The flags of `drystone keys rewrap`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    process::block_on(async {
        let operator = Operator::connect(app, &config)?;
        let mut keys = KeyServiceClient::new(operator.channel(drystone_auth::NAME)?);
        let response = keys.rewrap_keys(RewrapKeysRequest {}).await.map_err(|status| operator::failure(&status))?;
        let response = response.into_inner();
        output::print(format!("{} keys are under the master key `{}`\n", response.rewrapped, response.master_key_id))?;
        let mut messages = NotificationServiceClient::new(operator.channel(drystone_notification::NAME)?);
        let response = messages.rewrap_parameters(RewrapParametersRequest {}).await;
        let response = response.map_err(|status| operator::failure(&status))?.into_inner();
        output::print(format!(
            "{} messages are under the master key `{}`\n",
            response.rewrapped, response.master_key_id
        ))
    })
}
