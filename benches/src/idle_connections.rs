//! The memory of idle connections: HTTP/1.1 and HTTP/2 at the edge, and mutual TLS at a service.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use drystone::auth::v1::{GetDiscoveryRequest, key_service_client::KeyServiceClient};
use drystone_tests::Mesh;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request,
    body::Bytes,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{process::resident_megabytes, report::Measurement};

/// How many connections are opened of each kind. Their memory is far above the noise of a process at rest.
const CONNECTIONS: u32 = 1000;

/// Each kind at a mesh of its own, so that none reuses the memory of another.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    Ok(vec![
        measured("idle connection, HTTP/1.1 at the edge", async |mesh| http1(mesh.rest().address()).await).await?,
        measured("idle connection, HTTP/2 at the edge", async |mesh| http2(mesh.rest().address()).await).await?,
        measured("idle connection, mutual TLS at a service", mutual_tls).await?,
    ])
}

/// The resident memory of the server for each connection. Each has had a request, as every connection has.
async fn measured<C>(name: &str, open: impl AsyncFn(&Mesh) -> Result<C>) -> Result<Measurement> {
    let mesh = Mesh::setup().set("edge.connections_per_address", "4000").set("edge.idle_time", "1h").start();
    // The first connections of a process pay for what all share.
    let first = futures_util::future::try_join_all((0..16).map(|_| open(&mesh))).await?;
    let before = resident_megabytes(mesh.id())?;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(open(&mesh).await.with_context(|| format!("{} are open", held.len()))?);
    }
    let memory = resident_megabytes(mesh.id())? - before;
    drop((first, held));
    drop(mesh.stop());
    Ok(Measurement::plain(name, memory * 1e6 / 1024.0 / f64::from(CONNECTIONS), "KiB"))
}

fn health() -> Result<Request<Empty<Bytes>>> {
    Ok(Request::get("http://edge/health").header("host", "edge").body(Empty::new())?)
}

async fn http1(edge: SocketAddr) -> Result<http1::SendRequest<Empty<Bytes>>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(edge).await?)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(health()?).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    response.into_body().collect().await?;
    Ok(sender)
}

async fn http2(edge: SocketAddr) -> Result<http2::SendRequest<Empty<Bytes>>> {
    let stream = TokioIo::new(TcpStream::connect(edge).await?);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    tokio::spawn(connection);
    let response = sender.send_request(health()?).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    response.into_body().collect().await?;
    Ok(sender)
}

async fn mutual_tls(mesh: &Mesh) -> Result<KeyServiceClient<tonic::transport::Channel>> {
    let mut client = KeyServiceClient::new(mesh.channel("auth", "operator"));
    client.get_discovery(GetDiscoveryRequest {}).await?;
    Ok(client)
}
