//! A server of the mesh with handlers that do as they are told, and callers of every kind.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use drystone::auth::v1::{
    AuthorizationServerMetadata, GetDiscoveryRequest, GetJwksRequest, JwkSet,
    key_service_server::{KeyService, KeyServiceServer},
};
use drystone::contract::Contracts;
use drystone::user::v1::{
    GetMeRequest, GetUserRequest, ListUsersRequest, ListUsersResponse, LookUpForSignInRequest, LookUpForSignInResponse,
    ProvisionUserRequest, SetUserRolesRequest, UpdateUserRequest, User,
    user_service_client::UserServiceClient,
    user_service_server::{UserService, UserServiceServer},
};
use drystone_mesh::{
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
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};

/// Looks accounts up by e-mail address, and takes the address for an order.
pub struct Obedient {
    /// Calls that have begun to wait.
    pub waiting: Notify,
    /// Lets them go on.
    pub go_on: Notify,
}

#[tonic::async_trait]
impl UserService for Obedient {
    async fn look_up_for_sign_in(
        &self,
        request: Request<LookUpForSignInRequest>,
    ) -> Result<Response<LookUpForSignInResponse>, Status> {
        use drystone::user::v1::look_up_for_sign_in_request::Key;

        let call = Call::of(&request)?;
        let order = match request.into_inner().key {
            Some(Key::Email(order)) => order,
            _ => String::new(),
        };
        let said = match order.as_str() {
            "wait" => {
                self.waiting.notify_one();
                self.go_on.notified().await;
                Vec::new()
            }
            "panic" => panic!("as ordered"),
            _ => describe(&call),
        };
        Ok(Response::new(LookUpForSignInResponse { user_id: String::new(), roles: said, permissions: Vec::new() }))
    }

    /// Answers the name twice over, so that a valid request can have a response that breaks the contract.
    async fn provision_user(&self, request: Request<ProvisionUserRequest>) -> Result<Response<User>, Status> {
        let display_name = request.into_inner().display_name.repeat(2);
        Ok(Response::new(User { display_name, ..User::default() }))
    }

    async fn get_me(&self, _: Request<GetMeRequest>) -> Result<Response<User>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_user(&self, _: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_user(&self, _: Request<UpdateUserRequest>) -> Result<Response<User>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_users(&self, _: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn set_user_roles(&self, _: Request<SetUserRolesRequest>) -> Result<Response<User>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Answers how much time a call has, in microseconds, instead of an issuer: the contract bounds it by a policy.
#[tonic::async_trait]
impl KeyService for Obedient {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<JwkSet>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_discovery(
        &self,
        request: Request<GetDiscoveryRequest>,
    ) -> Result<Response<AuthorizationServerMetadata>, Status> {
        let issuer = describe(&Call::of(&request)?).swap_remove(2);
        Ok(Response::new(AuthorizationServerMetadata { issuer, ..AuthorizationServerMetadata::default() }))
    }
}

/// What a handler sees of a call: request id, trace id, microseconds left, caller, client's address.
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

/// A server that runs, and what is needed to call it.
pub struct World {
    pub authority: Authority,
    /// The server's identity.
    pub own: Identity,
    pub address: SocketAddr,
    pub metrics: Metrics,
    pub health: Health,
    pub handlers: Arc<Obedient>,
    pub stop: CancellationToken,
    pub running: JoinHandle<std::io::Result<()>>,
    tasks: TaskTracker,
    _folder: TempDir,
}

impl World {
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
        let handlers = Arc::new(Obedient { waiting: Notify::new(), go_on: Notify::new() });
        let options = IssueOptions { not_after, ..IssueOptions::new("user") };
        let own = Identity::load(&authority.issue_with(&options).unwrap()).unwrap();
        let node = node(own.clone(), clock, Peers::new(), &stop, &tasks);
        let (metrics, health) = (node.metrics.clone(), node.health.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(&node)
            .unwrap()
            .limits(bounds(ServerLimits { drain: Duration::from_secs(5), ..ServerLimits::default() }))
            .add_service(UserServiceServer::from_arc(handlers.clone()))
            .add_service(KeyServiceServer::from_arc(handlers.clone()));
        let running = tokio::spawn(server.run(listener, stop.clone()));
        Self { authority, own, address, metrics, health, handlers, stop, running, tasks, _folder: folder }
    }

    /// The identity of `workload`, with a certificate of its own.
    pub fn identity(&self, workload: &str) -> Identity {
        Identity::load(&self.authority.issue(workload).unwrap()).unwrap()
    }

    /// A channel as `workload`, to whoever is at our address and must be `service`.
    pub fn channel(&self, workload: &'static str, service: &str) -> Channel {
        let identity = self.identity(workload);
        let peers = Peers::from([(service.to_owned(), vec![self.address.to_string()])]);
        dialer(workload, identity, peers, &self.stop, &self.tasks).channel(service).unwrap()
    }

    /// A client as the workload `auth` of this identity, by this clock.
    pub fn client_with(&self, identity: Identity, clock: Clock) -> UserServiceClient<Channel> {
        let peers = Peers::from([("user".to_owned(), vec![self.address.to_string()])]);
        let config = dialer_config("auth", identity, clock, peers, &self.stop, &self.tasks);
        UserServiceClient::new(Dialer::new(config).channel("user").unwrap())
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
