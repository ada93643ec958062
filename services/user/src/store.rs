//! The store of accounts, roles and grants.

mod accounts;
mod change;
mod definitions;
mod email;
mod grants;
mod list;
mod profile;
mod provision;
mod rights;
mod roles;
mod status;
mod totals;
mod words;

pub use self::{
    change::{ActorId, Saved},
    email::EmailChange,
    list::{ListOrder, ListPage, ListQuery, Listed, StatusFilter},
    provision::{Import, Provisioned},
    rights::Rights,
    roles::RoleChange,
    totals::Totals,
};

use std::sync::Arc;

use drystone_store::{Db, Migration, migration, outbox, request_id, request_id::RequestIds};

use tokio::sync::Semaphore;

use self::definitions::DefinitionCache;
use crate::role::Permission;

/// The migrations of the schema.
pub const MIGRATIONS: &[Migration] = &[
    migration!("0001", "account"),
    outbox::migration(2),
    migration!("0003", "roles"),
    migration!("0004", "status"),
    request_id::migration(5),
    migration!("0006", "profile"),
    migration!("0007", "search"),
    migration!("0008", "totals"),
    migration!("0009", "email"),
];

/// The request ids of one administrator in a day.
const REQUEST_IDS: RequestIds = RequestIds::new(10_000);

/// The store of accounts, roles and grants. `tests/user/store.rs` tests what it promises on both engines.
#[derive(Debug, Clone)]
pub struct UserStore {
    db: Db,
    definitions: DefinitionCache,
    /// Of lists that may look at many rows for few accounts.
    sparse_lists: Arc<Semaphore>,
}

impl UserStore {
    /// A store in a database that was opened with [`MIGRATIONS`]. `declared` are the permissions of the contracts.
    #[must_use]
    pub fn new(db: Db, declared: Vec<Permission>) -> Self {
        let sparse_lists = Arc::new(Semaphore::new(list::SPARSE_LISTS));
        Self { db, definitions: DefinitionCache::new(declared), sparse_lists }
    }

    /// The database, for the relay of the outbox.
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }
}
