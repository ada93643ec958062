//! Two instances of the service with one Redis: closed connections, restarts of Redis, and the loss of its data.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use drystone::session::v1::{
    RotateSessionRequest, Session, StartSessionRequest, VoidTokensRequest, WatchRevocationsRequest,
    WatchRevocationsResponse, revocation::Scope, session_service_client::SessionServiceClient,
};
use drystone_backends::Redis as Server;
use drystone_mesh::{
    clock::Clock,
    config::ConfigDuration,
    error::{Reason, reason_of},
    telemetry::Metrics,
};
use drystone_session::{Config, Deps, RedisStore, Service};
use drystone_store::redis::{self, Redis, cmd};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Status, Streaming,
    transport::{Channel, server::TcpIncoming},
};
use tonic_types::StatusExt;
use uuid::Uuid;

/// The maximum duration of any step of a test.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// An instance of the service, with its own connection to Redis.
struct SessionInstance {
    client: SessionServiceClient<Channel>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl SessionInstance {
    async fn start(server: &Server, prefix: &str, config: Config) -> Self {
        let redis = Redis::open(&redis_config(server, prefix)).unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let service = Service::new(Deps {
            config,
            store: Arc::new(RedisStore::new(redis)),
            clock: Clock::system(),
            metrics: Metrics::default(),
            tasks,
            stop: stop.clone(),
        });
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().with_nodelay(Some(true));
        let address = incoming.local_addr().unwrap();
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let server = tonic::transport::Server::builder();
            server.serve_with_incoming_shutdown(service.into_server(), incoming, stopped).await.unwrap();
        });
        let client = SessionServiceClient::connect(format!("http://{address}")).await.unwrap();
        let this = Self { client, stop, server };
        until(async || this.void_tokens(Uuid::now_v7()).await.ok()).await;
        this
    }

    async fn stop(self) {
        self.stop.cancel();
        drop(self.client);
        timeout(TEST_TIMEOUT, self.server).await.expect("the server stops").unwrap();
    }

    async fn sign_in(&self) -> Result<Session, Status> {
        let request = StartSessionRequest { user_id: Uuid::now_v7().to_string(), ..StartSessionRequest::default() };
        let response = self.client.clone().start_session(request).await?.into_inner();
        Ok(response.session.unwrap())
    }

    async fn rotate(&self, session: &Session, counter: u64) -> Result<u64, Status> {
        let request =
            RotateSessionRequest { session_id: session.id.clone(), counter, ..RotateSessionRequest::default() };
        Ok(self.client.clone().rotate_session(request).await?.into_inner().counter)
    }

    async fn void_tokens(&self, user: Uuid) -> Result<(), Status> {
        let request = VoidTokensRequest { user_id: user.to_string() };
        self.client.clone().void_tokens(request).await.map(drop)
    }

    async fn watch(&self, cursor: u64) -> Result<TestWatch, Status> {
        let (requests, receiver) = mpsc::channel(16);
        requests.send(WatchRevocationsRequest { cursor }).await.unwrap();
        let response = self.client.clone().watch_revocations(ReceiverStream::new(receiver)).await?;
        Ok(TestWatch { requests, responses: response.into_inner() })
    }

    /// Watches like every service of the mesh: reconnects with its cursor whenever the stream ends.
    async fn watch_forever(self: Arc<Self>, events: mpsc::UnboundedSender<WatchEvent>) {
        let mut cursor = 0;
        loop {
            let Ok(mut watch) = self.watch(cursor).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while let Ok(Some(response)) = watch.responses.message().await {
                if response.cursor < cursor {
                    cursor = 0;
                    if events.send(WatchEvent::Reset).is_err() {
                        return;
                    }
                    break;
                }
                cursor = response.cursor;
                if events.send(WatchEvent::Users(users(&response))).is_err() {
                    return;
                }
                let _ignored_if_closed = watch.requests.send(WatchRevocationsRequest { cursor }).await;
            }
        }
    }
}

struct TestWatch {
    requests: mpsc::Sender<WatchRevocationsRequest>,
    responses: Streaming<WatchRevocationsResponse>,
}

#[derive(Debug, PartialEq, Eq)]
enum WatchEvent {
    /// Tokens of these users were voided.
    Users(Vec<Uuid>),
    /// The service has lost the history of the cursor.
    Reset,
}

fn users(response: &WatchRevocationsResponse) -> Vec<Uuid> {
    let scopes = response.revocations.iter().map(|revocation| revocation.scope.as_ref().unwrap());
    let users = scopes.map(|scope| match scope {
        Scope::UserTokens(tokens) => tokens.user_id.parse().unwrap(),
        Scope::SessionId(_) | Scope::RoleTokens(_) | Scope::KeyId(_) => panic!("no user's tokens: {scope:?}"),
    });
    users.collect()
}

fn redis_config(server: &Server, prefix: &str) -> redis::Config {
    let url = server.url().to_owned().into();
    redis::Config { url, prefix: prefix.to_owned(), timeout: ConfigDuration::millis(500), ..redis::Config::default() }
}

/// With the longest heartbeat interval: revocations received sooner were notified through Redis.
fn rare_heartbeats() -> Config {
    Config {
        heartbeat: ConfigDuration::seconds(5),
        acknowledgement_timeout: ConfigDuration::millis(100),
        ..Config::default()
    }
}

/// With frequent heartbeats.
fn frequent_heartbeats() -> Config {
    Config {
        heartbeat: ConfigDuration::millis(100),
        acknowledgement_timeout: ConfigDuration::millis(100),
        ..Config::default()
    }
}

async fn until<T>(mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TEST_TIMEOUT, poll).await.expect("the condition holds in time")
}

/// Waits until the watcher has received revocations for all these users.
async fn expect_revocations(events: &mut mpsc::UnboundedReceiver<WatchEvent>, mut users: HashSet<Uuid>) {
    while !users.is_empty() {
        let event = timeout(TEST_TIMEOUT, events.recv()).await.unwrap_or_else(|_| panic!("not received: {users:?}"));
        if let WatchEvent::Users(revoked) = event.expect("the watcher is running") {
            for user in revoked {
                users.remove(&user);
            }
        }
    }
}

#[tokio::test]
async fn a_revocation_is_pushed_to_the_watchers_of_another_instance_at_once() {
    let server = Server::shared();
    let prefix = server.prefix();
    let one = SessionInstance::start(server, &prefix, rare_heartbeats()).await;
    let other = Arc::new(SessionInstance::start(server, &prefix, rare_heartbeats()).await);
    let (sender, mut events) = mpsc::unbounded_channel();
    let watching = tokio::spawn(other.clone().watch_forever(sender));
    // The initial snapshot.
    assert!(events.recv().await.is_some());

    let start = Instant::now();
    for _ in 0..20 {
        let user = Uuid::now_v7();
        one.void_tokens(user).await.unwrap();
        expect_revocations(&mut events, [user].into()).await;
    }
    assert!(start.elapsed() < Duration::from_secs(4), "20 revocations took {:?}", start.elapsed());

    // A session created at one instance can be rotated at the other.
    let session = one.sign_in().await.unwrap();
    assert_eq!(other.rotate(&session, 1).await.unwrap(), 2);
    assert_eq!(one.rotate(&session, 2).await.unwrap(), 3);
    watching.abort();
    let _ = watching.await;
    one.stop().await;
    Arc::into_inner(other).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_revocation_is_lost_while_connections_are_closed() {
    let server = Server::start();
    let prefix = server.prefix();
    let one = SessionInstance::start(&server, &prefix, frequent_heartbeats()).await;
    let other = Arc::new(SessionInstance::start(&server, &prefix, frequent_heartbeats()).await);
    let (sender, mut events) = mpsc::unbounded_channel();
    let watching = tokio::spawn(other.clone().watch_forever(sender));

    let admin = Redis::open(&redis_config(&server, &prefix)).unwrap();
    admin.ready().await;
    let mut revoked = HashSet::new();
    let mut failed = 0;
    for round in 0..200 {
        let user = Uuid::now_v7();
        match one.void_tokens(user).await {
            Ok(()) => drop(revoked.insert(user)),
            Err(status) => {
                assert_eq!(reason_of(&status), Some(Reason::Unavailable), "{status:?}");
                failed += 1;
            }
        }
        if round % 20 == 0 {
            let mut kill = cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
            admin.query::<u64>(&kill).await.unwrap();
        }
    }
    assert!(revoked.len() > 100, "{failed} of 200 failed");
    expect_revocations(&mut events, revoked).await;
    watching.abort();
    let _ = watching.await;
    one.stop().await;
    Arc::into_inner(other).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_redis_is_reported_as_unavailable_and_no_acknowledged_write_is_lost() {
    let mut server = Server::start();
    let prefix = server.prefix();
    let one = SessionInstance::start(&server, &prefix, frequent_heartbeats()).await;
    let other = Arc::new(SessionInstance::start(&server, &prefix, frequent_heartbeats()).await);
    let (sender, mut events) = mpsc::unbounded_channel();
    let watching = tokio::spawn(other.clone().watch_forever(sender));
    let session = one.sign_in().await.unwrap();
    let mut counter = one.rotate(&session, 1).await.unwrap();

    let mut revoked = HashSet::new();
    for round in 0..3 {
        let user = Uuid::now_v7();
        one.void_tokens(user).await.unwrap();
        revoked.insert(user);
        if round == 1 {
            server.kill();
        } else {
            server.stop();
        }
        let error = until(async || one.rotate(&session, counter).await.err()).await;
        assert_eq!(reason_of(&error), Some(Reason::Unavailable));
        assert_eq!(error.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(reason_of(&one.sign_in().await.unwrap_err()), Some(Reason::Unavailable));
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

        server.start_again();
        // The rejected token was not rotated, so it is still valid.
        counter = until(async || one.rotate(&session, counter).await.ok()).await;
        let user = until(async || {
            let user = Uuid::now_v7();
            one.void_tokens(user).await.ok().map(|()| user)
        });
        revoked.insert(user.await);
    }
    assert_eq!(counter, 5);
    expect_revocations(&mut events, revoked).await;
    watching.abort();
    let _ = watching.await;
    one.stop().await;
    Arc::into_inner(other).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_start_from_a_new_snapshot_after_redis_has_lost_its_data() {
    let mut server = Server::start();
    let prefix = server.prefix();
    let one = SessionInstance::start(&server, &prefix, frequent_heartbeats()).await;
    let other = Arc::new(SessionInstance::start(&server, &prefix, frequent_heartbeats()).await);
    let (sender, mut events) = mpsc::unbounded_channel();
    let watching = tokio::spawn(other.clone().watch_forever(sender));
    let session = one.sign_in().await.unwrap();
    let user = Uuid::now_v7();
    one.void_tokens(user).await.unwrap();
    expect_revocations(&mut events, [user].into()).await;

    server.stop();
    server.start_empty();
    let reset = async { while events.recv().await.expect("the watcher is running") != WatchEvent::Reset {} };
    timeout(TEST_TIMEOUT, reset).await.expect("the loss is detected");

    let error = until(async || match one.rotate(&session, 1).await.unwrap_err() {
        status if reason_of(&status) == Some(Reason::Unavailable) => None,
        status => Some(status),
    });
    assert_eq!(reason_of(&error.await), Some(Reason::SessionEnded));
    let session = one.sign_in().await.unwrap();
    assert_eq!(other.rotate(&session, 1).await.unwrap(), 2);
    let user = Uuid::now_v7();
    one.void_tokens(user).await.unwrap();
    expect_revocations(&mut events, [user].into()).await;
    watching.abort();
    let _ = watching.await;
    one.stop().await;
    Arc::into_inner(other).unwrap().stop().await;
}
