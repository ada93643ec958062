//! Messages to users: mail, webhooks and the inbox. This service owns their delivery, the inboxes, and what users want to receive.
//!
//! Any service sends a message by the name of its template, with parameters and a recipient; what it says in which language is here.
//! It knows no accounts: the sender names the address, the name and the language of the recipient.
//!
//! | module | contents |
//! |---|---|
//! | [`rpc`](crate::Service) | the RPCs: convert, call the domain, convert back |
//! | `send.rs` | accepting a message: what is checked, and where it is delivered to |
//! | [`template`] | the templates: built in, and from a folder |
//! | [`message`] | messages and their deliveries |
//! | `dispatch.rs` | delivers: leases, attempts, delays, pauses and gives up |
//! | [`channel`] | mail by SMTP or into files, and signed webhooks |
//! | [`inbox`], `preference.rs` | inboxes and who watches them; what users want to receive |
//! | [`store`] | the store; all SQL is in `store.rs` and `store/` |
//! | `housekeeping.rs`, `metrics.rs` | what is done from time to time; the metrics |
//! | [`Error`] | the errors of this service, and the reason of each |
//!
//! # How to add a message
//!
//! A folder in `src/templates/` with `template.toml` and a file for each language; `src/template/built_in.rs` lists it. See
//! [`template`], and `drystone notifications preview NAME`.
//!
//! # How to add a channel
//!
//! A variant of [`channel::Channel`] and of the enum of the contract, a file in `src/channel/` whose function tells the three kinds of
//! [`channel::SendError`] apart, an arm in `src/dispatch/attempt.rs`, and where its messages go in `src/send.rs`.
//!
//! # How to add an RPC
//!
//! As in the user service (`services/user/src/lib.rs`), whose layout this crate has.

pub mod channel;
mod config;
mod dispatch;
mod error;
mod housekeeping;
pub mod inbox;
pub mod message;
mod metrics;
mod module;
mod preference;
mod rpc;
mod send;
pub mod store;
pub mod template;

#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, sync::Arc};

use drystone::notification::v1::{
    inbox_service_server::{InboxService, InboxServiceServer},
    notification_service_server::{NotificationService, NotificationServiceServer},
};
use drystone_mesh::{
    clock::Clock,
    limit::LimiterFactory,
    module::{Module, StartError},
    telemetry::Metrics,
};
use drystone_store::sealing::{self, Sealer};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    channel::{Channel, mail::Mail, webhook::Webhook},
    dispatch::{Attempts, ChannelOptions, Dispatcher, DispatcherOptions},
    housekeeping::Housekeeping,
    inbox::Inboxes,
    metrics::DeliveryMetrics,
    send::{Sending, Subscriber},
    template::Templates,
};
pub use crate::{
    config::{Config, SmtpConfig, SmtpTls},
    error::Error,
    store::{MIGRATIONS, NotificationStore},
};

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "notification";

/// How many webhooks are called at once.
const WEBHOOK_CALLS: usize = 32;

/// How many messages one round puts under another master key.
const REWRAP_BATCH: u32 = 100;

/// The dependencies of the service.
pub struct Deps {
    /// The store.
    pub store: NotificationStore,
    /// The templates.
    pub templates: Templates,
    /// Encrypts the parameters of messages.
    pub sealer: Sealer,
    /// Rate limits.
    pub limits: LimiterFactory,
    /// Where mails are written to without a mail server.
    pub mail_folder: PathBuf,
    /// The section `[notification]` of the configuration.
    pub config: Config,
    /// The source of time.
    pub clock: Clock,
    /// Receives the metrics.
    pub metrics: Metrics,
    /// Tracks its background tasks.
    pub tasks: TaskTracker,
    /// Stops them.
    pub stop: CancellationToken,
    /// Ends the streams of watchers, which the server waits for.
    pub stop_serving: CancellationToken,
}

/// `drystone.notification.v1.NotificationService` and `drystone.notification.v1.InboxService`. Clones share their state.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    sending: Sending,
    inboxes: Inboxes,
}

impl Service {
    /// Creates the service, and spawns what delivers its messages.
    ///
    /// # Errors
    /// A sentence that names a key of the configuration.
    pub fn new(deps: Deps) -> Result<Self, StartError> {
        let (tasks, stop) = (deps.tasks.clone(), deps.stop.clone());
        let (service, housekeeping) = Self::assemble(deps)?;
        let dispatcher = service.sending().dispatcher.clone();
        tasks.spawn(async move { dispatcher.take_over().await.run().await });
        tasks.spawn(service.inboxes().clone().follow());
        tasks.spawn(housekeeping.run(stop));
        Ok(service)
    }

    fn assemble(deps: Deps) -> Result<(Self, Housekeeping), StartError> {
        let Deps { store, templates, sealer, limits, mail_folder, config, clock, metrics, stop, stop_serving, .. } =
            deps;
        let (templates, metrics) = (Arc::new(templates), DeliveryMetrics::new(&metrics));
        let webhooks = config.webhooks.iter().map(|webhook| Ok((webhook.name.clone(), Webhook::new(webhook)?)));
        let attempts = Attempts {
            templates: Arc::clone(&templates),
            sealer: sealer.clone(),
            mail: Mail::new(&config.smtp, mail_folder)?,
            webhooks: webhooks.collect::<Result<_, String>>()?,
            clock: clock.clone(),
        };
        let channels = [
            (Channel::Mail, config.smtp.connections as usize, config.mails_per_minute),
            (Channel::Webhook, WEBHOOK_CALLS, config.webhook_calls_per_minute),
        ];
        let options = DispatcherOptions {
            store: store.clone(),
            attempts,
            clock: clock.clone(),
            metrics: metrics.clone(),
            channels: channels
                .into_iter()
                .map(|(channel, max_in_flight, per_minute)| ChannelOptions {
                    channel,
                    max_in_flight,
                    per_minute,
                    limit: limits.limit(channel.name(), per_minute),
                })
                .collect(),
            max_attempts: config.max_attempts,
        };
        let dispatcher = Dispatcher::new(options, stop);
        let inboxes = Inboxes::new(store.clone(), clock.clone(), stop_serving);
        let housekeeping = Housekeeping {
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            retention: config.retention.duration(),
            inbox_retention: config.inbox_retention.duration(),
        };
        let subscribers = config.webhooks.into_iter();
        let subscribers = subscribers.map(|webhook| Subscriber { name: webhook.name, categories: webhook.categories });
        let sending = Sending {
            store,
            templates,
            subscribers: subscribers.collect(),
            sealer,
            dispatcher,
            inboxes: inboxes.clone(),
            metrics,
            clock,
            give_up_after: config.give_up_after.duration(),
        };
        Ok((Self(Arc::new(Inner { sending, inboxes })), housekeeping))
    }

    /// The tonic servers of this service.
    #[must_use]
    pub fn into_servers(
        self,
    ) -> (NotificationServiceServer<impl NotificationService>, InboxServiceServer<impl InboxService>) {
        (NotificationServiceServer::new(self.clone()), InboxServiceServer::new(self))
    }

    /// Puts the parameters of messages under the master key that encrypts now. Returns how many, and its id.
    async fn rewrap(&self) -> Result<(u32, String), Error> {
        let Sending { store, sealer, .. } = self.sending();
        sealer.refresh().await?;
        let (mut rewrapped, mut last, mut failed) = (0, Uuid::nil(), Ok(()));
        loop {
            let batch = store.sealed_after(last, REWRAP_BATCH).await?;
            let Some((newest, _)) = batch.last() else { break };
            last = *newest;
            for (id, envelope) in batch {
                match sealer.rewrap(send::place(&id), &envelope).await {
                    Ok(sealed) => rewrapped += u32::from(store.replace_parameters(id, &envelope, &sealed).await?),
                    // The others do not wait for it.
                    Err(error) => failed = Err(error),
                }
            }
        }
        failed?;
        sealing::rewrap_check(store.db(), sealer).await?;
        Ok((rewrapped, sealer.key_id()))
    }

    fn sending(&self) -> &Sending {
        &self.0.sending
    }

    fn store(&self) -> &NotificationStore {
        &self.0.sending.store
    }

    fn templates(&self) -> &Templates {
        &self.0.sending.templates
    }

    fn clock(&self) -> &Clock {
        &self.0.sending.clock
    }

    fn inboxes(&self) -> &Inboxes {
        &self.0.inboxes
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// The service as a module of a binary.
#[must_use]
pub const fn module() -> Module {
    Module::of::<Service>()
}
