//! A fake session service with mutual TLS, which records whose tokens it voids.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use drystone::session::v1::{
    ListSessionsRequest, ListSessionsResponse, RevokeAllSessionsRequest, RevokeAllSessionsResponse,
    RevokeSessionRequest, RotateSessionRequest, RotateSessionResponse, StartSessionRequest, StartSessionResponse,
    VoidTokensRequest, VoidTokensResponse, WatchRevocationsRequest, WatchRevocationsResponse,
    session_service_client::SessionServiceClient,
    session_service_server::{SessionService, SessionServiceServer},
};
use drystone_mesh::{
    client::{Channel, Dialer, DialerConfig},
    clock::Clock,
    health::Health,
    identity::{Authority, Identity},
    server::acceptor::{AcceptLimits, accept_peers},
    telemetry::Metrics,
};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream, transport::Server};

/// A fake session service. It is unavailable until it is started.
pub struct FakeSessionService {
    /// The client for the user service.
    pub client: SessionServiceClient<Channel>,
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
            peers: HashMap::from([("session".to_owned(), vec![address.to_string()])]),
            health: Health::new(),
            metrics: Metrics::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        let client = SessionServiceClient::new(dialer.channel("session").unwrap());
        Self { client, voided: Arc::default(), authority, socket: Some(socket), stop, _directory: directory }
    }

    /// Starts the server.
    pub fn start(&mut self) {
        let identity = Identity::load(&self.authority.issue("session").unwrap()).unwrap();
        let listener = self.socket.take().expect("it starts once").listen(16).unwrap();
        let connections = accept_peers(listener, identity, AcceptLimits::default(), |_| {}, self.stop.clone());
        let service = SessionServiceServer::new(VoidedTokens(self.voided.clone()));
        tokio::spawn(Server::builder().serve_with_incoming(service, connections));
    }
}

impl Drop for FakeSessionService {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct VoidedTokens(Arc<Mutex<Vec<String>>>);

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not used by these tests"))
}

#[tonic::async_trait]
impl SessionService for VoidedTokens {
    type WatchRevocationsStream = BoxStream<WatchRevocationsResponse>;

    async fn void_tokens(&self, request: Request<VoidTokensRequest>) -> Result<Response<VoidTokensResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner().user_id);
        Ok(Response::new(VoidTokensResponse {}))
    }

    async fn start_session(&self, _: Request<StartSessionRequest>) -> Result<Response<StartSessionResponse>, Status> {
        unused()
    }

    async fn rotate_session(
        &self,
        _: Request<RotateSessionRequest>,
    ) -> Result<Response<RotateSessionResponse>, Status> {
        unused()
    }

    async fn list_sessions(&self, _: Request<ListSessionsRequest>) -> Result<Response<ListSessionsResponse>, Status> {
        unused()
    }

    async fn revoke_session(&self, _: Request<RevokeSessionRequest>) -> Result<Response<()>, Status> {
        unused()
    }

    async fn revoke_all_sessions(
        &self,
        _: Request<RevokeAllSessionsRequest>,
    ) -> Result<Response<RevokeAllSessionsResponse>, Status> {
        unused()
    }

    async fn watch_revocations(
        &self,
        _: Request<Streaming<WatchRevocationsRequest>>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        unused()
    }
}
