//! One RPC and its rule.

use std::{sync::Arc, time::Duration};

use crate::rest::Binding;

/// Stands for every entry point among the callers of a rule: the edge, and an ingress such as Envoy.
pub const OUTSIDE: &str = "outside";
/// Stands for every workload `/service/NAME` of the trust domain, except those of [`LISTED_ONLY`].
pub const ANY: &str = "any";
/// The workloads that [`OUTSIDE`] stands for.
pub const ENTRY_POINTS: [&str; 2] = ["edge", "ingress"];
/// The workloads that [`ANY`] does not stand for: entry points and the operator have to be listed.
pub const LISTED_ONLY: [&str; 3] = ["edge", "ingress", "operator"];

/// One RPC, its access rule and its policy.
#[derive(Debug, Clone)]
pub struct Method {
    /// `/package.Service/Method`, as on the wire.
    pub path: Arc<str>,
    /// The workload that serves it.
    pub workload: Arc<str>,
    /// The callers as the rule names them, [`OUTSIDE`] and [`ANY`] included.
    pub callers: Vec<String>,
    /// Whom a call is made for.
    pub subject: Subject,
    /// The permission that the user's token must hold.
    pub permission: Option<String>,
    /// How long ago the user may have signed in, at most.
    pub max_auth_age: Option<Duration>,
    /// What is recorded of each call, allowed or denied.
    pub audit: Option<Audit>,
    /// What else the contract says of it.
    pub policy: Policy,
    /// Whether it may be sent again.
    pub idempotency: Idempotency,
    /// Whether the client sends a stream.
    pub client_streaming: bool,
    /// Whether the server answers with a stream.
    pub server_streaming: bool,
    /// The REST calls that reach it; none for an RPC that cannot be called over REST.
    pub rest: Vec<Binding>,
}

/// Whom a call is made for (`drystone.access.v1.Subject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Nobody; a token is not read.
    None,
    /// An end user, by access token.
    User,
}

/// Where a call is recorded (`drystone.access.v1.Audit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// In the log of the server.
    Log,
    /// In the durable audit trail; in the log as long as a mesh has none.
    Trail,
}

/// Whether an RPC may be sent again (`google.protobuf.MethodOptions.IdempotencyLevel`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// It may not.
    Unknown,
    /// It only reads.
    NoSideEffects,
    /// Once or twice is the same.
    Idempotent,
}

/// What a server and an entry point have to know of an RPC beside its rule (`drystone.access.v1.Policy`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long it may take.
    pub deadline: Deadline,
    /// The limit that its calls count for; `None` for the one of every request.
    pub limit: Option<String>,
    /// For how long anybody may keep its answer.
    pub cache_max_age: Option<Duration>,
}

/// How long an RPC may take; where a part is absent, the server's configuration says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadline {
    /// When the caller does not say.
    pub default: Option<Duration>,
    /// Whatever the caller says.
    pub max: Option<Duration>,
}

/// Something that an end user may be allowed to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// `RESOURCE:ACTION`
    pub name: String,
    /// What its holder can do.
    pub description: String,
}

impl Method {
    /// Whether the rule allows this workload of our trust domain to call.
    #[must_use]
    pub fn allows(&self, workload: &str) -> bool {
        // `outside` and `any` are no workload names: a workload that is called so is not allowed by them.
        self.callers.iter().any(|caller| match caller.as_str() {
            OUTSIDE => ENTRY_POINTS.contains(&workload),
            ANY => !LISTED_ONLY.contains(&workload),
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
