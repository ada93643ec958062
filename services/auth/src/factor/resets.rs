//! Administrators reset the second factors of users who have lost them: at once, or after a waiting time in which the user can cancel it.

use std::{sync::Arc, time::Duration};

use drystone_mesh::{
    call::{Actor, Call, Client},
    clock::Timestamp,
    error::Chain,
};
use drystone_store::outbox::Message;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Change, FactorReset,
    management::{Factors, told},
};
use crate::{
    error::Error,
    follow_up::{FollowUp, Origin, is_done},
};

/// The time between two looks for resets that are due: how late one can be.
const DUE_INTERVAL: Duration = Duration::from_mins(1);

/// How many of them are read at once.
const BATCH_SIZE: u32 = 100;

/// What has become of a request to reset the second factors of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset {
    /// Whether the sessions of the user have ended.
    pub(crate) sessions_ended: bool,
    /// When the factors will be removed; `None` if they have been.
    pub(crate) due_at: Option<Timestamp>,
}

impl Factors {
    /// Removes all second factors of a user and ends the sessions, or tells the user that this will happen after the waiting time.
    ///
    /// # Errors
    /// [`Error::OwnFactors`]; the user service refuses it.
    pub(crate) async fn reset(&self, call: &Call, user_id: Uuid) -> Result<Reset, Error> {
        let requested_by = self.authorized_to_reset(call, user_id).await?;
        let now = self.clock.now();
        // Without a second factor there is nothing to wait for.
        if !self.reset_delay.is_zero()
            && let Some(due_at) = self.request(requested_by, user_id, now).await?
        {
            self.relay.wake();
            return Ok(Reset { sessions_ended: false, due_at: Some(due_at) });
        }
        let ends = FollowUp::EndSessions { user_id, except: None }.message(now)?;
        let (waits_for, told) = (ends.id, told_by_administrator(user_id, Change::Reset, now, now)?);
        // The sessions end also if there is no factor: an earlier call may have removed it, whose response was lost.
        self.store.remove_factors(user_id, None, &[told], &[ends]).await?;
        self.relay.wake();
        Ok(Reset { sessions_ended: is_done(&self.relay, waits_for).await?, due_at: None })
    }

    /// Cancels the reset of the user of this call that waits, if there is one.
    ///
    /// # Errors
    /// [`Error::SecondFactorRequired`].
    pub(crate) async fn cancel_reset(&self, call: &Call) -> Result<(), Error> {
        let user_id = self.authorized(call).await?;
        let told = told(call, user_id, Change::ResetCancelled, self.clock.now())?;
        self.store.cancel_reset(user_id, &[told]).await?;
        self.relay.wake();
        Ok(())
    }

    /// Carries out resets when they are due, until `stop` is cancelled.
    pub(crate) async fn run_resets(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = interval(DUE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looks = async {
            loop {
                interval.tick().await;
                if let Err(error) = self.carry_out_due_resets().await {
                    tracing::warn!(cause = %Chain(&error), "resets of second factors that are due were not carried out");
                }
            }
        };
        // Each reset is atomic, so this can be cancelled between any two.
        stop.run_until_cancelled(looks).await;
    }

    /// Carries out the resets that are due now.
    pub(crate) async fn carry_out_due_resets(&self) -> Result<(), Error> {
        let now = self.clock.now();
        loop {
            let due = self.store.due_resets(now, BATCH_SIZE).await?;
            for user_id in due.iter().copied() {
                let ends = FollowUp::EndSessions { user_id, except: None }.message(now)?;
                let told = told_by_administrator(user_id, Change::Reset, now, now)?;
                if self.store.carry_out_reset(user_id, &[ends, told], now).await? {
                    tracing::info!(%user_id, "second factors were reset, as an administrator has requested");
                    self.relay.wake();
                }
            }
            // None is read twice: each was carried out or cancelled.
            if due.len() < BATCH_SIZE as usize {
                return Ok(());
            }
        }
    }

    /// Stores a reset that waits, and tells the user when it is due. Returns that time: of the first one, if one waits already.
    async fn request(
        &self,
        requested_by: Option<Uuid>,
        user_id: Uuid,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let due_at = now + self.reset_delay;
        let told = told_by_administrator(user_id, Change::ResetRequested, due_at, now)?;
        let new = FactorReset { user_id, requested_by, due_at, created_at: now };
        self.store.request_reset(&new, &[told]).await
    }

    /// The administrator who may reset the second factors of this user; `None` for the operator.
    async fn authorized_to_reset(&self, call: &Call, user_id: Uuid) -> Result<Option<Uuid>, Error> {
        let Actor::User(administrator) = call.actor()? else { return Ok(None) };
        // Who has stolen a session does not get rid of the second factor by it.
        if administrator.user_id == user_id {
            return Err(Error::OwnFactors);
        }
        // Nor who has the password of an administrator, on a trusted device.
        self.authorized(call).await?;
        self.upstreams.authorize_factor_reset(call, user_id).await?;
        Ok(Some(administrator.user_id))
    }
}

/// The message that tells a user what an administrator does at `at`. From where is not the user's concern.
fn told_by_administrator(user_id: Uuid, change: Change, at: Timestamp, now: Timestamp) -> Result<Message, Error> {
    let client = Origin::of(&Client::default(), at);
    FollowUp::TellFactorChanged { user_id, change: change.name().to_owned(), client }.message(now)
}
