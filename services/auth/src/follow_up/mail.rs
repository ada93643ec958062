//! Sends messages to users, with links.

use drystone::notification::v1::{Recipient, SendRequest};
use drystone_mesh::{
    call::Call,
    clock::Timestamp,
    error::{Chain, Reason},
    time::to_proto,
};
use drystone_store::outbox::Message;
use uuid::Uuid;

use super::{FollowUps, Origin};
use crate::{
    error::Error,
    link::{LINK_INTERVAL, Link, Purpose},
    upstreams::Contact,
};

/// A message to a user: its template and the parameters of it.
pub(super) struct Mail {
    pub(super) template: &'static str,
    pub(super) parameters: Vec<(&'static str, String)>,
    pub(super) expires_at: Option<Timestamp>,
}

impl FollowUps {
    /// Makes a link for a message and sends it by this template, with `parameters` besides the link. Sends nothing if the user or
    /// the address has been sent `max` within an hour.
    pub(super) async fn send_link(
        &self,
        call: &Call,
        message: &Message,
        purpose: Purpose,
        (max, template): (u32, &'static str),
        contact: Contact,
        mut parameters: Vec<(&'static str, String)>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let link = Link::new(message.id, purpose, contact.user_id, contact.email.clone(), now);
        let Some(link) = self.store.insert_link(&link, max, now - LINK_INTERVAL).await? else {
            tracing::info!(user_id = %contact.user_id, template, "no further link of this kind is sent within an hour");
            return Ok(());
        };
        parameters.push(("link", self.url(&link)));
        let mail = Mail { template, parameters, expires_at: Some(link.expires_at) };
        self.send(call, message.id, contact, mail).await
    }

    /// The URL of a link. The token is in the fragment, which browsers send to no server.
    pub(super) fn url(&self, link: &Link) -> String {
        let (app, page) = (self.app_url.trim_end_matches('/'), link.purpose.page());
        if link.purpose == Purpose::AddressTaken {
            return format!("{app}/{page}");
        }
        let token = self.keys.current().link_tokens.encode(link.id, link.purpose, link.created_at);
        format!("{app}/{page}#token={token}")
    }

    /// Tells a user what was done, and from where.
    pub(super) async fn tell(
        &self,
        call: &Call,
        message: &Message,
        template: &'static str,
        user_id: Uuid,
        client: Origin,
    ) -> Result<(), Error> {
        let Some(contact) = self.upstreams.contact_by_id(call, user_id).await? else { return Ok(()) };
        let parameters = client.parameters().to_vec();
        self.send(call, message.id, contact, Mail { template, parameters, expires_at: None }).await
    }

    /// Sends a message with this id.
    pub(super) async fn send(&self, call: &Call, id: Uuid, contact: Contact, mail: Mail) -> Result<(), Error> {
        let request = SendRequest {
            message_id: id.to_string(),
            template: mail.template.to_owned(),
            parameters: mail.parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            recipient: Some(Recipient {
                user_id: contact.user_id.to_string(),
                email: contact.email,
                display_name: contact.display_name,
                locale: contact.locale,
            }),
            expire_time: mail.expires_at.map(to_proto),
        };
        match self.upstreams.send_message(call, request).await {
            // It was accepted before, in other words: the user has changed their name or language, or the secret was replaced.
            Err(Error::Upstream(error)) if error.reason() == Reason::RequestIdReused => Ok(()),
            // Mails cannot be sent to the address: that does not change, and others wait behind this one.
            Err(Error::Upstream(error)) if error.reason() == Reason::InvalidRequest => {
                tracing::warn!(%id, cause = %Chain(&error), "a message to a user was refused");
                Ok(())
            }
            outcome => outcome,
        }
    }
}
