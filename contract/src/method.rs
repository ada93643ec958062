//! RPCs with their access rules and policies.

use std::{sync::Arc, time::Duration};

use crate::rest::Binding;

/// The caller name that means every entry point: the edge, and an ingress such as Envoy.
pub const OUTSIDE: &str = "outside";
/// The caller name that means every workload `/service/NAME` of the trust domain, except [`NON_SERVING_WORKLOADS`].
pub const ANY: &str = "any";
/// The workload of operators.
pub const OPERATOR: &str = "operator";
/// The workloads that [`OUTSIDE`] means.
pub const ENTRY_POINTS: [&str; 2] = ["edge", "ingress"];
/// The workloads that serve no RPC: entry points and the operator. [`ANY`] excludes them, so they must be listed.
pub const NON_SERVING_WORKLOADS: [&str; 3] = ["edge", "ingress", OPERATOR];

/// One RPC, its access rule and its policy.
#[derive(Debug, Clone)]
pub struct Method {
    /// `/package.Service/Method`, as on the wire.
    pub path: Arc<str>,
    /// The workload that serves it.
    pub workload: Arc<str>,
    /// The allowed callers, with [`OUTSIDE`] and [`ANY`] unexpanded.
    pub callers: Vec<String>,
    /// The subject of a call.
    pub subject: Subject,
    /// The required permission of the user.
    pub permission: Option<String>,
    /// The factors that the user must have proved.
    pub factors: Option<Factors>,
    /// The maximum time since the user's authentication.
    pub max_auth_age: Option<Duration>,
    /// Whether a server without a current view of revocations denies a call for a user.
    pub fresh_revocations: bool,
    /// Where each call is recorded, allowed or denied.
    pub audit: Option<Audit>,
    /// The policy.
    pub policy: Policy,
    /// Whether it can be retried.
    pub idempotency: Idempotency,
    /// Whether the client sends a stream.
    pub client_streaming: bool,
    /// Whether the server sends a stream.
    pub server_streaming: bool,
    /// The REST bindings; empty for an RPC without REST.
    pub rest: Vec<Binding>,
}

/// The subject of a call (`drystone.access.v1.Subject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// None; a token is ignored.
    None,
    /// An end user, by access token.
    User,
    /// An end user, by access token; or the operator, without one.
    UserOrOperator,
}

/// What an end user must have proved who they are with (`drystone.access.v1.Factors`). A later one is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Factors {
    /// At least two factors of different kinds.
    Two,
    /// A passkey with user verification.
    PhishingResistant,
}

/// Where a call is recorded (`drystone.access.v1.Audit`). A later one keeps more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audit {
    /// In the server's log.
    Log,
    /// In the durable audit trail, or in the log if the mesh has none.
    Trail,
}

/// Whether an RPC can be retried (`google.protobuf.MethodOptions.IdempotencyLevel`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// It cannot be retried.
    Unknown,
    /// It only reads.
    NoSideEffects,
    /// It has the same effect once or several times.
    Idempotent,
}

/// The policy of an RPC (`drystone.access.v1.Policy`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The deadline.
    pub deadline: Deadline,
    /// The rate limit of its calls; `None` for the default limit of requests.
    pub limit: Option<String>,
    /// How long shared caches may store the response.
    pub cache_max_age: Option<Duration>,
}

/// The deadline of an RPC; absent values come from the server's configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadline {
    /// If the caller sends none.
    pub default: Option<Duration>,
    /// The upper bound.
    pub max: Option<Duration>,
}

/// A permission of end users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// `RESOURCE:ACTION` or `RESOURCE:ACTION:SCOPE`.
    pub name: String,
    /// What the permission allows.
    pub description: String,
}

impl Subject {
    /// The name in command output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::User => "user",
            Self::UserOrOperator => "user_or_operator",
        }
    }
}

impl Audit {
    /// The name in command output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Trail => "trail",
        }
    }
}

impl Idempotency {
    /// The name in command output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NoSideEffects => "no_side_effects",
            Self::Idempotent => "idempotent",
        }
    }
}

impl Factors {
    /// The name in command output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Two => "two",
            Self::PhishingResistant => "phishing_resistant",
        }
    }

    /// The authentication context class in challenges (`acr_values`, RFC 9470): `phr` as OpenID EAP ACR Values defines it;
    /// for two factors, which have no registered class, the value that `amr` has (RFC 8176).
    #[must_use]
    pub const fn acr(self) -> &'static str {
        match self {
            Self::Two => "mfa",
            Self::PhishingResistant => "phr",
        }
    }

    /// The factors of an authentication context class.
    #[must_use]
    pub fn from_acr(acr: &str) -> Option<Self> {
        [Self::Two, Self::PhishingResistant].into_iter().find(|factors| factors.acr() == acr)
    }
}

impl Method {
    /// Whether a call of this workload requires an end user's access token. One that is not required is verified as well, if the
    /// subject is [`Subject::UserOrOperator`].
    #[must_use]
    pub fn requires_token(&self, workload: Option<&str>) -> bool {
        match self.subject {
            Subject::None => false,
            Subject::User => true,
            Subject::UserOrOperator => workload != Some(OPERATOR),
        }
    }

    /// Whether the rule allows this workload of the trust domain to call.
    #[must_use]
    pub fn allows(&self, workload: &str) -> bool {
        // `outside` and `any` are not workload names: a workload with such a name is not allowed by them.
        self.callers.iter().any(|caller| match caller.as_str() {
            OUTSIDE => ENTRY_POINTS.contains(&workload),
            ANY => !NON_SERVING_WORKLOADS.contains(&workload),
            name => name == workload,
        })
    }

    /// The service's full name, `package.Service`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.path.trim_start_matches('/').split('/').next().unwrap_or_default()
    }

    /// The name of the RPC within its service.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether either side sends a stream.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.client_streaming || self.server_streaming
    }
}
