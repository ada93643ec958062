//! `drystone health`: checks readiness at the admin port of a process. Containers without a shell use it as health check.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, runtime::Builder, time::timeout};

use crate::{
    App,
    config::{Config, ConfigFile},
    output,
    table::Table,
};

/// The timeout of the check, which container runtimes repeat every few seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// The upper bound of a health report.
const MAX_REPORT_BYTES: usize = 1 << 20;
/// The path of the health report: overall status and components in one consistent response.
const PATH: &str = "/health/detailed";

/// The flags of `drystone health`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFile,

    /// Ask the admin port at URL, such as http://127.0.0.1:8081, instead of the one at `admin.listen`
    #[arg(long, value_name = "URL")]
    url: Option<AdminAddress>,
}

pub(crate) fn run(app: &App, args: &Args) -> Result<()> {
    let admin = match &args.url {
        Some(admin) => admin.clone(),
        None => AdminAddress::listening_on(Config::load(app, &args.config.sources())?.mesh.admin.listen),
    };
    // One thread is enough for a command that is repeated every few seconds.
    let runtime = Builder::new_current_thread().enable_all().build().context("the process cannot wait for answers")?;
    let report = runtime.block_on(async {
        let late = || anyhow!("{admin} does not answer within {ANSWER_TIMEOUT:?}; check the load of that process");
        timeout(ANSWER_TIMEOUT, admin.ask()).await.unwrap_or_else(|_| Err(late()))
    })?;
    match report.status {
        Status::Ok => output::print("ready\n"),
        Status::Degraded => output::print(format!("ready, but degraded\n\n{}", report.table())),
        Status::Down => bail!("{admin} is not ready: {}", report.sentence()),
    }
}

/// The address of an admin port: `HOST:PORT`.
#[derive(Debug, Clone)]
struct AdminAddress(String);

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Option<Uri> = text.parse().ok();
        let uri = uri.filter(|uri| {
            uri.scheme() == Some(&Scheme::HTTP) && uri.path_and_query().is_none_or(|path| path.as_str() == "/")
        });
        let host = uri.as_ref().and_then(Uri::host).filter(|host| !host.is_empty());
        let host = host.ok_or("write http://HOST:PORT, such as http://127.0.0.1:8081")?;
        Ok(Self(format!("{host}:{}", uri.as_ref().and_then(Uri::port_u16).unwrap_or(80))))
    }
}

impl std::fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl AdminAddress {
    /// The admin port of a process with this listen address. A wildcard address becomes loopback.
    fn listening_on(listen: SocketAddr) -> Self {
        let loopback: IpAddr = match listen.ip() {
            IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        Self(SocketAddr::new(loopback, listen.port()).to_string())
    }

    async fn ask(&self) -> Result<Report> {
        let stream = TcpStream::connect(&self.0).await.map_err(|error| {
            anyhow!(
                "no server answers at {self}: {error}; start the process, or set its admin port with --url or `admin.listen`"
            )
        })?;
        let not_admin_port =
            |what: &str| anyhow!("the server at {self} is not an admin port of Drystone: {what}; check `admin.listen`");
        let (code, body) = get(stream, &self.0).await.map_err(|error| not_admin_port(&format!("{error:#}")))?;
        if code != StatusCode::OK {
            return Err(not_admin_port(&format!("it answers {PATH} with {code}")));
        }
        serde_json::from_slice(&body).map_err(|_| not_admin_port(&format!("it answers {PATH} with something else")))
    }
}

async fn get(stream: TcpStream, host: &str) -> Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(PATH).header(header::HOST, host).body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_REPORT_BYTES).collect().await.map_err(|error| anyhow!(error))?;
    Ok((head.status, body.to_bytes()))
}

/// The health report of the admin port.
#[derive(Debug, Deserialize)]
struct Report {
    status: Status,
    components: BTreeMap<String, Component>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Degraded,
    Down,
}

#[derive(Debug, Deserialize)]
struct Component {
    state: String,
    #[serde(default)]
    detail: String,
}

impl Report {
    fn not_ok(&self) -> impl Iterator<Item = (&String, &Component)> {
        self.components.iter().filter(|(_, component)| component.state != "up")
    }

    fn table(&self) -> Table<3> {
        let mut table = Table::new(["COMPONENT", "STATE", "DETAIL"]);
        for (name, Component { state, detail }) in self.not_ok() {
            table.row([name.clone(), state.clone(), detail.clone()]);
        }
        table
    }

    fn sentence(&self) -> String {
        let not_ok = self.not_ok().map(|(name, Component { state, detail })| match detail.as_str() {
            "" => format!("{name} is {state}"),
            detail => format!("{name} is {state} ({detail})"),
        });
        let not_ok: Vec<String> = not_ok.collect();
        format!("{}; it becomes ready by itself once these are up", not_ok.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_is_named_by_a_url_without_more() {
        for (text, address) in [
            ("http://127.0.0.1:8081", "127.0.0.1:8081"),
            ("http://auth.internal:8081/", "auth.internal:8081"),
            ("http://[::1]:8081", "[::1]:8081"),
            ("http://auth", "auth:80"),
        ] {
            assert_eq!(text.parse::<AdminAddress>().unwrap().0, address);
        }
        for invalid in
            ["", "127.0.0.1:8081", "https://auth:8081", "http://auth:8081/ready", "http://auth/?x", "http://"]
        {
            assert!(invalid.parse::<AdminAddress>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_the_loopback_address() {
        for (listen, asked) in
            [("0.0.0.0:8081", "127.0.0.1:8081"), ("[::]:8081", "[::1]:8081"), ("10.1.2.3:8081", "10.1.2.3:8081")]
        {
            assert_eq!(AdminAddress::listening_on(listen.parse().unwrap()).0, asked);
        }
    }
}
