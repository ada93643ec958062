//! A fake session service with mutual TLS, which records whose tokens it voids.

use std::sync::{Arc, Mutex};

use drystone::session::v1::{VoidTokensRequest, VoidTokensResponse, session_service_server::SessionServiceServer};
use drystone_mesh::{
    client::{Channel, Dialer, DialerConfig},
    clock::Clock,
    health::Health,
    identity::{Authority, Identity},
    server::acceptor::{AcceptLimits, accept_peers},
    telemetry::Metrics,
};
use drystone_testing::PartialService;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, transport::Server};

/// A fake session service. It is unavailable until it is started.
pub struct FakeSessionService {
    dialer: Dialer,
    /// The users whose tokens were voided, in order.
    pub voided: Arc<Mutex<Vec<String>>>,
    authority: Authority,
    socket: Option<TcpSocket>,
    stop: CancellationToken,
    _directory: TempDir,
}

impl FakeSessionService {
    /// A service that is not started.
    pub fn unavailable() -> Self {
        let directory = TempDir::new().unwrap();
        let domain = "drystone.local".parse().unwrap();
        let authority = Authority::open_or_create(directory.path(), &domain, Clock::system()).unwrap();
        let identity = Identity::load(&authority.issue(drystone_user::NAME).unwrap()).unwrap();
        // Bound to reserve the port, but not listening: connections are refused.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = CancellationToken::new();
        let dialer = Dialer::new(DialerConfig {
            contracts: drystone::contracts().unwrap(),
            clock: Clock::system(),
            caller: drystone_user::NAME,
            identity,
            peers: ["session", "auth", "property", "notification"]
                .into_iter()
                .map(|name| (name.to_owned(), vec![address.to_string()].into()))
                .collect(),
            health: Health::new(),
            metrics: Metrics::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        Self { dialer, voided: Arc::default(), authority, socket: Some(socket), stop, _directory: directory }
    }

    /// A channel of the user service to this workload, which only `session` ever is.
    pub fn channel(&self, workload: &str) -> Channel {
        self.dialer.channel(workload).unwrap()
    }

    /// Starts the server.
    pub fn start(&mut self) {
        let identity = Identity::load(&self.authority.issue("session").unwrap()).unwrap();
        let listener = self.socket.take().expect("it starts once").listen(16).unwrap();
        let connections = accept_peers(listener, identity, AcceptLimits::default(), |_| {}, self.stop.clone());
        let voided = self.voided.clone();
        let service = PartialService::<SessionServiceServer<()>>::new().unary(
            "VoidTokens",
            move |request: Request<VoidTokensRequest>| {
                voided.lock().unwrap().push(request.into_inner().user_id);
                async { Ok(Response::new(VoidTokensResponse {})) }
            },
        );
        tokio::spawn(Server::builder().serve_with_incoming(service, connections));
    }
}

impl Drop for FakeSessionService {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
