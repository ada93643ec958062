//! Where Redis is, and how it is reached: a single server or a Cluster.

use std::{fs, io, path::PathBuf, time::Duration};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, InfoDict, IntoConnectionInfo, RedisError,
    RedisResult, ScriptInvocation, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cmd,
};

use super::Config;

/// How long a connection may take to come about, the login included.
const CONNECT: Duration = Duration::from_secs(1);
/// How many commands wait to be written before their callers have to wait as well.
const BUFFER: usize = 1024;
/// The oldest Redis whose commands suffice.
const OLDEST: u32 = 7;

/// Why Redis cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no URL.
    #[error("redis.url is not set; write where Redis is, such as `redis://127.0.0.1:6379`")]
    NoUrl,
    /// The URL cannot be used. What stands there is not told: it may hold a password.
    #[error("redis.url is no URL of a Redis ({0}); write one such as `redis://:PASSWORD@HOST:6379`")]
    Url(&'static str),
    /// Several servers that are no Cluster.
    #[error("redis.url holds several servers; set `redis.cluster = true` if they are a Cluster, else leave one")]
    Several,
    /// The roots cannot be read.
    #[error("redis.ca, {path}, cannot be read: {error}", path = .0.display(), error = .1)]
    Ca(PathBuf, io::Error),
    /// The client cannot be set up for this.
    #[error("redis.url and redis.ca cannot be used together: {0}")]
    Client(RedisError),
}

/// Where Redis is.
pub(super) enum Servers {
    Single(Client),
    /// The nodes that were named, the roots, and the limit for each command.
    Cluster(Vec<String>, Option<TlsCertificates>),
}

/// A connection to it. Clones share it.
#[derive(Clone)]
pub(super) enum Link {
    /// To a single server; one that breaks is made anew.
    Single(ConnectionManager),
    /// To a single server, for one user alone.
    Dedicated(MultiplexedConnection),
    /// To each node of a Cluster.
    Cluster(ClusterConnection),
}

impl Servers {
    pub(super) fn new(config: &Config) -> Result<Self, OpenError> {
        // The client takes the process' cryptography library; there is one.
        let _it_may_be_set = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = &config.ca;
        let root = if ca.as_os_str().is_empty() {
            None
        } else {
            Some(fs::read(ca).map_err(|error| OpenError::Ca(ca.clone(), error))?)
        };
        Self::assemble(config, root)
    }

    /// Finds what is wrong with a configuration, apart from the files that it names.
    pub(super) fn check(config: &Config) -> Result<(), OpenError> {
        Self::assemble(config, None).map(drop)
    }

    fn assemble(config: &Config, root_cert: Option<Vec<u8>>) -> Result<Self, OpenError> {
        if config.url.is_empty() {
            return Err(OpenError::NoUrl);
        }
        let urls: Vec<&str> = config.url.expose().split(',').map(str::trim).collect();
        for url in &urls {
            check_url(url)?;
        }
        let certificates = root_cert.map(|root| TlsCertificates { client_tls: None, root_cert: Some(root) });
        if config.cluster {
            return Ok(Self::Cluster(urls.into_iter().map(str::to_owned).collect(), certificates));
        }
        let [url] = urls.as_slice() else { return Err(OpenError::Several) };
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(*url, certificates),
            None => Client::open(*url),
        };
        client.map(Self::Single).map_err(OpenError::Client)
    }

    /// A connection whose commands may take so long, and which has been heard of.
    pub(super) async fn connect(&self, limit: Duration) -> RedisResult<Link> {
        let Self::Single(client) = self else { return self.connect_for(limit).await };
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(limit))
            .set_number_of_retries(0)
            .set_pipeline_buffer_size(BUFFER);
        let mut connection = ConnectionManager::new_with_config(client.clone(), config).await?;
        let info: RedisResult<InfoDict> = cmd("INFO").arg("server").query_async(&mut connection).await;
        if let Ok(version) = info.map(|info| info.get::<String>("redis_version").unwrap_or_default()) {
            check_version(&version)?;
        }
        let mut link = Link::Single(connection);
        link.query::<()>(&cmd("PING")).await?;
        Ok(link)
    }

    /// The same, which does not mend itself.
    pub(super) async fn connect_for(&self, patience: Duration) -> RedisResult<Link> {
        let mut link = match self {
            Self::Single(client) => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    .set_response_timeout(Some(patience));
                Link::Dedicated(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Self::Cluster(nodes, certificates) => {
                let mut client = ClusterClient::builder(nodes.iter().map(String::as_str))
                    .connection_timeout(CONNECT)
                    .response_timeout(patience)
                    .retries(1);
                if let Some(certificates) = certificates {
                    client = client.certs(certificates.clone());
                }
                Link::Cluster(client.build()?.get_async_connection().await?)
            }
        };
        link.query::<()>(&cmd("PING")).await?;
        Ok(link)
    }
}

impl Link {
    pub(super) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Dedicated(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    pub(super) async fn run<T: FromRedisValue>(&mut self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        match self {
            Self::Single(connection) => script.invoke_async(connection).await,
            Self::Dedicated(connection) => script.invoke_async(connection).await,
            Self::Cluster(connection) => script.invoke_async(connection).await,
        }
    }
}

fn check_url(url: &str) -> Result<(), OpenError> {
    if !["redis://", "rediss://", "redis+unix://", "unix://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(OpenError::Url("it does not begin with `redis://` or `rediss://`"));
    }
    url.into_connection_info().map(drop).map_err(|_| OpenError::Url("it cannot be read"))
}

fn check_version(version: &str) -> RedisResult<()> {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major >= OLDEST) {
        return Ok(());
    }
    let detail = format!("this one is {version}, and {OLDEST} is the oldest that suffices");
    Err(RedisError::from((ErrorKind::InvalidClientConfig, "redis is too old", detail)))
}
