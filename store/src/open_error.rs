//! Why a database cannot be opened.

use std::{io, path::Path, path::PathBuf};

use super::location::Server;

/// Why a database could not be opened. Each is one sentence that says what to do, its cause included.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file cannot be created or written.
    #[error("{} cannot be written ({cause}): make it writable for this user, or choose another data directory", path.display())]
    Unwritable {
        /// The directory or the file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// The schema was written by a newer release.
    #[error(
        "the database {database} has schema version {found}, but this program knows only up to {known}: start the newer \
         release that wrote it, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The file or the URL.
        database: String,
        /// The version that it has.
        found: i64,
        /// The newest version that this program has.
        known: i64,
    },
    /// A step of the schema is not the one that was applied.
    #[error(
        "the database {database} was made with another text of migration {version} ({name}): start the release that \
         wrote it, or restore a backup that fits this one"
    )]
    Changed {
        /// The file or the URL.
        database: String,
        /// The step's version.
        version: i64,
        /// The step's name, as this program has it.
        name: &'static str,
    },
    /// The file is no SQLite database, or damaged.
    #[error(
        "{} is damaged or no SQLite database ({cause}): restore it from a backup, or move it away to start with an empty one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: String,
    },
    /// The server does not answer, or not now. This alone passes by itself.
    #[error("the database {database} does not answer ({cause}): start its server, or correct `{service}.database.url`")]
    Unavailable {
        /// The URL.
        database: String,
        /// The service, as its section is called.
        service: &'static str,
        /// What was heard instead.
        cause: String,
    },
    /// The server does not let us in.
    #[error(
        "the database {database} refuses the login ({cause}): correct user and password in `{service}.database.url` or \
         `{service}.database.password_file`, or let the user in on the server"
    )]
    Refused {
        /// The URL.
        database: String,
        /// The service, as its section is called.
        service: &'static str,
        /// What the server says.
        cause: String,
    },
    /// The server has no such database.
    #[error("there is no database {database} ({cause}): create it on the server, or correct `{service}.database.url`")]
    Missing {
        /// The URL.
        database: String,
        /// The service, as its section is called.
        service: &'static str,
        /// What the server says.
        cause: String,
    },
    /// The user may not make or use the schema.
    #[error(
        "the user of the database {database} may not do what this takes ({cause}): let it create schemas there \
         (GRANT CREATE ON DATABASE), or run `drystone migrate up` as a user that may and give it the tables of `{schema}`"
    )]
    NotAllowed {
        /// The URL.
        database: String,
        /// The service's schema.
        schema: String,
        /// What the server says.
        cause: String,
    },
    /// There is no TLS as it was asked for.
    #[error(
        "no TLS with the database {database} as `sslmode` asks for it ({cause}): let the server show a certificate of its \
         host name, and name its root with `sslrootcert` in `{service}.database.url`"
    )]
    Tls {
        /// The URL.
        database: String,
        /// The service, as its section is called.
        service: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// The server is older than what we know to work.
    #[error("the server of the database {database} is PostgreSQL {found}: use 15 or newer")]
    TooOld {
        /// The URL.
        database: String,
        /// Its major version.
        found: u32,
    },
    /// A file that the configuration names cannot be read.
    #[error("{what}, {}, cannot be read ({cause}): put it there, and let this user read it", path.display())]
    Unreadable {
        /// The key that names it.
        what: String,
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
    /// Something else went wrong.
    #[error("the database {database} cannot be opened ({cause}): see to the cause and start again")]
    Failed {
        /// The file or the URL.
        database: String,
        /// What it says.
        cause: String,
    },
}

impl OpenError {
    /// Whether it may pass without anybody correcting anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// What an error of SQLite at the opening of a file means.
    pub(super) fn of_file(path: &Path, error: &sqlx::Error) -> Self {
        const READONLY: i32 = 8;
        const CORRUPT: i32 = 11;
        const CANTOPEN: i32 = 14;
        const NOTADB: i32 = 26;

        let (path, cause) = (path.to_owned(), error.to_string());
        match primary_code(error) {
            Some(READONLY | CANTOPEN) => Self::Unwritable { path, cause },
            Some(CORRUPT | NOTADB) => Self::Damaged { path, cause },
            _ => Self::Failed { database: path.display().to_string(), cause },
        }
    }

    /// What an error of PostgreSQL at the opening of a database means.
    pub(super) fn of_server(server: &Server, error: &sqlx::Error) -> Self {
        let (database, service) = (server.url.to_string(), server.service);
        match error {
            sqlx::Error::Tls(cause) => Self::Tls { database, service, cause: cause.to_string() },
            // What a handshake fails for arrives as an error of input and output.
            sqlx::Error::Io(error) => match tls_error(error) {
                Some(error) => Self::Tls { database, service, cause: error.to_string() },
                None => Self::Unavailable { database, service, cause: error.to_string() },
            },
            sqlx::Error::Database(error) => {
                let (code, cause) = (error.code().unwrap_or_default(), error.message().to_owned());
                match &*code {
                    "3D000" => Self::Missing { database, service, cause },
                    "42501" => Self::NotAllowed { database, schema: server.schema(), cause },
                    _ if code.starts_with("28") => Self::Refused { database, service, cause },
                    _ if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) => {
                        Self::Unavailable { database, service, cause }
                    }
                    _ => Self::Failed { database, cause },
                }
            }
            error => Self::Failed { database, cause: error.to_string() },
        }
    }
}

/// SQLite's result code without its extension.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
