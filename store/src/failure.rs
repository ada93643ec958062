//! Classification of database errors, for both engines.

use std::{error::Error as StdError, time::Duration};

use sqlx::{error::DatabaseError, postgres::PgDatabaseError, sqlite::SqliteError};

use drystone_mesh::error::{Error as MeshError, Reason};

/// When a client may retry on a full disk, where an operator must free space.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(30);

/// The kind of a database error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The database cannot be reached, or is overloaded. A write may have been applied.
    Unavailable,
    /// The disk is full. Nothing was written.
    Full,
    /// A conflict with another transaction, which a retry resolves. Nothing was written.
    Conflict,
    /// Anything else: a bug, or invalid data.
    Other,
}

impl Failure {
    /// Classifies an error.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::BeginFailed => Self::Unavailable,
            sqlx::Error::Database(error) => Self::of_database_error(error.as_ref()),
            _ => Self::Other,
        }
    }

    fn of_database_error(error: &dyn DatabaseError) -> Self {
        let code = error.code().unwrap_or_default();
        if error.try_downcast_ref::<PgDatabaseError>().is_some() {
            of_sqlstate(&code)
        } else if error.try_downcast_ref::<SqliteError>().is_some() {
            code.parse().map_or(Self::Other, of_result_code)
        } else {
            Self::Other
        }
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn of_sqlstate(code: &str) -> Failure {
    match code {
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Failure::Conflict,
        // disk_full
        "53100" => Failure::Full,
        // query_canceled (statement_timeout), lock_not_available, idle_in_transaction_session_timeout,
        // read_only_sql_transaction (a standby before its promotion), invalid_catalog_name
        "57014" | "55P03" | "25P03" | "25006" | "3D000" => Failure::Unavailable,
        // Connection exceptions, invalid authorization, insufficient resources, operator intervention.
        _ if ["08", "28", "53", "57"].iter().any(|class| code.starts_with(class)) => Failure::Unavailable,
        _ => Failure::Other,
    }
}

/// <https://www.sqlite.org/rescode.html>
fn of_result_code(extended: i32) -> Failure {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const IOERR: i32 = 10;
    const FULL: i32 = 13;
    const CANTOPEN: i32 = 14;
    // The shared-memory file of the write-ahead log could not be extended.
    const IOERR_SHMSIZE: i32 = IOERR | (19 << 8);

    match (extended, extended & 0xff) {
        (IOERR_SHMSIZE, _) | (_, FULL) => Failure::Full,
        (_, BUSY | LOCKED | IOERR | CANTOPEN) => Failure::Unavailable,
        _ => Failure::Other,
    }
}

/// Classifies the database error among an error and its sources, if there is one.
pub(super) fn find_in_sources(error: &(dyn StdError + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            return Some(Failure::of(error));
        }
        next = error.source();
    }
    None
}

/// A database error. Store functions without other errors return it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] sqlx::Error);

/// The result of a store function without other errors.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Error> for MeshError {
    fn from(Error(error): Error) -> Self {
        to_mesh_error(error)
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        MeshError::from(error).into()
    }
}

/// The error for the caller of a service, for a database error.
#[must_use]
pub fn to_mesh_error(error: sqlx::Error) -> MeshError {
    match Failure::of(&error) {
        Failure::Unavailable | Failure::Conflict => MeshError::unavailable("the database", error),
        Failure::Full => MeshError::new(
            Reason::DatabaseFull,
            "database full: nothing was written; retry after the operator has freed disk space",
        )
        .retry_after(RETRY_AFTER_FULL)
        .caused_by(error),
        Failure::Other => MeshError::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_lost_connection_is_unavailable_and_not_internal() {
        for error in [
            sqlx::Error::PoolTimedOut,
            sqlx::Error::PoolClosed,
            sqlx::Error::WorkerCrashed,
            io::Error::from(io::ErrorKind::UnexpectedEof).into(),
        ] {
            assert_eq!(Failure::of(&error), Failure::Unavailable, "{error}");
            assert_eq!(to_mesh_error(error).reason(), Reason::Unavailable);
        }
        assert_eq!(to_mesh_error(sqlx::Error::RowNotFound).reason(), Reason::Internal);
    }

    #[test]
    fn sqlstates_are_classified() {
        for (code, expected) in [
            ("40001", Failure::Conflict),
            ("40P01", Failure::Conflict),
            ("53100", Failure::Full),
            ("53300", Failure::Unavailable),
            ("57P01", Failure::Unavailable),
            ("57014", Failure::Unavailable),
            ("08006", Failure::Unavailable),
            ("28P01", Failure::Unavailable),
            ("25006", Failure::Unavailable),
            ("23505", Failure::Other),
            ("42P01", Failure::Other),
        ] {
            assert_eq!(of_sqlstate(code), expected, "{code}");
        }
    }

    #[test]
    fn sqlite_result_codes_are_classified() {
        for (code, expected) in [
            (13, Failure::Full),
            (4874, Failure::Full),
            (5, Failure::Unavailable),
            (517, Failure::Unavailable),
            (778, Failure::Unavailable),
            (2067, Failure::Other),
        ] {
            assert_eq!(of_result_code(code), expected, "{code}");
        }
    }

    #[test]
    fn a_database_error_is_found_among_the_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("the store failed")]
        struct StoreFailed(#[source] sqlx::Error);
        assert_eq!(find_in_sources(&StoreFailed(sqlx::Error::PoolTimedOut)), Some(Failure::Unavailable));
        assert_eq!(find_in_sources(&io::Error::other("other")), None);
    }
}
