//! Sign-in: from credentials to tokens, and back out. This service owns the credentials and the keys that tokens are
//! signed with.
//!
//! It knows no name and no role (user does) and keeps no session (session does). It asks them, and puts what they say
//! into a token that every service can check by itself.
//!
//! | room | holds |
//! |---|---|
//! | `rpc` | the RPCs: convert, call the domain, convert back |
//! | [`register`], [`sign_in`], [`refresh`] | what happens in each, from beginning to end |
//! | [`attempts`] | how often that may be tried |
//! | [`password::typed_password`], [`password::opaque_string`] | passwords as they arrive, and their one normal form |
//! | [`password`], [`password::hasher`] | hashes, and the threads that make them |
//! | [`token::refresh_token`], [`token::access_token_signer`], [`token::tokens`] | what tokens are made of |
//! | [`token::signing_key`], [`token::key_ring`], [`discovery`] | what tokens are signed with, and how others find that |
//! | [`upstreams`], [`property_claims`] | what is asked of the other services |
//! | [`credential`], [`store`] | what is kept, and where; all SQL is in `store.rs` |
//! | [`orphan_sweep`] | removes what a registration that broke off has left |
//! | [`error`] | how this service fails, and the reason that the caller hears |
//! | [`config`], [`metrics`] | its section of the configuration, and what it counts |
//!
//! A sign-in, step by step: [`sign_in::SignIn::sign_in`].
//!
//! # How to add an RPC
//!
//! Say, `ChangePassword`:
//!
//! 1. **Contract.** In `proto/drystone/auth/v1/auth.proto` write the RPC, its two messages and a comment for each.
//!    Give it a rule (who may call, for whom, how long ago the user may have signed in), its idempotency, the valid
//!    values of its fields and, if it is meant for the outside, its REST path. A field that holds a secret gets
//!    `debug_redact`. Then `cargo check`: the build says what is missing.
//! 2. **Domain.** Write what happens in a file named for it, `change_password.rs`: a struct that holds what it needs,
//!    and one function that reads from top to bottom. Secrets arrive as types that wipe themselves
//!    ([`TypedPassword`](password::typed_password::TypedPassword)); passwords are hashed nowhere but in the [`HashingPool`]. A new failure is a
//!    variant of [`Error`] with its reason beside it.
//! 3. **Upstreams.** If it asks something new of another service, add a method to [`Upstreams`], in this service's
//!    own words, and the call to [`Clients`]. The other service's rule has to list `auth` among its callers.
//! 4. **Store.** Add a method with its SQL to [`AuthStore`], and to `tests/auth/store.rs` what it promises on both engines. New columns are a new file for each engine in `migrations/`, listed in [`MIGRATIONS`]; a file
//!    that has been released is never edited.
//! 5. **Handler.** The compiler now asks for the method in `rpc/auth_service.rs`. It takes the message apart, calls the
//!    domain and puts the answer together. What the domain needs is handed to it in [`Service::new`].
//! 6. **Tests.** Write them in `src/tests/`, over a real store and the upstreams of `src/tests/fake.rs`. Who may call
//!    at all is proven for every RPC in the contract by the access matrix in `tests/`, without a line of yours; so is
//!    the REST path by the edge.

pub mod attempts;
pub mod config;
pub mod credential;
pub mod discovery;
pub mod error;
pub mod metrics;
mod module;
pub mod orphan_sweep;
pub mod password;
pub mod property_claims;
pub mod refresh;
pub mod register;
mod rpc;
pub mod sign_in;
pub mod store;
pub mod token;
pub mod upstreams;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use drystone::{
    auth::v1::{
        auth_service_server::{AuthService, AuthServiceServer},
        key_service_server::{KeyService, KeyServiceServer},
    },
    property::v1::property_service_client::PropertyServiceClient,
    session::v1::session_service_client::SessionServiceClient,
    user::v1::user_service_client::UserServiceClient,
};
use drystone_mesh::{client::Channel, clock::Clock, module::Module, telemetry::Metrics};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::{
    attempts::AttemptLimits,
    config::Config,
    error::{Error, StartError},
    store::{AuthStore, MIGRATIONS},
    token::access_token_signer::AUDIENCE,
};
use crate::{
    metrics::{HashingMetrics, PropertyClaimMetrics},
    orphan_sweep::OrphanSweep,
    password::PasswordHash,
    password::hasher::HashingPool,
    property_claims::PropertyClaims,
    refresh::Refresh,
    register::Registration,
    rpc::{AuthRpc, KeyRpc},
    sign_in::SignIn,
    token::{
        access_token_signer::AccessTokenSigner,
        key_ring::{self, KeyRing},
        tokens::TokenIssuer,
    },
    upstreams::{Clients, Upstreams},
};

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "auth";

/// What the service needs of the world.
pub struct Deps {
    /// Where credentials and keys are.
    pub store: AuthStore,
    /// Who owns the accounts.
    pub users: UserServiceClient<Channel>,
    /// Who owns the properties.
    pub properties: PropertyServiceClient<Channel>,
    /// Who owns the sessions.
    pub sessions: SessionServiceClient<Channel>,
    /// The time.
    pub clock: Clock,
    /// Where to count.
    pub metrics: Metrics,
    /// How often somebody may try to sign in to one account.
    pub attempts: AttemptLimits,
    /// The section `[auth]`.
    pub config: Config,
    /// What tokens say in `iss`.
    pub issuer: String,
    /// The address that clients use, such as `https://id.example.com`: the discovery document points there.
    pub public_url: String,
    /// Its background work.
    pub tasks: TaskTracker,
    /// Ends its background work.
    pub stop: CancellationToken,
}

/// What is around the service, apart from the store and the other services.
struct Setting<'a> {
    clock: Clock,
    metrics: &'a Metrics,
    attempts: AttemptLimits,
    config: &'a Config,
    issuer: String,
    public_url: &'a str,
}

/// `drystone.auth.v1.AuthService` and `drystone.auth.v1.KeyService`.
pub struct Service {
    auth: AuthRpc,
    keys: KeyRpc,
}

impl Service {
    /// The service over these. Reads the keys, makes those that are missing, starts the hashing threads, and begins its
    /// background work.
    ///
    /// # Errors
    /// A sentence that says what to do: see [`StartError`].
    pub async fn new(deps: Deps) -> Result<Self, StartError> {
        let Deps {
            store,
            users,
            properties,
            sessions,
            clock,
            metrics,
            attempts,
            config,
            issuer,
            public_url,
            tasks,
            stop,
        } = deps;
        let upstreams: Arc<dyn Upstreams> = Arc::new(Clients { users, properties, sessions });
        let sweep = OrphanSweep { upstreams: Arc::clone(&upstreams), store: store.clone(), clock: clock.clone() };
        let service = Self::assemble(
            store,
            upstreams,
            Setting { clock, metrics: &metrics, attempts, config: &config, issuer, public_url: &public_url },
        )
        .await?;
        tasks.spawn(sweep.run(orphan_sweep::FIRST, stop));
        Ok(service)
    }

    async fn assemble(
        store: AuthStore,
        upstreams: Arc<dyn Upstreams>,
        setting: Setting<'_>,
    ) -> Result<Self, StartError> {
        let Setting { clock, metrics, attempts, config, issuer, public_url } = setting;
        config.check().map_err(StartError::Config)?;
        let keys = Arc::new(key_ring::once_there(|| KeyRing::open(&store, &clock)).await?);
        let seal = key_ring::once_there(|| key_ring::refresh_token_seal(&store, &clock)).await?;
        let hashing = HashingPool::start(config.pool_size(), config.cost(), HashingMetrics::new(metrics))
            .map_err(StartError::Threads)?;
        let hashing = Arc::new(hashing);

        let metadata = discovery::document(&issuer, public_url);
        let lifetime = config.access_token_lifetime.duration();
        let maker = AccessTokenSigner::new(Arc::clone(&keys), issuer, config.client_id.clone(), lifetime);
        let issuer = Arc::new(TokenIssuer { maker, seal, clock: clock.clone() });
        let without = PropertyClaimMetrics::new(metrics);
        let property_claims =
            |without| PropertyClaims::new(Arc::clone(&upstreams), config.property_claims_timeout.duration(), without);

        let auth = AuthRpc {
            registration: Registration {
                upstreams: Arc::clone(&upstreams),
                store: store.clone(),
                hashing: Arc::clone(&hashing),
                clock: clock.clone(),
            },
            sign_in: SignIn {
                attempts,
                upstreams: Arc::clone(&upstreams),
                store,
                hashing,
                dummy_hash: PasswordHash::dummy(config.cost())?,
                property_claims: property_claims(without.sign_ins_without),
                issuer: Arc::clone(&issuer),
                clock: clock.clone(),
            },
            refresh: Refresh {
                upstreams: Arc::clone(&upstreams),
                property_claims: property_claims(without.refreshes_without),
                issuer,
                clock,
            },
            upstreams,
        };
        Ok(Self { auth, keys: KeyRpc { keys, metadata } })
    }

    /// The services as a server takes them.
    #[must_use]
    pub fn into_servers(self) -> (AuthServiceServer<impl AuthService>, KeyServiceServer<impl KeyService>) {
        (AuthServiceServer::new(self.auth), KeyServiceServer::new(self.keys))
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
