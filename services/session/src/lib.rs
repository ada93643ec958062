//! Sessions, from sign-in to sign-out. This service owns them, and notifies all others of void tokens.
//!
//! A session is one sign-in on one device, and every refresh token belongs to a session. It refers to its user by id only,
//! and contains no password and no token: auth issues the tokens, and advances the counter of the session here when a
//! refresh token is rotated.
//!
//! | module | contents |
//! |---|---|
//! | [`rpc`](crate::Service) | the RPCs: convert, call the domain, convert back |
//! | [`Session`], [`Lifetimes`] | sessions and their lifetimes |
//! | [`Rotation`] | the outcome of a refresh token: advanced, repeated, reused |
//! | [`Revocation`] | revocations of sessions and tokens |
//! | `sessions` | operations on sessions: the store's transitions, and the announcement of revocations |
//! | `hub`, `feed` | the watchers of revocations: their streams, cursors and acknowledgements |
//! | [`SessionStore`], [`SqlStore`], [`RedisStore`] | the stores: all SQL is in `store/sql.rs`, all Redis commands in `store/redis/` |
//! | `follow` | announces revocations made by other instances of this service |
//! | `sweep` | deletes what has expired |
//! | [`Error`] | the errors of this service, and the reason of each |
//! | [`Config`] | its section of the configuration |
//!
//! # How a revocation takes effect at once
//!
//! Services verify tokens locally, and each watches this service. A revoking call writes the revocation to the store,
//! in the transaction of the change that causes it; notifies the feed of every watcher, which reads the store from its
//! cursor; and returns when each watcher has acknowledged that it has applied the revocation. So the client can rely on
//! the response. A watcher that acknowledges nothing for [`Config::acknowledgement_timeout`] is evicted. It reconnects
//! with its last cursor and misses nothing: the store keeps each revocation for as long as a token could be affected. A
//! watcher that acknowledges, but not everything in that time, stays connected as lagging; later calls do not wait for
//! it until it has caught up. The number of watchers is limited, for each workload and in total.
//!
//! If several instances share a store, a call waits for the watchers of its own instance only. Those of the others are
//! notified as soon as their instance is: at once with Redis, otherwise with the next heartbeat.
//!
//! # How to add an RPC
//!
//! For example `PinSession`, which stores a new column. Paths are relative to this crate.
//!
//! | file | what |
//! |---|---|
//! | `proto/drystone/session/v1/session.proto` (of the repository) | the RPC and its messages, with comments, rule, idempotency, valid values and REST path; `cargo check` reports a missing rule or idempotency level |
//! | `migrations/sqlite/NNNN_pin.sql`, `migrations/postgres/NNNN_pin.sql` | the column; a released file is never edited |
//! | `src/store.rs`, `src/store/sql.rs`, `src/store/redis.rs` | the migration in [`MIGRATIONS`], and the transition as one method of [`SessionStore`]: SQL in [`SqlStore`], a script in [`RedisStore`] |
//! | `src/sessions.rs` | the operation; if it revokes tokens, it announces the revocation and waits for acknowledgements, as the others do |
//! | `src/error.rs` | a new failure, with its reason (`src/reason.rs` of the repository has them all) |
//! | `src/rpc/session_service.rs` | the handler: parse the message, call the operation for the user of the call, build the response |
//! | `tests/session/store.rs`, `tests/session/indexes.rs` | the promises of every store; the query plan of a query on a growing table |
//! | `tests/session/rpc.rs` | the RPC over a socket, as a given user |
//!
//! Skip the rows that your RPC does not need. Routes, reflection, metrics and the access matrix in
//! `tests/access/matrix.rs` follow from the contract; additions do not touch the baseline in `proto/`.

mod authentication;
mod config;
mod error;
mod feed;
mod follow;
mod hub;
mod metrics;
mod module;
mod revocation;
mod rotation;
mod rpc;
mod session;
mod sessions;
#[cfg(test)]
mod simulated_day;
mod store;
mod sweep;

use std::{fmt, sync::Arc};

use drystone::session::v1::session_service_server::SessionServiceServer;
use drystone_mesh::{clock::Clock, module::Module, telemetry::Metrics};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::{
    authentication::Authentication,
    config::{Config, StoreKind},
    error::Error,
    revocation::{Holder, KEY_RETENTION, Revocation, Scope},
    rotation::{LATE_REPLACEMENT, MAX_REPEATS, MAX_REPLACEMENTS, Presented, PresentedBy, Rotation},
    session::{FIRST_COUNTER, Lifetimes, NewSession, Session, UserShard},
    store::{EndedSessions, MIGRATIONS, RedisStore, SessionStore, SqlStore, StoreError, Swept},
};
use crate::{feed::FeedContext, hub::Hub, metrics::SessionMetrics, sessions::Sessions};

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "session";

/// The dependencies of the service.
pub struct Deps {
    /// Its section of the configuration.
    pub config: Config,
    /// The store of sessions and revocations.
    pub store: Arc<dyn SessionStore>,
    /// The source of time.
    pub clock: Clock,
    /// The metrics registry.
    pub metrics: Metrics,
    /// Tracks its background tasks.
    pub tasks: TaskTracker,
    /// Stops its background tasks and the streams of its watchers. It must be cancelled no later than the server, which
    /// waits for its streams.
    pub stop: CancellationToken,
}

/// `drystone.session.v1.SessionService`.
pub struct Service {
    sessions: Sessions,
    feeds: FeedContext,
    tasks: TaskTracker,
}

impl Service {
    /// Creates the service and spawns its background tasks, so it must be called within a Tokio runtime.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        let Deps { config, store, clock, metrics, tasks, stop } = deps;
        let metrics = SessionMetrics::registered(&metrics);
        let hub = Hub::new(metrics.clone());
        tasks.spawn(sweep::run(store.clone(), clock.clone(), metrics.clone(), stop.clone()));
        tasks.spawn(follow::run(store.clone(), hub.clone(), stop.clone()));

        let heartbeat_interval = config.heartbeat.duration();
        // Watchers stay connected until the last revoking call has returned: it waits for their acknowledgements.
        let (revoking_calls, feeds_stop) = (TaskTracker::new(), CancellationToken::new());
        let (calls, stop_feeds) = (revoking_calls.clone(), feeds_stop.clone());
        tasks.spawn(async move {
            stop.cancelled().await;
            calls.close();
            calls.wait().await;
            stop_feeds.cancel();
        });
        let feeds = FeedContext {
            store: store.clone(),
            hub: hub.clone(),
            clock: clock.clone(),
            heartbeat_interval,
            stop: feeds_stop,
        };
        let ack_timeout = config.acknowledgement_timeout.duration();
        let lifetimes = Lifetimes::from(&config);
        let sessions = Sessions {
            store,
            hub,
            lifetimes,
            max_per_user: config.max_sessions,
            end_shared: config.end_shared,
            ack_timeout,
            clock,
            metrics,
            tasks: tasks.clone(),
            revoking_calls,
        };
        Self { sessions, feeds, tasks }
    }

    /// The tonic server of this service.
    #[must_use]
    pub fn into_server(self) -> SessionServiceServer<Self> {
        SessionServiceServer::new(self)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// The service as a module of a binary.
#[must_use]
pub const fn module() -> Module {
    Module::of::<Service>()
}
