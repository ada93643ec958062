//! E-mail addresses are verified by links.
//!
//! The link of a registration verifies the address that the account has; that of a change gives it another one. Using a link stores what
//! follows with it, so that neither happens without the other.

use std::sync::Arc;

use drystone_mesh::{
    call::{self, Call},
    clock::{Clock, Timestamp},
    email::Email,
    id,
};
use drystone_store::outbox::Relay;
use uuid::Uuid;

use crate::{
    error::Error,
    follow_up::{FollowUp, is_done},
    link::{Link, Purpose},
    store::AuthStore,
    token::key_ring::KeyRing,
    upstreams::{Contact, Upstreams},
};

/// Links that are about the address of an account, and useless once it has another one.
const OF_THE_ADDRESS: [Purpose; 3] = [Purpose::EmailVerification, Purpose::EmailChange, Purpose::PasswordReset];

/// Verifies addresses.
pub(crate) struct EmailVerification {
    pub(crate) upstreams: Arc<dyn Upstreams>,
    pub(crate) store: AuthStore,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
}

/// An address whose link was used.
pub(crate) struct Verified {
    pub(crate) email: String,
    /// Whether the account has it, verified, already.
    pub(crate) is_set: bool,
}

impl EmailVerification {
    /// Has a link sent to this address again, if an account has it and it is not verified. As for passwords, the request is only stored.
    pub(crate) async fn resend(&self, email: &str) -> Result<(), Error> {
        let key = Email::parse(email).map_or_else(|_| String::new(), |email| email.key());
        self.store.put(&FollowUp::ResendVerification { email: key }.message(self.clock.now())?).await?;
        self.relay.wake();
        Ok(())
    }

    /// Verifies the address of a link.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`], [`Error::EmailTaken`].
    pub(crate) async fn verify(&self, call: &Call, token: &str) -> Result<Verified, Error> {
        let tokens = &self.keys.current().link_tokens;
        let mut purposes = [Purpose::EmailVerification, Purpose::EmailChange].into_iter();
        let token = purposes.find_map(|purpose| tokens.decode(token, purpose)).ok_or(Error::LinkInvalid)?;
        let now = self.clock.now();
        let link = self.store.valid_link(&token, now).await?.ok_or(Error::LinkInvalid)?;
        call::record_user(link.user_id);
        let email = link.email.clone().ok_or(Error::LinkInvalid)?;
        let contact = self.upstreams.contact_by_id(call, link.user_id).await?.ok_or(Error::LinkInvalid)?;
        let set = match link.purpose {
            Purpose::EmailChange => self.change(call, &link, &contact, &email, now).await?,
            // The account has got another address meanwhile.
            _ if !contact.has_email(&email) => return Err(Error::LinkInvalid),
            _ => self.confirm(&link, &email, now).await?,
        };
        let is_set = is_done(&self.relay, set).await?;
        if is_set && !self.has(call, &link, &email).await? {
            // Another account was faster, or keeps the address since it had it before.
            return Err(Error::EmailTaken);
        }
        Ok(Verified { email, is_set })
    }

    async fn confirm(&self, link: &Link, email: &str, now: Timestamp) -> Result<Uuid, Error> {
        let set = set_verified(link, email).message(now)?;
        self.store.use_link(link, &[Purpose::EmailVerification], None, std::slice::from_ref(&set), now).await?;
        Ok(set.id)
    }

    async fn change(
        &self,
        call: &Call,
        link: &Link,
        contact: &Contact,
        email: &str,
        now: Timestamp,
    ) -> Result<Uuid, Error> {
        let address = Email::parse(email).map_err(|_| Error::LinkInvalid)?;
        let owner = self.upstreams.contact_by_email(call, &address).await?;
        if owner.is_some_and(|owner| owner.user_id != link.user_id) {
            return Err(Error::EmailTaken);
        }
        let (user_id, previous) = (link.user_id, contact.email.clone());
        let mut then = vec![FollowUp::TellEmailChanged { user_id, email: email.to_owned() }];
        let mut voids = OF_THE_ADDRESS.to_vec();
        // Who has not shown that an address is theirs gets it back by no link, and keeps it from nobody.
        let undo = (contact.email_verified && !contact.has_email(email))
            .then(|| Link::new(id::v7_at(now), Purpose::EmailUndo, user_id, previous.clone(), now));
        if let Some(undo) = &undo {
            then.push(FollowUp::SendEmailUndo { user_id, email: email.to_owned(), link: undo.id });
        }
        if !contact.email_verified {
            voids.extend([Purpose::EmailUndo, Purpose::SignInReport]);
        }
        let set = FollowUp::SetEmail {
            user_id,
            current: Some(previous),
            email: email.to_owned(),
            keeps_previous: undo.is_some(),
            then,
        };
        let set = set.message(now)?;
        self.store.use_link(link, &voids, undo.as_ref(), std::slice::from_ref(&set), now).await?;
        Ok(set.id)
    }

    /// Whether the account has this address.
    async fn has(&self, call: &Call, link: &Link, email: &str) -> Result<bool, Error> {
        let contact = self.upstreams.contact_by_id(call, link.user_id).await?;
        Ok(contact.is_some_and(|contact| contact.email_verified && contact.has_email(email)))
    }
}

/// The message that follows from the use of a link that was sent to the address of the account.
pub(crate) fn set_verified(link: &Link, email: &str) -> FollowUp {
    FollowUp::SetEmail {
        user_id: link.user_id,
        current: Some(email.to_owned()),
        email: email.to_owned(),
        keeps_previous: false,
        then: Vec::new(),
    }
}
