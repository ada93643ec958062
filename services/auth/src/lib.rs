//! The auth service: registration, sign-in, refresh and sign-out. It owns the password credentials and the keys that
//! sign access tokens.
//!
//! The user service owns accounts and roles, the session service owns sessions. This service reads both and issues
//! access tokens that every service can verify offline.
//!
//! | module | content |
//! |---|---|
//! | `rpc` | the gRPC handlers: convert, call the domain, convert back |
//! | [`register`], [`sign_in`], [`refresh`], [`import`], `password_change.rs`, `password_reset.rs`, `email_change.rs`, `email_verification.rs`, `account_recovery.rs` | one operation each |
//! | [`factor`] | second factors: authenticator apps, passkeys and backup codes |
//! | [`challenge`], `sign_in/second_factor.rs` | sign-ins that a second factor completes |
//! | [`trusted_device`] | devices on which sign-ins need no second factor for a time |
//! | `sign_in/passkey.rs` | sign-ins with a passkey alone |
//! | `operations.rs` | how these are put together |
//! | `step_up.rs` | a signed-in user proves again who they are |
//! | [`authentication`] | the methods of authentication, as tokens name them |
//! | `password_check.rs` | the check of the current password by those |
//! | [`sign_in_history`] | the sign-ins of a user, and the mail about a new device |
//! | `follow_up.rs`, [`link`] | what is done elsewhere afterwards: links and other mails, accounts and addresses, the end of sessions |
//! | [`password::policy`] | what new passwords have to be |
//! | [`attempts`] | rate limit of sign-ins per account |
//! | [`password::typed_password`], [`password::opaque_string`] | passwords as received, and their normalization |
//! | [`password`], [`password::hasher`] | password hashes, and the pool of threads that computes them |
//! | [`token::tokens`], [`token::access_token_signer`], [`token::refresh_token`] | the tokens |
//! | [`token::signing_key`], [`token::key_ring`], [`discovery`] | signing keys, and their publication |
//! | [`token::key_rotation`] | sealing and replacement of stored keys |
//! | `token/signing_keys.rs` | rotation and withdrawal of signing keys |
//! | [`upstreams`], [`property_claims`] | calls to other services |
//! | [`credential`], [`store`] | what is stored; all SQL is in `store.rs` and `store/` |
//! | [`orphan_sweep`] | removes the credentials of incomplete registrations |
//! | [`error`] | errors and their reason codes |
//! | [`config`], [`metrics`] | the configuration section `[auth]`, and the metrics |
//!
//! To follow a sign-in step by step, start at [`sign_in::SignIn::sign_in`].
//!
//! # How to add an RPC
//!
//! For example, `PauseSignIn`:
//!
//! 1. **Contract.** Add the RPC and its two messages to `proto/drystone/auth/v1/auth.proto`, each with a comment, an
//!    access rule (callers, subject, maximum age of the sign-in), an idempotency level, the constraints of its fields
//!    and, if clients may call it, a REST path. Mark secret fields `debug_redact`. Run `cargo check`: the build reports
//!    what is missing.
//! 2. **Domain.** Write the operation in a new file beside `src/sign_in.rs`: a struct with its dependencies, and one
//!    method that reads from top to bottom. Secrets are types that are wiped on drop
//!    ([`TypedPassword`](password::typed_password::TypedPassword)); only the [`HashingPool`] hashes passwords. A new
//!    failure is a variant of [`Error`] with its reason code, in `src/error.rs`.
//! 3. **Upstreams.** For a new call to another service, add a method to [`Upstreams`] and implement it in
//!    [`GrpcUpstreams`], both in `src/upstreams.rs`. The access rule of the called RPC has to list `auth`.
//! 4. **Store.** Add a method with its SQL to [`AuthStore`] in `src/store.rs` or `src/store/`, and its contract, which holds for both
//!    databases, to `tests/auth/store.rs`. A new column needs a new migration in `migrations/sqlite` and in
//!    `migrations/postgres`, listed in [`MIGRATIONS`]; never edit a released migration.
//! 5. **Handler.** Implement the method in `src/rpc/auth_service.rs`: convert the request, call the domain, convert the
//!    result. Build the new struct in `Service::assemble`, in `src/lib.rs`.
//! 6. **Tests.** Add them to `src/tests/`, with a real store and the fake upstreams of `src/tests/fake.rs`. The access
//!    rule is covered by `tests/access/matrix.rs`, the REST path by `tests/rest/routes.rs`, for every RPC of the
//!    contract.

mod account_recovery;
pub mod attempts;
pub mod authentication;
pub mod challenge;
pub mod config;
pub mod credential;
pub mod discovery;
mod email_change;
mod email_verification;
pub mod error;
pub mod factor;
mod follow_up;
pub mod import;
pub mod link;
pub mod metrics;
mod module;
mod operations;
pub mod orphan_sweep;
pub mod password;
mod password_change;
mod password_check;
mod password_reset;
pub mod property_claims;
pub mod refresh;
pub mod register;
mod rpc;
pub mod sign_in;
pub mod sign_in_history;
mod step_up;
pub mod store;
pub mod token;
pub mod trusted_device;
pub mod upstreams;

#[cfg(test)]
mod tests;

use std::{fmt, num::NonZeroUsize, sync::Arc, thread::available_parallelism};

use drystone::{
    auth::v1::{
        auth_service_server::{AuthService, AuthServiceServer},
        email_service_server::{EmailService, EmailServiceServer},
        key_service_server::{KeyService, KeyServiceServer},
        mfa_service_server::{MfaService, MfaServiceServer},
        passkey_service_server::{PasskeyService, PasskeyServiceServer},
        password_service_server::{PasswordService, PasswordServiceServer},
        sign_in_service_server::{SignInService, SignInServiceServer},
    },
    notification::v1::notification_service_client::NotificationServiceClient,
    property::v1::property_service_client::PropertyServiceClient,
    session::v1::session_service_client::SessionServiceClient,
    user::v1::user_service_client::UserServiceClient,
};
use drystone_mesh::{
    client::Channel, clock::Clock, health::Component, module::Module, telemetry::Metrics, token::WithdrawnKeys,
};
use drystone_store::{
    outbox::{Relay, RelayMetrics},
    sealing::Sealer,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::{
    attempts::AttemptLimits,
    config::Config,
    error::{Error, StartError},
    store::{AuthStore, MIGRATIONS},
    token::access_token_signer::AUDIENCE,
};
use crate::{
    factor::check::FactorCheck,
    follow_up::FollowUps,
    import::UserImport,
    metrics::{FactorMetrics, HashingMetrics, PropertyClaimMetrics, SignInMetrics},
    operations::Operations,
    orphan_sweep::OrphanSweep,
    password::{PasswordHash, hasher::HashingPool, new_password::NewPasswords, policy::Policy},
    password_check::PasswordCheck,
    property_claims::PropertyClaims,
    refresh::Refresh,
    register::Registration,
    rpc::{AuthRpc, EmailRpc, KeyRpc, MfaRpc, PasskeyRpc, PasswordRpc, SignInRpc},
    sign_in::SignIn,
    sign_in_history::SignInHistory,
    token::{
        access_token_signer::AccessTokenSigner, key_ring::RELOAD_INTERVAL, key_rotation::KeyRotation,
        signing_keys::SigningKeys, tokens::TokenIssuer,
    },
    trusted_device::TrustedDevices,
    upstreams::{GrpcUpstreams, Upstreams},
};

/// The workload name, as in the SPIFFE ID.
pub const NAME: &str = "auth";

/// The dependencies of the service.
pub struct Deps {
    /// The store of credentials and keys.
    pub store: AuthStore,
    /// Seals the keys.
    pub sealer: Sealer,
    /// The user service, which owns the accounts.
    pub users: UserServiceClient<Channel>,
    /// The property service.
    pub properties: PropertyServiceClient<Channel>,
    /// The session service.
    pub sessions: SessionServiceClient<Channel>,
    /// The notification service.
    pub notifications: NotificationServiceClient<Channel>,
    /// Source of time.
    pub clock: Clock,
    /// The metrics registry.
    pub metrics: Metrics,
    /// Reports whether the keys are current.
    pub keys_health: Component,
    /// The signing keys of which tokens are refused everywhere.
    pub withdrawn_keys: WithdrawnKeys,
    /// Rate limits.
    pub attempts: AttemptLimits,
    /// The configuration section `[auth]`.
    pub config: Config,
    /// The `iss` claim of access tokens.
    pub issuer: String,
    /// The base URL for clients, such as `https://id.example.com`, for the discovery document.
    pub public_url: String,
    /// Tracks background tasks.
    pub tasks: TaskTracker,
    /// Stops background tasks.
    pub stop: CancellationToken,
}

/// The dependencies of [`Service::assemble`] other than the store and the upstreams.
struct ServiceOptions<'a> {
    clock: Clock,
    metrics: &'a Metrics,
    attempts: AttemptLimits,
    config: &'a Config,
    issuer: String,
    public_url: &'a str,
    withdrawn_keys: WithdrawnKeys,
}

/// The services of `drystone.auth.v1`.
pub struct Service {
    auth: AuthRpc,
    keys: KeyRpc,
    passwords: PasswordRpc,
    emails: EmailRpc,
    sign_ins: SignInRpc,
    mfa: MfaRpc,
    passkeys: PasskeyRpc,
    relay: Relay,
}

impl Service {
    /// Loads the keys or generates missing ones, starts the hashing threads and spawns the background jobs.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn new(deps: Deps) -> Result<Self, StartError> {
        let Deps {
            store,
            sealer,
            users,
            properties,
            sessions,
            notifications,
            clock,
            metrics,
            keys_health,
            withdrawn_keys,
            attempts,
            config,
            issuer,
            public_url,
            tasks,
            stop,
        } = deps;
        let upstreams: Arc<dyn Upstreams> = Arc::new(GrpcUpstreams { users, properties, sessions, notifications });
        let (sweep_upstreams, sweep_store, sweep_clock) = (Arc::clone(&upstreams), store.clone(), clock.clone());
        let service = Self::assemble(
            store,
            sealer,
            upstreams,
            ServiceOptions {
                clock,
                metrics: &metrics,
                attempts,
                config: &config,
                issuer,
                public_url: &public_url,
                withdrawn_keys,
            },
        )
        .await?;
        let sweep = OrphanSweep {
            upstreams: sweep_upstreams,
            store: sweep_store,
            clock: sweep_clock,
            factor_metrics: service.auth.sign_in.factors.metrics.clone(),
        };
        tasks.spawn(sweep.run(orphan_sweep::INITIAL_DELAY, stop.clone()));
        tasks.spawn(service.relay.clone().run(stop.clone()));
        tasks.spawn(Arc::clone(&service.mfa.factors).run_resets(stop.clone()));
        tasks.spawn(Arc::clone(&service.keys.signing_keys).run(RELOAD_INTERVAL, stop.clone()));
        tasks.spawn(Arc::clone(&service.keys.keys).follow(RELOAD_INTERVAL, keys_health, stop));
        Ok(service)
    }

    async fn assemble(
        store: AuthStore,
        sealer: Sealer,
        upstreams: Arc<dyn Upstreams>,
        options: ServiceOptions<'_>,
    ) -> Result<Self, StartError> {
        let ServiceOptions { clock, metrics, attempts, config, issuer, public_url, withdrawn_keys } = options;
        config.check().map_err(StartError::Config)?;
        let rotation = KeyRotation::open(&store, &sealer, &clock, config.signing_keys.spec(), &withdrawn_keys).await?;
        let keys = Arc::clone(&rotation.keys);
        let hashing = HashingPool::start(config.pool_size(), config.cost(), HashingMetrics::new(metrics));
        let hashing = Arc::new(hashing.map_err(StartError::Threads)?);
        let follow_ups = FollowUps {
            upstreams: Arc::clone(&upstreams),
            store: store.clone(),
            keys: Arc::clone(&keys),
            clock: clock.clone(),
            app_url: config.app_url(&issuer),
        };
        let relay = Relay::new(store.db().clone(), clock.clone(), RelayMetrics::new(metrics, NAME), follow_ups);
        let signing_keys = SigningKeys::new(&rotation, relay.clone(), Arc::clone(&upstreams), &config.signing_keys);
        metrics::signing_keys::register(metrics, Arc::clone(&signing_keys));
        let passwords = NewPasswords {
            policy: Arc::new(Policy::new(&config.password_policy)?),
            hashing: Arc::clone(&hashing),
            upstreams: Arc::clone(&upstreams),
            checks: Arc::new(Semaphore::new(available_parallelism().map_or(1, NonZeroUsize::get))),
        };
        let check = PasswordCheck {
            attempts: attempts.clone(),
            upstreams: Arc::clone(&upstreams),
            hashing: Arc::clone(&hashing),
            store: store.clone(),
            dummy_hash: PasswordHash::dummy(config.cost())?,
        };
        let history = SignInHistory::new(store.clone(), relay.clone(), clock.clone());
        let operations = Operations {
            upstreams: Arc::clone(&upstreams),
            store: store.clone(),
            keys: Arc::clone(&keys),
            relay: relay.clone(),
            clock: clock.clone(),
            factor_metrics: FactorMetrics::new(metrics),
        };
        let factors = FactorCheck::new(sealer, operations.passkeys(config, &issuer)?, check.clone(), clock.clone());
        let sign_ins = SignInRpc { history: history.clone(), recovery: operations.recovery() };
        let emails = operations.emails(&check);
        let password_rpc = operations.passwords(&check, &passwords);
        let management = operations.factors(&factors, config, &issuer);
        let step_up = operations.step_up(&check, &factors);
        let trusted_devices = TrustedDevices::new(store.clone(), clock.clone(), &config.mfa);
        let mfa = MfaRpc { factors: Arc::clone(&management), trusted_devices: trusted_devices.clone() };

        let metadata = discovery::document(&issuer, public_url);
        let lifetime = config.access_token_lifetime.duration();
        let client_id = config.client_id.clone();
        let access_token_signer = Arc::new(AccessTokenSigner::new(Arc::clone(&keys), issuer, client_id, lifetime));
        let issuer = Arc::new(TokenIssuer { access_token_signer, keys: Arc::clone(&keys), clock: clock.clone() });
        let claim_metrics = PropertyClaimMetrics::new(metrics);
        let property_claims =
            |omitted| PropertyClaims::new(Arc::clone(&upstreams), config.property_claims_timeout.duration(), omitted);

        let auth = AuthRpc {
            import: UserImport { upstreams: Arc::clone(&upstreams), store: store.clone(), clock: clock.clone() },
            registration: Registration {
                upstreams: Arc::clone(&upstreams),
                store: store.clone(),
                attempts: attempts.clone(),
                hashing: Arc::clone(&hashing),
                passwords,
                relay: relay.clone(),
                clock: clock.clone(),
                requires_verified_email: config.require_verified_email,
            },
            sign_in: Arc::new(SignIn {
                attempts: attempts.clone(),
                keys: Arc::clone(&keys),
                upstreams: Arc::clone(&upstreams),
                store: store.clone(),
                factors,
                requirement: config.mfa.requirement(&store),
                trusted_devices,
                hashing,
                dummy_hash: PasswordHash::dummy(config.cost())?,
                property_claims: property_claims(claim_metrics.sign_ins_without),
                issuer: Arc::clone(&issuer),
                metrics: SignInMetrics::new(metrics, clock.clone()),
                clock: clock.clone(),
                history,
                requires_verified_email: config.require_verified_email,
            }),
            refresh: Refresh {
                attempts,
                upstreams: Arc::clone(&upstreams),
                property_claims: property_claims(claim_metrics.refreshes_without),
                issuer,
                requirement: config.mfa.requirement(&store),
                store,
                relay: relay.clone(),
                clock,
            },
            step_up,
            upstreams,
        };
        let (passkeys, keys) = (auth.passkeys(&management), KeyRpc { keys, rotation, signing_keys, metadata });
        Ok(Self { auth, keys, passwords: password_rpc, emails, sign_ins, mfa, passkeys, relay })
    }

    /// The gRPC services, to be added to a server.
    #[must_use]
    pub fn into_servers(
        self,
    ) -> (
        AuthServiceServer<impl AuthService>,
        KeyServiceServer<impl KeyService>,
        PasswordServiceServer<impl PasswordService>,
        EmailServiceServer<impl EmailService>,
        SignInServiceServer<impl SignInService>,
        MfaServiceServer<impl MfaService>,
        PasskeyServiceServer<impl PasskeyService>,
    ) {
        (
            AuthServiceServer::new(self.auth),
            KeyServiceServer::new(self.keys),
            PasswordServiceServer::new(self.passwords),
            EmailServiceServer::new(self.emails),
            SignInServiceServer::new(self.sign_ins),
            MfaServiceServer::new(self.mfa),
            PasskeyServiceServer::new(self.passkeys),
        )
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
