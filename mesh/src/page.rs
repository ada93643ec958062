//! Keyset pagination with opaque page tokens.
//!
//! A store fetches one row more than the page size; [`paginate`] removes it and creates the next page's token from the
//! last remaining row. A token contains the row's [`Position`] and is bound to its [`List`]: another list, filter, order or caller
//! rejects it.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;
use uuid::Uuid;

use crate::error::{Error, Reason, Result};

/// The page size if the request has none.
pub const DEFAULT_PAGE_SIZE: u32 = 50;

/// The maximum page size.
pub const MAX_PAGE_SIZE: u32 = 200;

/// The maximum size of the messages of a page, in bytes. A list may end a page before its size is reached (AIP-158).
pub const MAX_PAGE_BYTES: usize = 1 << 20;

const CHECKSUM_LENGTH: usize = 8;

/// What the page tokens of a list are bound to: its name, and whatever else decides which rows it has in which order.
#[derive(Clone)]
pub struct List(digest::Context);

impl List {
    /// The list of this name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self(digest::Context::new(&digest::SHA256)).bound_to(name)
    }

    /// Binds tokens to this text as well, such as a filter or the id of the caller.
    #[must_use]
    pub fn bound_to(mut self, text: &str) -> Self {
        self.0.update(&(text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Detects mistakes, not forgery: a forged token returns nothing that the list would not.
    fn checksum(&self, position: &[u8]) -> [u8; CHECKSUM_LENGTH] {
        let mut context = self.0.clone();
        context.update(position);
        let mut sum = [0; CHECKSUM_LENGTH];
        sum.copy_from_slice(&context.finish().as_ref()[..CHECKSUM_LENGTH]);
        sum
    }
}

/// The position of a row in a list: the columns that the list is ordered by.
pub trait Position: Sized {
    /// The position as bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// The position from its bytes. `None` if they are none.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Position for Uuid {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_slice(bytes).ok()
    }
}

/// A text, and an id where several rows have the same.
impl Position for (String, Uuid) {
    fn to_bytes(&self) -> Vec<u8> {
        [self.1.as_bytes(), self.0.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, text) = bytes.split_at_checked(16)?;
        let text = String::from_utf8(text.to_vec()).ok().filter(|text| !text.contains('\0'))?;
        Some((text, Uuid::from_slice(id).ok()?))
    }
}

/// The requested page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<P = Uuid> {
    /// The number of rows.
    pub size: u32,
    /// The last row of the previous page; `None` for the first page.
    pub after: Option<P>,
}

impl<P: Position> Page<P> {
    /// Parses `page_size` and `page_token` of a request to a list.
    ///
    /// # Errors
    /// `INVALID_PAGE_TOKEN` if the token is malformed or of another list.
    pub fn parse(list: &List, page_size: i32, page_token: &str) -> Result<Self> {
        let size = match u32::try_from(page_size) {
            Err(_) | Ok(0) => DEFAULT_PAGE_SIZE,
            Ok(size) => size.min(MAX_PAGE_SIZE),
        };
        let after = if page_token.is_empty() { None } else { Some(decode(list, page_token).ok_or_else(invalid)?) };
        Ok(Self { size, after })
    }
}

impl<P> Page<P> {
    /// The number of rows to fetch: one more than the page size, to know whether another page follows.
    #[must_use]
    pub fn limit(&self) -> i64 {
        i64::from(self.size) + 1
    }
}

/// The token of the page that starts after this row.
#[must_use]
pub fn token(list: &List, after: &impl Position) -> String {
    let mut bytes = after.to_bytes();
    bytes.extend_from_slice(&list.checksum(&bytes));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Converts the fetched rows to the messages of a page, at most `size` of them and [`MAX_PAGE_BYTES`] together, but at least
/// one. Returns them with the next page's token; empty if this is the last page.
#[must_use]
pub fn paginate<R, P: Position, M: Message>(
    list: &List,
    rows: Vec<R>,
    size: u32,
    position: impl Fn(&R) -> P,
    to_message: impl Fn(R) -> M,
) -> (Vec<M>, String) {
    let (mut messages, mut bytes, mut previous) = (Vec::with_capacity(rows.len().min(size as usize)), 0, None);
    for row in rows {
        let row_position = position(&row);
        let message = to_message(row);
        bytes += message.encoded_len();
        let is_full = messages.len() == size as usize || (bytes > MAX_PAGE_BYTES && !messages.is_empty());
        if is_full {
            return (messages, previous.map(|position| token(list, &position)).unwrap_or_default());
        }
        messages.push(message);
        previous = Some(row_position);
    }
    (messages, String::new())
}

fn decode<P: Position>(list: &List, token: &str) -> Option<P> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (position, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_LENGTH)?)?;
    if list.checksum(position) == *sum { P::from_bytes(position) } else { None }
}

fn invalid() -> Error {
    Error::new(
        Reason::InvalidPageToken,
        "page_token is not valid for this list; pass next_page_token unchanged with the same filter and order, or omit it to start over",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_only_for_its_own_list() {
        let id = Uuid::now_v7();
        let users = || List::new("users").bound_to("status = active").bound_to("");
        let token = token(&users(), &id);
        assert_eq!(Page::parse(&users(), 10, &token).unwrap(), Page { size: 10, after: Some(id) });
        let others = [
            List::new("users"),
            List::new("users").bound_to("status = active"),
            List::new("users").bound_to("status = disabled").bound_to(""),
            List::new("users").bound_to("").bound_to("status = active"),
            List::new("sessions").bound_to("status = active").bound_to(""),
        ];
        for other in others {
            let error = Page::<Uuid>::parse(&other, 10, &token).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidPageToken);
        }
    }

    #[test]
    fn a_position_of_text_and_id_round_trips() {
        for text in ["", "ada@example.com", "\u{1}é"] {
            let position = (text.to_owned(), Uuid::now_v7());
            assert_eq!(Position::from_bytes(&position.to_bytes()), Some(position));
        }
        assert_eq!(<(String, Uuid)>::from_bytes(&[0xff; 17]), None);
        assert_eq!(<(String, Uuid)>::from_bytes(&[0; 15]), None);
        assert_eq!(<(String, Uuid)>::from_bytes(&[0; 17]), None, "no text of a database has a NUL");
    }

    #[test]
    fn a_malformed_token_is_rejected() {
        let users = List::new("users");
        let good = token(&users, &Uuid::now_v7());
        for bad in
            [&good[1..], &good[..good.len() - 1], "x", "!", "\u{1F600}", &format!("{good}A"), &format!("{good}=")]
        {
            assert_eq!(Page::<Uuid>::parse(&users, 0, bad).unwrap_err().reason(), Reason::InvalidPageToken, "{bad}");
        }
    }

    #[test]
    fn page_sizes_are_clamped() {
        let size = |given| Page::<Uuid>::parse(&List::new("users"), given, "").unwrap().size;
        assert_eq!(
            [size(0), size(-3), size(1), size(200), size(9000)],
            [DEFAULT_PAGE_SIZE, DEFAULT_PAGE_SIZE, 1, 200, MAX_PAGE_SIZE]
        );
    }

    /// A page of messages with this many bytes each.
    fn page(rows: &[Uuid], size: u32, bytes: usize) -> (usize, Option<Uuid>) {
        let list = List::new("x");
        let (messages, next) = paginate(&list, rows.to_vec(), size, |id| *id, |_| "x".repeat(bytes));
        let after = if next.is_empty() { None } else { Page::parse(&list, 2, &next).unwrap().after };
        (messages.len(), after)
    }

    #[test]
    fn a_page_ends_at_its_size() {
        let rows: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
        assert_eq!(page(&rows, 3, 1), (3, None));
        assert_eq!(page(&rows, 2, 1), (2, Some(rows[1])));
        assert_eq!(page(&[], 2, 1), (0, None));
    }

    #[test]
    fn a_page_ends_at_its_bytes() {
        let rows: Vec<Uuid> = (0..5).map(|_| Uuid::now_v7()).collect();
        assert_eq!(page(&rows, 5, 300_000), (3, Some(rows[2])));
        assert_eq!(page(&rows, 5, 200_000), (5, None));
        assert_eq!(page(&rows, 5, 2 << 20), (1, Some(rows[0])), "a page is never empty");
    }
}
