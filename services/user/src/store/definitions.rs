//! The roles and permissions, as they were read last.

use std::sync::Arc;

use arc_swap::ArcSwap;
use drystone_mesh::time::from_micros;
use drystone_store::{Either, run};
use sqlx::{PgConnection, SqliteConnection};

use super::UserStore;
use crate::{
    Error,
    role::{Definitions, Permission, Role, RoleName},
};

type RoleRow = (String, String, i64, String, String, i64, i64, i64);

/// The definitions that were read last. Clones share them. Their version tells whether they are current.
#[derive(Debug, Clone)]
pub(super) struct DefinitionCache {
    declared: Arc<[Permission]>,
    current: Arc<ArcSwap<Definitions>>,
}

impl DefinitionCache {
    pub(super) fn new(declared: Vec<Permission>) -> Self {
        Self { declared: declared.into(), current: Arc::default() }
    }

    fn at(&self, version: i64) -> Option<Arc<Definitions>> {
        Some(self.current.load_full()).filter(|definitions| definitions.version == version)
    }

    fn keep(&self, definitions: Definitions) -> Arc<Definitions> {
        let definitions = Arc::new(definitions);
        // A later version may have been read meanwhile.
        self.current.rcu(|current| {
            if current.version < definitions.version { Arc::clone(&definitions) } else { Arc::clone(current) }
        });
        definitions
    }
}

impl UserStore {
    /// All roles and permissions.
    pub async fn definitions(&self) -> Result<Arc<Definitions>, Error> {
        let version = run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT version FROM role_state WHERE id = 1").fetch_one(db).await?
        });
        self.definitions_at(version).await
    }

    /// All roles and permissions at this version, which was just read, or at a later one.
    pub(super) async fn definitions_at(&self, version: i64) -> Result<Arc<Definitions>, Error> {
        if let Some(current) = self.definitions.at(version) {
            return Ok(current);
        }
        let mut transaction = self.db.begin_read().await?;
        let version: i64 = run!(transaction.connection(), |connection| {
            sqlx::query_scalar("SELECT version FROM role_state WHERE id = 1").fetch_one(connection).await?
        });
        let definitions = self.read_definitions(transaction.connection(), version).await?;
        transaction.commit().await?;
        Ok(self.definitions.keep(definitions))
    }

    /// All roles and permissions at this version, within the transaction of a change, which nobody else changes meanwhile.
    pub(super) async fn definitions_in(
        &self,
        connection: Either<&mut SqliteConnection, &mut PgConnection>,
        version: i64,
    ) -> Result<Arc<Definitions>, Error> {
        match self.definitions.at(version) {
            Some(current) => Ok(current),
            None => Ok(Arc::new(self.read_definitions(connection, version).await?)),
        }
    }

    async fn read_definitions(
        &self,
        connection: Either<&mut SqliteConnection, &mut PgConnection>,
        version: i64,
    ) -> Result<Definitions, Error> {
        let (roles, registered) = run!(connection, |connection| {
            let roles = sqlx::query_as::<_, RoleRow>(
                "SELECT name, description, level, inherits, permissions, version, created_at, updated_at FROM role",
            )
            .fetch_all(&mut *connection)
            .await?;
            let registered = sqlx::query_as::<_, (String, String, String)>(
                "SELECT name, description, registered_by FROM permission",
            )
            .fetch_all(&mut *connection)
            .await?;
            (roles, registered)
        });
        let registered = registered.into_iter().map(|(name, description, by)| Permission {
            name,
            description,
            registered_by: Some(by),
        });
        // A contract may have begun to declare what was registered before.
        let permissions = registered.chain(self.definitions.declared.iter().cloned());
        Ok(Definitions::new(version, permissions, roles.into_iter().map(read_role).collect()))
    }
}

fn read_role((name, description, level, inherits, permissions, version, created_at, updated_at): RoleRow) -> Role {
    Role {
        name: RoleName::from_stored(&name),
        description,
        level: level.try_into().unwrap_or_default(),
        inherits: inherits.split_ascii_whitespace().map(RoleName::from_stored).collect(),
        permissions: permissions.split_ascii_whitespace().map(str::to_owned).collect(),
        version,
        created_at: from_micros(created_at),
        updated_at: from_micros(updated_at),
    }
}
