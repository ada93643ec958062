//! The stream of all accounts.

use std::pin::Pin;

use drystone::user::v1::ExportUsersResponse;
use drystone_mesh::clock::Clock;
use futures_util::{Stream, stream};
use tonic::Status;

use super::user_message::to_message;
use crate::store::{ListPage, ListQuery, UserStore};

/// How many accounts one message has.
const BATCH: u32 = 100;

pub(super) type Export = Pin<Box<dyn Stream<Item = Result<ExportUsersResponse, Status>> + Send>>;

/// Streams the accounts that are not deleted. The next ones are read when the caller has taken those before.
pub(super) fn start(store: UserStore, clock: Clock) -> Export {
    let first = ListPage { size: BATCH, after: None };
    Box::pin(stream::try_unfold(Some(first), move |page| {
        let (store, now) = (store.clone(), clock.now());
        async move {
            let Some(page) = page else { return Ok(None) };
            let mut accounts = store.list(&ListQuery::default(), &page, now).await?.accounts;
            let is_last = accounts.len() <= BATCH as usize;
            accounts.truncate(BATCH as usize);
            let Some((_, last)) = accounts.last() else { return Ok(None) };
            let next = (!is_last).then(|| ListPage { size: BATCH, after: Some((String::new(), last.id)) });
            let users = accounts.into_iter().map(|(_, account)| to_message(account, now)).collect();
            Ok(Some((ExportUsersResponse { users }, next)))
        }
    }))
}
