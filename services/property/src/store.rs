//! The store of properties.

use std::collections::BTreeMap;

use drystone_mesh::{
    clock::Timestamp,
    page::Page,
    time::{from_micros, to_micros},
};
use drystone_store::{
    Db, Migration, Transaction, migration,
    request_id::{self, Claimed, Creation, RequestIds},
    run,
};
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    Claim, Config, Content, ContentUpdate, Description, DisplayName, Error, Labels, NewProperty, Property, Relation,
};

/// The migrations of the schema.
pub const MIGRATIONS: &[Migration] = &[migration!("0001", "property"), migration!("0002", "quota")];

/// The columns of a property, in the order of [`PropertyRow`].
macro_rules! columns {
    () => {
        "id, owner_id, display_name, description, labels, version, created_at, updated_at"
    };
}

/// Inserts a property if the quota of its owner allows it. Evaluates to the inserted row, if there is one. All rows are read,
/// since `fetch_one` drops the error of a failed commit.
macro_rules! insert {
    ($on:expr, $new:expr, $quota:expr, $now:expr) => {
        run!($on, |db| {
            sqlx::query_as::<_, PropertyRow>(concat!(
                "INSERT INTO property
                     (id, owner_id, display_name, description, labels, version, created_at, updated_at)
                 SELECT $1, $2, $3, $4, $5, 1, $6, $6
                 WHERE NOT EXISTS (
                     SELECT 1
                     FROM property_usage
                     WHERE owner_id = $2
                         AND (
                             properties >= $7
                             OR bytes + octet_length($3) + octet_length($4) + octet_length(CAST($5 AS TEXT)) > $8
                         )
                 )
                 RETURNING ",
                columns!()
            ))
            .bind($new.id)
            .bind($new.owner_id)
            .bind($new.content.display_name.as_str())
            .bind($new.content.description.as_str())
            .bind(Json($new.content.labels.as_map()))
            .bind(to_micros($now))
            .bind(i64::from($quota.properties))
            .bind($quota.max_bytes())
            .fetch_all(db)
            .await?
        })
    };
}

type PropertyRow = (Uuid, Uuid, String, String, Json<BTreeMap<String, String>>, i64, i64, i64);

/// How much one user may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The number of properties.
    pub properties: u32,
    /// The bytes of their names, descriptions and labels together.
    pub bytes: u64,
    /// The number of request ids of creations in [`request_id::LIFETIME`].
    pub request_ids: u32,
}

impl Quota {
    fn max_bytes(&self) -> i64 {
        i64::try_from(self.bytes).unwrap_or(i64::MAX)
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

impl From<&Config> for Quota {
    fn from(config: &Config) -> Self {
        Self { properties: config.max_properties, bytes: config.max_bytes, request_ids: config.max_request_ids }
    }
}

/// How many properties one statement deletes, if all of a user are deleted: bounded, so that writers do not wait long for it.
const DELETE_BATCH: i64 = 500;

/// The store of properties. For users other than the owner, a property does not exist. `tests/property/store.rs` tests
/// what it promises on both engines.
#[derive(Debug, Clone)]
pub struct PropertyStore {
    db: Db,
    quota: Quota,
}

impl PropertyStore {
    /// A store in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db, quota: Quota) -> Self {
        Self { db, quota }
    }

    /// Creates a property. Idempotent for [`request_id::LIFETIME`]: the same request id with the
    /// same content returns the property that it created, as it is now.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`]; concurrent creations may exceed the quota by one each. [`Error::TooManyRequestIds`].
    /// [`Error::RequestIdReused`] with other content; [`Error::NotFound`] if the property has been deleted since.
    pub async fn create(&self, new: NewProperty, now: Timestamp) -> Result<Property, Error> {
        self.db.retry(|| self.create_once(&new, now)).await
    }

    /// The owner's property with this id.
    pub async fn find(&self, owner: Uuid, id: Uuid) -> Result<Option<Property>, Error> {
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, PropertyRow>(concat!(
                "SELECT ",
                columns!(),
                " FROM property WHERE id = $1 AND owner_id = $2"
            ))
            .bind(id)
            .bind(owner)
            .fetch_optional(db)
            .await?
        });
        Ok(row.map(read_property))
    }

    /// The owner's properties of a page, oldest first, plus one more if there is a next page.
    pub async fn list(&self, owner: Uuid, page: &Page) -> Result<Vec<Property>, Error> {
        // The nil UUID is less than every UUID of version 7.
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, PropertyRow>(concat!(
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
        Ok(rows.into_iter().map(read_property).collect())
    }

    /// Updates a property, if it is at this version. If nothing changes, the version does not change.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`]. [`Error::Stale`] if it is at another version.
    pub async fn update(
        &self,
        owner: Uuid,
        id: Uuid,
        update: &ContentUpdate,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Property>, Error> {
        self.db.retry(|| self.update_once(owner, id, update, version, now)).await
    }

    /// Deletes a property, if it is at this version. Returns whether it existed.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is at another version.
    pub async fn delete(&self, owner: Uuid, id: Uuid, version: Option<i64>) -> Result<bool, Error> {
        self.db.retry(|| self.delete_once(owner, id, version)).await
    }

    /// Forgets the request ids of creations before this time. Returns how many.
    pub async fn forget_request_ids(&self, before: Timestamp) -> Result<u64, Error> {
        Ok(request_id::forget(&self.db, before).await?)
    }

    /// Deletes all properties of a user, a number of them at a time. Returns how many.
    pub async fn delete_all(&self, owner: Uuid) -> Result<u64, Error> {
        let mut total = 0;
        loop {
            let deleted = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM property
                     WHERE id IN (SELECT id FROM property WHERE owner_id = $1 ORDER BY id LIMIT $2)",
                )
                .bind(owner)
                .bind(DELETE_BATCH)
                .execute(db)
                .await?
                .rows_affected()
            });
            total += deleted;
            if deleted < DELETE_BATCH.unsigned_abs() {
                break;
            }
        }
        run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM creation WHERE owner_id = $1").bind(owner).execute(db).await?;
        });
        Ok(total)
    }

    /// At most `limit` relations of a user to properties, newest property first.
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
        let Some(request_id) = new.request_id else {
            // One statement is a transaction by itself: one round trip to the server and not three.
            return self.inserted(insert!(self.db.writer(), new, self.quota, now));
        };
        let mut transaction = self.db.begin().await?;
        if let Some(created) = claim_request_id(&mut transaction, request_id, new, self.quota, now).await? {
            let property = find(&mut transaction, new.owner_id, created).await?;
            return property.ok_or(Error::NotFound);
        }
        let rows = insert!(transaction.connection(), new, self.quota, now);
        let created = self.inserted(rows)?;
        transaction.commit().await?;
        Ok(created)
    }

    /// The inserted property. Without one, the quota did not allow it.
    fn inserted(&self, mut rows: Vec<PropertyRow>) -> Result<Property, Error> {
        rows.pop().map(read_property).ok_or(Error::QuotaExceeded(self.quota))
    }

    async fn update_once(
        &self,
        owner: Uuid,
        id: Uuid,
        update: &ContentUpdate,
        version: Option<i64>,
        now: Timestamp,
    ) -> Result<Option<Property>, Error> {
        let mut transaction = self.db.begin().await?;
        let bytes_before = used_bytes(&mut transaction, owner).await?;
        let updated = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, PropertyRow>(concat!(
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
            .bind(update.display_name.as_ref().map(DisplayName::as_str))
            .bind(update.description.as_ref().map(Description::as_str))
            .bind(update.labels.as_ref().map(Labels::as_map).map(Json))
            .bind(to_micros(now))
            .bind(version)
            .fetch_optional(connection)
            .await?
        });
        if let Some(row) = updated {
            // A user over the quota, such as after it was lowered, can still shorten texts.
            let bytes = used_bytes(&mut transaction, owner).await?;
            if bytes > self.quota.max_bytes() && bytes > bytes_before {
                return Err(Error::QuotaExceeded(self.quota));
            }
            transaction.commit().await?;
            return Ok(Some(read_property(row)));
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

/// Records the property that this request id creates. Returns the property that it has created before, if there is one.
async fn claim_request_id(
    transaction: &mut Transaction,
    request_id: Uuid,
    new: &NewProperty,
    quota: Quota,
    now: Timestamp,
) -> Result<Option<Uuid>, Error> {
    let (owner, resource, fingerprint) = (new.owner_id, new.id, new.content.fingerprint());
    let creation = Creation { owner, request_id, resource, fingerprint };
    let request_ids = RequestIds::new(quota.request_ids).with_column("property_id");
    match request_ids.claim(transaction, &creation, now).await? {
        Claimed::New => Ok(None),
        Claimed::Created(id) => Ok(Some(id)),
        Claimed::Reused => Err(Error::RequestIdReused),
        Claimed::TooMany => Err(Error::TooManyRequestIds(quota)),
    }
}

/// The bytes of a user's properties.
async fn used_bytes(transaction: &mut Transaction, owner: Uuid) -> Result<i64, Error> {
    let bytes = run!(transaction.connection(), |connection| {
        sqlx::query_scalar::<_, i64>("SELECT bytes FROM property_usage WHERE owner_id = $1")
            .bind(owner)
            .fetch_optional(connection)
            .await?
    });
    Ok(bytes.unwrap_or_default())
}

/// The owner's property, read in this transaction.
async fn find(transaction: &mut Transaction, owner: Uuid, id: Uuid) -> Result<Option<Property>, Error> {
    let row = run!(transaction.connection(), |connection| {
        sqlx::query_as::<_, PropertyRow>(concat!(
            "SELECT ",
            columns!(),
            " FROM property WHERE id = $1 AND owner_id = $2"
        ))
        .bind(id)
        .bind(owner)
        .fetch_optional(connection)
        .await?
    });
    Ok(row.map(read_property))
}

fn read_property(
    (id, owner_id, display_name, description, labels, version, created_at, updated_at): PropertyRow,
) -> Property {
    Property {
        id,
        owner_id,
        content: Content {
            display_name: DisplayName::from_stored(display_name),
            description: Description::from_stored(description),
            labels: Labels::from_stored(labels.0),
        },
        version,
        created_at: from_micros(created_at),
        updated_at: from_micros(updated_at),
    }
}
