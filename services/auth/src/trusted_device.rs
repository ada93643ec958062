//! Trusted devices: sign-ins on them need no second factor for a time.
//!
//! A device is trusted when its user completes a sign-in and asks for that. It then gets a device token with a new id, so that nobody is
//! trusted who has a copy of an earlier one. The token says nothing about trust: the store does, and forgets it at once.

use std::time::Duration;

use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
    id,
};
use uuid::Uuid;

use crate::{
    config::MfaConfig, credential::Credential, error::Error, store::AuthStore, token::device_token::KnownDevice,
};

/// How many trusted devices a user may have. With a further one, the oldest is forgotten.
pub const MAX_TRUSTED_DEVICES: u32 = 20;

/// A trusted device of a user, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedDevice {
    /// Its id, as its device token has it.
    pub id: Uuid,
    /// The user.
    pub user_id: Uuid,
    /// The client, as it stated itself.
    pub name: String,
    /// Since when it is trusted.
    pub created_at: Timestamp,
    /// Until when it is trusted.
    pub expires_at: Timestamp,
    /// When a sign-in last needed no second factor for it.
    pub last_used_at: Option<Timestamp>,
}

/// The trust in a device that a sign-in relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust {
    /// The device.
    pub device: Uuid,
    /// It has to be newer than this: the lifetime that is configured now may be shorter than the one of then.
    pub since: Timestamp,
}

/// The trust that a completed sign-in gives to its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewTrust {
    /// The new id of the device.
    pub(crate) device: Uuid,
    /// Until when it is trusted.
    pub(crate) expires_at: Timestamp,
}

/// Finds, lists and revokes trusted devices.
#[derive(Debug, Clone)]
pub struct TrustedDevices {
    store: AuthStore,
    clock: Clock,
    lifetime: Duration,
}

impl TrustedDevices {
    /// Devices are trusted for the time that is configured; if that is zero, none is.
    pub(crate) fn new(store: AuthStore, clock: Clock, config: &MfaConfig) -> Self {
        Self { store, clock, lifetime: config.trusted_device_lifetime.duration() }
    }

    /// The trust in the device of a sign-in whose password was right. `device` is one that has signed in to the account before.
    pub(crate) async fn find(
        &self,
        credential: &Credential,
        device: Option<KnownDevice>,
    ) -> Result<Option<Trust>, Error> {
        // No query for users without a second factor.
        let Some(device) = device.filter(|_| credential.has_second_factor() && !self.lifetime.is_zero()) else {
            return Ok(None);
        };
        let now = self.clock.now();
        let trust = Trust { device: device.id, since: self.since(now) };
        let is_trusted = self.store.is_trusted(credential.user_id, trust, now).await?;
        Ok(is_trusted.then_some(trust))
    }

    /// What a sign-in that is completed now gives to its device; `None` if no device is trusted.
    pub(crate) fn new_trust(&self, now: Timestamp) -> Option<NewTrust> {
        let trust = NewTrust { device: id::v7_at(now), expires_at: now + self.lifetime };
        (!self.lifetime.is_zero()).then_some(trust)
    }

    /// The trusted devices of the user of this call, newest first.
    pub(crate) async fn list(&self, call: &Call) -> Result<Vec<TrustedDevice>, Error> {
        let now = self.clock.now();
        let mut devices = self.store.trusted_devices(call.principal()?.user_id, self.since(now), now).await?;
        for device in &mut devices {
            device.expires_at = device.expires_at.min(device.created_at + self.lifetime);
        }
        Ok(devices)
    }

    /// Ends the trust in a device of the user of this call, in whatever session: it only makes sign-ins stricter.
    ///
    /// # Errors
    /// [`Error::DeviceNotFound`].
    pub(crate) async fn revoke(&self, call: &Call, device: Uuid) -> Result<(), Error> {
        let is_revoked = self.store.revoke_trusted_device(call.principal()?.user_id, device).await?;
        if is_revoked { Ok(()) } else { Err(Error::DeviceNotFound) }
    }

    /// Ends the trust in all devices of the user of this call. Returns how many there were.
    pub(crate) async fn revoke_all(&self, call: &Call) -> Result<u64, Error> {
        Ok(self.store.revoke_trusted_devices(call.principal()?.user_id).await?)
    }

    fn since(&self, now: Timestamp) -> Timestamp {
        now - self.lifetime
    }
}
