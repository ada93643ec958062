//! What the contracts say of each RPC, read at build time.

use std::time::Duration;

/// The encoded `google.protobuf.FileDescriptorSet` of all contracts, imports and comments inside,
/// custom options intact. Reflection, the edge, and the file handed to other tools all come from it.
pub static DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.binpb"));

include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// One RPC and its access rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// `/package.Service/Method`, as on the wire.
    pub path: &'static str,
    /// The callers as the rule names them, `outside` included.
    pub callers: &'static [&'static str],
    /// Whom a call is made for.
    pub subject: Subject,
    /// The permission that the user's token must hold.
    pub permission: Option<&'static str>,
    /// How long ago the user may have signed in, at most.
    pub max_auth_age: Option<Duration>,
    /// Whether each call leaves an audit record.
    pub audited: bool,
    /// Whether it may be sent again.
    pub idempotency: Idempotency,
    /// Whether the client sends a stream.
    pub client_streaming: bool,
    /// Whether the server answers with a stream.
    pub server_streaming: bool,
    /// The REST calls that reach it, as `VERB path`; none for an RPC that the outside cannot reach by REST.
    pub rest: &'static [&'static str],
}

/// Whom a call is made for (`drystone.access.v1.Subject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Nobody; a token is not read.
    None,
    /// An end user, by access token.
    User,
}

/// Whether an RPC may be sent again (`google.protobuf.MethodOptions.IdempotencyLevel`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// Not stated: it may not.
    Unknown,
    /// It only reads.
    NoSideEffects,
    /// Once or twice is the same.
    Idempotent,
}

/// Something that an end user may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// `RESOURCE:ACTION`
    pub name: &'static str,
    /// What its holder can do.
    pub description: &'static str,
}

/// The workloads that `outside` stands for.
pub const FRONT_DOORS: [&str; 2] = ["edge", "ingress"];

impl Method {
    /// Whether the rule lets this workload call.
    #[must_use]
    pub fn allows(&self, workload: &str) -> bool {
        // `outside` is no workload's name: one that calls itself so is not let in by it.
        self.callers.iter().any(|caller| match *caller {
            "outside" => FRONT_DOORS.contains(&workload),
            name => name == workload,
        })
    }

    /// The service's full name, `package.Service`.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.path.trim_start_matches('/').split('/').next().unwrap_or_default()
    }

    /// The workload that serves the RPC: `user` of `drystone.user.v1.UserService`.
    #[must_use]
    pub fn workload(&self) -> &'static str {
        self.service().split('.').nth(1).unwrap_or_default()
    }
}
