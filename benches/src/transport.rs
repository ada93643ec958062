//! GetMe through the full server stack, compared with a bare tonic echo of the same message over the same TLS.
//!
//! Both servers and their clients run in this process, with the same connection setup, message and token. Only the
//! layers between TLS and the handler differ.

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
    load::{self, LoadResult},
    memory_user,
    report::{Measurement, micros},
};

mod echo {
    #![allow(missing_docs, clippy::pedantic)]
    include!(concat!(env!("OUT_DIR"), "/bench.Echo.rs"));
}

/// The duration of one run.
const RUN: Duration = Duration::from_secs(2);
/// The number of runs of each server.
const RUNS: usize = 5;

/// Measures with 1 and with 64 calls in flight.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let directory = tempfile::tempdir()?;
    let domain: TrustDomain = "drystone.local".parse()?;
    let authority = Authority::open_or_create(directory.path(), &domain, Clock::system())?;
    let server = Identity::load(&authority.issue("user")?)?;
    let client = Identity::load(&authority.issue("edge")?)?;
    let stop = CancellationToken::new();

    let (full_address, token) = memory_user::serve(server.clone(), stop.clone()).await?;
    let echo_address = serve_echo(server.clone()).await?;
    let bearer: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;

    let users = UserServiceClient::new(connect(&client, &server.id(), full_address).await?);
    let echoes = echo::echo_client::EchoClient::new(connect(&client, &server.id(), echo_address).await?);

    let mut rows = Vec::new();
    for in_flight in [1, 64] {
        let (mut echo_runs, mut get_me_runs) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            echo_runs.push(echo_run(&echoes, &bearer, in_flight).await.context("the bare echo")?);
            get_me_runs.push(get_me_run(&users, &bearer, in_flight).await.context("GetMe")?);
        }
        let echo = push_result(&mut rows, "bare tonic echo, mutual TLS", in_flight, load::median(echo_runs));
        let get_me = push_result(&mut rows, "GetMe, full stack, warm token", in_flight, load::median(get_me_runs));
        let baseline = Measurement::plain(rows[echo].name.clone(), rows[echo].value, rows[echo].unit);
        let row = rows.remove(get_me);
        rows.insert(get_me, row.compared_with(&baseline, Some(0.8)));
    }
    stop.cancel();
    Ok(rows)
}

/// Adds the rate and the two latencies of a run; returns the index of the rate.
fn push_result(rows: &mut Vec<Measurement>, name: &str, in_flight: usize, result: LoadResult) -> usize {
    let index = rows.len();
    rows.push(Measurement::plain(format!("{name}, {in_flight} in flight"), result.rate, "calls/s"));
    rows.push(Measurement::plain(format!("{name}, {in_flight} in flight, p50"), micros(result.p50), "us"));
    rows.push(Measurement::plain(format!("{name}, {in_flight} in flight, p99"), micros(result.p99), "us"));
    index
}

async fn echo_run(
    client: &echo::echo_client::EchoClient<Channel>,
    bearer: &MetadataValue<Ascii>,
    in_flight: usize,
) -> Result<LoadResult> {
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
) -> Result<LoadResult> {
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

/// Responds to every call with the response of GetMe.
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
