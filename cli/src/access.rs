//! Decisions about calls that nobody makes: what a server would answer, by the functions that servers use.

mod keys;
mod names;

use std::{path::Path, sync::Arc};

use drystone::contract::{Contract, EncodedContract, Method};
use drystone_mesh::{
    access::{self, AccessRequest, Denial},
    clock::{Clock, Timestamp},
    config::Secret,
    identity::{SpiffeId, Svid, TrustDomain},
    token::{KeySet, TokenVerifier, TokenVerifierConfig},
};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

pub(crate) use self::{
    keys::{fetch_keys, read_keys},
    names::Named,
};
use crate::{command_line::WrongUsage, config::Config};

/// The RPCs of a file of `drystone contract export`.
pub(crate) fn read_methods(path: &Path) -> Result<Vec<Arc<Method>>, WrongUsage> {
    let encoded = EncodedContract::read(path).map_err(|error| WrongUsage(error.to_string()))?;
    let contract = Contract::decode(encoded.exported()).map_err(|error| WrongUsage(error.to_string()))?;
    Ok(contract.methods().to_vec())
}

/// Decides about calls by the rules of these contracts.
pub(crate) struct Decider {
    rules: Vec<Arc<Method>>,
    domain: TrustDomain,
    tokens: TokenVerifierConfig,
    keys: KeySet,
}

/// A call to decide about.
pub(crate) struct Query<'a> {
    /// The calling workload: its name, or its SPIFFE ID.
    pub(crate) caller: &'a str,
    /// The access token.
    pub(crate) token: Option<&'a Secret>,
    /// When the call is made.
    pub(crate) at: Timestamp,
}

/// The decision about a call.
pub(crate) struct Decision {
    /// The SPIFFE ID of the caller.
    pub(crate) caller: SpiffeId,
    /// The part of the rule that denies the call; `None` if it is allowed.
    pub(crate) denial: Option<Denial>,
    /// Whether the call has a user, whose token was verified.
    pub(crate) has_user: bool,
}

impl Decider {
    /// With these keys, which may be empty if no token is verified.
    pub(crate) fn new(config: &Config, methods: &[Arc<Method>], keys: KeySet) -> Self {
        let tokens = TokenVerifierConfig {
            // Each decision has its own time, and so its own verifier.
            cache_capacity: 16,
            ..TokenVerifierConfig::new(config.configured_issuer(), drystone_auth::AUDIENCE)
        };
        let rules = access::rules(methods).collect();
        Self { rules, domain: config.mesh.trust_domain.clone(), tokens, keys }
    }

    /// The RPC of this name.
    pub(crate) fn find(&self, name: &str) -> Named<'_> {
        Named::find(&self.rules, name)
    }

    /// The RPCs whose names are most like this one, which no RPC has.
    pub(crate) fn nearest(&self, name: &str) -> Vec<&str> {
        names::nearest(&self.rules, name)
    }

    /// Decides about a call; without a rule, no rule has its path.
    ///
    /// # Errors
    /// The caller is no workload, or the token cannot be sent.
    pub(crate) fn decide(&self, rule: Option<&Method>, query: &Query<'_>) -> Result<Decision, WrongUsage> {
        let caller = self.caller(query.caller)?;
        let id = caller.id.clone();
        let headers = headers(query.token)?;
        let Some(rule) = rule else {
            return Ok(Decision { caller: id, denial: Some(access::unknown_method()), has_user: false });
        };
        // Revocations are streamed to servers; a command does not know them.
        let clock = Clock::manual(query.at);
        let verifier = TokenVerifier::for_entry_point(self.tokens.clone(), self.keys.clone(), clock.clone());
        let request = AccessRequest {
            caller: &caller,
            domain: &self.domain,
            headers: &headers,
            verifier: &verifier,
            now: clock.now(),
        };
        let mut has_user = false;
        let decided = access::decide(rule, &request, || Ok::<_, Denial>(()), |_| has_user = true);
        Ok(Decision { caller: id, denial: decided.err(), has_user })
    }

    /// The caller, with a certificate that does not expire.
    fn caller(&self, name: &str) -> Result<Svid, WrongUsage> {
        let id = if name.starts_with("spiffe://") { name.parse() } else { SpiffeId::for_workload(&self.domain, name) };
        let id = id.map_err(|error| {
            WrongUsage(format!("`{name}` is not a caller: {error}; name a workload, such as edge, or a SPIFFE ID"))
        })?;
        let (not_before, not_after) = (Timestamp::MIN_UTC, Timestamp::MAX_UTC);
        Ok(Svid { id, not_before, not_after, serial: String::new(), key_sha256: String::new() })
    }
}

/// The headers of a call with this token.
fn headers(token: Option<&Secret>) -> Result<HeaderMap, WrongUsage> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| WrongUsage("the token has characters that no header can have".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}
