//! The service over a socket: the RPCs, and watching revocations. Authorization is not tested here: an interceptor
//! replaces the server stack, and creates a call of the user that the test names.

mod sessions;
mod watch;

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::DateTime;
use drystone::session::v1::{
    EndUserSessionsRequest, ListSessionsRequest, RaiseSessionRequest, Revocation, RevokeAllSessionsRequest,
    RevokeSessionRequest, RotateSessionRequest, RotateSessionResponse, Session, StartSessionRequest, UserTokens,
    VoidKeyTokensRequest, VoidRoleTokensRequest, VoidTokensRequest, WatchRevocationsRequest, WatchRevocationsResponse,
    revocation::Scope, session_service_client::SessionServiceClient,
};
use drystone_mesh::{
    call::{Call, CallFields, Client, new_request_id},
    clock::Clock,
    config::ConfigDuration,
    error::{Reason, reason_of},
    telemetry::{Metrics, TraceContext},
    time::{from_proto, to_proto},
    token::Principal,
};
use drystone_session::{Config, Deps, MIGRATIONS, Service, SqlStore};
use drystone_store::{Db, run};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Request, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Server, server::TcpIncoming},
};
use uuid::Uuid;

/// The maximum duration of any step of a test.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A session service on a free port.
struct TestService {
    client: SessionServiceClient<Channel>,
    clock: Clock,
    metrics: Metrics,
    stop: CancellationToken,
    tasks: TaskTracker,
    server: JoinHandle<()>,
    db: Db,
}

impl TestService {
    async fn start(directory: &Path) -> Self {
        Self::start_with(directory, Config::default()).await
    }

    async fn start_with(directory: &Path, config: Config) -> Self {
        let clock = Clock::manual(DateTime::from_timestamp_micros(1_700_000_000_000_000).unwrap());
        let metrics = Metrics::default();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let db = Db::open(&directory.join("session.db"), MIGRATIONS).await.unwrap();
        let service = Service::new(Deps {
            config,
            store: Arc::new(SqlStore::new(db.clone())),
            clock: clock.clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().with_nodelay(Some(true));
        let address = incoming.local_addr().unwrap();
        let service = InterceptedService::new(service.into_server(), into_call);
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            Server::builder().serve_with_incoming_shutdown(service, incoming, stopped).await.unwrap();
        });
        let client = SessionServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self { client, clock, metrics, stop, tasks, server, db }
    }

    /// Shuts down like a process: streams must end without being aborted.
    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        timeout(TEST_TIMEOUT, self.tasks.wait()).await.expect("background tasks end");
        drop(self.client);
        timeout(TEST_TIMEOUT, self.server).await.expect("the server stops").unwrap();
        self.db.close().await;
    }

    async fn sign_in(&self, user: Uuid) -> Session {
        let request = StartSessionRequest {
            user_id: user.to_string(),
            device: "curl/8.5.0".to_owned(),
            address: "192.0.2.7".to_owned(),
            amr: Vec::new(),
        };
        let response = self.client.clone().start_session(request).await.unwrap().into_inner();
        assert_eq!(response.counter, 1);
        response.session.unwrap()
    }

    async fn rotate(&self, session: &Session, counter: u64) -> Result<RotateSessionResponse, Status> {
        let request =
            RotateSessionRequest { session_id: session.id.clone(), counter, ..RotateSessionRequest::default() };
        self.client.clone().rotate_session(request).await.map(tonic::Response::into_inner)
    }

    async fn list(&self, of: &Session) -> Vec<Session> {
        let request = as_user(of, ListSessionsRequest::default());
        self.client.clone().list_sessions(request).await.unwrap().into_inner().sessions
    }

    async fn revoke(&self, caller: &Session, id: &str) -> Result<(), Status> {
        let request = as_user(caller, RevokeSessionRequest { id: id.to_owned() });
        self.client.clone().revoke_session(request).await.map(drop)
    }

    async fn watch(&self, cursor: u64) -> TestWatcher {
        self.watch_as("auth", cursor).await.unwrap()
    }

    /// Watches as this workload.
    async fn watch_as(&self, workload: &str, cursor: u64) -> Result<TestWatcher, Status> {
        let (requests, receiver) = mpsc::channel(16);
        requests.send(WatchRevocationsRequest { cursor }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(receiver));
        let caller = format!("spiffe://drystone.local/service/{workload}");
        request.metadata_mut().insert("test-caller", caller.parse().unwrap());
        let response = self.client.clone().watch_revocations(request).await?;
        Ok(TestWatcher { requests, responses: response.into_inner() })
    }
}

/// The client of a revocation watch.
struct TestWatcher {
    requests: mpsc::Sender<WatchRevocationsRequest>,
    responses: Streaming<WatchRevocationsResponse>,
}

impl TestWatcher {
    async fn next(&mut self) -> Result<Option<WatchRevocationsResponse>, Status> {
        timeout(TEST_TIMEOUT, self.responses.message()).await.expect("a response in time")
    }

    /// The next response with revocations.
    async fn next_revocations(&mut self) -> WatchRevocationsResponse {
        loop {
            let response = self.next().await.unwrap().expect("the stream is open");
            if !response.revocations.is_empty() {
                return response;
            }
        }
    }

    async fn acknowledge(&self, cursor: u64) {
        self.requests.send(WatchRevocationsRequest { cursor }).await.unwrap();
    }
}

/// A request of this session.
fn as_user<T>(session: &Session, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("test-user", session.user_id.parse().unwrap());
    request.metadata_mut().insert("test-session", session.id.parse().unwrap());
    request
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of an interceptor")]
fn into_call(mut request: Request<()>) -> Result<Request<()>, Status> {
    let id = |key| request.metadata().get(key).map(|id| Uuid::parse_str(id.to_str().unwrap()).unwrap());
    let principal = id("test-user").zip(id("test-session")).map(|(user_id, session_id)| {
        Arc::new(Principal {
            user_id,
            session_id,
            token_id: Uuid::now_v7(),
            key_id: "key-1".into(),
            issued_at: DateTime::default(),
            expires_at: DateTime::default(),
            auth_time: DateTime::default(),
            amr: Vec::new(),
            roles: Vec::new(),
            permissions: Vec::new(),
            properties: [].into(),
        })
    });
    let call = Call::new(CallFields {
        request_id: new_request_id(),
        trace: TraceContext::new_root(),
        deadline: None,
        caller: request.metadata().get("test-caller").map(|caller| caller.to_str().unwrap().parse().unwrap()),
        principal,
        authorization: None,
        client: Client::default(),
    });
    request.extensions_mut().insert(call);
    Ok(request)
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn with_ack_timeout(timeout: ConfigDuration) -> Config {
    Config { acknowledgement_timeout: timeout, ..Config::default() }
}

#[track_caller]
fn assert_rejected<T: std::fmt::Debug>(result: Result<T, Status>, reason: Reason) {
    assert_eq!(reason_of(&result.unwrap_err()), Some(reason));
}

fn session_ids(revocations: &[Revocation]) -> Vec<&str> {
    revocations
        .iter()
        .map(|revocation| match revocation.scope.as_ref().unwrap() {
            Scope::SessionId(id) => id.as_str(),
            Scope::UserTokens(_) | Scope::RoleTokens(_) | Scope::KeyId(_) => {
                panic!("{revocation:?} does not revoke a session")
            }
        })
        .collect()
}
