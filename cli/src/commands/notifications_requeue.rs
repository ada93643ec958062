//! `drystone notifications requeue`: has a delivery attempted again that was given up.

use anyhow::Result;
use drystone::notification::v1::{RequeueDeliveryRequest, notification_service_client::NotificationServiceClient};

use crate::{
    App,
    config::{Config, ConfigFile},
    operator::{self, Operator},
    output, process,
};

/// The flags of `drystone notifications requeue`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// The id of the delivery, of `drystone notifications list`
    delivery: String,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    process::block_on(async {
        let channel = Operator::connect(app, &config)?.channel(drystone_notification::NAME)?;
        let request = RequeueDeliveryRequest { id: args.delivery.clone() };
        let requeued = NotificationServiceClient::new(channel).requeue_delivery(request).await;
        requeued.map_err(|status| operator::failure(&status))?;
        output::print(format!("{} is attempted again\n", args.delivery))
    })
}
