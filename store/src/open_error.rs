//! Why a database cannot be opened.

use std::{io, path::Path, path::PathBuf};

use super::location::PostgresLocation;

/// Why a database cannot be opened. Each message is one sentence with the cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file cannot be created or written.
    #[error("{} cannot be written ({cause}): make it writable for this user, or choose another data directory", path.display())]
    Unwritable {
        /// The directory or the file.
        path: PathBuf,
        /// The error of the operating system.
        cause: String,
    },
    /// The schema was migrated by a newer release.
    #[error(
        "the database {database} has schema version {found}, but this program knows only up to {known}: start the newer \
         release that migrated it, or restore a backup from before the upgrade"
    )]
    SchemaTooNew {
        /// The file or the URL.
        database: String,
        /// The applied version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The checksum of a migration differs from the applied one.
    #[error(
        "migration {version} ({name}) differs from the one applied to the database {database}: start the release that \
         applied it, or restore a backup that matches this one"
    )]
    MigrationChanged {
        /// The file or the URL.
        database: String,
        /// The version of the migration.
        version: i64,
        /// The name of the migration in this program.
        name: &'static str,
    },
    /// The file is damaged, or not an SQLite database.
    #[error(
        "{} is damaged or not an SQLite database ({cause}): restore it from a backup, or move it to start with an empty one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The error of SQLite.
        cause: String,
    },
    /// The server does not respond. This is the only temporary error.
    #[error(
        "the database {database} does not respond ({cause}): start its server, or correct `{service}.database.url`"
    )]
    Unavailable {
        /// The URL.
        database: String,
        /// The service, which is the name of its section.
        service: &'static str,
        /// The error of the connection or the server.
        cause: String,
    },
    /// The server rejects the login.
    #[error(
        "the database {database} rejects the login ({cause}): correct user and password in `{service}.database.url` or \
         `{service}.database.password_file`, or allow the user on the server"
    )]
    LoginRejected {
        /// The URL.
        database: String,
        /// The service, which is the name of its section.
        service: &'static str,
        /// The error of the server.
        cause: String,
    },
    /// The database does not exist.
    #[error(
        "the database {database} does not exist ({cause}): create it on the server, or correct `{service}.database.url`"
    )]
    DatabaseMissing {
        /// The URL.
        database: String,
        /// The service, which is the name of its section.
        service: &'static str,
        /// The error of the server.
        cause: String,
    },
    /// The user lacks privileges on the schema.
    #[error(
        "the user of the database {database} lacks privileges ({cause}): let it create schemas (GRANT CREATE ON DATABASE), \
         or run `drystone migrate up` as a user that can, and grant it access to the tables of `{schema}`"
    )]
    InsufficientPrivilege {
        /// The URL.
        database: String,
        /// The schema of the service.
        schema: String,
        /// The error of the server.
        cause: String,
    },
    /// TLS as required by the URL cannot be established.
    #[error(
        "TLS with the database {database} failed as `sslmode` requires it ({cause}): configure a certificate for the host name \
         on the server, and name its root with `sslrootcert` in `{service}.database.url`"
    )]
    Tls {
        /// The URL.
        database: String,
        /// The service, which is the name of its section.
        service: &'static str,
        /// The TLS error.
        cause: String,
    },
    /// The version of the server is not supported.
    #[error("the server of the database {database} is PostgreSQL {found}: use 15 or newer")]
    ServerTooOld {
        /// The URL.
        database: String,
        /// Its major version.
        found: u32,
    },
    /// A file that the configuration names cannot be read.
    #[error("{setting}, {}, cannot be read ({cause}): create it, and make it readable for this user", path.display())]
    Unreadable {
        /// The configuration key that names it.
        setting: String,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        cause: String,
    },
    /// Any other error.
    #[error("the database {database} cannot be opened ({cause}): fix the cause and start again")]
    Failed {
        /// The file or the URL.
        database: String,
        /// The error of the database.
        cause: String,
    },
}

impl OpenError {
    /// Whether a retry may succeed without a change of the configuration.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Classifies an error of SQLite on opening a file.
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

    /// Classifies an error of PostgreSQL on opening a database.
    pub(super) fn of_server(server: &PostgresLocation, error: &sqlx::Error) -> Self {
        let (database, service) = (server.url.to_string(), server.service);
        match error {
            sqlx::Error::Tls(cause) => Self::Tls { database, service, cause: cause.to_string() },
            // A failed TLS handshake is reported as an I/O error.
            sqlx::Error::Io(error) => match tls_error(error) {
                Some(error) => Self::Tls { database, service, cause: error.to_string() },
                None => Self::Unavailable { database, service, cause: error.to_string() },
            },
            sqlx::Error::Database(error) => {
                let (code, cause) = (error.code().unwrap_or_default(), error.message().to_owned());
                match &*code {
                    "3D000" => Self::DatabaseMissing { database, service, cause },
                    "42501" => Self::InsufficientPrivilege { database, schema: server.schema(), cause },
                    _ if code.starts_with("28") => Self::LoginRejected { database, service, cause },
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

/// The primary result code of SQLite, without the extension.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
