//! Where properties are kept.

use std::collections::BTreeMap;

use drystone_mesh::{
    clock::Timestamp,
    page::Page,
    time::{from_micros, to_micros},
};
use drystone_store::{Db, Migration, Transaction, run};
use sqlx::types::Json;
use uuid::Uuid;

use crate::{Change, Claim, Content, Description, DisplayName, Error, Labels, NewProperty, Property, Relation};

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "property",
    sqlite: include_str!("../migrations/sqlite/0001_property.sql"),
    postgres: include_str!("../migrations/postgres/0001_property.sql"),
}];

/// The columns of a property, in the order of [`Row`].
macro_rules! columns {
    () => {
        "id, owner_id, display_name, description, labels, version, created_at, updated_at"
    };
}

type Row = (Uuid, Uuid, String, String, Json<BTreeMap<String, String>>, i64, i64, i64);

/// Where properties are kept. For a user who is not the owner, a property does not exist. What the store promises on both
/// engines is in `tests/property/store.rs`.
#[derive(Debug, Clone)]
pub struct PropertyStore {
    db: Db,
}

impl PropertyStore {
    /// The store in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Adds a property. The request id with the same content again answers the property that it made, as it is now.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`] with other content; [`Error::NotFound`] if the property has been deleted since.
    pub async fn create(&self, new: NewProperty, now: Timestamp) -> Result<Property, Error> {
        self.db.retry(|| self.create_once(&new, now)).await
    }

    /// The owner's property of this id.
    pub async fn find(&self, owner: Uuid, id: Uuid) -> Result<Option<Property>, Error> {
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, Row>(concat!("SELECT ", columns!(), " FROM property WHERE id = $1 AND owner_id = $2"))
                .bind(id)
                .bind(owner)
                .fetch_optional(db)
                .await?
        });
        Ok(row.map(read))
    }

    /// The owner's properties of a page and one more, if there is one; oldest first.
    pub async fn list(&self, owner: Uuid, page: &Page) -> Result<Vec<Property>, Error> {
        // Every id of version 7 is greater than the nil one.
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, Row>(concat!(
                "SELECT ",
                columns!(),
                " FROM property WHERE owner_id = $1 AND id > $2 ORDER BY id LIMIT $3"
            ))
            .bind(owner)
            .bind(page.after.unwrap_or(Uuid::nil()))
            .bind(page.limit())
            .fetch_all(db)
            .await?
        });
        Ok(rows.into_iter().map(read).collect())
    }

    /// Changes a property, if it is still at this version. One that is as it is to be stays so, version and all.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is not.
    pub async fn update(
        &self,
        owner: Uuid,
        id: Uuid,
        change: &Change,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Property>, Error> {
        self.db.retry(|| self.update_once(owner, id, change, version, now)).await
    }

    /// Deletes a property, if it is still at this version. Answers whether it was there.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is at another version.
    pub async fn delete(&self, owner: Uuid, id: Uuid, version: Option<i64>) -> Result<bool, Error> {
        self.db.retry(|| self.delete_once(owner, id, version)).await
    }

    /// A user's relations to properties, newest property first: at most so many.
    pub async fn claims(&self, user: Uuid, limit: u32) -> Result<Vec<Claim>, Error> {
        let ids = run!(self.db.reader(), |db| {
            sqlx::query_scalar::<_, Uuid>(
                "SELECT id
                 FROM property
                 WHERE owner_id = $1
                 ORDER BY id DESC
                 LIMIT $2",
            )
            .bind(user)
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        });
        Ok(ids.into_iter().map(|property_id| Claim { property_id, relation: Relation::Owner }).collect())
    }
}

/// Transactions that may be retried as a whole.
impl PropertyStore {
    async fn create_once(&self, new: &NewProperty, now: Timestamp) -> Result<Property, Error> {
        let mut transaction = self.db.begin().await?;
        if let Some(made) = claim_request(&mut transaction, new, now).await? {
            let property = find(&mut transaction, new.owner_id, made).await?;
            return property.ok_or(Error::NotFound);
        }
        let row = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, Row>(concat!(
                "INSERT INTO property
                     (id, owner_id, display_name, description, labels, version, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, 1, $6, $6)
                 RETURNING ",
                columns!()
            ))
            .bind(new.id)
            .bind(new.owner_id)
            .bind(new.content.display_name.as_str())
            .bind(new.content.description.as_str())
            .bind(Json(new.content.labels.as_map()))
            .bind(to_micros(now))
            .fetch_one(connection)
            .await?
        });
        transaction.commit().await?;
        Ok(read(row))
    }

    async fn update_once(
        &self,
        owner: Uuid,
        id: Uuid,
        change: &Change,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Property>, Error> {
        let mut transaction = self.db.begin().await?;
        let updated = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, Row>(concat!(
                "UPDATE property
                 SET display_name = COALESCE($3, display_name),
                     description = COALESCE($4, description),
                     labels = COALESCE($5, labels),
                     version = CASE
                         WHEN (display_name, description, labels)
                             = (COALESCE($3, display_name), COALESCE($4, description), COALESCE($5, labels))
                         THEN version
                         ELSE version + 1
                     END,
                     updated_at = CASE
                         WHEN (display_name, description, labels)
                             = (COALESCE($3, display_name), COALESCE($4, description), COALESCE($5, labels))
                         THEN updated_at
                         ELSE $6
                     END
                 WHERE id = $1 AND owner_id = $2 AND version = COALESCE($7, version)
                 RETURNING ",
                columns!()
            ))
            .bind(id)
            .bind(owner)
            .bind(change.display_name.as_ref().map(DisplayName::as_str))
            .bind(change.description.as_ref().map(Description::as_str))
            .bind(change.labels.as_ref().map(Labels::as_map).map(Json))
            .bind(to_micros(now))
            .bind(version)
            .fetch_optional(connection)
            .await?
        });
        if let Some(row) = updated {
            transaction.commit().await?;
            return Ok(Some(read(row)));
        }
        match find(&mut transaction, owner, id).await? {
            Some(_) => Err(Error::Stale),
            None => Ok(None),
        }
    }

    async fn delete_once(&self, owner: Uuid, id: Uuid, version: Option<i64>) -> Result<bool, Error> {
        let mut transaction = self.db.begin().await?;
        let deleted = run!(transaction.connection(), |connection| {
            sqlx::query(
                "DELETE FROM property
                 WHERE id = $1 AND owner_id = $2 AND version = COALESCE($3, version)",
            )
            .bind(id)
            .bind(owner)
            .bind(version)
            .execute(connection)
            .await?
            .rows_affected()
        });
        if deleted > 0 {
            transaction.commit().await?;
            return Ok(true);
        }
        match find(&mut transaction, owner, id).await? {
            Some(_) => Err(Error::Stale),
            None => Ok(false),
        }
    }
}

/// Writes down what this request is about to make; answers what it has made before, if it has.
async fn claim_request(
    transaction: &mut Transaction,
    new: &NewProperty,
    now: Timestamp,
) -> Result<Option<Uuid>, Error> {
    let Some(request_id) = new.request_id else { return Ok(None) };
    let fingerprint = new.content.fingerprint();
    let claimed = run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO creation (owner_id, request_id, property_id, fingerprint, created_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT DO NOTHING",
        )
        .bind(new.owner_id)
        .bind(request_id)
        .bind(new.id)
        .bind(fingerprint.as_slice())
        .bind(to_micros(now))
        .execute(connection)
        .await?
        .rows_affected()
    });
    if claimed > 0 {
        return Ok(None);
    }
    let (made, its_fingerprint) = run!(transaction.connection(), |connection| {
        sqlx::query_as::<_, (Uuid, Vec<u8>)>(
            "SELECT property_id, fingerprint
             FROM creation
             WHERE owner_id = $1 AND request_id = $2",
        )
        .bind(new.owner_id)
        .bind(request_id)
        .fetch_one(connection)
        .await?
    });
    if its_fingerprint == fingerprint { Ok(Some(made)) } else { Err(Error::RequestIdReused) }
}

/// The owner's property, as this transaction sees it.
async fn find(transaction: &mut Transaction, owner: Uuid, id: Uuid) -> Result<Option<Property>, Error> {
    let row = run!(transaction.connection(), |connection| {
        sqlx::query_as::<_, Row>(concat!("SELECT ", columns!(), " FROM property WHERE id = $1 AND owner_id = $2"))
            .bind(id)
            .bind(owner)
            .fetch_optional(connection)
            .await?
    });
    Ok(row.map(read))
}

fn read((id, owner_id, display_name, description, labels, version, created_at, updated_at): Row) -> Property {
    Property {
        id,
        owner_id,
        content: Content {
            display_name: DisplayName::from_stored(display_name),
            description: Description::stored(description),
            labels: Labels::stored(labels.0),
        },
        version,
        created_at: from_micros(created_at),
        updated_at: from_micros(updated_at),
    }
}
