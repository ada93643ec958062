//! Where Redis is, and how it is reached: a single server or a Cluster.

use std::{fs, io, path::PathBuf, time::Duration};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, InfoDict, IntoConnectionInfo,
    RedisError, RedisResult, ScriptInvocation, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cmd,
};

use super::{Config, password};

/// How long connecting may take, the login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How many commands are queued for writing before their callers have to wait.
const MAX_QUEUED_COMMANDS: usize = 1024;
/// The oldest supported Redis.
const MIN_VERSION: u32 = 7;

/// Why Redis cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// There is no URL.
    #[error("redis.url is not set; write where Redis is, such as `redis://127.0.0.1:6379`")]
    NoUrl,
    /// The URL cannot be used. What stands there is not told: it may hold a password.
    #[error("redis.url is no URL of a Redis ({0}); write one such as `redis://:PASSWORD@HOST:6379`")]
    Url(&'static str),
    /// Several servers that are no Cluster.
    #[error("redis.url holds several servers; set `redis.cluster = true` if they are a Cluster, else leave one")]
    Several,
    /// Two passwords, of which one would not be used.
    #[error("redis.url holds a password, and redis.password_file names another; remove one")]
    TwoPasswords,
    /// The password cannot be read.
    #[error(
        "redis.password_file, {path}, cannot be read: {error}; let the user that this runs as read it, or name another file",
        path = .0.display(), error = .1
    )]
    Password(PathBuf, io::Error),
    /// There is no password in its file.
    #[error("redis.password_file, {path}, is empty; write the password of Redis there", path = .0.display())]
    NoPassword(PathBuf),
    /// The roots cannot be read.
    #[error("redis.ca, {path}, cannot be read: {error}", path = .0.display(), error = .1)]
    Ca(PathBuf, io::Error),
    /// The client cannot be set up for this.
    #[error("redis.url and redis.ca cannot be used together: {0}")]
    Client(RedisError),
}

/// Where Redis is.
pub(super) struct Servers {
    /// The server, or those nodes of a Cluster that were named. Without the password, if a file holds it.
    nodes: Vec<ConnectionInfo>,
    is_cluster: bool,
    certificates: Option<TlsCertificates>,
    password_file: Option<PathBuf>,
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
    pub(super) fn new(config: &Config) -> Result<Self, RedisOpenError> {
        // The client takes the process' cryptography library; there is one.
        let _it_may_be_set = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = &config.ca;
        let root = if ca.as_os_str().is_empty() {
            None
        } else {
            Some(fs::read(ca).map_err(|error| RedisOpenError::Ca(ca.clone(), error))?)
        };
        if let Some(path) = &config.password_file {
            password::read(path)?;
        }
        Self::assemble(config, root)
    }

    /// Finds what is wrong with a configuration, apart from the files that it names.
    pub(super) fn check(config: &Config) -> Result<(), RedisOpenError> {
        Self::assemble(config, None).map(drop)
    }

    fn assemble(config: &Config, root_cert: Option<Vec<u8>>) -> Result<Self, RedisOpenError> {
        if config.url.is_empty() {
            return Err(RedisOpenError::NoUrl);
        }
        let nodes = config.url.expose().split(',').map(|url| node(url.trim())).collect::<Result<Vec<_>, _>>()?;
        if nodes.len() > 1 && !config.cluster {
            return Err(RedisOpenError::Several);
        }
        let password_file = config.password_file.clone();
        if password_file.is_some() && nodes.iter().any(|node| node.redis_settings().password().is_some()) {
            return Err(RedisOpenError::TwoPasswords);
        }
        let certificates = root_cert.map(|root| TlsCertificates { client_tls: None, root_cert: Some(root) });
        if !config.cluster {
            // What the client cannot do is to be known before anybody is connected.
            client(nodes.first().cloned().ok_or(RedisOpenError::NoUrl)?, certificates.clone())
                .map_err(RedisOpenError::Client)?;
        }
        Ok(Self { nodes, is_cluster: config.cluster, certificates, password_file })
    }

    /// The nodes, each with the password. It is read anew each time, so that a changed one is followed.
    fn nodes(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let Some(path) = &self.password_file else { return Ok(self.nodes.clone()) };
        let password = password::read(path).map_err(|error| {
            RedisError::from((ErrorKind::InvalidClientConfig, "there is no password", error.to_string()))
        })?;
        let with_password = |node: &ConnectionInfo| {
            let settings = node.redis_settings().clone().set_password(password.expose());
            node.clone().set_redis_settings(settings)
        };
        Ok(self.nodes.iter().map(with_password).collect())
    }

    fn client(&self) -> RedisResult<Client> {
        let server = self.nodes()?.into_iter().next();
        let server = server.ok_or_else(|| RedisError::from((ErrorKind::InvalidClientConfig, "there is no server")))?;
        client(server, self.certificates.clone())
    }

    /// A connection that has answered, with this time limit for a command.
    pub(super) async fn connect(&self, limit: Duration) -> RedisResult<Link> {
        if self.is_cluster {
            return self.connect_for(limit).await;
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(limit))
            .set_number_of_retries(0)
            .set_pipeline_buffer_size(MAX_QUEUED_COMMANDS);
        let mut connection = ConnectionManager::new_with_config(self.client()?, config).await?;
        let info: RedisResult<InfoDict> = cmd("INFO").arg("server").query_async(&mut connection).await;
        if let Ok(version) = info.map(|info| info.get::<String>("redis_version").unwrap_or_default()) {
            check_version(&version)?;
        }
        let mut link = Link::Single(connection);
        link.query::<()>(&cmd("PING")).await?;
        Ok(link)
    }

    /// The same, which does not reconnect by itself.
    pub(super) async fn connect_for(&self, timeout: Duration) -> RedisResult<Link> {
        let mut link = if self.is_cluster {
            let mut client = ClusterClient::builder(self.nodes()?)
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(timeout)
                .retries(1);
            if let Some(certificates) = &self.certificates {
                client = client.certs(certificates.clone());
            }
            Link::Cluster(client.build()?.get_async_connection().await?)
        } else {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(timeout));
            Link::Dedicated(self.client()?.get_multiplexed_async_connection_with_config(&config).await?)
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

fn node(url: &str) -> Result<ConnectionInfo, RedisOpenError> {
    if !["redis://", "rediss://", "redis+unix://", "unix://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(RedisOpenError::Url("it does not begin with `redis://` or `rediss://`"));
    }
    url.into_connection_info().map_err(|_| RedisOpenError::Url("it cannot be read"))
}

fn client(server: ConnectionInfo, certificates: Option<TlsCertificates>) -> RedisResult<Client> {
    match certificates {
        Some(certificates) => Client::build_with_tls(server, certificates),
        None => Client::open(server),
    }
}

fn check_version(version: &str) -> RedisResult<()> {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major >= MIN_VERSION) {
        return Ok(());
    }
    let detail = format!("this one is {version}, and {MIN_VERSION} is the oldest that suffices");
    Err(RedisError::from((ErrorKind::InvalidClientConfig, "redis is too old", detail)))
}
