//! A server with handlers that follow commands, and callers of every kind.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use drystone::auth::v1::{AuthorizationServerMetadata, GetDiscoveryRequest, key_service_server::KeyServiceServer};
use drystone::contract::Contracts;
use drystone::user::v1::{
    LookUpForSignInRequest, LookUpForSignInResponse, ProvisionUserRequest, User, look_up_for_sign_in_request::Key,
    user_service_client::UserServiceClient, user_service_server::UserServiceServer,
};
use drystone_mesh::{
    access::ShadowRules,
    call::Call,
    client::{Channel, Dialer, DialerConfig, Peers},
    clock::{Clock, Timestamp},
    health::Health,
    identity::{Authority, Identity, IssueOptions, TrustDomain},
    limit::ClassLimits,
    node::Node,
    server::{Server, ServerLimits},
    telemetry::Metrics,
    token::{KeySet, RevocationView, TokenVerifier, TokenVerifierConfig},
};
use drystone_tests::PartialService;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Extensions, Request, Response, Status, metadata::MetadataMap};

/// A fake account lookup that takes the e-mail address as a command.
#[derive(Default)]
pub struct CommandHandlers {
    /// Notified when a call waits.
    pub waiting: Notify,
    /// Releases waiting calls.
    pub release: Notify,
    /// The outcome of the command `outcome`.
    pub outcome: Mutex<Option<Result<MetadataMap, Status>>>,
}

impl CommandHandlers {
    async fn look_up(
        &self,
        request: Request<LookUpForSignInRequest>,
    ) -> Result<Response<LookUpForSignInResponse>, Status> {
        let call = Call::of(&request)?;
        let command = match request.into_inner().key {
            Some(Key::Email(command)) => command,
            _ => String::new(),
        };
        let mut metadata = MetadataMap::new();
        let roles = match command.as_str() {
            "wait" => {
                self.waiting.notify_one();
                self.release.notified().await;
                Vec::new()
            }
            "panic" => panic!("as requested"),
            "large" => vec!["a role".repeat(100); 1000],
            "outcome" => {
                metadata = self.outcome.lock().unwrap().take().expect("an outcome is set")?;
                Vec::new()
            }
            _ => describe(&call),
        };
        let message = LookUpForSignInResponse {
            user_id: String::new(),
            roles,
            permissions: Vec::new(),
            expire_time: None,
            status: 0,
            email_verified: false,
        };
        Ok(Response::from_parts(metadata, message, Extensions::default()))
    }
}

fn user_service(handlers: Arc<CommandHandlers>) -> PartialService<UserServiceServer<()>> {
    PartialService::new()
        .unary("LookUpForSignIn", move |request: Request<LookUpForSignInRequest>| {
            let handlers = Arc::clone(&handlers);
            async move { handlers.look_up(request).await }
        })
        // Returns the name twice, so that a valid request can have a response that violates the contract.
        .unary("ProvisionUser", |request: Request<ProvisionUserRequest>| async {
            let display_name = request.into_inner().display_name.repeat(2);
            Ok(Response::new(User { display_name, ..User::default() }))
        })
}

/// Returns the remaining time of a call in microseconds as the issuer: the contract has a deadline policy.
fn key_service() -> PartialService<KeyServiceServer<()>> {
    PartialService::new().unary("GetDiscovery", |request: Request<GetDiscoveryRequest>| async move {
        let issuer = describe(&Call::of(&request)?).swap_remove(2);
        Ok(Response::new(AuthorizationServerMetadata { issuer, ..AuthorizationServerMetadata::default() }))
    })
}

/// The call in a handler: request id, trace id, remaining microseconds, caller, client address.
fn describe(call: &Call) -> Vec<String> {
    let fields = call.fields();
    let left = fields.deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
    vec![
        fields.request_id.to_str().unwrap_or_default().to_owned(),
        fields.trace.trace_id().to_string(),
        left.unwrap_or_default().as_micros().to_string(),
        fields.caller.as_ref().map(ToString::to_string).unwrap_or_default(),
        fields.client.address.clone(),
    ]
}

/// A running server, and what is needed to call it.
pub struct TestServer {
    pub authority: Authority,
    /// The server's identity.
    pub own: Identity,
    pub address: SocketAddr,
    pub metrics: Metrics,
    pub health: Health,
    pub handlers: Arc<CommandHandlers>,
    pub stop: CancellationToken,
    pub running: JoinHandle<std::io::Result<()>>,
    tasks: TaskTracker,
    _folder: TempDir,
}

impl TestServer {
    pub async fn new() -> Self {
        Self::with(|limits| limits).await
    }

    /// A server of the workload `user` with these bounds.
    pub async fn with(bounds: impl FnOnce(ServerLimits) -> ServerLimits) -> Self {
        Self::build(bounds, Clock::system(), None).await
    }

    /// The same with this clock, and a certificate that ends then.
    pub async fn build(
        bounds: impl FnOnce(ServerLimits) -> ServerLimits,
        clock: Clock,
        not_after: Option<Timestamp>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let domain: TrustDomain = "drystone.local".parse().unwrap();
        let authority = Authority::open_or_create(folder.path(), &domain, Clock::system()).unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let handlers = Arc::new(CommandHandlers::default());
        let options = IssueOptions { not_after, ..IssueOptions::new("user") };
        let own = Identity::load(&authority.issue_with(&options).unwrap()).unwrap();
        let node = node(own.clone(), clock, Peers::new(), &stop, &tasks);
        let (metrics, health) = (node.metrics.clone(), node.health.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(&node)
            .unwrap()
            .limits(bounds(ServerLimits { drain_timeout: Duration::from_secs(5), ..ServerLimits::default() }))
            .add_service(user_service(handlers.clone()))
            .add_service(key_service());
        let running = tokio::spawn(server.run(listener, stop.clone()));
        Self { authority, own, address, metrics, health, handlers, stop, running, tasks, _folder: folder }
    }

    /// A new identity of `workload`.
    pub fn identity(&self, workload: &str) -> Identity {
        Identity::load(&self.authority.issue(workload).unwrap()).unwrap()
    }

    /// A channel from `workload` to the address of the server, which is expected to be `service`.
    pub fn channel(&self, workload: &'static str, service: &str) -> Channel {
        let identity = self.identity(workload);
        let peers = Peers::from([(service.to_owned(), vec![self.address.to_string()].into())]);
        dialer(workload, identity, peers, &self.stop, &self.tasks).channel(service).unwrap()
    }

    /// A client as the workload `auth` of this identity, by this clock.
    pub fn client_with(&self, identity: Identity, clock: Clock) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel_with(identity, clock))
    }

    /// A channel of the same.
    pub fn channel_with(&self, identity: Identity, clock: Clock) -> Channel {
        let peers = Peers::from([("user".to_owned(), vec![self.address.to_string()].into())]);
        let config = dialer_config("auth", identity, clock, peers, &self.stop, &self.tasks);
        Dialer::new(config).channel("user").unwrap()
    }

    /// A client as `workload`.
    pub fn client(&self, workload: &'static str) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel(workload, "user"))
    }
}

fn node(identity: Identity, clock: Clock, peers: Peers, stop: &CancellationToken, tasks: &TaskTracker) -> Node {
    let health = Health::new();
    let revocations = RevocationView::new(clock.clone());
    let tokens = TokenVerifierConfig::new("https://mesh.example", "drystone");
    Node {
        name: "user",
        verifier: TokenVerifier::new(tokens, KeySet::new(), revocations, clock.clone()),
        dialer: dialer("user", identity.clone(), peers, stop, tasks),
        identity,
        contracts: contracts(),
        limits: ClassLimits::default(),
        server_limits: ServerLimits::default(),
        shadow_rules: ShadowRules::default(),
        clock,
        metrics: Metrics::new(&contracts()),
        health,
        stop: stop.clone(),
        tasks: tasks.clone(),
    }
}

fn dialer(
    caller: &'static str,
    identity: Identity,
    peers: Peers,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Dialer {
    Dialer::new(dialer_config(caller, identity, Clock::system(), peers, stop, tasks))
}

fn dialer_config(
    caller: &'static str,
    identity: Identity,
    clock: Clock,
    peers: Peers,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> DialerConfig {
    let (health, metrics) = (Health::new(), Metrics::new(&contracts()));
    DialerConfig {
        caller,
        contracts: contracts(),
        clock,
        identity,
        peers,
        health,
        metrics,
        tasks: tasks.clone(),
        stop: stop.clone(),
    }
}

/// An order to the handler.
pub fn order(text: &str) -> LookUpForSignInRequest {
    use drystone::user::v1::look_up_for_sign_in_request::Key;

    LookUpForSignInRequest { key: Some(Key::Email(text.to_owned())) }
}

fn contracts() -> Contracts {
    drystone::contracts().unwrap()
}
