//! Property claims for a token: worth a short wait, and not worth a sign-in.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drystone_mesh::{call::Call, error::Chain};
use prometheus_client::metrics::counter::Counter;
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use crate::upstreams::Upstreams;

/// How many relations a token carries, at most: they travel with every call.
const MAX_CLAIMS: usize = 64;

/// Asks the property service, for a while.
pub struct PropertyClaims {
    upstreams: Arc<dyn Upstreams>,
    patience: Duration,
    /// Counts the tokens that went without.
    without: Counter,
}

impl PropertyClaims {
    /// Claims from these upstreams, waited for so long at most.
    #[must_use]
    pub fn new(upstreams: Arc<dyn Upstreams>, patience: Duration, without: Counter) -> Self {
        Self { upstreams, patience, without }
    }

    /// A user's relations to properties.
    ///
    /// # Errors
    /// [`NoClaims`] where the property service is away or slow. Whoever uses that calls [`Self::or_empty`].
    pub async fn of(&self, call: &Call, user_id: Uuid) -> Result<BTreeMap<String, String>, NoClaims> {
        match timeout(self.patience, self.upstreams.property_claims(call, user_id)).await {
            Ok(Ok(claims)) => Ok(claims.into_iter().take(MAX_CLAIMS).collect()),
            Ok(Err(error)) => Err(NoClaims(Chain(&error).to_string())),
            Err(_) => Err(NoClaims("no answer in time".to_owned())),
        }
    }

    /// The claims, or none where there are none to be had: with a warning, and counted.
    #[must_use]
    pub fn or_empty(
        &self,
        call: &Call,
        claims: Result<BTreeMap<String, String>, NoClaims>,
    ) -> BTreeMap<String, String> {
        claims.unwrap_or_else(|NoClaims(cause)| {
            self.without.inc();
            warn!(request_id = ?call.fields().request_id, cause, "token made without property claims");
            BTreeMap::new()
        })
    }
}

/// Why there are no claims.
#[derive(Debug)]
pub struct NoClaims(String);
