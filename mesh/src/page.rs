//! Pages of a list: keyset pagination with opaque tokens.
//!
//! A store fetches one row more than the page holds; [`cut`] takes it off again and makes the next page's token of the
//! last row that stays. A token names the row and is bound to its list, so that one list's token is no use in another.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::error::{Error, Reason, Result};

/// How many rows a page holds if the caller does not say.
pub const DEFAULT: u32 = 50;

/// How many rows a page holds at most.
pub const MAX: u32 = 200;

const CHECKSUM: usize = 8;

/// The page that a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// How many rows.
    pub size: u32,
    /// The last row of the page before; `None` at the start.
    pub after: Option<Uuid>,
}

impl Page {
    /// Reads `page_size` and `page_token` of a request to the list of this name.
    ///
    /// # Errors
    /// `INVALID_PAGE_TOKEN` if the token was not made by this list.
    pub fn parse(list: &'static str, page_size: i32, page_token: &str) -> Result<Self> {
        let size = match u32::try_from(page_size) {
            Err(_) | Ok(0) => DEFAULT,
            Ok(size) => size.min(MAX),
        };
        let after = if page_token.is_empty() { None } else { Some(read(list, page_token).ok_or_else(invalid)?) };
        Ok(Self { size, after })
    }

    /// How many rows to fetch: one more than the page holds, to know whether another page follows.
    #[must_use]
    pub fn limit(&self) -> i64 {
        i64::from(self.size) + 1
    }
}

/// The token of the page after this row.
#[must_use]
pub fn token(list: &'static str, after: Uuid) -> String {
    let mut bytes = after.as_bytes().to_vec();
    bytes.extend_from_slice(&checksum(list, after));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Cuts what was fetched to the size of the page, and makes the token of the next one; empty if this is the last.
#[must_use]
pub fn cut<T>(list: &'static str, mut rows: Vec<T>, size: u32, id: impl Fn(&T) -> Uuid) -> (Vec<T>, String) {
    let size = size as usize;
    if rows.len() <= size {
        return (rows, String::new());
    }
    rows.truncate(size);
    let next = rows.last().map(|row| token(list, id(row))).unwrap_or_default();
    (rows, next)
}

fn read(list: &str, token: &str) -> Option<Uuid> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (id, sum) = bytes.split_at_checked(16)?;
    let id = Uuid::from_slice(id).ok()?;
    (checksum(list, id) == *sum).then_some(id)
}

/// Guards against mistakes, not against malice: a forged token gives nothing that the list would not.
fn checksum(list: &str, id: Uuid) -> [u8; CHECKSUM] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(list.as_bytes());
    context.update(&[0]);
    context.update(id.as_bytes());
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&context.finish().as_ref()[..CHECKSUM]);
    sum
}

fn invalid() -> Error {
    Error::new(
        Reason::InvalidPageToken,
        "page_token was not made by this list: take it unchanged from next_page_token, or leave it out to start over",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_its_row_in_its_own_list_alone() {
        let id = Uuid::now_v7();
        let token = token("users", id);
        assert_eq!(Page::parse("users", 10, &token).unwrap(), Page { size: 10, after: Some(id) });
        assert_eq!(Page::parse("sessions", 10, &token).unwrap_err().reason(), Reason::InvalidPageToken);
    }

    #[test]
    fn a_damaged_token_is_refused() {
        let good = token("users", Uuid::now_v7());
        for bad in
            [&good[1..], &good[..good.len() - 1], "x", "!", "\u{1F600}", &format!("{good}A"), &format!("{good}=")]
        {
            assert_eq!(Page::parse("users", 0, bad).unwrap_err().reason(), Reason::InvalidPageToken, "{bad}");
        }
    }

    #[test]
    fn sizes_are_held_in_their_bounds() {
        let size = |given| Page::parse("users", given, "").unwrap().size;
        assert_eq!([size(0), size(-3), size(1), size(200), size(9000)], [DEFAULT, DEFAULT, 1, 200, MAX]);
    }

    #[test]
    fn only_a_page_that_is_followed_by_another_has_a_next_token() {
        let rows: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
        assert_eq!(cut("x", rows.clone(), 3, |id| *id), (rows.clone(), String::new()));
        let (kept, next) = cut("x", rows.clone(), 2, |id| *id);
        assert_eq!(kept, rows[..2]);
        assert_eq!(Page::parse("x", 2, &next).unwrap().after, Some(rows[1]));
    }
}
