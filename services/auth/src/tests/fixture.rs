//! A service with its own store, and the calls of a client.

use std::{sync::Arc, time::Duration};

use drystone::{
    auth::v1::{
        GetJwksRequest, RefreshRequest, RefreshResponse, RegisterRequest, RegisterResponse, SignInRequest,
        SignOutRequest, auth_service_server::AuthService, key_service_server::KeyService,
    },
    user::v1::User,
};
use drystone_mesh::{
    call::{Call, CallFields, Client, new_request_id},
    clock::Clock,
    identity::SpiffeId,
    limit::LimiterFactory,
    telemetry::{Metrics, TraceContext},
    token::{KeySet, Principal, PublicKey, RevocationView, TokenVerifier, TokenVerifierConfig},
};
use drystone_store::{
    Db,
    sealing::{MasterKeys, Sealer},
};
use tempfile::TempDir;
use tonic::{Request, Response, Status};

use super::fake::FakeUpstreams;
use crate::{
    AUDIENCE, AttemptLimits, AuthStore, Config, MIGRATIONS, Service, ServiceOptions,
    config::{HashingConfig, PasswordConfig},
};

pub(super) const ISSUER: &str = "https://id.example.com";
pub(super) const EMAIL: &str = "ada@example.com";
pub(super) const PASSWORD: &str = "correct horse";

pub(super) struct Fixture {
    pub(super) service: Service,
    pub(super) upstreams: Arc<FakeUpstreams>,
    pub(super) store: AuthStore,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) directory: Arc<TempDir>,
    /// What the session service has revoked.
    pub(super) revocations: RevocationView,
}

/// The same master key each time, as for restarts.
pub(super) fn sealer() -> Sealer {
    let keys = MasterKeys::parse("test AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    Sealer::new(Arc::new(keys))
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let clock = Clock::manual(Clock::system().now());
        let upstreams = Arc::new(FakeUpstreams::new(clock.clone()));
        Self::start(Arc::new(TempDir::new().unwrap()), upstreams, clock, fast_hashing(), None).await
    }

    /// A service that allows so many sign-ins per minute and account, address and device, and refreshes per session.
    pub(super) async fn limited(sign_ins: u32) -> Self {
        let Self { upstreams, clock, directory, .. } = Self::new().await;
        Self::start(directory, upstreams, clock, fast_hashing(), Some(sign_ins)).await
    }

    /// Restarts the service with another configuration.
    pub(super) async fn restart(self, config: Config) -> Self {
        let Self { upstreams, clock, directory, .. } = self;
        Self::start(directory, upstreams, clock, config, None).await
    }

    async fn start(
        directory: Arc<TempDir>,
        upstreams: Arc<FakeUpstreams>,
        clock: Clock,
        config: Config,
        attempts: Option<u32>,
    ) -> Self {
        let metrics = Metrics::default();
        let attempts = attempts.map_or_else(AttemptLimits::none, |sign_ins| {
            AttemptLimits::new(&LimiterFactory::in_process(&metrics), sign_ins, sign_ins)
        });
        let revocations = RevocationView::new(clock.clone());
        let db = Db::open(&directory.path().join("auth.db"), MIGRATIONS).await.unwrap();
        let store: AuthStore = AuthStore::new(db);
        let service = Service::assemble(
            store.clone(),
            sealer(),
            Arc::clone(&upstreams) as _,
            ServiceOptions {
                clock: clock.clone(),
                metrics: &metrics,
                attempts,
                config: &config,
                issuer: ISSUER.to_owned(),
                public_url: "http://127.0.0.1:8080",
                withdrawn_keys: revocations.withdrawn_keys().clone(),
            },
        )
        .await
        .unwrap();
        Self { service, upstreams, store, clock, metrics, directory, revocations }
    }

    pub(super) async fn register(&self, email: &str, password: &str, request_id: &str) -> Result<User, Status> {
        self.register_as("Ada", email, password, request_id).await
    }

    /// Registers with this display name.
    pub(super) async fn register_as(
        &self,
        display_name: &str,
        email: &str,
        password: &str,
        request_id: &str,
    ) -> Result<User, Status> {
        let request = RegisterRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            display_name: display_name.to_owned(),
            request_id: request_id.to_owned(),
        };
        let response = self.service.auth.register(from_outside(request, None)).await?;
        Ok(response.into_inner().user.unwrap())
    }

    /// Registers where addresses have to be verified: the response tells nothing else.
    pub(super) async fn register_unverified(&self, email: &str, password: &str) -> Result<(), Status> {
        let request = RegisterRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            display_name: "Ada".to_owned(),
            request_id: String::new(),
        };
        let response = self.service.auth.register(from_outside(request, None)).await?.into_inner();
        assert_eq!(response, RegisterResponse { user: None, verification_required: true });
        Ok(())
    }

    /// A service with an account that can sign in.
    pub(super) async fn with_account() -> Self {
        let fixture = Self::new().await;
        fixture.register(EMAIL, PASSWORD, "").await.unwrap();
        fixture.upstreams.state().calls.clear();
        fixture
    }

    /// Signs in; the response has all fields.
    pub(super) async fn sign_in(&self, email: &str, password: &str) -> Result<Response<RefreshResponse>, Status> {
        let request =
            SignInRequest { email: email.to_owned(), password: password.to_owned(), ..SignInRequest::default() };
        let response = self.service.auth.sign_in(from_outside(request, None)).await?;
        Ok(response.map(|response| RefreshResponse {
            access_token: response.access_token.unwrap(),
            refresh_token: response.refresh_token.unwrap(),
            expires_in: response.expires_in.unwrap(),
            token_type: response.token_type.unwrap(),
            session_id: response.session_id.unwrap(),
            user_id: response.user_id.unwrap(),
        }))
    }

    /// Signs in from this address with a device token; returns the new one.
    pub(super) async fn sign_in_on(&self, address: &str, password: &str, device_token: &str) -> Result<String, Status> {
        let device_token = device_token.to_owned();
        let request = SignInRequest { email: EMAIL.to_owned(), password: password.to_owned(), device_token };
        let response = self.service.auth.sign_in(from_address(address, request, None)).await?;
        Ok(response.into_inner().device_token.unwrap())
    }

    pub(super) async fn sign_in_from(&self, address: &str, email: &str, password: &str) -> Result<(), Status> {
        let request =
            SignInRequest { email: email.to_owned(), password: password.to_owned(), ..SignInRequest::default() };
        self.service.auth.sign_in(from_address(address, request, None)).await.map(drop)
    }

    pub(super) async fn refresh(&self, token: &str) -> Result<Response<RefreshResponse>, Status> {
        self.service.auth.refresh(from_outside(RefreshRequest { refresh_token: token.to_owned() }, None)).await
    }

    pub(super) async fn sign_out(&self, principal: Option<Arc<Principal>>) -> Result<(), Status> {
        self.service.auth.sign_out(from_outside(SignOutRequest {}, principal)).await.map(drop)
    }

    /// Verifies a token as mesh does, with the published keys of this service.
    pub(super) async fn verify(&self, jwt: &str) -> Arc<Principal> {
        let keys = KeySet::new();
        keys.replace(self.jwks().await.iter().map(|jwk| PublicKey::from_jwk(jwk).unwrap()).collect());
        let config = TokenVerifierConfig::new(ISSUER, AUDIENCE);
        let view = RevocationView::new(self.clock.clone());
        view.apply(&[]);
        TokenVerifier::new(config, keys, view, self.clock.clone()).verify(jwt).unwrap()
    }

    pub(super) async fn jwks(&self) -> Vec<drystone::auth::v1::Jwk> {
        self.service.keys.get_jwks(Request::new(GetJwksRequest {})).await.unwrap().into_inner().keys
    }

    /// Whether the metrics have exactly this line.
    pub(super) fn has_metric(&self, expected: &str) -> bool {
        self.metrics.render().lines().any(|line| line == expected)
    }
}

/// A configuration with fast hashes.
pub(super) fn fast_hashing() -> Config {
    Config {
        password: PasswordConfig { memory_kib: 64, iterations: 1, parallelism: 1 },
        hashing: HashingConfig { threads: 2, queue_per_thread: 64 },
        property_claims_timeout: drystone_mesh::config::ConfigDuration::millis(50),
        ..Config::default()
    }
}

pub(super) fn from_outside<T>(message: T, principal: Option<Arc<Principal>>) -> Request<T> {
    from_address("192.0.2.7", message, principal)
}

/// A call of the operator, without a token.
pub(super) fn as_operator<T>(message: T) -> Request<T> {
    request_of(Some("spiffe://drystone.local/service/operator".parse().unwrap()), "", message, None)
}

/// A call of a client at this address; empty for a call that did not come through an entry point.
fn from_address<T>(address: &str, message: T, principal: Option<Arc<Principal>>) -> Request<T> {
    request_of(None, address, message, principal)
}

fn request_of<T>(caller: Option<SpiffeId>, address: &str, message: T, principal: Option<Arc<Principal>>) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Call::new(CallFields {
        request_id: new_request_id(),
        trace: TraceContext::new_root(),
        deadline: Some(std::time::Instant::now() + Duration::from_secs(20)),
        caller,
        principal,
        authorization: None,
        client: Client { address: address.to_owned(), agent: "test".to_owned() },
    }));
    request
}
