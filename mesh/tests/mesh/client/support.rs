//! Several instances of one service, each behind a door that can be slammed, and a caller that knows them all.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use drystone::contract::Contracts;
use drystone::session::v1::{
    ListSessionsRequest, ListSessionsResponse, RevokeAllSessionsRequest, RevokeAllSessionsResponse,
    RevokeSessionRequest, RotateSessionRequest, RotateSessionResponse, StartSessionRequest, StartSessionResponse,
    VoidTokensRequest, VoidTokensResponse, WatchRevocationsRequest, WatchRevocationsResponse,
    session_service_client::SessionServiceClient,
    session_service_server::{SessionService, SessionServiceServer},
};
use drystone::user::v1::{
    GetMeRequest, GetUserRequest, ListUsersRequest, ListUsersResponse, LookUpForSignInRequest, LookUpForSignInResponse,
    ProvisionUserRequest, SetUserRolesRequest, UpdateUserRequest, User,
    look_up_for_sign_in_request::Key,
    user_service_client::UserServiceClient,
    user_service_server::{UserService, UserServiceServer},
};
use drystone_mesh::{
    client::{Channel, Dialer, DialerConfig, Peers},
    clock::Clock,
    error::Error,
    health::{Health, Kind},
    identity::{Authority, Identity, TrustDomain},
    limit::ClassLimits,
    node::Node,
    server::{Server, ServerLimits},
    telemetry::Metrics,
    token::{KeySet, RevocationView, TokenVerifier, TokenVerifierConfig},
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinHandle},
};
use tokio_stream::Empty;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, Streaming};
use uuid::Uuid;

pub const BOUND: Duration = Duration::from_secs(20);

/// What an instance does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Answer,
    Refuse,
    /// Says that it has begun, and then nothing more.
    Hang,
}

/// An instance's handlers.
pub struct Handlers {
    name: &'static str,
    mood: Mutex<Mood>,
    /// Calls that have begun.
    begun: AtomicU32,
    pub hanging: Notify,
}

impl Handlers {
    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    async fn handle(&self) -> Result<(), Status> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Answer => Ok(()),
            Mood::Refuse => Err(Error::unavailable("the database", "as ordered").into()),
            Mood::Hang => {
                self.hanging.notify_one();
                std::future::pending().await
            }
        }
    }
}

/// One instance, and the door in front of it.
pub struct Instance {
    pub handlers: Arc<Handlers>,
    /// Where it is called: at the door.
    pub address: SocketAddr,
    behind: SocketAddr,
    door: Option<AbortHandle>,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    stop: CancellationToken,
    running: Option<JoinHandle<std::io::Result<()>>>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Instance {
    /// Nobody is there any more, from one moment to the next.
    pub fn slam(&mut self) {
        self.door.take().unwrap().abort();
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// What is under way is cut, and whoever comes is let in again.
    pub fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Somebody is there again, at the same address.
    pub async fn open(&mut self) {
        let listener = loop {
            // The port is free as soon as the aborted task is gone.
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.door = Some(door(listener, self.behind, self.connections.clone()));
    }

    /// Stops as a service does that is told to.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap().unwrap();
        self.slam();
    }
}

fn door(listener: TcpListener, behind: SocketAddr, connections: Arc<Mutex<Vec<AbortHandle>>>) -> AbortHandle {
    let accepting = async move {
        loop {
            let Ok((mut outside, _)) = listener.accept().await else { return };
            let connection = tokio::spawn(async move {
                // A server that has stopped is reached no more, as if there were no door.
                let Ok(mut inside) = TcpStream::connect(behind).await else { return };
                inside.set_nodelay(true).unwrap();
                outside.set_nodelay(true).unwrap();
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            });
            connections.lock().unwrap().push(connection.abort_handle());
        }
    };
    tokio::spawn(accepting).abort_handle()
}

/// Some instances of `user`, and a caller.
pub struct Fleet {
    pub instances: Vec<Instance>,
    pub health: Health,
    pub metrics: Metrics,
    pub channel: Channel,
    pub stop: CancellationToken,
    caller: Identity,
    authority: Authority,
    _folder: TempDir,
}

impl Fleet {
    pub async fn new<const N: usize>(names: [&'static str; N]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let domain: TrustDomain = "drystone.local".parse().unwrap();
        let authority = Authority::open_or_create(folder.path(), &domain, Clock::system()).unwrap();
        let identity = |name| Identity::load(&authority.issue(name).unwrap()).unwrap();
        let mut instances = Vec::new();
        for name in names {
            instances.push(instance(name, identity("user")).await);
        }
        let (health, metrics, stop) = (Health::new(), Metrics::new(&contracts()), CancellationToken::new());
        let addresses = instances.iter().map(|instance| instance.address.to_string()).collect();
        let caller = identity("auth");
        let dialer = dialer("auth", caller.clone(), addresses, &health, &metrics, &stop);
        let channel = dialer.dependency("user", Kind::Optional).unwrap();
        Self { instances, health, metrics, channel, stop, caller, authority, _folder: folder }
    }

    /// Gives the caller a new certificate in the place of its own.
    pub fn renew_caller(&self) {
        self.caller.replace(&self.authority.issue("auth").unwrap()).unwrap();
    }

    /// Tells the caller of this place instead.
    pub fn tell_of(&mut self, place: String) {
        self.health = Health::new();
        let dialer = dialer("auth", self.caller.clone(), vec![place], &self.health, &self.metrics, &self.stop);
        self.channel = dialer.dependency("user", Kind::Optional).unwrap();
    }

    /// Reads; may be sent again. Answers who answered.
    pub async fn read(&self) -> Result<String, Status> {
        let request = LookUpForSignInRequest { key: Some(Key::Email("ada@example.com".to_owned())) };
        UserServiceClient::new(self.channel.clone())
            .look_up_for_sign_in(request)
            .await
            .map(|answer| answer.into_inner().roles.swap_remove(0))
    }

    /// Writes; may not be sent again once it has begun.
    pub async fn write(&self) -> Result<(), Status> {
        let request = RotateSessionRequest { session_id: Uuid::now_v7().to_string(), counter: 1 };
        SessionServiceClient::new(self.channel.clone()).rotate_session(request).await.map(drop)
    }

    /// Waits until the health report says this of `user`.
    pub async fn until_reported(&self, what: impl Fn(&drystone_mesh::health::ComponentReport) -> bool) {
        let reported = async {
            while !what(&self.health.report().components["auth -> user"]) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let in_time = tokio::time::timeout(BOUND, reported).await;
        assert!(in_time.is_ok(), "{:?}", self.health.report());
    }

    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn is_away(answer: &Result<(), Status>) -> bool {
    answer.as_ref().is_err_and(|status| status.code() == Code::Unavailable)
}

fn dialer(
    caller: &'static str,
    identity: Identity,
    users: Vec<String>,
    health: &Health,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Dialer {
    Dialer::new(DialerConfig {
        contracts: contracts(),
        clock: Clock::system(),
        caller,
        identity,
        peers: Peers::from([("user".to_owned(), users)]),
        health: health.clone(),
        metrics: metrics.clone(),
        tasks: TaskTracker::new(),
        stop: stop.clone(),
    })
}

async fn instance(name: &'static str, identity: Identity) -> Instance {
    let (clock, health, metrics, stop) =
        (Clock::system(), Health::new(), Metrics::new(&contracts()), CancellationToken::new());
    let tokens = TokenVerifierConfig::new("https://mesh.example", "drystone");
    let revocations = RevocationView::new(clock.clone());
    let node = Node {
        name: "user",
        verifier: TokenVerifier::new(tokens, KeySet::new(), revocations, clock.clone()),
        dialer: dialer("user", identity.clone(), Vec::new(), &health, &metrics, &stop),
        identity,
        contracts: contracts(),
        limits: ClassLimits::default(),
        clock,
        metrics,
        health,
        stop: stop.clone(),
        tasks: TaskTracker::new(),
    };
    let handlers =
        Arc::new(Handlers { name, mood: Mutex::new(Mood::Answer), begun: AtomicU32::new(0), hanging: Notify::new() });
    let server = Server::new(&node)
        .unwrap()
        .limits(ServerLimits { drain: Duration::from_secs(5), ..ServerLimits::default() })
        .add_service(UserServiceServer::from_arc(handlers.clone()))
        .add_service(SessionServiceServer::from_arc(handlers.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = listener.local_addr().unwrap();
    let running = tokio::spawn(server.run(listener, stop.clone()));
    let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, connections) = (outside.local_addr().unwrap(), Arc::default());
    let door = Some(door(outside, behind, Arc::clone(&connections)));
    Instance { handlers, address, behind, door, connections, stop, running: Some(running) }
}

#[tonic::async_trait]
impl UserService for Handlers {
    async fn look_up_for_sign_in(
        &self,
        _: Request<LookUpForSignInRequest>,
    ) -> Result<Response<LookUpForSignInResponse>, Status> {
        self.handle().await?;
        let roles = vec![self.name.to_owned()];
        Ok(Response::new(LookUpForSignInResponse { user_id: String::new(), roles, permissions: Vec::new() }))
    }

    async fn set_user_roles(&self, _: Request<SetUserRolesRequest>) -> Result<Response<User>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn provision_user(&self, _: Request<ProvisionUserRequest>) -> Result<Response<User>, Status> {
        Err(Status::unimplemented(""))
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
}

/// Beside its own contract an instance serves one that has a call which may not be repeated.
#[tonic::async_trait]
impl SessionService for Handlers {
    type WatchRevocationsStream = Empty<Result<WatchRevocationsResponse, Status>>;

    async fn rotate_session(
        &self,
        _: Request<RotateSessionRequest>,
    ) -> Result<Response<RotateSessionResponse>, Status> {
        self.handle().await?;
        Ok(Response::new(RotateSessionResponse::default()))
    }

    async fn watch_revocations(
        &self,
        _: Request<Streaming<WatchRevocationsRequest>>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn start_session(&self, _: Request<StartSessionRequest>) -> Result<Response<StartSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_sessions(&self, _: Request<ListSessionsRequest>) -> Result<Response<ListSessionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn revoke_session(&self, _: Request<RevokeSessionRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn revoke_all_sessions(
        &self,
        _: Request<RevokeAllSessionsRequest>,
    ) -> Result<Response<RevokeAllSessionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn void_tokens(&self, _: Request<VoidTokensRequest>) -> Result<Response<VoidTokensResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn contracts() -> Contracts {
    drystone::contracts().unwrap()
}
