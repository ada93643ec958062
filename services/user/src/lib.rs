//! User accounts. This service owns their e-mail addresses, profiles and roles.
//!
//! It never sees a password (auth does) or a session (session does). A service that signs a user in looks up here which
//! account an e-mail address belongs to, and its roles and permissions.
//!
//! | module | contents |
//! |---|---|
//! | [`rpc`](crate::Service) | the RPCs: convert, call the domain, convert back |
//! | [`Account`], [`Email`], [`Profile`] | the fields of an account, and their valid values |
//! | [`role`] | roles and permissions: what each user may do, and who may change that |
//! | [`permission`] | the permissions of this service, and who may read and change an account |
//! | [`search`] | the words that accounts are found by |
//! | [`UserStore`] | the store of accounts, roles and grants; all SQL is in `store.rs` and `store/` |
//! | `follow_up.rs` | the messages that follow a change: they void tokens, end sessions, and let other services forget a user |
//! | `housekeeping.rs` | what is done from time to time: removing deleted accounts, metrics |
//! | [`Error`] | the errors of this service, and the reason of each |
//!
//! # How to add an RPC
//!
//! For example `PinUser`, which stores a new column. Paths are relative to this crate.
//!
//! | file | what |
//! |---|---|
//! | `proto/drystone/user/v1/user.proto` (of the repository) | the RPC and its messages, with comments, rule, idempotency, valid values and REST path; `cargo check` reports what is missing or contradicts itself |
//! | `migrations/sqlite/NNNN_pin.sql`, `migrations/postgres/NNNN_pin.sql` | the column, nullable or with a default; a released file is never edited |
//! | `src/store.rs`, `src/store/accounts.rs` | the migration in [`MIGRATIONS`]; the column in `columns!`, `AccountRow` and `read_account`; a method of [`UserStore`] with the SQL, which increases the version if a client can see the change |
//! | `src/account.rs` | the field of [`Account`] |
//! | `src/rpc/user_service.rs`, `src/rpc/user_message.rs` | the handler and the conversion of [`Account`] to its message. The handler parses the message (free text with [`DisplayName`] or `drystone_mesh::text`), checks [`permission`] unless the rule names the permission, and calls the store |
//! | `tests/user/store.rs`, `tests/user/indexes.rs` | the promises of the store on both engines, listed in `on_each_engine!`; the new query, and one more index scan in the lower bound |
//! | `tests/user/rpc.rs` | the handler, called as a given user. Rules are not applied here: `tests/access/matrix.rs` checks them |
//!
//! Those are 11 files; skip the rows that your RPC does not need. A value with rules beyond its length is a type in a file named for
//! its subject, exported in `src/lib.rs`; a new failure is a variant in `src/error.rs`. A write that reads first is a
//! transaction under `Db::retry`. Routes, reflection, metrics and the access matrix in `tests/access/matrix.rs` follow from
//! the contract; additions do not touch the baseline in `proto/`. [contracts.md](../../../docs/contracts.md) has the style.

pub mod account;
mod config;
mod error;
mod follow_up;
mod housekeeping;
mod module;
pub mod permission;
pub mod profile;
pub mod role;
mod rpc;
pub mod search;
pub mod store;

use std::{fmt, sync::Arc, time::Duration};

use drystone::{
    auth::v1::auth_service_client::AuthServiceClient,
    notification::v1::notification_service_client::NotificationServiceClient,
    property::v1::property_service_client::PropertyServiceClient,
    session::v1::session_service_client::SessionServiceClient,
    user::v1::{
        role_service_server::{RoleService, RoleServiceServer},
        user_service_server::{UserService, UserServiceServer},
    },
};
use drystone_mesh::{client::Channel, clock::Clock, module::Module, telemetry::Metrics};
use drystone_store::outbox::{Outcome, Relay, RelayMetrics};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{follow_up::FollowUp, store::Saved};

pub use crate::{
    account::{Account, NewAccount, Status},
    config::Config,
    error::Error,
    profile::{Profile, ProfileChange},
    store::{MIGRATIONS, UserStore},
};

pub use drystone_mesh::{display_name::DisplayName, email::Email};

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "user";

/// The dependencies of the service.
pub struct Deps {
    /// The store of accounts.
    pub store: UserStore,
    /// The session service, which voids the tokens of a user whose roles change.
    pub sessions: SessionServiceClient<Channel>,
    /// The auth service, which forgets the password of a user whose account is removed.
    pub auth: AuthServiceClient<Channel>,
    /// The property service, which forgets their properties.
    pub properties: PropertyServiceClient<Channel>,
    /// The notification service, which forgets their messages.
    pub notifications: NotificationServiceClient<Channel>,
    /// The section `[user]` of the configuration.
    pub config: Config,
    /// The source of time.
    pub clock: Clock,
    /// Receives the metrics of the outbox.
    pub metrics: Metrics,
    /// Tracks the relay of the outbox.
    pub tasks: TaskTracker,
    /// Stops it.
    pub stop: CancellationToken,
}

/// How long a change of roles waits until the tokens from before are void.
const VOIDING_TIMEOUT: Duration = Duration::from_secs(2);

/// `drystone.user.v1.UserService` and `drystone.user.v1.RoleService`. Clones share their state.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    store: UserStore,
    relay: Relay,
    clock: Clock,
    retention: Duration,
}

impl Service {
    /// Creates the service, and spawns the relay of its outbox and its housekeeping.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        let Deps { store, sessions, auth, properties, notifications, config, clock, metrics, tasks, stop } = deps;
        let relay_metrics = RelayMetrics::new(&metrics, NAME);
        let follow_up = FollowUp { sessions, auth, properties, notifications };
        let relay = Relay::new(store.db().clone(), clock.clone(), relay_metrics, follow_up);
        tasks.spawn(relay.clone().run(stop.clone()));
        tasks.spawn(housekeeping::run(store.clone(), clock.clone(), metrics, stop));
        let retention = config.deleted_retention.duration();
        Self(Arc::new(Inner { store, relay, clock, retention }))
    }

    /// The tonic servers of this service.
    #[must_use]
    pub fn into_servers(self) -> (UserServiceServer<impl UserService>, RoleServiceServer<impl RoleService>) {
        (UserServiceServer::new(self.clone()), RoleServiceServer::new(self))
    }

    /// Waits until the tokens that a change concerns are void, so that its success means that they are refused. What was saved is
    /// saved together with the message that voids them: a token that is issued in between already has the change.
    async fn voided<T>(&self, saved: Saved<T>) -> Result<T, Error> {
        let Some(message) = saved.voiding else { return Ok(saved.value) };
        match self.0.relay.outcome(message, VOIDING_TIMEOUT).await? {
            Outcome::Delivered => Ok(saved.value),
            Outcome::Pending | Outcome::GivenUp => Err(Error::TokensNotVoided),
        }
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
