//! The revocation watcher against a fake session service in the same process.

use drystone::session::v1::{
    Revocation, WatchRevocationsResponse, revocation::Scope, session_service_server::SessionServiceServer,
};
use drystone_tests::PartialService;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming};

use super::*;
use crate::token::{
    Principal,
    testing::{clock, principal},
};

const SHORT: Duration = Duration::from_millis(1);
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A session service that passes each opened stream to the test.
fn session_service(opened: mpsc::UnboundedSender<ServerStream>) -> PartialService<SessionServiceServer<()>> {
    PartialService::new().streaming("WatchRevocations", move |request: Request<Streaming<WatchRevocationsRequest>>| {
        let (responses, receiver) = mpsc::channel(4);
        let sent = opened.send(ServerStream { requests: request.into_inner(), responses });
        async move {
            sent.map_err(|_| Status::unavailable("the test has ended"))?;
            Ok(Response::new(ReceiverStream::new(receiver)))
        }
    })
}

/// The server's end of one stream.
struct ServerStream {
    requests: Streaming<WatchRevocationsRequest>,
    responses: mpsc::Sender<Result<WatchRevocationsResponse, Status>>,
}

impl ServerStream {
    /// The next acknowledgement.
    async fn cursor(&mut self) -> u64 {
        timeout(TEST_TIMEOUT, self.requests.message()).await.unwrap().unwrap().unwrap().cursor
    }

    async fn send(&self, revocations: Vec<Revocation>, cursor: u64) {
        self.responses.send(Ok(WatchRevocationsResponse { revocations, cursor })).await.unwrap();
    }
}

struct Fixture {
    streams: mpsc::UnboundedReceiver<ServerStream>,
    view: RevocationView,
    watch_task: JoinHandle<()>,
}

impl Fixture {
    fn new(idle_timeout: Duration) -> Self {
        let (opened, streams) = mpsc::unbounded_channel();
        let client = SessionServiceClient::new(session_service(opened));
        let view = RevocationView::new(clock());
        let follower = Follower { client, view: view.clone(), cursor: 0, backoff: Backoff::new(SHORT, SHORT) };
        Self { streams, view, watch_task: tokio::spawn(follower.follow(idle_timeout)) }
    }

    async fn next_stream(&mut self) -> ServerStream {
        timeout(TEST_TIMEOUT, self.streams.recv()).await.unwrap().unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.watch_task.abort();
    }
}

fn session_revocation(token: &Principal) -> Revocation {
    Revocation { scope: Some(Scope::SessionId(token.session_id.to_string())), expire_time: None }
}

fn token() -> Principal {
    principal(clock().now())
}

#[tokio::test]
async fn a_revocation_is_acknowledged_after_it_is_applied() {
    let mut fixture = Fixture::new(TEST_TIMEOUT);
    let mut stream = fixture.next_stream().await;
    assert_eq!(stream.cursor().await, 0);
    assert!(!fixture.view.is_fresh());
    for cursor in 1..=20 {
        let token = token();
        stream.send(vec![session_revocation(&token)], cursor).await;
        assert_eq!(stream.cursor().await, cursor);
        assert!(fixture.view.is_revoked(&token) && fixture.view.is_fresh());
    }
}

#[tokio::test]
async fn a_heartbeat_is_acknowledged() {
    let mut fixture = Fixture::new(TEST_TIMEOUT);
    let mut stream = fixture.next_stream().await;
    assert_eq!(stream.cursor().await, 0);
    for _ in 0..3 {
        stream.send(vec![], 7).await;
        assert_eq!(stream.cursor().await, 7);
    }
    assert!(fixture.view.is_fresh() && fixture.view.is_empty());
}

#[tokio::test]
async fn a_new_stream_resumes_at_the_cursor_of_the_previous_one() {
    let mut fixture = Fixture::new(TEST_TIMEOUT);
    let first = fixture.next_stream().await;
    first.send(vec![session_revocation(&token())], 3).await;
    first.responses.send(Err(Status::unavailable("shutting down"))).await.unwrap();
    let mut second = fixture.next_stream().await;
    assert_eq!(second.cursor().await, 3);
    second.send(vec![session_revocation(&token())], 4).await;
    drop(second);
    let mut third = fixture.next_stream().await;
    assert_eq!(third.cursor().await, 4);
    assert_eq!(fixture.view.len(), 2);
}

#[tokio::test]
async fn an_idle_stream_is_reopened() {
    let mut fixture = Fixture::new(Duration::from_millis(20));
    let _idle = fixture.next_stream().await;
    let _idle_too = fixture.next_stream().await;
    fixture.next_stream().await;
}

#[tokio::test]
async fn a_cursor_that_goes_backwards_restarts_from_zero() {
    let mut fixture = Fixture::new(TEST_TIMEOUT);
    let before = fixture.next_stream().await;
    before.send(vec![session_revocation(&token())], 500).await;
    drop(before);
    let mut after = fixture.next_stream().await;
    assert_eq!(after.cursor().await, 500);
    after.send(vec![], 2).await;
    let mut restarted = fixture.next_stream().await;
    assert_eq!(restarted.cursor().await, 0);
    restarted.send(vec![session_revocation(&token()), session_revocation(&token())], 2).await;
    assert_eq!(restarted.cursor().await, 2);
    assert_eq!(fixture.view.len(), 3, "earlier revocations stay in effect");
}

#[tokio::test]
async fn a_server_that_reads_no_acknowledgements_does_not_block() {
    let mut fixture = Fixture::new(TEST_TIMEOUT);
    let mut stream = fixture.next_stream().await;
    for cursor in 1..=500 {
        timeout(TEST_TIMEOUT, stream.send(vec![session_revocation(&token())], cursor)).await.unwrap();
    }
    while stream.cursor().await < 500 {}
    assert_eq!(fixture.view.len(), 500);
}
