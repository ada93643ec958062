//! `drystone notifications list`: deliveries of messages, newest first.

use anyhow::Result;
use drystone::notification::v1::{
    Delivery, ListDeliveriesRequest, notification_service_client::NotificationServiceClient,
};
use serde::Serialize;

use crate::{
    App,
    accounts::time,
    config::{Config, ConfigFile},
    operator::{self, Operator},
    output, process,
    table::Table,
};

/// The most that one call returns.
const PAGE_SIZE: i32 = 200;

/// The flags of `drystone notifications list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Which deliveries, such as `state = dead`
    #[arg(long, default_value = "")]
    filter: String,

    /// How many to show
    #[arg(long, default_value_t = 100)]
    limit: usize,

    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A delivery, as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    id: String,
    message_id: String,
    template: String,
    channel: String,
    destination: String,
    user_id: String,
    state: String,
    attempts: i32,
    last_error: String,
    create_time: String,
}

impl From<Delivery> for View {
    fn from(delivery: Delivery) -> Self {
        let channel = delivery.channel().as_str_name().trim_start_matches("CHANNEL_").to_ascii_lowercase();
        let state = delivery.state().as_str_name().trim_start_matches("DELIVERY_STATE_").to_ascii_lowercase();
        Self {
            channel,
            state,
            create_time: time(delivery.create_time.as_ref()),
            id: delivery.id,
            message_id: delivery.message_id,
            template: delivery.template,
            destination: delivery.destination,
            user_id: delivery.user_id,
            attempts: delivery.attempts,
            last_error: delivery.last_error,
        }
    }
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let config = Config::load(app, &args.config.sources())?;
    process::block_on(async {
        let channel = Operator::connect(app, &config)?.channel(drystone_notification::NAME)?;
        let mut client = NotificationServiceClient::new(channel);
        let mut deliveries: Vec<View> = Vec::new();
        let mut page_token = String::new();
        while deliveries.len() < args.limit {
            let filter = args.filter.clone();
            let request = ListDeliveriesRequest { page_size: PAGE_SIZE, page_token, filter };
            let page = client.list_deliveries(request).await.map_err(|status| operator::failure(&status))?.into_inner();
            deliveries.extend(page.deliveries.into_iter().map(View::from));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        deliveries.truncate(args.limit);
        if args.json {
            return output::print(serde_json::to_string_pretty(&deliveries)? + "\n");
        }
        let mut table =
            Table::new(["DELIVERY", "TIME", "TEMPLATE", "CHANNEL", "DESTINATION", "STATE", "ATTEMPTS", "ERROR"]);
        for view in deliveries {
            let attempts = view.attempts.to_string();
            let error = view.last_error;
            let View { id, create_time, template, channel, destination, state, .. } = view;
            table.row([id, create_time, template, channel, destination, state, attempts, error]);
        }
        output::print(table.to_string())
    })
}
