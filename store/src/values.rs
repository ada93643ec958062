//! Statements with many parameters.

use std::fmt::Write as _;

/// The list after `VALUES` of a statement with this many rows of this many parameters: `($1, $2), ($3, $4)`.
///
/// SQLite accepts 32,766 parameters, PostgreSQL 65,535. Use few different numbers of rows: each is a statement to prepare.
#[must_use]
pub fn values(rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 6);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 0..columns {
            let separator = if column == 0 { "" } else { ", " };
            let _ = write!(text, "{separator}${}", row * columns + column + 1);
        }
        text.push(')');
    }
    text
}

/// The list after `IN` of a statement with this many parameters, which are numbered from `first`: `$1, $2`.
#[must_use]
pub fn places(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{places, values};

    #[test]
    fn parameters_are_numbered_through() {
        assert_eq!(values(2, 3), "($1, $2, $3), ($4, $5, $6)");
        assert_eq!(values(1, 1), "($1)");
        assert_eq!(places(2, 3), "$2, $3, $4");
    }
}
