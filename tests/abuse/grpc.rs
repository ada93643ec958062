//! gRPC by hand, against the mesh's own ports, by a workload with a valid certificate.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

use drystone_tests::{
    Mesh, User,
    attacks::{
        floods,
        large::many_properties,
        raw::{
            self, ACK, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, INITIAL_WINDOW_SIZE, PING, WINDOW_UPDATE, frame,
        },
    },
    wait,
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::beside_load;

const GET_ME: &str = "/drystone.user.v1.UserService/GetMe";

/// A name, a header block, and the data frames.
type MalformedCall = (&'static str, Vec<u8>, Vec<Vec<u8>>);

/// The fields of a call.
fn call<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", GET_ME),
        (":authority", "user"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    [&fields, more].concat()
}

async fn attacker(mesh: &Mesh) -> Http2<TlsStream<TcpStream>> {
    Http2::connect_mesh(mesh.grpc_address("user"), mesh.certificates(), "edge", "user", &[]).await
}

/// 16 MiB of zeros.
fn gzip_bomb() -> Vec<u8> {
    let mut gzip = Command::new("gzip").arg("-9").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let writing = thread::spawn(move || input.write_all(&vec![0; 16 << 20]).unwrap());
    let bomb = gzip.wait_with_output().unwrap().stdout;
    writing.join().unwrap();
    let length = u32::try_from(bomb.len()).unwrap().to_be_bytes();
    [&[1][..], &length, &bomb].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_calls_of_a_workload_harm_nobody() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let authorization = format!("Bearer {}", tokens.access);
    let huge = "x".repeat(12_000);
    // An RPC that the load does not call, and that takes an empty message.
    let call = |more: &[(&'static str, &str)]| {
        let more: Vec<(&str, &str)> = more.to_vec();
        let mut fields =
            call(&more).into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>();
        fields[2].1 = "/drystone.auth.v1.SignInService/ListSignIns".to_owned();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        raw::headers(&fields)
    };
    let connect = async || {
        let (address, certificates) = (mesh.grpc_address("auth"), mesh.certificates());
        Http2::connect_mesh(address, certificates, "edge", "auth", &[]).await
    };
    let authorized = [("authorization", &*authorization)];
    let fields = call(&authorized);
    let calls: Vec<MalformedCall> = vec![
        ("huge metadata", call(&[("x-huge", &huge), ("x-huge", &huge), ("x-huge", &huge)]), vec![vec![]]),
        ("a length of 4 GiB", fields.clone(), vec![vec![0, 0xff, 0xff, 0xff, 0xff]]),
        ("a length that lies", fields.clone(), vec![vec![0, 0, 0, 0, 9, 1]]),
        ("several messages", fields.clone(), vec![vec![0; 5], vec![0; 5]]),
        ("a compressed message", fields.clone(), vec![vec![1, 0, 0, 0, 1, 0]]),
        ("a gzip bomb", call(&[authorized[0], ("grpc-encoding", "gzip")]), vec![gzip_bomb()]),
        ("a field of 2 GiB", fields.clone(), vec![vec![0, 0, 0, 0, 6, 0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]]),
        ("no message", fields.clone(), vec![vec![]]),
        ("denied, with a body", call(&[]), vec![vec![b'x'; 10_000]]),
    ];
    beside_load(&mesh, async || {
        for (name, block, messages) in calls {
            let mut attacker = connect().await;
            for number in 0..200 {
                if attacker.send(&frames(1 + 2 * number, &block, &messages)).await.is_err() {
                    println!("{name}: closed after {number}");
                    break;
                }
            }
            // Until all are answered.
            attacker.send(&frame(PING, 0, 0, b"12345678")).await.ok();
            while attacker.receive().await.is_some_and(|(kind, flags, ..)| kind != PING || flags & ACK == 0) {}
        }
        let ok = [("method", "ListSignIns"), ("code", "OK")];
        assert!(mesh.metrics().await.sum("drystone_calls_total", &ok) < 0.5, "none of them succeeded");
        let all = [("method", "ListSignIns")];
        println!("{} calls were answered", mesh.metrics().await.sum("drystone_calls_total", &all));
        // More of a stream whose end was sent, and a stream that is half closed and never read.
        let mut half_closed = connect().await;
        let ended = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields);
        half_closed.send(&ended).await.unwrap();
        half_closed.flood(1000, |_| frame(DATA, 0, 1, &[0; 100])).await;
        half_closed.end().await;
        let mut unread = connect().await;
        unread.flood(500, |number| frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number, &fields)).await;
    })
    .await;
}

/// The frames of a call, of which the last ends the stream.
fn frames(stream: u32, block: &[u8], messages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, block);
    let last = messages.len().saturating_sub(1);
    for (index, message) in messages.iter().enumerate() {
        let pieces: Vec<_> = message.chunks(16_384).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let ends = index == last && number + 1 == pieces.len();
            bytes.extend(frame(DATA, if ends { END_STREAM } else { 0 }, stream, piece));
        }
        if pieces.is_empty() {
            bytes.extend(frame(DATA, if index == last { END_STREAM } else { 0 }, stream, &[]));
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_a_workload_end_only_its_own_connection() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let authorization = format!("Bearer {}", tokens.access);
    let (denied, called) = (raw::headers(&call(&[])), raw::headers(&call(&[("authorization", &authorization)])));
    beside_load(&mesh, async || {
        println!("rapid reset: {}", floods::rapid_reset(attacker(&mesh).await, &denied).await);
        for more in [raw::headers(&[("x", &"y".repeat(1000))]), Vec::new()] {
            floods::endless_headers(attacker(&mesh).await, &denied, &more).await;
        }
        floods::header_bomb(attacker(&mesh).await, &denied).await;
        for (name, bytes) in floods::control_frames() {
            println!("{name}: {} of 500", floods::repeat(attacker(&mesh).await, &bytes).await);
        }
        let answered = floods::empty_data(attacker(&mesh).await, &denied).await;
        println!("{answered} of 100 streams were answered");
        // The empty message.
        let request = frames(1, &called, &[vec![0; 5]]);
        let no_window = [(INITIAL_WINDOW_SIZE, 0)];
        let address = mesh.grpc_address("user");
        let attacker = Http2::connect_mesh(address, mesh.certificates(), "edge", "user", &no_window).await;
        println!("{} bytes came one by one", floods::tiny_increments(attacker, &request).await);
    })
    .await;
}

/// Pages that a workload asks for and does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_responses_of_a_service_take_a_bounded_memory() {
    const STREAMS: u32 = 220;
    let mesh = Mesh::start();
    let tokens = many_properties(&mesh, 50).await;
    let authorization = format!("Bearer {}", tokens.access);
    let mut fields = call(&[("authorization", &authorization)]);
    fields[2] = (":path", "/drystone.property.v1.PropertyService/ListProperties");
    let block = raw::headers(&fields);
    beside_load(&mesh, async || {
        let (address, no_window) = (mesh.grpc_address("property"), [(INITIAL_WINDOW_SIZE, 0)]);
        let mut attacker = Http2::connect_mesh(address, mesh.certificates(), "edge", "property", &no_window).await;
        for number in 0..STREAMS {
            // Pages of 200.
            let message = vec![0, 0, 0, 0, 3, 8, 200, 1];
            attacker.send(&frames(1 + 2 * number, &block, &[message])).await.unwrap();
        }
        let answered = attacker.answers(STREAMS as usize).await;
        let unsent = mesh.metrics().await.sum("drystone_server_unsent_bytes", &[("service", "property")]);
        println!("{unsent} bytes unsent after {answered} answers");
        assert!(unsent > 10e6, "the attack has an effect");
        assert!(unsent <= f64::from((64 << 20) + STREAMS * 4096), "{unsent}");
    })
    .await;
    wait::until("nothing is held any more", async || {
        let unsent = mesh.metrics().await.sum("drystone_server_unsent_bytes", &[("service", "property")]);
        (unsent < 1e6).then_some(())
    })
    .await;
}

/// Messages of 4 MiB that a workload begins and never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_never_finished_take_a_bounded_memory() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let authorization = format!("Bearer {}", tokens.access);
    let block = raw::headers(&call(&[("authorization", &authorization), ("grpc-timeout", "5S")]));
    let mut start = vec![0];
    start.extend((4_u32 << 20).to_be_bytes());
    beside_load(&mesh, async || {
        let mut held = Vec::new();
        for _ in 0..40 {
            let mut attacker = attacker(&mesh).await;
            // The window of the connection.
            attacker.receive_kind(WINDOW_UPDATE).await;
            for number in 0..20 {
                let stream = 1 + 2 * number;
                let begun = [frame(HEADERS, END_HEADERS, stream, &block), frame(DATA, 0, stream, &start)].concat();
                attacker.send(&begun).await.unwrap();
                attacker.send(&frame(DATA, 0, stream, &vec![0; 16_384])).await.unwrap();
            }
            held.push(attacker);
        }
        let bytes = wait::until("they count", async || {
            let metrics = mesh.metrics().await;
            let bytes = metrics.sum("drystone_server_request_bytes", &[("service", "user")]);
            (bytes > 5e6).then_some(bytes)
        })
        .await;
        assert!(bytes <= f64::from(128 << 20), "{bytes}");
    })
    .await;
    wait::until("each has ended at its deadline", async || {
        let bytes = mesh.metrics().await.sum("drystone_server_request_bytes", &[("service", "user")]);
        (bytes < 100_000.0).then_some(())
    })
    .await;
}

/// Calls whose request never ends hold permits of the server until their deadline.
#[tokio::test]
async fn calls_that_are_never_finished_harm_nobody() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let authorization = format!("Bearer {}", tokens.access);
    let block = raw::headers(&call(&[("authorization", &authorization), ("grpc-timeout", "3S")]));
    beside_load(&mesh, async || {
        let mut attacker = attacker(&mesh).await;
        for number in 0..500 {
            attacker.send(&frame(HEADERS, END_HEADERS, 1 + 2 * number, &block)).await.unwrap();
        }
        let answered = attacker.answers(500).await;
        assert_eq!(answered, 500, "each at its deadline");
    })
    .await;
}
