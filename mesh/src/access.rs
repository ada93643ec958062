//! Access rules: authorization of calls by the contracts.
//!
//! A rule is a [`Method`] of the process' contracts. [`decide`] applies one to a call: [`authorize_caller`] decides whether the
//! workload may make it, the token verifier who the user is, and [`authorize_user`] whether it may be made for them. What no
//! rule allows is denied. Servers and `drystone access explain` call the same function.

mod decision;
mod shadow;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use drystone::{
    contract::{
        Contracts, Factors, Idempotency, Method, Policy, Subject,
        method::{ANY, NON_SERVING_WORKLOADS},
    },
    status::StepUp,
};

pub use self::{
    decision::{AccessRequest, Authenticated, decide},
    shadow::{ShadowRule, ShadowRules},
};
use crate::{
    clock::Timestamp,
    error::{Error, Reason},
    identity::{SpiffeId, Svid, TrustDomain},
    token::Principal,
};

/// The RPCs of the services that every server offers without a contract.
fn built_in() -> [Method; 5] {
    let all_workloads = [ANY].into_iter().chain(NON_SERVING_WORKLOADS).map(str::to_owned).collect::<Vec<_>>();
    let operator = vec!["operator".to_owned()];
    [
        built_in_method("/grpc.health.v1.Health/Check", all_workloads.clone(), Streams::None),
        built_in_method("/grpc.health.v1.Health/Watch", all_workloads.clone(), Streams::Server),
        built_in_method("/grpc.health.v1.Health/List", all_workloads, Streams::None),
        built_in_method("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", operator.clone(), Streams::Both),
        built_in_method("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", operator, Streams::Both),
    ]
}

/// Who sends a stream in a built-in RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    None,
    Server,
    Both,
}

fn built_in_method(path: &str, callers: Vec<String>, streams: Streams) -> Method {
    Method {
        path: path.into(),
        workload: "".into(),
        callers,
        subject: Subject::None,
        permission: None,
        factors: None,
        max_auth_age: None,
        fresh_revocations: false,
        audit: None,
        policy: Policy::default(),
        idempotency: Idempotency::NoSideEffects,
        client_streaming: streams == Streams::Both,
        server_streaming: streams != Streams::None,
        rest: Vec::new(),
    }
}

/// The rules of one server, by the path of the RPC. Other paths are denied.
pub type RuleTable = HashMap<Arc<str>, Arc<Method>>;

/// The rules of these gRPC services (`package.Service`).
pub fn rules_of(contracts: &Contracts, services: &[&str]) -> RuleTable {
    let own = rules(contracts.methods()).filter(|method| services.contains(&method.service()));
    own.map(|method| (method.path.clone(), method)).collect()
}

/// The rules of these RPCs, and of those that every server offers without a contract.
pub fn rules(methods: &[Arc<Method>]) -> impl Iterator<Item = Arc<Method>> {
    methods.iter().cloned().chain(built_in().into_iter().map(Arc::new))
}

/// A denied call: the part of the rule that denied it, and the error for the caller.
#[derive(Debug)]
pub struct Denial {
    /// The part of the rule.
    pub part: RulePart,
    /// The error for the caller.
    pub error: Error,
}

/// The parts of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulePart {
    /// No rule has the path.
    Method,
    /// The calling workload.
    Caller,
    /// The user: the access token.
    Subject,
    /// The view of revocations, which must be current.
    FreshRevocations,
    /// The permission of the user.
    Permission,
    /// The factors that the user has proved.
    Factors,
    /// The age of the user's sign-in.
    MaxAuthAge,
}

impl RulePart {
    /// The name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Caller => "caller",
            Self::Subject => "subject",
            Self::FreshRevocations => "fresh_revocations",
            Self::Permission => "permission",
            Self::Factors => "factors",
            Self::MaxAuthAge => "max_auth_age",
        }
    }
}

impl fmt::Display for RulePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Denial {
    /// A call denied by `part`.
    pub fn new(part: RulePart, error: Error) -> Self {
        Self { part, error }
    }
}

/// The error of a path without a rule.
#[must_use]
pub fn unknown_method() -> Denial {
    let text = "no such RPC here; `grpcurl ... list` and `drystone access show` list what there is";
    Denial::new(RulePart::Method, Error::new(Reason::MethodUnknown, text))
}

/// The denial of a workload that is on the denylist, or its certificate.
#[must_use]
pub fn denied_caller(caller: &Svid) -> Denial {
    let text =
        format!("{} or its certificate {} is on the denylist; connect with another one", caller.id, caller.serial);
    Denial::new(RulePart::Caller, Error::new(Reason::CallerRevoked, text))
}

/// The denial of a call whose rule asks for a current view of revocations, by a server that has none.
fn stale_revocations() -> Denial {
    let text = "this server cannot tell whether the session has ended, since it has not heard from the session service; try again shortly";
    let error = Error::new(Reason::Unavailable, text).retry_after(Duration::from_secs(1));
    Denial::new(RulePart::FreshRevocations, error)
}

/// Authorizes a workload: the rule lists it, it is in the own trust domain, and its certificate has not expired.
pub fn authorize_caller(rule: &Method, caller: &Svid, domain: &TrustDomain, now: Timestamp) -> Result<(), Denial> {
    let deny = |reason, text: String| Err(Denial::new(RulePart::Caller, Error::new(reason, text)));
    if caller.has_expired(now) {
        return deny(
            Reason::CallerExpired,
            format!("the certificate of {} ended at {}; connect again with a new one", caller.id, caller.not_after),
        );
    }
    if workload(&caller.id, domain).is_some_and(|name| rule.allows(name)) {
        return Ok(());
    }
    deny(
        Reason::CallerNotAllowed,
        format!("{} may not call {}; its rule allows {}", caller.id, rule.path, rule.callers.join(", ")),
    )
}

/// Authorizes a user with a verified token: permission, factors and age of the sign-in.
pub fn authorize_user(rule: &Method, principal: &Principal, now: Timestamp) -> Result<(), Denial> {
    if let Some(permission) = &rule.permission
        && !principal.has_permission(permission)
    {
        let text = format!("the call needs the permission `{permission}`, which the signed-in user does not hold");
        return Err(Denial::new(RulePart::Permission, Error::new(Reason::PermissionMissing, text)));
    }
    let step_up = StepUp::new(rule.max_auth_age, rule.factors);
    // Before the age, which a step-up to the factors renews as well.
    if let Some(factors) = rule.factors
        && !has_proved(principal, factors)
    {
        let error = Error::new(Reason::FactorsRequired, missing(factors)).step_up(step_up);
        return Err(Denial::new(RulePart::Factors, error));
    }
    if let Some(limit) = rule.max_auth_age
        && (now - principal.auth_time).to_std().unwrap_or_default() > limit
    {
        let text = format!(
            "the call needs an authentication within the last {} s; verify a credential (POST /v1/auth/verify) and refresh, or sign in again",
            limit.as_secs()
        );
        let error = Error::new(Reason::ReauthenticationRequired, text).step_up(step_up);
        return Err(Denial::new(RulePart::MaxAuthAge, error));
    }
    Ok(())
}

/// Whether the user has proved who they are with these factors in the token's session (RFC 8176, section 2).
fn has_proved(principal: &Principal, factors: Factors) -> bool {
    let has_two = principal.has_used("mfa");
    match factors {
        Factors::Two => has_two,
        // A key without user verification is one factor.
        Factors::PhishingResistant => has_two && (principal.has_used("hwk") || principal.has_used("swk")),
    }
}

/// The message of a call without these factors.
const fn missing(factors: Factors) -> &'static str {
    match factors {
        Factors::Two => {
            "the call needs two factors; verify a code or a passkey (POST /v1/auth/verify) and refresh, or sign in with them"
        }
        Factors::PhishingResistant => {
            "the call needs a passkey; verify one (POST /v1/auth/verify) and refresh, or sign in with one"
        }
    }
}

/// The caller's workload name, if it is in the own trust domain.
#[must_use]
pub fn workload<'a>(id: &'a SpiffeId, domain: &TrustDomain) -> Option<&'a str> {
    (id.trust_domain() == domain).then(|| id.workload()).flatten()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use tonic::Status;
    use uuid::Uuid;

    use super::*;
    use crate::clock::Clock;

    fn rule() -> Method {
        Method {
            path: "/drystone.stone.v1.StoneService/Lay".into(),
            workload: "stone".into(),
            callers: vec!["outside".to_owned(), "auth".to_owned()],
            subject: Subject::User,
            permission: Some("stones:lay".to_owned()),
            factors: None,
            max_auth_age: Some(Duration::from_mins(5)),
            fresh_revocations: false,
            audit: None,
            policy: Policy::default(),
            idempotency: Idempotency::Unknown,
            client_streaming: false,
            server_streaming: false,
            rest: Vec::new(),
        }
    }

    fn caller(id: &str) -> Svid {
        let not_after = Clock::system().now() + Duration::from_mins(1);
        let not_before = Clock::system().now();
        Svid { id: id.parse().unwrap(), not_before, not_after, serial: "1".to_owned(), key_sha256: String::new() }
    }

    fn admits(id: &str) -> Option<Reason> {
        let domain = "drystone.local".parse().unwrap();
        authorize_caller(&rule(), &caller(id), &domain, Clock::system().now()).err().map(|denial| denial.error.reason())
    }

    fn principal(permissions: &[&str], signed_in_ago: Duration) -> Principal {
        let now = Clock::system().now();
        Principal {
            user_id: Uuid::now_v7(),
            session_id: Uuid::now_v7(),
            token_id: Uuid::now_v7(),
            key_id: "key-1".into(),
            issued_at: now,
            expires_at: now + Duration::from_mins(1),
            auth_time: now - signed_in_ago,
            amr: Vec::new(),
            roles: Vec::new(),
            permissions: permissions.iter().map(|&permission| permission.to_owned()).collect(),
            properties: BTreeMap::new(),
        }
    }

    #[test]
    fn the_rule_lists_callers_and_outside_means_the_entry_points() {
        for allowed in ["auth", "edge", "ingress"] {
            assert_eq!(admits(&format!("spiffe://drystone.local/service/{allowed}")), None, "{allowed}");
        }
        for denied in ["user", "operator", "outside", "authority", "AUTH"] {
            let reason = admits(&format!("spiffe://drystone.local/service/{denied}"));
            assert_eq!(reason, Some(Reason::CallerNotAllowed), "{denied}");
        }
    }

    #[test]
    fn any_means_every_workload_except_those_that_must_be_listed() {
        let rule = Method { callers: vec!["any".to_owned()], ..rule() };
        let domain = "drystone.local".parse().unwrap();
        let denied = |id: &str| authorize_caller(&rule, &caller(id), &domain, Clock::system().now()).is_err();
        for allowed in ["auth", "session", "orders", "a-new-service"] {
            assert!(!denied(&format!("spiffe://drystone.local/service/{allowed}")), "{allowed}");
        }
        for id in ["drystone.local/service/edge", "drystone.local/service/ingress", "drystone.local/service/operator"] {
            assert!(denied(&format!("spiffe://{id}")), "{id}");
        }
        for id in ["other.example/service/orders", "drystone.local/orders", "drystone.local/job/orders"] {
            assert!(denied(&format!("spiffe://{id}")), "{id}");
        }
    }

    #[test]
    fn a_workload_name_counts_only_in_its_path_and_trust_domain() {
        for id in [
            "spiffe://other.example/service/auth",
            "spiffe://drystone.local/auth",
            "spiffe://drystone.local/service/auth/x",
        ] {
            assert_eq!(admits(id), Some(Reason::CallerNotAllowed), "{id}");
        }
    }

    #[test]
    fn an_expired_certificate_is_denied_on_an_open_connection() {
        let caller = caller("spiffe://drystone.local/service/auth");
        let domain = "drystone.local".parse().unwrap();
        let denial = authorize_caller(&rule(), &caller, &domain, caller.not_after).unwrap_err();
        assert_eq!((denial.part, denial.error.reason()), (RulePart::Caller, Reason::CallerExpired));
    }

    #[test]
    fn the_user_needs_the_permission() {
        let now = Clock::system().now();
        assert!(authorize_user(&rule(), &principal(&["stones:lay"], Duration::ZERO), now).is_ok());
        for held in [&[][..], &["stones:lift"], &["stones:lay2"]] {
            let denial = authorize_user(&rule(), &principal(held, Duration::ZERO), now).unwrap_err();
            assert_eq!((denial.part, denial.error.reason()), (RulePart::Permission, Reason::PermissionMissing));
        }
    }

    #[test]
    fn max_auth_age_requires_a_recent_sign_in() {
        let now = Clock::system().now();
        assert!(authorize_user(&rule(), &principal(&["stones:lay"], Duration::from_secs(299)), now).is_ok());
        let denial = authorize_user(&rule(), &principal(&["stones:lay"], Duration::from_secs(302)), now).unwrap_err();
        assert_eq!((denial.part, denial.error.reason()), (RulePart::MaxAuthAge, Reason::ReauthenticationRequired));
        assert_eq!(StepUp::of(&Status::from(denial.error)), StepUp::new(Some(Duration::from_mins(5)), None));
    }

    #[test]
    fn factors_require_methods_of_authentication() {
        let now = Clock::system().now();
        let denied = |factors, amr: &[&str]| {
            let rule = Method { factors: Some(factors), ..rule() };
            let amr = amr.iter().map(|&method| method.to_owned()).collect();
            let principal = Principal { amr, ..principal(&["stones:lay"], Duration::ZERO) };
            authorize_user(&rule, &principal, now).err()
        };
        let cases: [(&[&str], bool, bool); 9] = [
            (&[], false, false),
            (&["pwd"], false, false),
            (&["otp"], false, false),
            (&["pwd", "otp"], false, false),
            (&["pwd", "otp", "mfa"], true, false),
            (&["hwk"], false, false),
            (&["swk"], false, false),
            (&["hwk", "mfa"], true, true),
            (&["swk", "user", "mfa"], true, true),
        ];
        for (amr, has_two, is_phishing_resistant) in cases {
            assert_eq!(denied(Factors::Two, amr).is_none(), has_two, "{amr:?}");
            assert_eq!(denied(Factors::PhishingResistant, amr).is_none(), is_phishing_resistant, "{amr:?}");
        }
        for factors in [Factors::Two, Factors::PhishingResistant] {
            let denial = denied(factors, &["pwd"]).unwrap();
            assert_eq!((denial.part, denial.error.reason()), (RulePart::Factors, Reason::FactorsRequired));
            let step_up = StepUp::new(Some(Duration::from_mins(5)), Some(factors));
            assert_eq!(StepUp::of(&Status::from(denial.error)), step_up, "the whole requirement of the rule");
        }
    }

    #[test]
    fn factors_are_checked_after_the_permission_and_before_the_age() {
        let now = Clock::system().now();
        let rule = Method { factors: Some(Factors::Two), ..rule() };
        let part = |principal: &Principal| authorize_user(&rule, principal, now).unwrap_err().part;
        let old = Duration::from_mins(6);
        assert_eq!(part(&principal(&[], old)), RulePart::Permission);
        assert_eq!(part(&principal(&["stones:lay"], old)), RulePart::Factors);
        let amr = vec!["mfa".to_owned()];
        assert_eq!(part(&Principal { amr, ..principal(&["stones:lay"], old) }), RulePart::MaxAuthAge);
    }

    #[test]
    fn a_server_has_rules_only_for_its_services() {
        let rules =
            rules_of(&drystone::contracts().unwrap(), &["drystone.user.v1.UserService", "grpc.health.v1.Health"]);
        assert!(rules.contains_key("/drystone.user.v1.UserService/GetMe"));
        assert!(rules.contains_key("/grpc.health.v1.Health/Check"));
        assert!(rules.keys().all(|path| path.contains("UserService/") || path.contains("Health/")));
    }
}
