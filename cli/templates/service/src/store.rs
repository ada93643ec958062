//! All SQL: one text for SQLite and PostgreSQL. Each query names the owner, so that no user reads another's rows.
use drystone_mesh::page::Page;
use drystone_store::{Db, Result, run};
use uuid::Uuid;

const INSERT: &str = "INSERT INTO {{plural}} (owner_id, id, display_name, created_at) VALUES ($1, $2, $3, $4)";
const LIST: &str =
    "SELECT id, display_name, created_at FROM {{plural}} WHERE owner_id = $1 AND id > $2 ORDER BY id LIMIT $3";

/// Id, display name, creation time in microseconds since 1970.
pub type Row = (Uuid, String, i64);

pub async fn insert(db: &Db, owner: Uuid, (id, name, created_at): &Row) -> Result<()> {
    let mut transaction = db.begin().await?;
    run!(transaction.connection(), |db| {
        sqlx::query(INSERT).bind(owner).bind(id).bind(name).bind(created_at).execute(db).await?;
    });
    Ok(transaction.commit().await?)
}

pub async fn list(db: &Db, owner: Uuid, page: &Page) -> Result<Vec<Row>> {
    let (after, limit) = (page.after.unwrap_or(Uuid::nil()), page.limit());
    Ok(run!(db.reader(), |db| sqlx::query_as(LIST).bind(owner).bind(after).bind(limit).fetch_all(db).await?))
}
