//! GetMe through the full server stack, beside a bare tonic echo of the same message over the same TLS.
//!
//! Both servers, and the one kind of client, run in this process: the same connection set-up, the same message, the
//! same token on each call. What differs is what stands between TLS and the handler.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use drystone::user::v1::{GetMeRequest, User, user_service_client::UserServiceClient};
use drystone_mesh::{
    clock::Clock,
    identity::{Authority, Identity, SpiffeId, TrustDomain},
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::{
    load::{self, Figures},
    memory_user,
    report::{Row, micros},
};

mod echo {
    #![allow(missing_docs, clippy::pedantic)]
    include!(concat!(env!("OUT_DIR"), "/bench.Echo.rs"));
}

/// How long one run takes, and how many runs there are of each.
const RUN: Duration = Duration::from_secs(2);
const RUNS: usize = 5;

/// Measures at 1 and at 64 in flight.
pub(crate) async fn measure() -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let domain: TrustDomain = "drystone.local".parse()?;
    let authority = Authority::open_or_create(folder.path(), &domain, Clock::system())?;
    let server = Identity::load(&authority.issue("user")?)?;
    let client = Identity::load(&authority.issue("edge")?)?;
    let stop = CancellationToken::new();

    let (full, token) = memory_user::serve(server.clone(), stop.clone()).await?;
    let bare = serve_echo(server.clone()).await?;
    let bearer: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;

    let users = UserServiceClient::new(connect(&client, &server.id(), full).await?);
    let echoes = echo::echo_client::EchoClient::new(connect(&client, &server.id(), bare).await?);

    let mut rows = Vec::new();
    for in_flight in [1, 64] {
        let (mut bare, mut full) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            bare.push(echo_run(&echoes, &bearer, in_flight).await.context("the bare echo")?);
            full.push(get_me_run(&users, &bearer, in_flight).await.context("GetMe")?);
        }
        let echo = figures(&mut rows, "bare tonic echo, mutual TLS", in_flight, load::median(bare));
        let get_me = figures(&mut rows, "GetMe, full stack, warm token", in_flight, load::median(full));
        let limit = Row::plain(rows[echo].name.clone(), rows[echo].value, rows[echo].unit);
        let row = rows.remove(get_me);
        rows.insert(get_me, row.beside(&limit, Some(0.8)));
    }
    stop.cancel();
    Ok(rows)
}

/// Adds a rate and its two latencies; answers where the rate stands.
fn figures(rows: &mut Vec<Row>, name: &str, in_flight: usize, figures: Figures) -> usize {
    let at = rows.len();
    rows.push(Row::plain(format!("{name}, {in_flight} in flight"), figures.rate, "calls/s"));
    rows.push(Row::plain(format!("{name}, {in_flight} in flight, p50"), micros(figures.p50), "us"));
    rows.push(Row::plain(format!("{name}, {in_flight} in flight, p99"), micros(figures.p99), "us"));
    at
}

async fn echo_run(
    client: &echo::echo_client::EchoClient<Channel>,
    bearer: &MetadataValue<Ascii>,
    in_flight: usize,
) -> Result<Figures> {
    load::closed_loop(in_flight, RUN, || {
        let (client, bearer) = (client.clone(), bearer.clone());
        move || {
            let (mut client, bearer) = (client.clone(), bearer.clone());
            async move {
                let mut request = Request::new(User::default());
                request.metadata_mut().insert("authorization", bearer);
                client.echo(request).await?;
                Ok(())
            }
        }
    })
    .await
}

async fn get_me_run(
    client: &UserServiceClient<Channel>,
    bearer: &MetadataValue<Ascii>,
    in_flight: usize,
) -> Result<Figures> {
    load::closed_loop(in_flight, RUN, || {
        let (client, bearer) = (client.clone(), bearer.clone());
        move || {
            let (mut client, bearer) = (client.clone(), bearer.clone());
            async move {
                let mut request = Request::new(GetMeRequest {});
                request.metadata_mut().insert("authorization", bearer);
                client.get_me(request).await?;
                Ok(())
            }
        }
    })
    .await
}

/// Answers every call with the message that GetMe answers, whatever it was sent.
struct Echo(User);

#[tonic::async_trait]
impl echo::echo_server::Echo for Echo {
    async fn echo(&self, _request: Request<User>) -> Result<Response<User>, Status> {
        Ok(Response::new(self.0.clone()))
    }
}

async fn serve_echo(identity: Identity) -> Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(identity.server_config());
    let incoming = futures_util::stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
        let accepted = async {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            acceptor.accept(stream).await
        };
        let connection: io::Result<_> = accepted.await;
        Some((connection, (listener, acceptor)))
    });
    let service = echo::echo_server::EchoServer::new(Echo(memory_user::user_message()));
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024);
    tokio::spawn(server.serve_with_incoming(service, Box::pin(incoming)));
    Ok(address)
}

async fn connect(identity: &Identity, expected: &SpiffeId, address: std::net::SocketAddr) -> Result<Channel> {
    let config = identity.client_config(expected)?;
    let connector = service_fn(move |_: Uri| {
        let connector = TlsConnector::from(Arc::clone(&config));
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = "localhost".try_into().map_err(io::Error::other)?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Ok(Endpoint::from_static("http://localhost").connect_with_connector(connector).await?)
}
