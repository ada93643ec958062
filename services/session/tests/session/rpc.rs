//! The service over a socket: the RPCs, and the watch of revocations. Who may call is not its affair: an interceptor
//! stands in for the server stack, and makes a call of whatever user the test names.

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
    ListSessionsRequest, Revocation, RevokeAllSessionsRequest, RevokeSessionRequest, RotateSessionRequest,
    RotateSessionResponse, Session, StartSessionRequest, VoidTokensRequest, WatchRevocationsRequest,
    WatchRevocationsResponse, revocation::Scope, session_service_client::SessionServiceClient,
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

/// How long anything may take before a test gives up.
const BOUND: Duration = Duration::from_secs(10);

/// A session service on a free port.
struct Running {
    client: SessionServiceClient<Channel>,
    clock: Clock,
    metrics: Metrics,
    stop: CancellationToken,
    tasks: TaskTracker,
    server: JoinHandle<()>,
    db: Db,
}

impl Running {
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

    /// Stops in the way a process does. Streams must end by themselves.
    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        timeout(BOUND, self.tasks.wait()).await.expect("background work ends");
        drop(self.client);
        timeout(BOUND, self.server).await.expect("the server ends").unwrap();
        self.db.close().await;
    }

    async fn sign_in(&self, user: Uuid) -> Session {
        let request = StartSessionRequest {
            user_id: user.to_string(),
            device: "curl/8.5.0".to_owned(),
            address: "192.0.2.7".to_owned(),
        };
        let answer = self.client.clone().start_session(request).await.unwrap().into_inner();
        assert_eq!(answer.counter, 1);
        answer.session.unwrap()
    }

    async fn rotate(&self, session: &Session, counter: u64) -> Result<RotateSessionResponse, Status> {
        let request = RotateSessionRequest { session_id: session.id.clone(), counter };
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

    async fn watch(&self, cursor: u64) -> Watcher {
        self.watch_as("auth", cursor).await.unwrap()
    }

    /// Watches as this workload.
    async fn watch_as(&self, workload: &str, cursor: u64) -> Result<Watcher, Status> {
        let (words, receiver) = mpsc::channel(16);
        words.send(WatchRevocationsRequest { cursor }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(receiver));
        let caller = format!("spiffe://drystone.local/service/{workload}");
        request.metadata_mut().insert("test-caller", caller.parse().unwrap());
        let answer = self.client.clone().watch_revocations(request).await?;
        Ok(Watcher { words, answers: answer.into_inner() })
    }
}

/// One end of a watch of revocations.
struct Watcher {
    words: mpsc::Sender<WatchRevocationsRequest>,
    answers: Streaming<WatchRevocationsResponse>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<WatchRevocationsResponse>, Status> {
        timeout(BOUND, self.answers.message()).await.expect("an answer in time")
    }

    /// The next answer that holds revocations.
    async fn news(&mut self) -> WatchRevocationsResponse {
        loop {
            let answer = self.next().await.unwrap().expect("the stream goes on");
            if !answer.revocations.is_empty() {
                return answer;
            }
        }
    }

    async fn acknowledge(&self, cursor: u64) {
        self.words.send(WatchRevocationsRequest { cursor }).await.unwrap();
    }
}

/// A request in the name of this session's user.
fn as_user<T>(session: &Session, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("test-user", session.user_id.parse().unwrap());
    request.metadata_mut().insert("test-session", session.id.parse().unwrap());
    request
}

#[expect(clippy::unnecessary_wraps, reason = "an interceptor may refuse")]
fn into_call(mut request: Request<()>) -> Result<Request<()>, Status> {
    let id = |key| request.metadata().get(key).map(|id| Uuid::parse_str(id.to_str().unwrap()).unwrap());
    let principal = id("test-user").zip(id("test-session")).map(|(user_id, session_id)| {
        Arc::new(Principal {
            user_id,
            session_id,
            token_id: Uuid::now_v7(),
            issued_at: DateTime::default(),
            expires_at: DateTime::default(),
            auth_time: DateTime::default(),
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

fn patient(timeout: ConfigDuration) -> Config {
    Config { acknowledgement_timeout: timeout, ..Config::default() }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, reason: Reason) {
    assert_eq!(reason_of(&answer.unwrap_err()), Some(reason));
}

fn session_ids(revocations: &[Revocation]) -> Vec<&str> {
    revocations
        .iter()
        .map(|revocation| match revocation.scope.as_ref().unwrap() {
            Scope::SessionId(id) => id.as_str(),
            Scope::UserTokens(_) => panic!("{revocation:?} is not of a session"),
        })
        .collect()
}
