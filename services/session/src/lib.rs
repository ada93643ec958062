//! Sessions: from sign-in to sign-out. This service owns them, and tells all others which tokens are void.
//!
//! A session is what a refresh token belongs to. It knows its user by id alone, and never sees a password or a token:
//! auth makes the tokens, and moves the session's counter here when one is traded in.
//!
//! | room | holds |
//! |---|---|
//! | [`rpc`](crate::Service) | the RPCs: convert, call the domain, convert back |
//! | [`Session`], [`Lifetimes`] | what a session is, and how long it lives |
//! | [`Rotation`] | what becomes of a refresh token: a step on, a lost answer, a theft |
//! | [`Revocation`] | what can be revoked |
//! | `sessions` | what can be done with sessions: the store's transitions, and telling everybody |
//! | `hub`, `feed` | who watches revocations, what each is told, and how far each has got |
//! | [`SessionStore`], [`SqlStore`], [`RedisStore`] | where sessions and revocations are kept: all SQL is in `store/sql.rs`, all Redis in `store/redis/` |
//! | `follow` | hears of what other instances of this service revoke |
//! | `sweep` | forgets what has expired |
//! | [`Error`] | how this service fails, and the reason that the caller hears |
//! | [`Config`] | its section of the configuration |
//!
//! # How a revocation takes effect at once
//!
//! Services check tokens by themselves, and each watches this service. A revoking call writes to the store, in one
//! transaction with the change that asks for it; wakes the feed of every watcher, which reads the store from its
//! cursor on; and returns when each watcher has said that it has applied what it was sent. So whoever has the answer
//! can rely on it. A watcher that says nothing for [`Config::acknowledgement_timeout`] is dropped. It comes back with
//! the cursor that it had, and misses nothing: the store has everything for as long as a token could be affected. One
//! that does acknowledge, but not all in that time, stays connected; later calls do not wait for it until it has caught
//! up. A workload has a bounded number of watchers, and so has the service.
//!
//! Where several instances share a store, the call waits for the watchers of its own instance. Those of the others hear
//! of it as soon as their instance does: at once over Redis, which tells it, else with their next sign of life.
//!
//! # How to add an RPC
//!
//! Say, `RenameSession`:
//!
//! 1. **Contract.** In `proto/drystone/session/v1/session.proto` write the RPC, its two messages and a comment for
//!    each. Give it a rule (who may call, for whom), its idempotency, the valid values of its fields and, if it is
//!    meant for the outside, its REST path. Then `cargo check`: the build says what is missing.
//! 2. **Domain.** Write what is true of sessions, whoever asks, in a file named for what it is, and the deed in
//!    `sessions.rs`. If it voids tokens, announce that and wait until it is settled, as its neighbours there do. A new
//!    failure is a variant of [`Error`] with its reason beside it.
//! 3. **Store.** Add the transition to [`SessionStore`] as one method, however many statements it takes, its SQL to
//!    [`SqlStore`], its script to [`RedisStore`], and to `tests/session/store.rs` what every store must promise of it. New
//!    columns are a new file in `migrations/`, one for each engine, listed in [`MIGRATIONS`]; a file that has been
//!    released is never edited.
//! 4. **Handler.** The compiler now asks for the method in `rpc/session_service.rs`. It takes the message apart, calls
//!    the domain for the user of the call, and puts the answer together.
//! 5. **Tests.** `tests/session/rpc.rs` calls it over a socket as a given user. Who may call at all is proven for every RPC in
//!    the contract by the access matrix in `tests/`, without a line of yours; so is the REST path by the edge.

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
mod store;
mod sweep;

use std::{fmt, sync::Arc};

use drystone::session::v1::session_service_server::SessionServiceServer;
use drystone_mesh::{clock::Clock, module::Module, telemetry::Metrics};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::{
    config::{Config, StoreKind},
    error::Error,
    revocation::{Revocation, Scope},
    rotation::{NotCurrent, Rotation},
    session::{FIRST_COUNTER, Lifetimes, NewSession, Session, Shard},
    store::{Ended, MIGRATIONS, RedisStore, SessionStore, SqlStore, StoreError, Swept},
};
use crate::{feed::Source, hub::Hub, metrics::SessionMetrics, sessions::Sessions};

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "session";

/// What the service needs of the world.
pub struct Deps {
    /// Its section of the configuration.
    pub config: Config,
    /// Where sessions and revocations are.
    pub store: Arc<dyn SessionStore>,
    /// The time.
    pub clock: Clock,
    /// Where it counts.
    pub metrics: Metrics,
    /// Its background work.
    pub tasks: TaskTracker,
    /// Ends its background work and the streams of its watchers. It has to come no later than the end of the server,
    /// which waits for its streams.
    pub stop: CancellationToken,
}

/// `drystone.session.v1.SessionService`.
pub struct Service {
    sessions: Sessions,
    feeds: Source,
    tasks: TaskTracker,
}

impl Service {
    /// The service over these. Begins its background work, so that it has to be called within a Tokio runtime.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        let Deps { config, store, clock, metrics, tasks, stop } = deps;
        let metrics = SessionMetrics::registered(&metrics);
        let hub = Hub::new(metrics.clone());
        tasks.spawn(sweep::run(store.clone(), clock.clone(), metrics.clone(), stop.clone()));
        tasks.spawn(follow::run(store.clone(), hub.clone(), stop.clone()));

        let heartbeat = config.heartbeat.duration();
        // Watchers are there until the last revoking call is answered, so that it does not find that all have left.
        let (revoking, feeds_stop) = (TaskTracker::new(), CancellationToken::new());
        let (calls, end_feeds) = (revoking.clone(), feeds_stop.clone());
        tasks.spawn(async move {
            stop.cancelled().await;
            calls.close();
            calls.wait().await;
            end_feeds.cancel();
        });
        let feeds =
            Source { store: store.clone(), hub: hub.clone(), clock: clock.clone(), heartbeat, stop: feeds_stop };
        let patience = config.acknowledgement_timeout.duration();
        let rules = Lifetimes::from(&config);
        let sessions = Sessions { store, hub, rules, patience, clock, metrics, tasks: tasks.clone(), revoking };
        Self { sessions, feeds, tasks }
    }

    /// The service as a server takes it.
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

/// The service as a part of a binary.
#[must_use]
pub const fn module() -> Module {
    Module::of::<Service>()
}
