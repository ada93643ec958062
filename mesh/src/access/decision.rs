//! The decision about a call: every part of its rule, in the order in which a server checks them.

use std::sync::Arc;

use drystone::contract::{Method, Subject};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use super::{Denial, RulePart, authorize_caller, authorize_user, stale_revocations, workload};
use crate::{
    clock::Timestamp,
    identity::{Svid, TrustDomain},
    token::{BearerToken, Principal, TokenVerifier},
};

/// What a rule is applied to. It has no `Debug`: the headers have the token.
#[derive(Clone, Copy)]
pub struct AccessRequest<'a> {
    /// The calling workload, from its certificate.
    pub caller: &'a Svid,
    /// The own trust domain.
    pub domain: &'a TrustDomain,
    /// The headers of the call; `authorization` has the access token.
    pub headers: &'a HeaderMap,
    /// Verifies the access token.
    pub verifier: &'a TokenVerifier,
    /// The time of the call.
    pub now: Timestamp,
}

/// The user of a call, and the header that the access token was in. It has no `Debug` either.
pub struct Authenticated<'a> {
    /// The user.
    pub principal: Arc<Principal>,
    /// The header.
    pub authorization: &'a HeaderValue,
}

/// Applies a rule to a call; the cheapest checks come first. Returns what `checks` returned, and the user, if the call has one.
///
/// `checks` are those of the server that come between the caller and the token, whose verification is expensive.
/// `authenticated` receives the user before the rule is applied to them, so that a denial can be logged with them.
///
/// # Errors
/// The [`Denial`] of the first part of the rule that is not met, or the error of `checks`.
pub fn decide<'a, C, E: From<Denial>>(
    rule: &Method,
    request: &AccessRequest<'a>,
    checks: impl FnOnce() -> Result<C, E>,
    authenticated: impl FnOnce(&Principal),
) -> Result<(C, Option<Authenticated<'a>>), E> {
    // The caller first: a workload that may not call learns nothing else.
    authorize_caller(rule, request.caller, request.domain, request.now)?;
    let checked = checks()?;
    let user = authenticate(rule, request)?;
    if let Some(user) = &user {
        authenticated(&user.principal);
        if rule.fresh_revocations && !request.verifier.has_fresh_revocations() {
            return Err(stale_revocations().into());
        }
        authorize_user(rule, &user.principal, request.now)?;
    }
    Ok((checked, user))
}

/// Verifies the access token, if the rule asks for one, or if it is optional and there is one.
fn authenticate<'a>(rule: &Method, request: &AccessRequest<'a>) -> Result<Option<Authenticated<'a>>, Denial> {
    let is_optional = !rule.requires_token(workload(&request.caller.id, request.domain));
    if rule.subject == Subject::None || (is_optional && !request.headers.contains_key(AUTHORIZATION)) {
        return Ok(None);
    }
    let deny = |error| Denial::new(RulePart::Subject, error);
    let BearerToken { header, token } = BearerToken::of(request.headers).map_err(deny)?;
    let principal = request.verifier.verify(token).map_err(|error| deny(error.into()))?;
    Ok(Some(Authenticated { principal, authorization: header }))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use drystone::contract::{Factors, Idempotency, Policy};

    use super::*;
    use crate::{
        error::Reason,
        token::{
            Claims, KeySet, TokenVerifierConfig,
            testing::{AUDIENCE, ISSUER, Signer, claims, clock},
        },
    };

    /// The part of a rule with every part that denies a call of this workload, and whether the checks of the server ran.
    fn decide_as(caller: &str, token: Option<&dyn Fn(&mut Claims)>) -> (Option<(RulePart, Reason)>, bool) {
        let rule = Method {
            path: "/acme.orders.v1.OrderService/ListOrders".into(),
            workload: "orders".into(),
            callers: vec!["edge".to_owned(), "operator".to_owned()],
            subject: Subject::UserOrOperator,
            permission: Some("orders:read".to_owned()),
            factors: Some(Factors::Two),
            max_auth_age: Some(Duration::from_mins(5)),
            fresh_revocations: false,
            audit: None,
            policy: Policy::default(),
            idempotency: Idempotency::NoSideEffects,
            client_streaming: false,
            server_streaming: false,
            rest: Vec::new(),
        };
        let (signer, clock) = (Signer::new("1"), clock());
        let keys = KeySet::new();
        keys.replace(vec![signer.public()]);
        let verifier = TokenVerifier::for_entry_point(TokenVerifierConfig::new(ISSUER, AUDIENCE), keys, clock.clone());
        let mut headers = HeaderMap::new();
        if let Some(change) = token {
            let mut claims = claims(clock.now());
            claims.perms = vec!["orders:read".to_owned()];
            claims.amr = vec!["pwd".to_owned(), "otp".to_owned(), "mfa".to_owned()];
            change(&mut claims);
            headers.insert(AUTHORIZATION, format!("Bearer {}", signer.sign(&claims)).parse().unwrap());
        }
        let id = format!("spiffe://drystone.local/service/{caller}").parse().unwrap();
        let caller = Svid {
            id,
            not_before: Timestamp::MIN_UTC,
            not_after: Timestamp::MAX_UTC,
            serial: String::new(),
            key_sha256: String::new(),
        };
        let domain = "drystone.local".parse().unwrap();
        let now = clock.now();
        let request = AccessRequest { caller: &caller, domain: &domain, headers: &headers, verifier: &verifier, now };
        let has_checked = Cell::new(false);
        let checks = || {
            has_checked.set(true);
            Ok::<_, Denial>(())
        };
        let denial = decide(&rule, &request, checks, |_| {}).err();
        (denial.map(|denial| (denial.part, denial.error.reason())), has_checked.get())
    }

    #[test]
    fn parts_of_a_rule_are_checked_in_order() {
        let without_permission = |claims: &mut Claims| (claims.perms, claims.amr) = (vec![], vec![]);
        let with_one_factor = |claims: &mut Claims| claims.amr = vec!["pwd".to_owned()];
        let signed_in_long_ago = |claims: &mut Claims| claims.auth_time -= 301;
        let expired = |claims: &mut Claims| (claims.perms, claims.exp) = (vec![], claims.iat - 1);
        let denied = |part, reason| Some((part, reason));
        assert_eq!(decide_as("user", Some(&expired)), (denied(RulePart::Caller, Reason::CallerNotAllowed), false));
        let denial = denied(RulePart::Subject, Reason::TokenMissing);
        assert_eq!(decide_as("edge", None), (denial, true));
        let denial = denied(RulePart::Subject, Reason::TokenInvalid);
        assert_eq!(decide_as("edge", Some(&expired)), (denial, true));
        let denial = denied(RulePart::Permission, Reason::PermissionMissing);
        assert_eq!(decide_as("edge", Some(&without_permission)), (denial, true));
        let denial = denied(RulePart::Factors, Reason::FactorsRequired);
        assert_eq!(decide_as("edge", Some(&with_one_factor)), (denial, true));
        let denial = denied(RulePart::MaxAuthAge, Reason::ReauthenticationRequired);
        assert_eq!(decide_as("edge", Some(&signed_in_long_ago)), (denial, true));
        assert_eq!(decide_as("edge", Some(&|_| {})), (None, true));
    }

    #[test]
    fn the_operator_needs_no_token_and_one_that_is_sent_is_verified() {
        assert_eq!(decide_as("operator", None), (None, true));
        let expired = |claims: &mut Claims| claims.exp = claims.iat - 1;
        let denial = Some((RulePart::Subject, Reason::TokenInvalid));
        assert_eq!(decide_as("operator", Some(&expired)), (denial, true));
    }
}
