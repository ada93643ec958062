//! Where a database is, as a configuration says it: the path of an SQLite file, or the URL of a PostgreSQL database.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use drystone_mesh::config::Secret;

/// What may stand behind the `?` of a URL. The first ones mean what they mean to libpq.
const PARAMETERS: [&str; 6] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "statement-cache-capacity"];

/// `allow` is left out: it would try without TLS first, and sqlx does not go on from there.
const SSL_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

/// What stands in the place of a password.
const MASK: &str = "(secret)";

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// An SQLite file; a relative path starts at the data directory.
    File(PathBuf),
    /// A PostgreSQL database.
    Server(ServerUrl),
}

/// The URL of a PostgreSQL database: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`. It never shows
/// its password.
#[derive(Clone)]
pub struct ServerUrl {
    /// Without the password.
    url: Url,
    /// Percent-decoding is left to sqlx, so that it is kept as it was written.
    password: Secret,
}

/// A text that is no address of a database. It repeats nothing that could be a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// A URL that cannot be read.
    #[error("this is no URL ({0}); write postgres://USER@HOST:5432/DATABASE")]
    Url(#[from] url::ParseError),
    /// A URL of something else.
    #[error("a database is a file or a URL that begins with postgres://, not with {0}://")]
    Scheme(String),
    /// A URL without something that it needs.
    #[error("the URL of the database names no {0}; write postgres://USER@HOST:5432/DATABASE")]
    Incomplete(&'static str),
    /// A parameter that means nothing here.
    #[error("`{0}` is no parameter of a database's URL; use {list}", list = PARAMETERS.join(", "))]
    Parameter(String),
    /// A value of `sslmode` that there is not.
    #[error("`sslmode` has to be one of {list}", list = SSL_MODES.join(", "))]
    SslMode,
}

impl Address {
    /// The address of this file.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        match text.split_once("://") {
            Some(_) => ServerUrl::parse(&text).map(Self::Server),
            None => Ok(Self::File(text.into())),
        }
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
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, without the password.
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

    /// The whole URL, as sqlx reads it.
    pub(super) fn with_password(&self) -> Url {
        let mut url = self.url.clone();
        if !self.password.is_empty() {
            // A URL with a host takes a password.
            let _ = url.set_password(Some(self.password.expose()));
        }
        url
    }

    /// The files that the URL names, each with the parameter that does.
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

/// Without password and parameters: what an operator needs to recognise it.
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
    fn what_is_no_url_is_a_file() {
        for path in ["auth.db", "/var/lib/drystone/auth.db", "C:\\data\\auth.db"] {
            assert_eq!(Address::try_from(path.to_owned()).unwrap(), Address::file(path));
        }
    }

    #[test]
    fn a_password_is_kept_and_never_shown() {
        let url = server("postgres://ada:s%40cret@db.internal:5433/mesh?sslmode=verify-full");
        assert_eq!(url.with_password().as_str(), "postgres://ada:s%40cret@db.internal:5433/mesh?sslmode=verify-full");
        assert_eq!(url.to_string(), "postgres://ada@db.internal:5433/mesh");
        let shown = toml::Value::try_from(Address::Server(url.clone())).unwrap().to_string();
        for shown in [shown, format!("{url:?}")] {
            assert!(shown.contains("ada:(secret)@db.internal:5433/mesh?sslmode=verify-full"), "{shown}");
        }
    }

    #[test]
    fn a_url_without_a_password_shows_none() {
        assert_eq!(format!("{:?}", server("postgresql://ada@[::1]/mesh")), "postgresql://ada@[::1]/mesh");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_one_sentence_without_its_password() {
        for (text, part) in [
            ("mysql://ada:hidden@db/mesh", "begins with postgres://, not with mysql://"),
            ("postgres://ada:hidden@db", "names no database"),
            ("postgres://ada:hidden@db/", "names no database"),
            ("postgres://ada:hidden@db/a/b", "names no database"),
            ("postgres:///mesh", "names no host"),
            ("postgres://db/mesh", "names no user"),
            ("postgres://ada:hidden@db:port/mesh", "this is no URL (invalid port number)"),
            ("postgres://ada@db/mesh?password=hidden", "`password` is no parameter of a database's URL; use sslmode,"),
            ("postgres://ada@db/mesh?sslmode=allow", "`sslmode` has to be one of disable, prefer, require,"),
        ] {
            let error = Address::try_from(text.to_owned()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
