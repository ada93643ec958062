//! The revocation watcher against a session service in the same process, whose part the test plays.

use drystone::session::v1::{
    ListSessionsRequest, ListSessionsResponse, Revocation, RevokeAllSessionsRequest, RevokeAllSessionsResponse,
    RevokeSessionRequest, RotateSessionRequest, RotateSessionResponse, StartSessionRequest, StartSessionResponse,
    VoidTokensRequest, VoidTokensResponse, WatchRevocationsResponse,
    revocation::Scope,
    session_service_server::{SessionService, SessionServiceServer},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming};

use super::*;
use crate::token::{
    Principal,
    testing::{clock, principal},
};

const SOON: Duration = Duration::from_millis(1);
const BOUND: Duration = Duration::from_secs(20);

/// Hands each stream that is opened to the test.
struct FakeSessions(mpsc::UnboundedSender<Stream>);

/// The server's end of one stream.
struct Stream {
    heard: Streaming<WatchRevocationsRequest>,
    say: mpsc::Sender<Result<WatchRevocationsResponse, Status>>,
}

impl Stream {
    /// The next acknowledgement.
    async fn cursor(&mut self) -> u64 {
        timeout(BOUND, self.heard.message()).await.unwrap().unwrap().unwrap().cursor
    }

    async fn say(&self, revocations: Vec<Revocation>, cursor: u64) {
        self.say.send(Ok(WatchRevocationsResponse { revocations, cursor })).await.unwrap();
    }
}

struct Setting {
    streams: mpsc::UnboundedReceiver<Stream>,
    view: RevocationView,
    watching: JoinHandle<()>,
}

impl Setting {
    fn new(silence: Duration) -> Self {
        let (opened, streams) = mpsc::unbounded_channel();
        let client = SessionServiceClient::new(SessionServiceServer::new(FakeSessions(opened)));
        let view = RevocationView::new(clock());
        let follower = Follower { client, view: view.clone(), cursor: 0, backoff: Backoff::new(SOON, SOON) };
        Self { streams, view, watching: tokio::spawn(follower.follow(silence)) }
    }

    async fn next_stream(&mut self) -> Stream {
        timeout(BOUND, self.streams.recv()).await.unwrap().unwrap()
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

fn over(token: &Principal) -> Revocation {
    Revocation { scope: Some(Scope::SessionId(token.session_id.to_string())), expire_time: None }
}

fn token() -> Principal {
    principal(clock().now())
}

#[tokio::test]
async fn what_is_acknowledged_has_been_applied() {
    let mut setting = Setting::new(BOUND);
    let mut stream = setting.next_stream().await;
    assert_eq!(stream.cursor().await, 0);
    assert!(!setting.view.is_fresh());
    for cursor in 1..=20 {
        let token = token();
        stream.say(vec![over(&token)], cursor).await;
        assert_eq!(stream.cursor().await, cursor);
        assert!(setting.view.is_void(&token) && setting.view.is_fresh());
    }
}

#[tokio::test]
async fn a_sign_of_life_is_acknowledged_too() {
    let mut setting = Setting::new(BOUND);
    let mut stream = setting.next_stream().await;
    assert_eq!(stream.cursor().await, 0);
    for _ in 0..3 {
        stream.say(vec![], 7).await;
        assert_eq!(stream.cursor().await, 7);
    }
    assert!(setting.view.is_fresh() && setting.view.is_empty());
}

#[tokio::test]
async fn after_a_break_the_next_stream_goes_on_where_the_last_one_was() {
    let mut setting = Setting::new(BOUND);
    let first = setting.next_stream().await;
    first.say(vec![over(&token())], 3).await;
    first.say.send(Err(Status::unavailable("going down"))).await.unwrap();
    let mut second = setting.next_stream().await;
    assert_eq!(second.cursor().await, 3);
    second.say(vec![over(&token())], 4).await;
    drop(second);
    let mut third = setting.next_stream().await;
    assert_eq!(third.cursor().await, 4);
    assert_eq!(setting.view.len(), 2);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_taken_for_gone() {
    let mut setting = Setting::new(Duration::from_millis(20));
    let _silent = setting.next_stream().await;
    let _silent_too = setting.next_stream().await;
    setting.next_stream().await;
}

#[tokio::test]
async fn a_server_that_lost_its_history_is_asked_for_all_it_has() {
    let mut setting = Setting::new(BOUND);
    let before = setting.next_stream().await;
    before.say(vec![over(&token())], 500).await;
    drop(before);
    let mut after = setting.next_stream().await;
    assert_eq!(after.cursor().await, 500);
    after.say(vec![], 2).await;
    let mut anew = setting.next_stream().await;
    assert_eq!(anew.cursor().await, 0);
    anew.say(vec![over(&token()), over(&token())], 2).await;
    assert_eq!(anew.cursor().await, 2);
    assert_eq!(setting.view.len(), 3, "what was revoked before stays so");
}

#[tokio::test]
async fn a_server_that_reads_no_acknowledgements_holds_nothing_up() {
    let mut setting = Setting::new(BOUND);
    let mut stream = setting.next_stream().await;
    for cursor in 1..=500 {
        timeout(BOUND, stream.say(vec![over(&token())], cursor)).await.unwrap();
    }
    while stream.cursor().await < 500 {}
    assert_eq!(setting.view.len(), 500);
}

#[tonic::async_trait]
impl SessionService for FakeSessions {
    type WatchRevocationsStream = ReceiverStream<Result<WatchRevocationsResponse, Status>>;

    async fn watch_revocations(
        &self,
        request: Request<Streaming<WatchRevocationsRequest>>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let (say, said) = mpsc::channel(4);
        let stream = Stream { heard: request.into_inner(), say };
        self.0.send(stream).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(said)))
    }

    async fn start_session(&self, _: Request<StartSessionRequest>) -> Result<Response<StartSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn rotate_session(
        &self,
        _: Request<RotateSessionRequest>,
    ) -> Result<Response<RotateSessionResponse>, Status> {
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
