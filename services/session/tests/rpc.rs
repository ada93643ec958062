//! The service over a socket: the RPCs, and the watch of revocations. Who may call is not its affair: an interceptor
//! stands in for the server stack, and makes a call of whatever user the test names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what goes wrong here is for the test to tell"
)]

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::DateTime;
use drystone::session::v1::{
    CreateSessionRequest, ListSessionsRequest, Revocation, RevokeAllSessionsRequest, RevokeSessionRequest,
    RotateSessionRequest, RotateSessionResponse, Session, VoidTokensRequest, WatchRevocationsRequest,
    WatchRevocationsResponse, revocation::Scope, session_service_client::SessionServiceClient,
};
use drystone_mesh::{
    call::{Call, Client, Parts, new_request_id},
    clock::Clock,
    config::Span,
    error::{Reason, reason_of},
    store::{
        Db, run,
        time::{from_proto, to_proto},
    },
    telemetry::{Metrics, TraceContext},
    token::Principal,
};
use drystone_session::{Config, Deps, MIGRATIONS, Service, SqlStore};
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

/// Puts a revocation where nobody announces it.
const REVOKE: &str = "INSERT INTO revocation (session_id, forget_at) VALUES ($1, $2)";

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
        let metrics = Metrics::new();
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
        let request = CreateSessionRequest {
            user_id: user.to_string(),
            device: "curl/8.5.0".to_owned(),
            address: "192.0.2.7".to_owned(),
        };
        let answer = self.client.clone().create_session(request).await.unwrap().into_inner();
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
        let (words, receiver) = mpsc::channel(16);
        words.send(WatchRevocationsRequest { cursor }).await.unwrap();
        let answer = self.client.clone().watch_revocations(ReceiverStream::new(receiver)).await.unwrap();
        Watcher { words, answers: answer.into_inner() }
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
    let call = Call::new(Parts {
        request_id: new_request_id(),
        trace: TraceContext::new_root(),
        deadline: None,
        caller: None,
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

fn patient(timeout: Span) -> Config {
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

#[tokio::test]
async fn a_session_is_listed_with_all_that_is_known_of_it() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let now = running.clock.now();
    let user = Uuid::now_v7();
    let (first, second) = (running.sign_in(user).await, running.sign_in(user).await);
    running.sign_in(Uuid::now_v7()).await;

    assert_eq!(first.device, "curl/8.5.0");
    assert_eq!(first.address, "192.0.2.7");
    assert_eq!(first.create_time, Some(to_proto(now)));
    assert_eq!(from_proto(&first.idle_expire_time.unwrap()), Some(now + chrono::TimeDelta::days(14)));
    assert_eq!(from_proto(&first.expire_time.unwrap()), Some(now + chrono::TimeDelta::days(90)));
    let expected = [second.clone(), Session { current: true, ..first.clone() }];
    assert_eq!(running.list(&first).await, expected);
    running.stop().await;
}

#[tokio::test]
async fn a_list_is_read_in_pages_and_takes_no_token_but_its_own() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let user = Uuid::now_v7();
    let mut signed_in = Vec::new();
    for _ in 0..5 {
        signed_in.insert(0, running.sign_in(user).await.id);
    }
    let caller = Session { user_id: user.to_string(), id: signed_in[0].clone(), ..Session::default() };

    let (mut found, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = as_user(&caller, ListSessionsRequest { page_size: 2, page_token });
        let page = running.client.clone().list_sessions(request).await.unwrap().into_inner();
        found.extend(page.sessions.into_iter().map(|session| session.id));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((found, pages), (signed_in, 3));

    let request = as_user(&caller, ListSessionsRequest { page_size: 2, page_token: "rubbish".to_owned() });
    assert_refused(running.client.clone().list_sessions(request).await, Reason::InvalidPageToken);
    running.stop().await;
}

#[tokio::test]
async fn a_used_refresh_token_ends_the_session_and_every_watcher_hears_of_it() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(Span::millis(50))).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    assert_eq!(running.rotate(&session, 1).await.unwrap().counter, 2);
    assert_eq!(running.rotate(&session, 1).await.unwrap().counter, 2, "an answer may be lost");
    running.clock.advance(Duration::from_secs(11));
    assert_eq!(running.rotate(&session, 2).await.unwrap().counter, 3);

    let mut watcher = running.watch(0).await;
    assert_refused(running.rotate(&session, 1).await, Reason::RefreshTokenReused);
    assert_eq!(session_ids(&watcher.news().await.revocations), [&session.id]);
    assert_refused(running.rotate(&session, 3).await, Reason::SessionEnded);
    assert_refused(running.rotate(&session, 1).await, Reason::SessionEnded);
    assert!(running.list(&session).await.is_empty());
    assert!(running.metrics.render().contains(r#"drystone_sessions_ended_total{cause="reuse"} 1"#));
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_refresh_token_from_nowhere_is_refused() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    assert_refused(running.rotate(&session, 2).await, Reason::RefreshTokenInvalid);
    assert_refused(running.rotate(&session, u64::MAX).await, Reason::RefreshTokenInvalid);
    let unknown = Session { id: Uuid::now_v7().to_string(), ..Session::default() };
    assert_refused(running.rotate(&unknown, 1).await, Reason::SessionEnded);

    running.clock.advance(Duration::from_hours(14 * 24));
    assert_refused(running.rotate(&session, 1).await, Reason::SessionEnded);
    running.stop().await;
}

#[tokio::test]
async fn nobody_ends_the_session_of_another() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let (mine, theirs) = (running.sign_in(Uuid::now_v7()).await, running.sign_in(Uuid::now_v7()).await);
    assert_refused(running.revoke(&mine, &theirs.id).await, Reason::SessionNotFound);
    assert_eq!(running.list(&theirs).await.len(), 1);
    running.revoke(&mine, &mine.id).await.unwrap();
    assert_refused(running.revoke(&mine, &mine.id).await, Reason::SessionNotFound);
    running.stop().await;
}

#[tokio::test]
async fn signing_out_everywhere_can_keep_the_session_that_asks() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let user = Uuid::now_v7();
    let kept = running.sign_in(user).await;
    for _ in 0..3 {
        running.sign_in(user).await;
    }
    let revoke_all = async |keep_current| {
        let request = as_user(&kept, RevokeAllSessionsRequest { keep_current });
        running.client.clone().revoke_all_sessions(request).await.unwrap().into_inner().revoked_count
    };
    assert_eq!(revoke_all(true).await, 3);
    assert_eq!(running.list(&kept).await, [Session { current: true, ..kept.clone() }]);
    assert_eq!(revoke_all(false).await, 1);
    assert_eq!(revoke_all(false).await, 0);
    running.stop().await;
}

#[tokio::test]
async fn voided_tokens_are_those_made_up_to_now_and_the_session_goes_on() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(Span::millis(50))).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    let mut watcher = running.watch(0).await;
    let request = VoidTokensRequest { user_id: session.user_id.clone() };
    running.client.clone().void_tokens(request).await.unwrap();

    let news = watcher.news().await;
    let Some(Scope::UserTokens(tokens)) = &news.revocations[0].scope else { panic!("{news:?}") };
    assert_eq!(tokens.user_id, session.user_id);
    let now = running.clock.now();
    assert_eq!(tokens.before_time, Some(to_proto(now)));
    assert_eq!(news.revocations[0].expire_time, Some(to_proto(now + chrono::TimeDelta::hours(1))));
    assert_eq!(running.rotate(&session, 1).await.unwrap().counter, 2);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_revoking_call_returns_when_every_watcher_has_acknowledged() {
    let directory = directory();
    let running = Arc::new(Running::start_with(directory.path(), patient(Span::seconds(60))).await);
    let session = running.sign_in(Uuid::now_v7()).await;
    let (mut one, mut other) = (running.watch(0).await, running.watch(0).await);

    let revoking = tokio::spawn({
        let (running, session) = (running.clone(), session.clone());
        async move { running.revoke(&session, &session.id).await }
    });
    let cursor = one.news().await.cursor;
    one.acknowledge(cursor).await;
    assert_eq!(other.news().await.cursor, cursor);
    assert!(!revoking.is_finished(), "one of them has not answered");
    other.acknowledge(cursor).await;
    timeout(BOUND, revoking).await.expect("all have answered").unwrap().unwrap();

    drop((one, other));
    Arc::into_inner(running).unwrap().stop().await;
}

#[tokio::test]
async fn a_mute_watcher_delays_one_call_by_its_bound_and_is_told_to_come_back() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(Span::millis(200))).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    let mut mute = running.watch(0).await;
    let begin = Instant::now();
    running.revoke(&session, &session.id).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(200));

    let cursor = mute.news().await.cursor;
    assert_refused(mute.next().await, Reason::Unavailable);
    assert!(running.metrics.render().contains("drystone_revocation_watchers 0"));
    assert!(running.metrics.render().contains("drystone_revocation_watchers_dropped_total 1"));

    let mut back = running.watch(0).await;
    assert_eq!(back.news().await.cursor, cursor, "it had acknowledged nothing, and misses nothing");
    drop((mute, back));
    running.stop().await;
}

#[tokio::test]
async fn a_watcher_that_was_away_goes_on_from_its_cursor() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(Span::millis(50))).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(running.sign_in(Uuid::now_v7()).await);
    }
    let ids: Vec<&str> = sessions.iter().map(|session| session.id.as_str()).collect();

    running.revoke(&sessions[0], ids[0]).await.unwrap();
    let mut watcher = running.watch(0).await;
    let first = watcher.news().await;
    assert_eq!(session_ids(&first.revocations), ids[..1]);
    drop(watcher);
    for session in &sessions[1..3] {
        running.revoke(session, &session.id).await.unwrap();
    }
    let mut watcher = running.watch(first.cursor).await;
    let second = watcher.news().await;
    assert_eq!(session_ids(&second.revocations), ids[1..3], "what it missed, and nothing twice");
    watcher.acknowledge(second.cursor).await;
    running.revoke(&sessions[3], ids[3]).await.unwrap();
    assert_eq!(session_ids(&watcher.news().await.revocations), ids[3..]);

    let mut newcomer = running.watch(0).await;
    assert_eq!(session_ids(&newcomer.news().await.revocations), ids, "a newcomer gets all that is of use");
    running.clock.advance(Duration::from_hours(1));
    let mut latecomer = running.watch(0).await;
    assert!(latecomer.next().await.unwrap().unwrap().revocations.is_empty(), "no token is left that it concerns");
    drop((watcher, newcomer, latecomer));
    running.stop().await;
}

#[tokio::test]
async fn a_long_history_comes_in_parts_that_miss_nothing() {
    let directory = directory();
    let config = Config { heartbeat: Span::hours(1), ..Config::default() };
    let running = Running::start_with(directory.path(), config).await;
    let mut insert = running.db.begin().await.unwrap();
    for _ in 0..2500 {
        run!(insert.connection(), |connection| {
            sqlx::query(REVOKE).bind(Uuid::now_v7()).bind(i64::MAX / 2).execute(connection).await.unwrap();
        });
    }
    insert.commit().await.unwrap();
    let mut watcher = running.watch(0).await;
    let mut cursors = Vec::new();
    let mut found = 0;
    while found < 2500 {
        let news = watcher.news().await;
        found += news.revocations.len();
        cursors.push(news.cursor);
    }
    assert_eq!((found, cursors), (2500, vec![1000, 2000, 2500]));
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_sessions_and_revocations() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let (kept, ended) = (running.sign_in(Uuid::now_v7()).await, running.sign_in(Uuid::now_v7()).await);
    running.rotate(&kept, 1).await.unwrap();
    running.revoke(&ended, &ended.id).await.unwrap();
    running.stop().await;

    let running = Running::start(directory.path()).await;
    assert_eq!(session_ids(&running.watch(0).await.news().await.revocations), [&ended.id]);
    assert_refused(running.rotate(&ended, 1).await, Reason::SessionEnded);
    assert_eq!(running.rotate(&kept, 2).await.unwrap().counter, 3);
    running.stop().await;
}

#[tokio::test]
async fn a_cursor_outlives_what_it_was_read_with() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(Span::millis(50))).await;
    let (one, other) = (running.sign_in(Uuid::now_v7()).await, running.sign_in(Uuid::now_v7()).await);
    running.revoke(&one, &one.id).await.unwrap();
    let cursor = running.watch(0).await.news().await.cursor;
    running.clock.advance(Duration::from_hours(1));

    let mut watcher = running.watch(cursor).await;
    let quiet = WatchRevocationsResponse { revocations: vec![], cursor };
    assert_eq!(watcher.next().await.unwrap(), Some(quiet), "the cursor is not lost with what it stands for");
    running.revoke(&other, &other.id).await.unwrap();
    assert_eq!(session_ids(&watcher.news().await.revocations), [&other.id]);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_cursor_of_a_database_that_was_lost_starts_over() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    running.revoke(&session, &session.id).await.unwrap();
    let mut watcher = running.watch(1_000_000).await;
    assert_eq!(session_ids(&watcher.news().await.revocations), [&session.id]);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_quiet_watch_gives_signs_of_life() {
    let directory = directory();
    let config = Config { heartbeat: Span::millis(20), ..Config::default() };
    let running = Running::start_with(directory.path(), config).await;
    let mut watcher = running.watch(0).await;
    for _ in 0..3 {
        assert_eq!(watcher.next().await.unwrap(), Some(WatchRevocationsResponse::default()));
    }
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_sign_of_life_finds_what_nobody_announced() {
    let directory = directory();
    let config = Config { heartbeat: Span::millis(20), ..Config::default() };
    let running = Running::start_with(directory.path(), config).await;
    let mut watcher = running.watch(0).await;
    let session = Uuid::now_v7();
    run!(running.db.writer(), |db| {
        sqlx::query(REVOKE).bind(session).bind(i64::MAX / 2).execute(db).await.unwrap();
    });
    assert_eq!(session_ids(&watcher.news().await.revocations), [session.to_string()]);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn watches_end_when_the_service_stops() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let mut watcher = running.watch(0).await;
    assert!(watcher.next().await.unwrap().is_some());
    running.stop.cancel();
    assert_eq!(watcher.next().await.unwrap(), None);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_watcher_has_to_say_where_to_go_on() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let silence = tokio_stream::empty::<WatchRevocationsRequest>();
    assert_refused(running.client.clone().watch_revocations(silence).await, Reason::InvalidRequest);
    running.stop().await;
}

#[tokio::test]
async fn a_store_that_fails_is_said_without_its_insides() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    running.db.close().await;
    let request = CreateSessionRequest { user_id: Uuid::now_v7().to_string(), ..CreateSessionRequest::default() };
    let refused = running.client.clone().create_session(request).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::Unavailable));
    assert!(!refused.message().contains("pool"), "{}", refused.message());
    running.stop().await;
}
