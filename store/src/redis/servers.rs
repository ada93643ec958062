//! Connects to Redis: a single server or a Cluster.

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

/// The timeout of a connect, including the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum number of commands queued for writing. Further callers wait.
const MAX_QUEUED_COMMANDS: usize = 1024;
/// The oldest supported major version of Redis.
const MIN_VERSION: u32 = 7;

/// Why the configuration of Redis is invalid.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// There is no URL.
    #[error("redis.url is not set; write the URL of Redis, such as `redis://127.0.0.1:6379`")]
    NoUrl,
    /// The URL is invalid. The message does not contain it, since it may contain a password.
    #[error("redis.url is invalid ({0}); write a URL such as `redis://:PASSWORD@HOST:6379`")]
    Url(&'static str),
    /// Several servers without `redis.cluster`.
    #[error("redis.url names several servers; set `redis.cluster = true` if they form a Cluster, otherwise name one")]
    MultipleServers,
    /// There is a password both in the URL and in a file.
    #[error("redis.url contains a password, and redis.password_file is set; remove one")]
    TwoPasswords,
    /// The password file cannot be read.
    #[error(
        "redis.password_file, {path}, cannot be read: {error}; make it readable for this user, or name another file",
        path = .0.display(), error = .1
    )]
    Password(PathBuf, io::Error),
    /// The password file is empty.
    #[error("redis.password_file, {path}, is empty; write the password of Redis to it", path = .0.display())]
    NoPassword(PathBuf),
    /// The root certificates cannot be read.
    #[error("redis.ca, {path}, cannot be read: {error}", path = .0.display(), error = .1)]
    Ca(PathBuf, io::Error),
    /// The client rejects the configuration.
    #[error("redis.url and redis.ca cannot be used together: {0}")]
    Client(RedisError),
}

/// The configured servers.
pub(super) struct Servers {
    /// The server, or the configured nodes of a Cluster. Without the password, if it is in a file.
    nodes: Vec<ConnectionInfo>,
    is_cluster: bool,
    certificates: Option<TlsCertificates>,
    password_file: Option<PathBuf>,
}

/// A connection. Clones share it.
#[derive(Clone)]
pub(super) enum RedisConnection {
    /// To a single server; reconnects.
    Single(ConnectionManager),
    /// To a single server, for blocking commands; does not reconnect.
    Dedicated(MultiplexedConnection),
    /// To every node of a Cluster.
    Cluster(ClusterConnection),
}

impl Servers {
    pub(super) fn new(config: &Config) -> Result<Self, RedisOpenError> {
        // The client uses the default cryptography provider of the process.
        let _ignored_if_set = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = &config.ca;
        let root = if ca.as_os_str().is_empty() {
            None
        } else {
            Some(fs::read(ca).map_err(|error| RedisOpenError::Ca(ca.clone(), error))?)
        };
        if let Some(path) = &config.password_file {
            password::read(path)?;
        }
        Self::from_config(config, root)
    }

    /// Validates a configuration, without reading the files that it names.
    pub(super) fn check(config: &Config) -> Result<(), RedisOpenError> {
        Self::from_config(config, None).map(drop)
    }

    fn from_config(config: &Config, root_cert: Option<Vec<u8>>) -> Result<Self, RedisOpenError> {
        if config.url.is_empty() {
            return Err(RedisOpenError::NoUrl);
        }
        let nodes = config.url.expose().split(',').map(|url| node(url.trim())).collect::<Result<Vec<_>, _>>()?;
        if nodes.len() > 1 && !config.cluster {
            return Err(RedisOpenError::MultipleServers);
        }
        let password_file = config.password_file.clone();
        if password_file.is_some() && nodes.iter().any(|node| node.redis_settings().password().is_some()) {
            return Err(RedisOpenError::TwoPasswords);
        }
        let certificates = root_cert.map(|root| TlsCertificates { client_tls: None, root_cert: Some(root) });
        if !config.cluster {
            // Validates the settings before the first connect.
            client(nodes.first().cloned().ok_or(RedisOpenError::NoUrl)?, certificates.clone())
                .map_err(RedisOpenError::Client)?;
        }
        Ok(Self { nodes, is_cluster: config.cluster, certificates, password_file })
    }

    /// The nodes with the password. Its file is read each time, so that a changed password is used.
    fn nodes_with_password(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let Some(path) = &self.password_file else { return Ok(self.nodes.clone()) };
        let password = password::read(path).map_err(|error| {
            RedisError::from((ErrorKind::InvalidClientConfig, "the password cannot be read", error.to_string()))
        })?;
        let with_password = |node: &ConnectionInfo| {
            let settings = node.redis_settings().clone().set_password(password.expose());
            node.clone().set_redis_settings(settings)
        };
        Ok(self.nodes.iter().map(with_password).collect())
    }

    fn client(&self) -> RedisResult<Client> {
        let server = self.nodes_with_password()?.into_iter().next();
        let server =
            server.ok_or_else(|| RedisError::from((ErrorKind::InvalidClientConfig, "no server is configured")))?;
        client(server, self.certificates.clone())
    }

    /// Opens a connection with this command timeout, and pings Redis.
    pub(super) async fn connect(&self, command_timeout: Duration) -> RedisResult<RedisConnection> {
        if self.is_cluster {
            return self.connect_dedicated(command_timeout).await;
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(command_timeout))
            .set_number_of_retries(0)
            .set_pipeline_buffer_size(MAX_QUEUED_COMMANDS);
        let mut connection = ConnectionManager::new_with_config(self.client()?, config).await?;
        let info: RedisResult<InfoDict> = cmd("INFO").arg("server").query_async(&mut connection).await;
        if let Ok(version) = info.map(|info| info.get::<String>("redis_version").unwrap_or_default()) {
            check_version(&version)?;
        }
        let mut connection = RedisConnection::Single(connection);
        connection.query::<()>(&cmd("PING")).await?;
        Ok(connection)
    }

    /// Like [`Self::connect`], but a connection to a single server does not reconnect.
    pub(super) async fn connect_dedicated(&self, command_timeout: Duration) -> RedisResult<RedisConnection> {
        let mut connection = if self.is_cluster {
            let mut client = ClusterClient::builder(self.nodes_with_password()?)
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(command_timeout)
                .retries(1);
            if let Some(certificates) = &self.certificates {
                client = client.certs(certificates.clone());
            }
            RedisConnection::Cluster(client.build()?.get_async_connection().await?)
        } else {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(command_timeout));
            RedisConnection::Dedicated(self.client()?.get_multiplexed_async_connection_with_config(&config).await?)
        };
        connection.query::<()>(&cmd("PING")).await?;
        Ok(connection)
    }
}

impl RedisConnection {
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
    url.into_connection_info().map_err(|_| RedisOpenError::Url("it cannot be parsed"))
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
    let detail = format!("version {version} is older than {MIN_VERSION}, the oldest supported");
    Err(RedisError::from((ErrorKind::InvalidClientConfig, "redis is too old", detail)))
}
