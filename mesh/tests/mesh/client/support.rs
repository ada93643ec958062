//! Several instances of a service behind TCP proxies that a test can close, and a caller of all of them.

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
    RotateSessionRequest, RotateSessionResponse, session_service_client::SessionServiceClient,
    session_service_server::SessionServiceServer,
};
use drystone::user::v1::{
    LookUpForSignInRequest, LookUpForSignInResponse, look_up_for_sign_in_request::Key,
    user_service_client::UserServiceClient, user_service_server::UserServiceServer,
};
use drystone_mesh::{
    access::ShadowRules,
    client::{Channel, Dialer, DialerConfig, Peer, Peers},
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
use drystone_tests::PartialService;
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinHandle},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

pub const BOUND: Duration = Duration::from_secs(20);

/// What an instance does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Answer,
    Refuse,
    /// Says that it has started, and then nothing more.
    Hang,
    /// Answers when it is released.
    Wait,
}

/// An instance's handlers.
pub struct Handlers {
    name: &'static str,
    behaviour: Mutex<Behaviour>,
    /// The number of started calls.
    started: AtomicU32,
    pub hanging: Notify,
    /// Releases the waiting calls.
    pub released: Notify,
}

impl Handlers {
    pub fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub fn started(&self) -> u32 {
        self.started.load(Ordering::Relaxed)
    }

    async fn handle(&self) -> Result<(), Status> {
        let released = self.released.notified();
        self.started.fetch_add(1, Ordering::Relaxed);
        let behaviour = *self.behaviour.lock().unwrap();
        match behaviour {
            Behaviour::Answer => Ok(()),
            Behaviour::Wait => {
                released.await;
                Ok(())
            }
            Behaviour::Refuse => Err(Error::unavailable("the database", "as requested").into()),
            Behaviour::Hang => {
                self.hanging.notify_one();
                std::future::pending().await
            }
        }
    }
}

/// One instance, server a TCP proxy that the test can cut.
pub struct Instance {
    pub handlers: Arc<Handlers>,
    /// The address of the proxy, where it is called.
    pub address: SocketAddr,
    server: SocketAddr,
    proxy: Option<AbortHandle>,
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
    /// Closes the listener and all connections at once.
    pub fn close(&mut self) {
        self.proxy.take().unwrap().abort();
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// The number of accepted connections.
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// Aborts all connections; new ones are accepted.
    pub fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Listens again at the same address.
    pub async fn open(&mut self) {
        let listener = loop {
            // The port is free when the aborted task has ended.
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.proxy = Some(proxy(listener, self.server, self.connections.clone()));
    }

    /// Stops gracefully, as a service does after a signal.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap().unwrap();
        self.close();
    }
}

fn proxy(listener: TcpListener, server: SocketAddr, connections: Arc<Mutex<Vec<AbortHandle>>>) -> AbortHandle {
    let accepting = async move {
        loop {
            let Ok((mut client, _)) = listener.accept().await else { return };
            let connection = tokio::spawn(async move {
                // A stopped server is unreachable, as without a proxy.
                let Ok(mut inside) = TcpStream::connect(server).await else { return };
                inside.set_nodelay(true).unwrap();
                client.set_nodelay(true).unwrap();
                let _ = copy_bidirectional(&mut client, &mut inside).await;
            });
            connections.lock().unwrap().push(connection.abort_handle());
        }
    };
    tokio::spawn(accepting).abort_handle()
}

/// Instances of `user`, and a caller.
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
        let addresses: Vec<String> = instances.iter().map(|instance| instance.address.to_string()).collect();
        let caller = identity("auth");
        let dialer = dialer("auth", caller.clone(), addresses.into(), &health, &metrics, &stop);
        let channel = dialer.dependency("user", Kind::Optional).unwrap();
        Self { instances, health, metrics, channel, stop, caller, authority, _folder: folder }
    }

    /// Replaces the caller's certificate.
    pub fn renew_caller(&self) {
        self.caller.replace(self.authority.issue("auth").unwrap().read().unwrap()).unwrap();
    }

    /// Calls this address instead.
    pub fn call_at(&mut self, place: String) {
        self.call_peer(vec![place].into());
    }

    /// Calls this peer instead.
    pub fn call_peer(&mut self, peer: Peer) {
        self.health = Health::new();
        let dialer = dialer("auth", self.caller.clone(), peer, &self.health, &self.metrics, &self.stop);
        self.channel = dialer.dependency("user", Kind::Optional).unwrap();
    }

    /// An idempotent call. Returns the name of the instance.
    pub async fn read(&self) -> Result<String, Status> {
        self.read_with(&[]).await
    }

    /// The same with these metadata.
    pub async fn read_with(&self, metadata: &[(&'static str, &'static str)]) -> Result<String, Status> {
        let key = Some(Key::Email("ada@example.com".to_owned()));
        let mut request = Request::new(LookUpForSignInRequest { key });
        for (name, value) in metadata {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        UserServiceClient::new(self.channel.clone())
            .look_up_for_sign_in(request)
            .await
            .map(|answer| answer.into_inner().roles.swap_remove(0))
    }

    /// A call that is not idempotent.
    pub async fn write(&self) -> Result<(), Status> {
        let request = RotateSessionRequest {
            session_id: Uuid::now_v7().to_string(),
            counter: 1,
            ..RotateSessionRequest::default()
        };
        SessionServiceClient::new(self.channel.clone()).rotate_session(request).await.map(drop)
    }

    /// Waits until the health report of `user` matches.
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

pub fn is_unavailable(answer: &Result<(), Status>) -> bool {
    answer.as_ref().is_err_and(|status| status.code() == Code::Unavailable)
}

fn dialer(
    caller: &'static str,
    identity: Identity,
    users: Peer,
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
        dialer: dialer("user", identity.clone(), Peer::default(), &health, &metrics, &stop),
        identity,
        contracts: contracts(),
        limits: ClassLimits::default(),
        server_limits: ServerLimits::default(),
        shadow_rules: ShadowRules::default(),
        clock,
        metrics,
        health,
        stop: stop.clone(),
        tasks: TaskTracker::new(),
    };
    let handlers = Arc::new(Handlers {
        name,
        behaviour: Mutex::new(Behaviour::Answer),
        started: AtomicU32::new(0),
        hanging: Notify::new(),
        released: Notify::new(),
    });
    let server = Server::new(&node)
        .unwrap()
        .limits(ServerLimits { drain_timeout: Duration::from_secs(5), ..ServerLimits::default() })
        .add_service(user_service(handlers.clone()))
        .add_service(session_service(handlers.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server_address = listener.local_addr().unwrap();
    let running = tokio::spawn(server.run(listener, stop.clone()));
    let proxied = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, connections) = (proxied.local_addr().unwrap(), Arc::default());
    let proxy = Some(proxy(proxied, server_address, Arc::clone(&connections)));
    Instance { handlers, address, server: server_address, proxy, connections, stop, running: Some(running) }
}

fn user_service(handlers: Arc<Handlers>) -> PartialService<UserServiceServer<()>> {
    PartialService::new().unary("LookUpForSignIn", move |_: Request<LookUpForSignInRequest>| {
        let handlers = Arc::clone(&handlers);
        async move {
            handlers.handle().await?;
            let roles = vec![handlers.name.to_owned()];
            Ok(Response::new(LookUpForSignInResponse {
                user_id: String::new(),
                roles,
                permissions: Vec::new(),
                expire_time: None,
                status: 0,
                email_verified: false,
            }))
        }
    })
}

fn session_service(handlers: Arc<Handlers>) -> PartialService<SessionServiceServer<()>> {
    PartialService::new().unary("RotateSession", move |_: Request<RotateSessionRequest>| {
        let handlers = Arc::clone(&handlers);
        async move {
            handlers.handle().await?;
            Ok(Response::new(RotateSessionResponse::default()))
        }
    })
}

fn contracts() -> Contracts {
    drystone::contracts().unwrap()
}
