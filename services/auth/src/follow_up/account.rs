//! Accounts that are created, and addresses that are set, after the request was answered.

use drystone_mesh::{
    call::Call,
    display_name::DisplayName,
    email::Email,
    error::{Chain, Reason},
};
use drystone_store::outbox::Message;
use uuid::Uuid;

use super::{FollowUps, in_hours, mail::Mail};
use crate::{
    error::Error,
    link::{MAX_LINKS, Purpose},
    register::proves_no_account,
    upstreams::Contact,
};

impl FollowUps {
    /// Creates the account of a registration that is to reveal nothing, and sends the link to verify its address. If the address has an
    /// account, its owner is told, or has to choose a password by a link.
    pub(super) async fn create_account(
        &self,
        call: &Call,
        message: &Message,
        user_id: Uuid,
        email: &str,
        display_name: &str,
    ) -> Result<(), Error> {
        // It no longer exists if the message waited for so long that the sweep came first: they have to register again. Otherwise the
        // sweep leaves it alone for now.
        if !self.store.keep_pending_credential(user_id, self.clock.now()).await? {
            return Ok(());
        }
        let (Ok(address), Ok(display_name)) = (Email::parse(email), DisplayName::parse(display_name)) else {
            return Ok(self.store.delete_pending_credential(user_id, self.clock.now()).await.map(drop)?);
        };
        match self.upstreams.create_account(call, user_id, address.clone(), display_name).await {
            Ok(_) => {
                let contact = self.upstreams.contact_by_id(call, user_id).await?;
                self.send_verification(call, message, contact).await?;
                Ok(self.store.confirm_credential(user_id).await?)
            }
            Err(error) if proves_no_account(error.reason()) => {
                if error.reason() == Reason::EmailTaken {
                    let owner = self.upstreams.contact_by_email(call, &address).await?;
                    self.registered_again(call, message, owner).await?;
                } else {
                    tracing::warn!(cause = %Chain(&error), "the user service refused a registration");
                }
                Ok(self.store.delete_pending_credential(user_id, self.clock.now()).await.map(drop)?)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the link of a change to the new address; if that has an account, its owner is told instead.
    pub(super) async fn send_email_change(
        &self,
        call: &Call,
        message: &Message,
        user_id: Uuid,
        email: String,
        link: Uuid,
    ) -> Result<(), Error> {
        let owner = self.contact_by_email(call, &email).await?;
        if owner.as_ref().is_some_and(|owner| owner.user_id != user_id) {
            return self.tell_address_taken(call, message, owner).await;
        }
        let Some(contact) = self.upstreams.contact_by_id(call, user_id).await? else { return Ok(()) };
        let purpose = Purpose::EmailChange;
        // It was stored with the message.
        let Some(link) = self.store.link(link, purpose).await? else { return Ok(()) };
        let parameters = vec![("link", self.url(&link)), ("hours", in_hours(purpose))];
        let mail = Mail { template: "email_change", parameters, expires_at: Some(link.expires_at) };
        self.send(call, message.id, Contact { email, display_name: String::new(), ..contact }, mail).await
    }

    /// Somebody has registered with the address of an account. If it was never verified, that account can be one that a stranger has
    /// registered in advance: so neither password serves, and the owner of the address chooses one by a link.
    async fn registered_again(&self, call: &Call, message: &Message, owner: Option<Contact>) -> Result<(), Error> {
        match owner {
            Some(owner) if owner.is_active && !owner.email_verified => {
                self.store.require_reset(owner.user_id, self.clock.now()).await?;
                self.send_password_reset(call, message, Some(owner), MAX_LINKS).await
            }
            owner => self.tell_address_taken(call, message, owner).await,
        }
    }

    /// Tells the owner of an account that somebody wanted its address; if it is not verified, the link to do so again.
    async fn tell_address_taken(&self, call: &Call, message: &Message, owner: Option<Contact>) -> Result<(), Error> {
        let Some(owner) = owner.filter(|owner| owner.is_active) else { return Ok(()) };
        if !owner.email_verified {
            return self.send_verification(call, message, Some(owner)).await;
        }
        let taken = (MAX_LINKS, "address_taken");
        self.send_link(call, message, Purpose::AddressTaken, taken, owner, Vec::new()).await
    }
}

/// Whether an address is set. What the user service refuses for good is done as well: the address has become that of another account, or
/// the account has been removed or changed.
pub(super) fn is_settled(outcome: Result<(), Error>) -> Result<bool, Error> {
    match outcome {
        Err(error)
            if matches!(
                error.reason(),
                Reason::EmailTaken | Reason::StaleEtag | Reason::UserNotFound | Reason::UserDeleted
            ) =>
        {
            tracing::info!(cause = %Chain(&error), "an e-mail address was not set");
            Ok(false)
        }
        outcome => outcome.map(|()| true),
    }
}
