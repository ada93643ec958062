//! What a failure of a database means, whichever it is.

use std::{error::Error as StdError, time::Duration};

use sqlx::{error::DatabaseError, postgres::PgDatabaseError, sqlite::SqliteError};

use crate::error::{Error, Reason};

/// A full disk is made room on by people.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(30);

/// What a failure of a database means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The database is away, or has no time. Whether a write was done is not known.
    Away,
    /// Its disk is full. Nothing was written.
    Full,
    /// It lost a race that only another try can win. Nothing was written.
    Conflict,
    /// Anything else: a fault of the program or of the data.
    Other,
}

impl Failure {
    /// What this error means.
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::BeginFailed => Self::Away,
            sqlx::Error::Database(error) => Self::of_answer(error.as_ref()),
            _ => Self::Other,
        }
    }

    fn of_answer(error: &dyn DatabaseError) -> Self {
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
        // query_canceled (the time limit), lock_not_available, idle_in_transaction_session_timeout,
        // read_only_sql_transaction (a standby that has not taken over yet), invalid_catalog_name
        "57014" | "55P03" | "25P03" | "25006" | "3D000" => Failure::Away,
        // Connection exceptions, a login refused, resources short, shut down by its operator.
        _ if ["08", "28", "53", "57"].iter().any(|class| code.starts_with(class)) => Failure::Away,
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
    // The index of the write-ahead log could not grow.
    const IOERR_SHMSIZE: i32 = IOERR | (19 << 8);

    match (extended, extended & 0xff) {
        (IOERR_SHMSIZE, _) | (_, FULL) => Failure::Full,
        (_, BUSY | LOCKED | IOERR | CANTOPEN) => Failure::Away,
        _ => Failure::Other,
    }
}

/// The failure of a database that stands behind an error, if one does.
pub(super) fn behind(error: &(dyn StdError + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            return Some(Failure::of(error));
        }
        next = error.source();
    }
    None
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match Failure::of(&error) {
            Failure::Away | Failure::Conflict => Self::unavailable("the database", error),
            Failure::Full => Self::new(
                Reason::DatabaseFull,
                "database full: nothing was written; try again when its operator has made room",
            )
            .retry_after(RETRY_WHEN_FULL)
            .caused_by(error),
            Failure::Other => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_lost_connection_is_no_fault_of_ours() {
        for error in [
            sqlx::Error::PoolTimedOut,
            sqlx::Error::PoolClosed,
            sqlx::Error::WorkerCrashed,
            io::Error::from(io::ErrorKind::UnexpectedEof).into(),
        ] {
            assert_eq!(Failure::of(&error), Failure::Away, "{error}");
            assert_eq!(Error::from(error).reason(), Reason::Unavailable);
        }
        assert_eq!(Error::from(sqlx::Error::RowNotFound).reason(), Reason::Internal);
    }

    #[test]
    fn each_sqlstate_means_something() {
        for (code, meaning) in [
            ("40001", Failure::Conflict),
            ("40P01", Failure::Conflict),
            ("53100", Failure::Full),
            ("53300", Failure::Away),
            ("57P01", Failure::Away),
            ("57014", Failure::Away),
            ("08006", Failure::Away),
            ("28P01", Failure::Away),
            ("25006", Failure::Away),
            ("23505", Failure::Other),
            ("42P01", Failure::Other),
        ] {
            assert_eq!(of_sqlstate(code), meaning, "{code}");
        }
    }

    #[test]
    fn each_result_code_means_something() {
        for (code, meaning) in [
            (13, Failure::Full),
            (4874, Failure::Full),
            (5, Failure::Away),
            (517, Failure::Away),
            (778, Failure::Away),
            (2067, Failure::Other),
        ] {
            assert_eq!(of_result_code(code), meaning, "{code}");
        }
    }

    #[test]
    fn a_failure_is_found_behind_others() {
        #[derive(Debug, thiserror::Error)]
        #[error("the store failed")]
        struct Outer(#[source] sqlx::Error);
        assert_eq!(behind(&Outer(sqlx::Error::PoolTimedOut)), Some(Failure::Away));
        assert_eq!(behind(&io::Error::other("else")), None);
    }
}
