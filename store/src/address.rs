//! The address of a database in the configuration: the path of an SQLite file, or the URL of a PostgreSQL database.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use drystone_mesh::config::Secret;

/// The supported query parameters of a URL. Those up to `application_name` have the meaning that libpq gives them.
const PARAMETERS: [&str; 6] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "statement-cache-capacity"];

/// `allow` is not supported: sqlx would try without TLS first, and then not retry with TLS.
const SSL_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

/// Replaces the password in displayed URLs.
const MASK: &str = "(secret)";

/// The address of a database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// An SQLite file; a relative path is resolved against the data directory.
    File(PathBuf),
    /// A PostgreSQL database.
    Server(ServerUrl),
}

/// The URL of a PostgreSQL database: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`. Its password is
/// never displayed.
#[derive(Clone)]
pub struct ServerUrl {
    /// Without the password.
    url: Url,
    /// Still percent-encoded: sqlx decodes it.
    password: Secret,
}

/// Why an address is invalid. The messages contain nothing that could be a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The URL cannot be parsed.
    #[error("the URL is invalid ({0}); write postgres://USER@HOST:5432/DATABASE")]
    Url(#[from] url::ParseError),
    /// The scheme is not that of PostgreSQL.
    #[error("the scheme {0}:// is not supported; write a file name or a URL that begins with postgres://")]
    Scheme(String),
    /// The URL lacks a required part.
    #[error("the database URL has no {0}; write postgres://USER@HOST:5432/DATABASE")]
    Incomplete(&'static str),
    /// The query parameter is not supported.
    #[error("the parameter `{0}` is not supported in the URL of a database; use {list}", list = PARAMETERS.join(", "))]
    Parameter(String),
    /// The value of `sslmode` is not supported.
    #[error("`sslmode` must be one of {list}", list = SSL_MODES.join(", "))]
    SslMode,
}

impl Address {
    /// The address of an SQLite file.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        // A URL with a typo is not taken for the path of a file, which would be shown with its password.
        let is_url = text.contains("://") || text.starts_with("postgres:") || text.starts_with("postgresql:");
        if is_url { ServerUrl::parse(&text).map(Self::Server) } else { Ok(Self::File(text.into())) }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(path) => path.serialize(serializer),
            Self::Server(url) => url.masked().serialize(serializer),
        }
    }
}

impl ServerUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let mut url = Url::parse(text)?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err(AddressError::Scheme(url.scheme().to_owned()));
        }
        for (key, value) in url.query_pairs() {
            if !PARAMETERS.contains(&&*key) {
                return Err(AddressError::Parameter(key.into_owned()));
            }
            if key == "sslmode" && !SSL_MODES.contains(&&*value) {
                return Err(AddressError::SslMode);
            }
        }
        let database = url.path().trim_start_matches('/');
        for (part, is_missing) in [
            ("host", url.host_str().is_none_or(str::is_empty)),
            ("user", url.username().is_empty()),
            ("database", database.is_empty() || database.contains('/')),
        ] {
            if is_missing {
                return Err(AddressError::Incomplete(part));
            }
        }
        let password = Secret::from(url.password().unwrap_or_default().to_owned());
        url.set_password(None).map_err(|()| AddressError::Incomplete("host"))?;
        Ok(Self { url, password })
    }

    /// The complete URL, for sqlx.
    pub(super) fn with_password(&self) -> Url {
        let mut url = self.url.clone();
        if !self.password.is_empty() {
            // A URL with a host accepts a password.
            let _ = url.set_password(Some(self.password.expose()));
        }
        url
    }

    /// The files that the URL names, each with its parameter.
    pub(super) fn files(&self) -> Vec<(String, PathBuf)> {
        let is_file = |key: &str| ["sslrootcert", "sslcert", "sslkey"].contains(&key);
        let pairs = self.url.query_pairs().filter(|(key, _)| is_file(key));
        pairs.map(|(key, value)| (key.into_owned(), Path::new(&*value).to_owned())).collect()
    }

    fn masked(&self) -> String {
        let mut url = self.url.clone();
        if !self.password.is_empty() {
            let _ = url.set_password(Some(MASK));
        }
        url.into()
    }
}

impl PartialEq for ServerUrl {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url && self.password.expose() == other.password.expose()
    }
}

impl Eq for ServerUrl {}

/// Without password and parameters.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        url.set_query(None);
        url.fmt(f)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> ServerUrl {
        match Address::try_from(text.to_owned()).unwrap() {
            Address::Server(url) => url,
            Address::File(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn an_address_without_a_scheme_is_a_file() {
        for path in ["auth.db", "/var/lib/drystone/auth.db", "C:\\data\\auth.db"] {
            assert_eq!(Address::try_from(path.to_owned()).unwrap(), Address::file(path));
        }
    }

    #[test]
    fn a_password_is_used_and_never_displayed() {
        let url = server("postgres://ada:s%40cret@db.internal:5433/mesh?sslmode=verify-full");
        assert_eq!(url.with_password().as_str(), "postgres://ada:s%40cret@db.internal:5433/mesh?sslmode=verify-full");
        assert_eq!(url.to_string(), "postgres://ada@db.internal:5433/mesh");
        let serialized = toml::Value::try_from(Address::Server(url.clone())).unwrap().to_string();
        for displayed in [serialized, format!("{url:?}")] {
            assert!(displayed.contains("ada:(secret)@db.internal:5433/mesh?sslmode=verify-full"), "{displayed}");
        }
    }

    #[test]
    fn a_url_without_a_password_is_displayed_without_a_mask() {
        assert_eq!(format!("{:?}", server("postgresql://ada@[::1]/mesh")), "postgresql://ada@[::1]/mesh");
    }

    #[test]
    fn an_invalid_url_is_rejected_without_its_password() {
        for (text, part) in [
            ("mysql://ada:hidden@db/mesh", "the scheme mysql:// is not supported"),
            ("postgres://ada:hidden@db", "has no database"),
            ("postgres://ada:hidden@db/", "has no database"),
            ("postgres://ada:hidden@db/a/b", "has no database"),
            ("postgres:///mesh", "has no host"),
            ("postgres:/ada:hidden@db/mesh", "has no"),
            ("postgresql:ada:hidden@db/mesh", "has no"),
            ("postgres://db/mesh", "has no user"),
            ("postgres://ada:hidden@db:port/mesh", "the URL is invalid (invalid port number)"),
            (
                "postgres://ada@db/mesh?password=hidden",
                "the parameter `password` is not supported in the URL of a database; use sslmode,",
            ),
            ("postgres://ada@db/mesh?sslmode=allow", "`sslmode` must be one of disable, prefer, require,"),
        ] {
            let error = Address::try_from(text.to_owned()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
