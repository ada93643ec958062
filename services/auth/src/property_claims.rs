//! Property claims of access tokens. They are best effort: a sign-in does not fail without them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use drystone_mesh::{call::Call, error::Chain};
use prometheus_client::metrics::counter::Counter;
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use crate::upstreams::Upstreams;

/// The maximum number of property claims in a token. Limits the size of every call.
const MAX_CLAIMS: usize = 64;

/// Fetches property claims from the property service, with a timeout.
pub struct PropertyClaims {
    upstreams: Arc<dyn Upstreams>,
    timeout: Duration,
    /// Counts tokens issued without property claims.
    omitted: Counter,
}

impl PropertyClaims {
    /// Fetches claims from `upstreams` within `timeout`.
    #[must_use]
    pub fn new(upstreams: Arc<dyn Upstreams>, timeout: Duration, omitted: Counter) -> Self {
        Self { upstreams, timeout, omitted }
    }

    /// A user's relations to properties, by property id.
    ///
    /// # Errors
    /// [`ClaimsUnavailable`] if the property service fails or times out. To issue a token without claims then, use
    /// [`Self::or_empty`].
    pub async fn fetch(&self, call: &Call, user_id: Uuid) -> Result<BTreeMap<String, String>, ClaimsUnavailable> {
        match timeout(self.timeout, self.upstreams.property_claims(call, user_id)).await {
            Ok(Ok(claims)) => Ok(claims.into_iter().take(MAX_CLAIMS).collect()),
            Ok(Err(error)) => Err(ClaimsUnavailable(Chain(&error).to_string())),
            Err(_) => Err(ClaimsUnavailable("timeout".to_owned())),
        }
    }

    /// The claims, or none if they are unavailable, which is logged and counted.
    #[must_use]
    pub fn or_empty(
        &self,
        call: &Call,
        claims: Result<BTreeMap<String, String>, ClaimsUnavailable>,
    ) -> BTreeMap<String, String> {
        claims.unwrap_or_else(|ClaimsUnavailable(cause)| {
            self.omitted.inc();
            warn!(request_id = ?call.fields().request_id, cause, "token issued without property claims");
            BTreeMap::new()
        })
    }
}

/// Why the claims are unavailable.
#[derive(Debug)]
pub struct ClaimsUnavailable(String);
