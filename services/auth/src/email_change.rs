//! A user wants another e-mail address, and proves that they know the password.

use drystone_mesh::{call::Call, clock::Clock, email::Email, error::Error as MeshError, id};
use drystone_store::outbox::Relay;

use crate::{
    authentication::assert_strongest,
    error::Error,
    follow_up::{FollowUp, Origin},
    link::{LINK_INTERVAL, Link, MAX_LINKS, Purpose},
    password::typed_password::TypedPassword,
    password_check::PasswordCheck,
    store::AuthStore,
};

/// Asks for other addresses.
pub(crate) struct EmailChange {
    pub(crate) passwords: PasswordCheck,
    pub(crate) store: AuthStore,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
}

impl EmailChange {
    /// Has a link sent to the new address of the user of this call, and tells the present one. Whether another account has the new
    /// address is looked up afterwards, so that the answer does not tell.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`]; `INVALID_REQUEST` if the user has the address; [`Error::TooManyLinks`].
    pub(crate) async fn request(&self, call: &Call, new: Email, password: &TypedPassword) -> Result<(), Error> {
        let user_id = call.principal()?.user_id;
        assert_strongest(call.principal()?, &self.store).await?;
        let attempt = self.passwords.attempts.password_check(user_id).await?;
        let verified = self.passwords.verify(call, user_id, password).await?;
        attempt.succeeded().await;
        let contact = self.passwords.upstreams.contact_by_id(call, user_id).await?.ok_or(Error::InvalidCredentials)?;
        if contact.email == new.as_str() {
            return Err(MeshError::invalid_field("new_email", "must be another address than the account has").into());
        }
        let now = self.clock.now();
        let email = new.into_string();
        let link = Link::new(id::v7_at(now), Purpose::EmailChange, user_id, email.clone(), now);
        let sent = FollowUp::SendEmailChange { user_id, email: email.clone(), link: link.id }.message(now)?;
        let client = Origin::of(&call.fields().client, now);
        let told = FollowUp::TellEmailChange { user_id, email, client }.message(now)?;
        if !self.store.insert_link_with(&link, &verified, &[sent, told], MAX_LINKS, now - LINK_INTERVAL).await? {
            return Err(Error::TooManyLinks);
        }
        self.relay.wake();
        Ok(())
    }
}
