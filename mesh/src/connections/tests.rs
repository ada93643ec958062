use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::rt::Executor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

use super::{peer::max_pages, *};

const LIMITS: ConnectionLimits = ConnectionLimits {
    max_connections: 4,
    max_per_peer: 3,
    idle_timeout: Some(Duration::from_millis(20)),
    send_timeout: Duration::from_millis(20),
    max_unsent_per_connection: 100_000,
    max_unsent_per_peer: 150_000,
    max_unsent: 300_000,
    max_request_bytes_per_peer: 150_000,
    max_request_bytes: 300_000,
};

fn peer(number: u8) -> PeerKind {
    PeerKind::Client(Key::client(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number))))
}

fn register(connections: &Connections, peer: PeerKind) -> Connection {
    connections.try_register(peer).expect("the server is not full").expect("the peer may have one more")
}

fn response(size: usize, connection: &Connection) -> Option<MeteredBody> {
    MeteredBody::whole(Bytes::from(vec![0; size]), connection.usage().start_request()).ok()
}

fn is_evicted(connection: &Connection) -> bool {
    connection.usage().evicted().now_or_never().is_some()
}

#[tokio::test]
async fn a_full_server_evicts_the_idlest_connection_of_the_peer_with_most() {
    let connections = Connections::new(LIMITS);
    let other = register(&connections, peer(1));
    let many: Vec<_> = (0..3).map(|_| register(&connections, peer(2))).collect();
    let busy = many[0].usage().start_request();
    let newest = register(&connections, peer(3));
    assert_eq!(connections.count(), 4);
    assert!(!is_evicted(&other) && !is_evicted(&newest), "they are idle as well, but alone");
    assert!(!is_evicted(&many[0]), "it has a request");
    assert_eq!(many.iter().filter(|connection| is_evicted(connection)).count(), 1);
    drop(busy);
}

#[tokio::test]
async fn a_server_full_of_requests_accepts_no_more_until_one_ends() {
    let connections = Connections::new(LIMITS);
    let open: Vec<_> = (0..4).map(|number| register(&connections, peer(number))).collect();
    let _requests: Vec<_> = open.iter().map(|connection| connection.usage().start_request()).collect();
    assert!(connections.try_register(peer(9)).is_none());
    let mut waiting = Box::pin(connections.register(peer(9)));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(open);
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_peer_has_a_limit_of_its_own_unless_it_is_a_proxy() {
    let connections = Connections::new(LIMITS);
    let open: Vec<_> = (0..3).map(|_| register(&connections, peer(1))).collect();
    let requests: Vec<_> = open.iter().map(|connection| connection.usage().start_request()).collect();
    assert_eq!(connections.try_register(peer(1)).unwrap().err(), Some(TooManyConnections));
    drop(requests);
    // Its own idlest is closed for the new one.
    let _new = register(&connections, peer(1));
    assert_eq!(open.iter().filter(|connection| is_evicted(connection)).count(), 1);
    drop(open);

    let connections = Connections::new(LIMITS);
    let open: Vec<_> = (0..4).map(|_| register(&connections, PROXY())).collect();
    assert!(open.iter().all(|connection| !is_evicted(connection)));
    assert!(response(90_000, &open[0]).is_some_and(|_first| response(90_000, &open[0]).is_some()));
}

#[tokio::test]
async fn an_idle_connection_is_closed_gracefully_and_a_busy_one_is_not() {
    let connections = Connections::new(LIMITS);
    let (idle, busy) = (register(&connections, peer(1)), register(&connections, peer(2)));
    let _request = busy.usage().start_request();
    let sweep = connections.clone();
    let sweeping = tokio::spawn(async move { sweep.sweep().await });
    idle.usage().closing().await;
    assert!(!is_evicted(&idle));
    assert!(busy.usage().closing().now_or_never().is_none());
    sweeping.abort();
}

#[tokio::test]
async fn a_response_over_the_budget_of_its_connection_or_peer_is_refused() {
    let connections = Connections::new(LIMITS);
    let (first, second) = (register(&connections, peer(1)), register(&connections, peer(1)));
    let held = response(60_000, &first).unwrap();
    assert!(response(60_000, &first).is_none(), "the connection may have 100,000");
    assert!(response(4_000, &first).is_some(), "an error can always be sent");
    let other = response(80_000, &second).unwrap();
    assert!(response(20_000, &second).is_none(), "the peer may have 150,000");
    let stranger = register(&connections, peer(2));
    assert!(response(90_000, &stranger).is_some());
    assert_eq!(connections.unsent().get(), 140_000);
    drop((held, other));
    assert_eq!(connections.unsent().get(), 0);
    assert!(response(400_000, &first).is_some(), "alone it may be larger than any budget");
}

#[tokio::test]
async fn the_connection_with_most_unsent_bytes_is_closed_when_the_server_has_too_many() {
    let connections = Connections::new(LIMITS);
    let open: Vec<_> = (0..4).map(|number| register(&connections, peer(number))).collect();
    let _small = response(50_000, &open[0]).unwrap();
    let _large: Vec<_> = open[1..3].iter().map(|connection| response(99_000, connection).unwrap()).collect();
    let _own = response(60_000, &open[3]).unwrap();
    let evicted: Vec<bool> = open.iter().map(is_evicted).collect();
    assert_eq!(evicted.iter().filter(|evicted| **evicted).count(), 1, "{evicted:?}");
    assert!(evicted[1] || evicted[2]);
}

#[tokio::test]
async fn bytes_count_until_the_socket_has_taken_them() {
    let connections = Connections::new(LIMITS);
    let connection = register(&connections, peer(1));
    let (ours, mut theirs) = tokio::io::duplex(1000);
    let mut socket = MeteredIo::new(ours, connection.usage().clone());
    let mut body = response(40_000, &connection).unwrap();
    let mut pieces = Vec::new();
    while let Some(Ok(piece)) = body.frame().await {
        pieces.push(piece.into_data().unwrap());
    }
    assert!(pieces.iter().all(|piece| piece.len() <= 16 << 10));
    drop(body);
    assert_eq!(connection.usage().unsent(), 40_000, "the transport has them");
    assert_eq!(socket.write(&pieces[0]).await.unwrap(), 1000);
    assert_eq!(connections.unsent().get(), 39_000);
    assert!(socket.write(&pieces[1]).now_or_never().is_none(), "the peer reads no more");

    let sweep = connections.clone();
    let sweeping = tokio::spawn(async move { sweep.sweep().await });
    connection.usage().evicted().await;
    sweeping.abort();
    drop(connection);
    assert_eq!(connections.unsent().get(), 0);
    // The end of the socket is the peer's problem now.
    drop(socket);
    tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await.unwrap();
}

#[tokio::test]
async fn the_message_of_a_unary_response_counts_before_it_is_polled() {
    let connections = Connections::new(LIMITS);
    let connection = register(&connections, peer(1));
    let frames = |size: usize| {
        let frames =
            [http_body::Frame::data(Bytes::from(vec![0; size])), http_body::Frame::trailers(http::HeaderMap::new())];
        StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)))
    };
    let body = MeteredBody::new(frames(70_000), connection.usage().start_request()).unwrap();
    assert_eq!(connections.unsent().get(), 70_000);
    assert!(MeteredBody::new(frames(70_000), connection.usage().start_request()).is_err());
    let collected = body.collect().await.unwrap();
    assert!(collected.trailers().is_some());
    assert_eq!(collected.to_bytes().len(), 70_000);
}

#[tokio::test]
async fn requests_beyond_the_budget_are_refused_unless_they_are_small_and_alone() {
    let connections = Connections::new(LIMITS);
    let (first, second) = (register(&connections, peer(1)), register(&connections, peer(1)));
    let other = register(&connections, peer(2));
    let request = |connection: &Connection| {
        let request = connection.usage().start_request();
        let bytes = request.bytes();
        (request, bytes)
    };
    let (_one, mut bytes) = request(&first);
    bytes.add(150_000).unwrap();
    assert_eq!(bytes.add(1), Err(TooManyRequestBytes), "the budget of the peer");
    assert_eq!(connections.request_bytes().get(), 150_000);
    let (_alone, mut small) = request(&second);
    small.add(20_000).unwrap();
    assert_eq!(connections.request_bytes().get(), 150_000, "it counts for nobody");
    assert_eq!(small.add(20_000), Err(TooManyRequestBytes), "no longer small");
    let (_another, mut not_alone) = request(&second);
    assert_eq!(not_alone.add(1), Err(TooManyRequestBytes));
    let (_of_other, mut others) = request(&other);
    others.add(150_000).unwrap();
    assert_eq!(others.add(1), Err(TooManyRequestBytes), "the budget of the server");
    assert_eq!(connections.request_bytes().get(), 300_000);
    bytes.clear();
    not_alone.add(1).unwrap();
    drop((bytes, small, not_alone, others));
    assert_eq!(connections.request_bytes().get(), 0);
}

/// A stream whose response has this size; the receiver ends with it.
fn stream(size: usize, connection: &Connection) -> Option<oneshot::Receiver<Infallible>> {
    stream_of(size, connection, None)
}

/// The same of a client behind a proxy.
fn stream_of(size: usize, connection: &Connection, client: Option<Key>) -> Option<oneshot::Receiver<Infallible>> {
    let request = connection.usage().start_request();
    let request = match client {
        Some(client) => request.of_client(client),
        None => request,
    };
    let body = MeteredBody::<http_body_util::Empty<Bytes>>::whole(Bytes::from(vec![0; size]), request).ok()?;
    let (until_dropped, stream) = oneshot::channel();
    // As hyper does: the service has been called, and the stream holds its response.
    StreamExecutor::new(connection.usage().clone()).execute(async move {
        let _response = (body, until_dropped);
        std::future::pending::<()>().await;
    });
    Some(stream)
}

/// Whether a stream has been reset, once its task has had its turn.
async fn has_ended(stream: &mut oneshot::Receiver<Infallible>) -> bool {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    stream.try_recv() == Err(oneshot::error::TryRecvError::Closed)
}

const PROXY: fn() -> PeerKind = || PeerKind::Proxy(Key::text("proxy"));
const WORKLOAD: fn() -> PeerKind = || PeerKind::Workload(Key::text("workload"));

#[tokio::test]
async fn of_a_shared_connection_a_stalled_response_ends_alone() {
    for kind in [PROXY(), WORKLOAD()] {
        let connections = Connections::new(LIMITS);
        let connection = register(&connections, kind);
        let in_work = connection.usage().start_request();
        let stalled = stream(50_000, &connection).unwrap();
        let sweep = connections.clone();
        let sweeping = tokio::spawn(async move { sweep.sweep().await });
        stalled.await.unwrap_err();
        assert_eq!(connections.unsent().get(), 0);
        connections.sweep_once();
        assert!(!is_evicted(&connection) && connection.usage().closing().now_or_never().is_none());
        sweeping.abort();
        drop(in_work);
    }
}

#[tokio::test]
async fn a_shared_connection_with_many_stalled_responses_is_replaced() {
    let connections = Connections::new(LIMITS);
    let connection = register(&connections, WORKLOAD());
    let in_work = connection.usage().start_request();
    for _ in 0..16 {
        let stalled = stream(100, &connection).unwrap();
        tokio::time::sleep(LIMITS.send_timeout).await;
        connections.sweep_once();
        stalled.await.unwrap_err();
    }
    assert!(connection.usage().closing().now_or_never().is_some(), "its requests in work may end");
    assert!(!is_evicted(&connection));
    drop(in_work);
}

#[tokio::test]
async fn of_a_shared_connection_the_largest_response_ends_when_the_server_has_too_many() {
    let connections = Connections::new(ConnectionLimits { max_per_peer: 9, ..LIMITS });
    let shared = register(&connections, PROXY());
    let mut small = stream(80_000, &shared).unwrap();
    let mut large = stream(120_000, &shared).unwrap();
    let other = register(&connections, peer(1));
    let own = response(99_000, &other).unwrap();
    assert!(response(101_000, &shared).is_some(), "the largest of others ended for it");
    assert!(has_ended(&mut large).await);
    assert!(!is_evicted(&shared) && !is_evicted(&other));
    drop(own);
    let _rest = response(90_000, &other).unwrap();
    assert!(response(140_000, &shared).is_none(), "it would be the largest itself");
    assert!(!has_ended(&mut small).await);
    // Somebody else does not have to be smaller.
    let _medium = stream(60_000, &shared).unwrap();
    let third = register(&connections, peer(2));
    assert!(response(99_000, &third).is_some());
    assert!(has_ended(&mut small).await);
}

#[tokio::test]
async fn behind_a_proxy_the_client_with_most_loses_first() {
    let connections = Connections::new(LIMITS);
    let shared = register(&connections, PROXY());
    let client = |number: u8| Key::client(IpAddr::V4(Ipv4Addr::new(198, 51, 100, number)));
    let mut greedy: Vec<_> = (0..3).map(|_| stream_of(40_000, &shared, Some(client(1))).unwrap()).collect();
    let mut modest = stream_of(90_000, &shared, Some(client(2))).unwrap();
    let other = register(&connections, peer(1));
    let _own = response(99_000, &other).unwrap();
    let mut ended = 0;
    for stream in &mut greedy {
        ended += usize::from(has_ended(stream).await);
    }
    assert_eq!(ended, 1);
    assert!(!has_ended(&mut modest).await, "its one response is larger");
}

#[tokio::test]
async fn a_connection_where_others_wait_as_well_is_replaced() {
    let connections = Connections::new(ConnectionLimits { send_timeout: Duration::from_secs(4), ..LIMITS });
    let connection = register(&connections, WORKLOAD());
    let first = stream(100, &connection).unwrap();
    // Late enough not to end with the first on a busy machine.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut second = stream(100, &connection).unwrap();
    let sweep = connections.clone();
    let sweeping = tokio::spawn(async move { sweep.sweep().await });
    first.await.unwrap_err();
    connection.usage().closing().await;
    assert!(!is_evicted(&connection));
    assert!(!has_ended(&mut second).await, "it has its own time");
    sweeping.abort();
}

#[tokio::test]
async fn each_client_behind_a_proxy_has_the_budgets_of_a_peer() {
    let connections = Connections::new(LIMITS);
    let open = [register(&connections, PROXY()), register(&connections, PROXY())];
    let client = |number: u8| Key::client(IpAddr::V4(Ipv4Addr::new(198, 51, 100, number)));
    let request = |connection: usize, number: u8| open[connection].usage().start_request().of_client(client(number));
    let respond = |size: usize, request: Request| MeteredBody::whole(Bytes::from(vec![0; size]), request);

    let first = respond(100_000, request(0, 1)).unwrap();
    assert!(respond(60_000, request(1, 1)).is_err(), "through another connection too");
    assert!(respond(60_000, request(1, 2)).is_ok());
    drop(first);
    assert!(respond(60_000, request(1, 1)).is_ok());

    let (one, two) = (request(0, 1), request(0, 2));
    let (mut of_one, mut of_two) = (one.bytes(), two.bytes());
    of_one.add(150_000).unwrap();
    assert_eq!(of_one.add(1), Err(TooManyRequestBytes));
    of_two.add(150_000).unwrap();
    assert_eq!(of_two.add(1), Err(TooManyRequestBytes), "the budget of the server");
    drop((one, two, of_one, of_two));
    assert_eq!(connections.request_bytes().get(), 0);

    // What the transport has counts until the response has ended.
    let mut sending = respond(150_000, request(0, 3)).unwrap();
    while let Some(Ok(_)) = sending.frame().await {}
    assert!(respond(80_000, request(1, 3)).is_err());
    drop(sending);
    assert!(respond(80_000, request(1, 3)).is_ok());
    assert_eq!(connections.0.clients.count(), 0, "none is remembered");
}

/// Bytes arrive without a pause: after some of them, others have a turn.
#[tokio::test]
async fn a_peer_that_sends_without_a_pause_takes_turns_with_others() {
    let connections = Connections::new(LIMITS);
    let mut buffer = vec![0; 4096];
    for (kind, reads, turns) in [(peer(1), 1, 16), (WORKLOAD(), 4, 64)] {
        let connection = register(&connections, kind);
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(&vec![0; 1 << 20]).await.unwrap();
        let mut socket = MeteredIo::new(ours, connection.usage().clone());
        for turn in 0..turns {
            for _ in 0..reads {
                assert_eq!(socket.read(&mut buffer).now_or_never().expect("there is more").unwrap(), 4096);
            }
            assert!(socket.read(&mut buffer).now_or_never().is_none(), "turn {turn}: others have theirs");
            tokio::task::yield_now().await;
        }
    }
}

/// More than a client may send in one go is read slowly.
#[tokio::test]
async fn a_client_that_sends_a_lot_is_read_at_a_bounded_rate() {
    const SENT: usize = 256 << 10;
    let connections = Connections::new(LIMITS);
    let started = Instant::now();
    // Over two connections, which share the rate, and in parts of which none is a whole turn, as if the peer waited for each to be read.
    let mut buffer = vec![0; 4000];
    let open: Vec<_> = (0..2).map(|_| register(&connections, peer(1))).collect();
    for connection in &open {
        let (ours, mut theirs) = tokio::io::duplex(SENT);
        theirs.write_all(&vec![0; SENT]).await.unwrap();
        let mut socket = MeteredIo::new(ours, connection.usage().clone());
        let mut left = SENT;
        while left > 0 {
            left -= socket.read(&mut buffer).await.unwrap();
        }
    }
    // At most 128 KiB in one go, and then four a millisecond.
    assert!(started.elapsed() >= Duration::from_millis(95), "{:?}", started.elapsed());
}

#[tokio::test]
async fn pages_of_one_client_take_turns() {
    let connections = Connections::new(LIMITS);
    let (direct, proxy) = (register(&connections, peer(1)), register(&connections, PROXY()));
    let client = |number: u8| Key::client(IpAddr::V4(Ipv4Addr::new(198, 51, 100, number)));
    let direct: Vec<_> = (0..2).map(|_| direct.usage().start_request()).collect();
    let proxied: Vec<_> = (0..2).map(|_| proxy.usage().start_request().of_client(client(1))).collect();
    let other = proxy.usage().start_request().of_client(client(2));
    for requests in [&direct, &proxied] {
        let [one, next] = &requests[..] else { unreachable!() };
        let mut calls: Vec<_> = (0..max_pages()).map(|_| one.turn_for_page().now_or_never().flatten()).collect();
        let mut written: Vec<_> = (0..max_pages()).map(|_| one.turn_to_write_page().now_or_never().flatten()).collect();
        assert!(calls.iter().chain(&written).all(Option::is_some));
        let (mut call, mut write) = (Box::pin(next.turn_for_page()), Box::pin(next.turn_to_write_page()));
        assert!(call.as_mut().now_or_never().is_none() && write.as_mut().now_or_never().is_none());
        calls.pop();
        written.pop();
        assert!(call.now_or_never().is_some() && write.now_or_never().is_some());
        assert!(other.turn_for_page().now_or_never().is_some_and(|turn| turn.is_some()));
        assert!(other.turn_to_write_page().now_or_never().is_some_and(|turn| turn.is_some()));
    }
    let unstated = proxy.usage().start_request();
    assert!(unstated.turn_for_page().now_or_never().is_some_and(|turn| turn.is_none()), "nobody knows how many it has");
}
