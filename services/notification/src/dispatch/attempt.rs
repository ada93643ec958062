//! One attempt: renders the message and hands it to its channel.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use drystone_mesh::clock::Clock;
use drystone_store::sealing::Sealer;

use crate::{
    channel::{
        Channel, SendError,
        mail::{Letter, Mail},
        webhook::{self, Webhook},
    },
    message::{Job, Parameters},
    send::place,
    template::{Message, Templates},
};

/// What attempts need.
pub(crate) struct Attempts {
    pub(crate) templates: Arc<Templates>,
    pub(crate) sealer: Sealer,
    pub(crate) mail: Mail,
    /// By name.
    pub(crate) webhooks: HashMap<String, Webhook>,
    pub(crate) clock: Clock,
}

impl Attempts {
    /// Makes one attempt.
    pub(super) async fn attempt(&self, channel: Channel, job: &Job) -> Result<(), SendError> {
        // A message that was accepted is right: whatever is wrong with its template may be mended.
        let template = self.templates.get(&job.template);
        let template =
            template.ok_or_else(|| SendError::NotReady(format!("there is no template `{}`", job.template)))?;
        let parameters = self.parameters(job).await?;
        let message = template.check(&parameters).map_err(|error| SendError::NotReady(error.to_string()))?;
        match channel {
            Channel::Mail => self.mail(job, message).await,
            Channel::Webhook => self.webhook(job, message).await,
            Channel::Inbox => Err(SendError::Permanent("inboxes are filled when a message is accepted".to_owned())),
        }
    }

    async fn mail(&self, job: &Job, message: Message<'_>) -> Result<(), SendError> {
        let text =
            message.mail(&job.locale, &job.display_name).map_err(|error| SendError::NotReady(error.to_string()))?;
        let letter = Letter { id: job.id, at: job.created_at, to: &job.destination, name: &job.display_name, text };
        self.mail.send(letter).await
    }

    async fn webhook(&self, job: &Job, message: Message<'_>) -> Result<(), SendError> {
        let webhook = self.webhooks.get(&job.destination);
        let webhook =
            webhook.ok_or_else(|| SendError::NotReady(format!("no webhook `{}` is configured", job.destination)))?;
        let mut data = serde_json::Map::new();
        for (name, value) in message.public_parameters() {
            data.insert(name.to_owned(), value.into());
        }
        if let Some(user) = job.user_id {
            data.insert("user_id".to_owned(), user.to_string().into());
        }
        let body = webhook::payload(&job.template, job.created_at, data);
        webhook.send(job.id, self.clock.now(), body).await
    }

    async fn parameters(&self, job: &Job) -> Result<BTreeMap<String, String>, SendError> {
        let opened;
        let json = match &job.parameters {
            Parameters::Plain(json) => json,
            Parameters::Sealed(envelope) => {
                let result = self.sealer.open(place(&job.message_id), envelope).await;
                opened = result.map_err(|error| SendError::NotReady(error.to_string()))?;
                &opened
            }
        };
        serde_json::from_slice(json)
            .map_err(|error| SendError::Permanent(format!("the stored parameters are corrupt: {error}")))
    }
}
