//! The schema of a service, as its crate declares it.

/// One migration of a schema. A released migration is never edited; the next change is a new one.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its version, from 1.
    pub version: i64,
    /// Its name.
    pub name: &'static str,
    /// Its statements for SQLite.
    pub sqlite: &'static str,
    /// Its statements for PostgreSQL.
    pub postgres: &'static str,
}

/// A [`Migration`] from the files `migrations/sqlite/NUMBER_NAME.sql` and `migrations/postgres/NUMBER_NAME.sql` of the
/// crate, where NUMBER is the version in four digits: `migration!("0001", "note")`.
#[macro_export]
macro_rules! migration {
    ($number:literal, $name:literal) => {
        $crate::module::Migration {
            version: $crate::module::version($number),
            name: $name,
            sqlite: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/migrations/sqlite/",
                $number,
                "_",
                $name,
                ".sql"
            )),
            postgres: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/migrations/postgres/",
                $number,
                "_",
                $name,
                ".sql"
            )),
        }
    };
}

/// The version in the number of a file name.
#[doc(hidden)]
#[must_use]
pub const fn version(number: &str) -> i64 {
    let (digits, mut version, mut at) = (number.as_bytes(), 0, 0);
    while at < digits.len() {
        assert!(digits[at].is_ascii_digit(), "the number of a migration consists of digits");
        version = version * 10 + (digits[at] - b'0') as i64;
        at += 1;
    }
    version
}
