//! Where a database is, and how to connect to it.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use sqlx::postgres::PgConnectOptions;

use super::{AddressError, OpenError, PoolConfig, ServerUrl};

/// A database that is to be opened.
#[derive(Debug, Clone)]
pub enum Location {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Server(PostgresLocation),
}

/// A PostgreSQL database, and the service whose schema is meant.
#[derive(Debug, Clone)]
pub struct PostgresLocation {
    pub(super) service: &'static str,
    pub(super) url: ServerUrl,
    pub(super) password_file: Option<PathBuf>,
    pub(super) pool: PoolConfig,
}

impl Location {
    /// This service's schema in the PostgreSQL database of this URL, used with the standard limits.
    ///
    /// # Errors
    /// The URL is not valid.
    pub fn server(service: &'static str, url: &str) -> Result<Self, AddressError> {
        let url = ServerUrl::parse(url)?;
        Ok(Self::Server(PostgresLocation { service, url, password_file: None, pool: PoolConfig::default() }))
    }

    /// With this pool of connections. A file has none.
    #[must_use]
    pub fn with_pool(self, pool: PoolConfig) -> Self {
        match self {
            Self::Server(server) => Self::Server(PostgresLocation { pool, ..server }),
            Self::File(path) => Self::File(path),
        }
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Location {
    fn from(path: &P) -> Self {
        Self::File(path.as_ref().to_owned())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(server) => server.url.fmt(f),
        }
    }
}

impl PostgresLocation {
    /// The schema of the service. The prefix separates it from other schemas of the database, and `user`
    /// from a word that SQL keeps for itself.
    pub(super) fn schema(&self) -> String {
        format!("drystone_{}", self.service)
    }

    /// How to connect. The password file is read each time.
    pub(super) fn options(&self) -> Result<PgConnectOptions, OpenError> {
        for (parameter, path) in self.url.files() {
            fs::File::open(&path).map_err(|error| OpenError::Unreadable {
                setting: format!("the file of `{parameter}` in {}.database.url", self.service),
                path,
                cause: error.to_string(),
            })?;
        }
        let mut url = self.url.with_password();
        let has_name = url.query_pairs().any(|(key, _)| key == "application_name");
        if !has_name {
            url.query_pairs_mut().append_pair("application_name", &format!("drystone {}", self.service));
        }
        let mut options: PgConnectOptions = url.as_str().parse().map_err(|error: sqlx::Error| OpenError::Failed {
            database: self.url.to_string(),
            cause: error.to_string(),
        })?;
        if let Some(path) = &self.password_file {
            let password = fs::read_to_string(path).map_err(|error| OpenError::Unreadable {
                setting: format!("{}.database.password_file", self.service),
                path: path.clone(),
                cause: error.to_string(),
            })?;
            options = options.password(password.trim_end_matches(['\r', '\n']));
        }
        let statement_timeout = self.pool.statement_timeout.duration().as_millis();
        Ok(options.options([
            ("search_path", self.schema()),
            ("default_transaction_isolation", "read committed".to_owned()),
            ("statement_timeout", statement_timeout.to_string()),
            // A process that vanishes in the middle of a transaction must not hold its locks for long.
            ("idle_in_transaction_session_timeout", (2 * statement_timeout).to_string()),
            ("tcp_keepalives_idle", "30".to_owned()),
            ("tcp_keepalives_interval", "10".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ]))
    }
}
