//! Withdrawal of compromised signing keys.
//!
//! It is planned with the rows of the store and without private keys, so that it needs no master key.

use std::time::{Duration, Instant};

use drystone_mesh::{call::Call, clock::Timestamp};
use drystone_store::outbox::Message;
use tokio::time::timeout;
use uuid::Uuid;

use super::{MAX_ATTEMPTS, SigningKeys};
use crate::{
    error::Error,
    follow_up::{FollowUp, is_done},
    store::{FormerKey, SigningKeyRow, Successor, Withdrawal},
};

/// How long a withdrawal waits for a new key, which needs the master key.
const GENERATION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a withdrawal waits for the session service.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(3);

/// A withdrawal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Withdrawn {
    /// The key that signs now. `None` if none does until the master key is available.
    pub(crate) signing_kid: Option<String>,
    /// Whether the session service has applied the revocation of its tokens; otherwise it is queued.
    pub(crate) is_applied: bool,
}

impl SigningKeys {
    /// Withdraws a key: it leaves the key set, its successor signs at once if it was the one that signs, and all its tokens are
    /// refused everywhere. Without the master key there may be no successor; [`Self::tick`] generates it. Can be repeated.
    ///
    /// # Errors
    /// [`Error::SigningKeyNotFound`], [`Error::KeysBusy`]; the store fails.
    pub(crate) async fn withdraw(&self, kid: &str) -> Result<Withdrawn, Error> {
        for _ in 0..MAX_ATTEMPTS {
            let now = self.clock.now();
            let message = FollowUp::VoidKey { kid: kid.to_owned() }.message(now)?;
            if self.store_withdrawal(kid, now, &message).await? {
                tracing::warn!(target: "audit", event = "signing_key_withdrawn", kid, "a signing key was withdrawn");
                return Ok(self.apply_withdrawal(kid, message.id).await);
            }
        }
        Err(Error::KeysBusy)
    }

    /// Returns false without a change if another instance has changed the keys meanwhile.
    async fn store_withdrawal(&self, kid: &str, now: Timestamp, message: &Message) -> Result<bool, Error> {
        let mut rows = self.store.keys().await?.signing;
        // As the key ring orders them.
        rows.sort_by(|one, other| (other.signs_from, &other.kid).cmp(&(one.signs_from, &one.kid)));
        let Some(index) = rows.iter().position(|row| row.kid == kid) else {
            let is_withdrawn = self.store.withdraw_former_key(kid, now, message).await?;
            return if is_withdrawn { Ok(true) } else { Err(Error::SigningKeyNotFound) };
        };
        let row = &rows[index];
        let replaced_at = index.checked_sub(1).map_or(now, |newer| rows[newer].signs_from.min(now));
        let key = FormerKey {
            kid: kid.to_owned(),
            algorithm: row.algorithm.clone(),
            replaced_at,
            ended_at: now,
            withdrawn_at: Some(now),
        };
        let successor = &self.successor(&rows, row, now).await;
        let mut planned_with: Vec<_> = rows.iter().map(|row| row.kid.clone()).collect();
        planned_with.sort_unstable();
        let withdrawal = Withdrawal { key: &key, planned_with: &planned_with, successor, message };
        Ok(self.store.withdraw_key(&withdrawal).await?)
    }

    /// What signs after the withdrawal of this key. It takes its place, so that it signs at once by the clock of every instance, and
    /// earlier keys are retired when they would have been.
    async fn successor(&self, rows: &[SigningKeyRow], withdrawn: &SigningKeyRow, now: Timestamp) -> Successor {
        let signing = rows.iter().find(|row| row.signs_from <= now).or(rows.last());
        if signing.is_none_or(|row| row.kid != withdrawn.kid) {
            return Successor::Unchanged;
        }
        let signs_from = withdrawn.signs_from.min(now);
        let mut pending = rows.iter().rev().filter(|row| row.signs_from > now && row.kid != withdrawn.kid);
        if let Some(row) = pending.find(|row| !self.keys.is_withdrawn(&row.kid)) {
            return Successor::Published(row.kid.clone(), signs_from);
        }
        match timeout(GENERATION_TIMEOUT, self.generate(signs_from, now)).await {
            Ok(Ok(new)) => return Successor::New(new),
            Ok(Err(error)) => tracing::error!(%error, "a withdrawn signing key has no successor yet"),
            Err(_) => tracing::error!("a withdrawn signing key has no successor yet: the master key does not respond"),
        }
        Successor::Unchanged
    }

    async fn apply_withdrawal(&self, kid: &str, message: Uuid) -> Withdrawn {
        let (is_applied, reloaded) = tokio::join!(self.revoke(kid, message), self.reload());
        if let Err(error) = reloaded {
            tracing::warn!(%error, "keys could not be read anew after a withdrawal; they will be");
        }
        let keys = self.keys.current();
        let signing_kid = self.keys.signing_key(&keys).ok().map(|key| key.kid().to_owned());
        Withdrawn { signing_kid: signing_kid.filter(|signing| signing != kid), is_applied }
    }

    /// Revokes the tokens of a key, without waiting for other messages in the outbox. The one there is for when this call fails.
    async fn revoke(&self, kid: &str, message: Uuid) -> bool {
        let call = Call::background(Some(Instant::now() + REVOCATION_TIMEOUT));
        match timeout(REVOCATION_TIMEOUT, self.upstreams.void_key_tokens(&call, kid)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => tracing::warn!(%error, "the revocation of a signing key is delivered later"),
            Err(_) => tracing::warn!(
                "the session service does not respond; the revocation of a signing key is delivered later"
            ),
        }
        is_done(&self.relay, message).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "whether the revocation of a signing key was delivered is unknown");
            false
        })
    }
}
