//! Two instances of the service over one Redis, whose connections are cut, which stops and starts, and which loses
//! everything.

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

/// How long anything may take before a test gives up.
const BOUND: Duration = Duration::from_secs(30);

/// One instance of the service, with a connection of its own to Redis.
struct Instance {
    client: SessionServiceClient<Channel>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Instance {
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
        timeout(BOUND, self.server).await.expect("the server ends").unwrap();
    }

    async fn sign_in(&self) -> Result<Session, Status> {
        let request = StartSessionRequest { user_id: Uuid::now_v7().to_string(), ..StartSessionRequest::default() };
        let answer = self.client.clone().start_session(request).await?.into_inner();
        Ok(answer.session.unwrap())
    }

    async fn rotate(&self, session: &Session, counter: u64) -> Result<u64, Status> {
        let request = RotateSessionRequest { session_id: session.id.clone(), counter };
        Ok(self.client.clone().rotate_session(request).await?.into_inner().counter)
    }

    async fn void_tokens(&self, user: Uuid) -> Result<(), Status> {
        let request = VoidTokensRequest { user_id: user.to_string() };
        self.client.clone().void_tokens(request).await.map(drop)
    }

    async fn watch(&self, cursor: u64) -> Result<Watch, Status> {
        let (words, receiver) = mpsc::channel(16);
        words.send(WatchRevocationsRequest { cursor }).await.unwrap();
        let answer = self.client.clone().watch_revocations(ReceiverStream::new(receiver)).await?;
        Ok(Watch { words, answers: answer.into_inner() })
    }

    /// Follows as every service of the mesh does: from its cursor, again and again.
    async fn follow(self: Arc<Self>, heard: mpsc::UnboundedSender<Heard>) {
        let mut cursor = 0;
        loop {
            let Ok(mut watch) = self.watch(cursor).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            while let Ok(Some(answer)) = watch.answers.message().await {
                if answer.cursor < cursor {
                    cursor = 0;
                    if heard.send(Heard::StartOver).is_err() {
                        return;
                    }
                    break;
                }
                cursor = answer.cursor;
                if heard.send(Heard::Users(users(&answer))).is_err() {
                    return;
                }
                let _it_may_have_ended = watch.words.send(WatchRevocationsRequest { cursor }).await;
            }
        }
    }
}

struct Watch {
    words: mpsc::Sender<WatchRevocationsRequest>,
    answers: Streaming<WatchRevocationsResponse>,
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Users(Vec<Uuid>),
    StartOver,
}

fn users(answer: &WatchRevocationsResponse) -> Vec<Uuid> {
    let scopes = answer.revocations.iter().map(|revocation| revocation.scope.as_ref().unwrap());
    let users = scopes.map(|scope| match scope {
        Scope::UserTokens(tokens) => tokens.user_id.parse().unwrap(),
        Scope::SessionId(id) => panic!("session {id} was not revoked"),
    });
    users.collect()
}

fn redis_config(server: &Server, prefix: &str) -> redis::Config {
    let url = server.url().to_owned().into();
    redis::Config { url, prefix: prefix.to_owned(), timeout: ConfigDuration::millis(500), ..redis::Config::default() }
}

/// With as few signs of life as may be: what comes sooner has come through Redis.
fn quiet() -> Config {
    Config {
        heartbeat: ConfigDuration::seconds(5),
        acknowledgement_timeout: ConfigDuration::millis(100),
        ..Config::default()
    }
}

/// As a service has it, with more signs of life.
fn lively() -> Config {
    Config {
        heartbeat: ConfigDuration::millis(100),
        acknowledgement_timeout: ConfigDuration::millis(100),
        ..Config::default()
    }
}

async fn until<T>(mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(BOUND, search).await.expect("it becomes so in time")
}

/// Waits until the watcher has heard of all these users.
async fn hears(heard: &mut mpsc::UnboundedReceiver<Heard>, mut users: HashSet<Uuid>) {
    while !users.is_empty() {
        let news = timeout(BOUND, heard.recv()).await.unwrap_or_else(|_| panic!("not heard of {users:?}"));
        if let Heard::Users(these) = news.expect("the watcher goes on") {
            for user in these {
                users.remove(&user);
            }
        }
    }
}

#[tokio::test]
async fn what_one_instance_revokes_reaches_watchers_of_the_other_at_once() {
    let server = Server::shared();
    let prefix = server.prefix();
    let one = Instance::start(server, &prefix, quiet()).await;
    let other = Arc::new(Instance::start(server, &prefix, quiet()).await);
    let (sender, mut heard) = mpsc::unbounded_channel();
    let following = tokio::spawn(other.clone().follow(sender));
    // It has heard what was there.
    assert!(heard.recv().await.is_some());

    let start = Instant::now();
    for _ in 0..20 {
        let user = Uuid::now_v7();
        one.void_tokens(user).await.unwrap();
        hears(&mut heard, [user].into()).await;
    }
    assert!(start.elapsed() < Duration::from_secs(4), "twenty took {:?}", start.elapsed());

    // And a session that one made, the other moves.
    let session = one.sign_in().await.unwrap();
    assert_eq!(other.rotate(&session, 1).await.unwrap(), 2);
    assert_eq!(one.rotate(&session, 2).await.unwrap(), 3);
    following.abort();
    let _ = following.await;
    one.stop().await;
    Arc::into_inner(other).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_connections_are_cut() {
    let server = Server::start();
    let prefix = server.prefix();
    let one = Instance::start(&server, &prefix, lively()).await;
    let other = Arc::new(Instance::start(&server, &prefix, lively()).await);
    let (sender, mut heard) = mpsc::unbounded_channel();
    let following = tokio::spawn(other.clone().follow(sender));

    let knife = Redis::open(&redis_config(&server, &prefix)).unwrap();
    knife.ready().await;
    let mut revoked = HashSet::new();
    let mut refused = 0;
    for round in 0..200 {
        let user = Uuid::now_v7();
        match one.void_tokens(user).await {
            Ok(()) => drop(revoked.insert(user)),
            Err(status) => {
                assert_eq!(reason_of(&status), Some(Reason::Unavailable), "{status:?}");
                refused += 1;
            }
        }
        if round % 20 == 0 {
            let mut kill = cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
            knife.query::<u64>(&kill).await.unwrap();
        }
    }
    assert!(revoked.len() > 100, "{refused} of 200 were refused");
    hears(&mut heard, revoked).await;
    following.abort();
    let _ = following.await;
    one.stop().await;
    Arc::into_inner(other).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stops_is_said_to_be_away_and_nothing_that_was_answered_is_lost() {
    let mut server = Server::start();
    let prefix = server.prefix();
    let one = Instance::start(&server, &prefix, lively()).await;
    let other = Arc::new(Instance::start(&server, &prefix, lively()).await);
    let (sender, mut heard) = mpsc::unbounded_channel();
    let following = tokio::spawn(other.clone().follow(sender));
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
        let refusal = until(async || one.rotate(&session, counter).await.err()).await;
        assert_eq!(reason_of(&refusal), Some(Reason::Unavailable));
        assert_eq!(refusal.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(reason_of(&one.sign_in().await.unwrap_err()), Some(Reason::Unavailable));
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

        server.start_again();
        // The one that was refused had not been traded in, so that it still can be.
        counter = until(async || one.rotate(&session, counter).await.ok()).await;
        let user = until(async || {
            let user = Uuid::now_v7();
            one.void_tokens(user).await.ok().map(|()| user)
        });
        revoked.insert(user.await);
    }
    assert_eq!(counter, 5);
    hears(&mut heard, revoked).await;
    following.abort();
    let _ = following.await;
    one.stop().await;
    Arc::into_inner(other).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_has_lost_everything_is_noticed_and_what_comes_after_is_heard() {
    let mut server = Server::start();
    let prefix = server.prefix();
    let one = Instance::start(&server, &prefix, lively()).await;
    let other = Arc::new(Instance::start(&server, &prefix, lively()).await);
    let (sender, mut heard) = mpsc::unbounded_channel();
    let following = tokio::spawn(other.clone().follow(sender));
    let session = one.sign_in().await.unwrap();
    let user = Uuid::now_v7();
    one.void_tokens(user).await.unwrap();
    hears(&mut heard, [user].into()).await;

    server.stop();
    server.start_empty();
    let starts_over = async { while heard.recv().await.expect("the watcher goes on") != Heard::StartOver {} };
    timeout(BOUND, starts_over).await.expect("the loss is noticed");

    let refusal = until(async || match one.rotate(&session, 1).await.unwrap_err() {
        status if reason_of(&status) == Some(Reason::Unavailable) => None,
        status => Some(status),
    });
    assert_eq!(reason_of(&refusal.await), Some(Reason::SessionEnded));
    let session = one.sign_in().await.unwrap();
    assert_eq!(other.rotate(&session, 1).await.unwrap(), 2);
    let user = Uuid::now_v7();
    one.void_tokens(user).await.unwrap();
    hears(&mut heard, [user].into()).await;
    following.abort();
    let _ = following.await;
    one.stop().await;
    Arc::into_inner(other).unwrap().stop().await;
}
