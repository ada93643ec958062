//! A database that is to be opened: where it is, and how it is to be used.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

use super::{Address, AddressError, OpenError, ServerUrl};
use drystone_mesh::config::Span;

/// The most connections that can be configured.
const MAX_CONNECTIONS: u32 = 1000;

/// The longest time limit that can be configured.
const MAX_TIMEOUT: Span = Span::minutes(10);

/// How connections to a PostgreSQL server are used. An SQLite file needs none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// How many connections this process opens at most. They open as they are needed.
    pub connections: u32,
    /// How long a call waits for a connection, the making of a new one included.
    pub acquire_timeout: Span,
    /// How long one statement may take; the server breaks it off.
    pub statement_timeout: Span,
    /// How long a connection that is not needed stays open.
    pub idle_timeout: Span,
    /// After how long a connection is replaced, so that a change behind a name is followed.
    pub max_lifetime: Span,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connections: 10,
            acquire_timeout: Span::seconds(2),
            statement_timeout: Span::seconds(5),
            idle_timeout: Span::minutes(5),
            max_lifetime: Span::minutes(30),
        }
    }
}

/// The keys of a service's section that say where its database is and how to use it.
///
/// Each section has these keys itself. A struct of them, flattened into the sections, would cost what a fault says: through
/// `#[serde(flatten)]` it comes without the key that it is about and without the list of valid ones.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// The service, as its section is called.
    pub service: &'static str,
    /// `database`.
    pub address: &'a Address,
    /// `database_password_file`.
    pub password_file: Option<&'a Path>,
    /// `database_pool`.
    pub pool: &'a PoolConfig,
}

impl Settings<'_> {
    /// What types cannot say of the values.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub fn check(&self) -> Result<(), String> {
        let Self { service, address, password_file, pool } = self;
        if let Address::File(path) = address {
            if path.file_name().is_none() {
                return Err(format!(
                    "{service}.database must name a file, such as `{service}.db`, or be a URL that begins with postgres://"
                ));
            }
            if password_file.is_some() {
                return Err(format!(
                    "{service}.database_password_file is for a PostgreSQL server, but {service}.database names a file; remove one"
                ));
            }
        }
        if pool.connections == 0 || pool.connections > MAX_CONNECTIONS {
            return Err(format!("{service}.database_pool.connections must be from 1 to {MAX_CONNECTIONS}, such as 10"));
        }
        for (key, value, longest, example) in [
            ("acquire_timeout", pool.acquire_timeout, MAX_TIMEOUT, "2s"),
            ("statement_timeout", pool.statement_timeout, MAX_TIMEOUT, "5s"),
            ("idle_timeout", pool.idle_timeout, Span::days(1), "5m"),
            ("max_lifetime", pool.max_lifetime, Span::days(1), "30m"),
        ] {
            if value.duration() == Duration::ZERO || value > longest {
                return Err(format!(
                    "{service}.database_pool.{key} must be more than 0 and at most {longest}, such as `{example}`"
                ));
            }
        }
        Ok(())
    }

    /// The database that they name.
    #[must_use]
    pub fn place(&self, data_dir: &Path) -> Location {
        match self.address {
            Address::File(path) => Location::File(data_dir.join(path)),
            Address::Server(url) => Location::Server(Server {
                service: self.service,
                url: url.clone(),
                password_file: self.password_file.map(Path::to_owned),
                pool: self.pool.clone(),
            }),
        }
    }
}

/// A database that is to be opened.
#[derive(Debug, Clone)]
pub enum Location {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Server(Server),
}

/// A PostgreSQL database, and the service whose schema is meant.
#[derive(Debug, Clone)]
pub struct Server {
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
        Ok(Self::Server(Server { service, url, password_file: None, pool: PoolConfig::default() }))
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

impl Server {
    /// The schema of the service. The prefix keeps it apart from what others put into the same database, and `user`
    /// from a word that SQL keeps for itself.
    pub(super) fn schema(&self) -> String {
        format!("drystone_{}", self.service)
    }

    /// How to connect. The password is read anew each time.
    pub(super) fn options(&self) -> Result<PgConnectOptions, OpenError> {
        for (parameter, path) in self.url.files() {
            fs::File::open(&path).map_err(|error| OpenError::Unreadable {
                what: format!("the file of `{parameter}` in {}.database", self.service),
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
                what: format!("{}.database_password_file", self.service),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, password_file: Option<&str>, change: fn(&mut PoolConfig)) -> Result<(), String> {
        let address = Address::try_from(address.to_owned()).unwrap();
        let mut pool = PoolConfig::default();
        change(&mut pool);
        Settings { service: "user", address: &address, password_file: password_file.map(Path::new), pool: &pool }
            .check()
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        let url = "postgres://ada@db/mesh";
        check(url, Some("password"), |_| {}).unwrap();
        check("user.db", None, |_| {}).unwrap();
        for (fault, key) in [
            (check("/", None, |_| {}), "user.database must name a file"),
            (check("", None, |_| {}), "user.database must name a file"),
            (check("..", None, |_| {}), "user.database must name a file"),
            (check("user.db", Some("password"), |_| {}), "user.database_password_file is for a PostgreSQL server"),
            (check(url, None, |pool| pool.connections = 0), "user.database_pool.connections"),
            (check(url, None, |pool| pool.connections = 1001), "user.database_pool.connections"),
            (check(url, None, |pool| pool.acquire_timeout = Span::seconds(0)), "user.database_pool.acquire_timeout"),
            (check(url, None, |pool| pool.statement_timeout = Span::hours(1)), "user.database_pool.statement_timeout"),
            (check(url, None, |pool| pool.idle_timeout = Span::seconds(0)), "user.database_pool.idle_timeout"),
            (check(url, None, |pool| pool.max_lifetime = Span::days(2)), "user.database_pool.max_lifetime"),
        ] {
            let fault = fault.unwrap_err();
            assert!(fault.starts_with(key), "{fault}");
        }
    }
}
