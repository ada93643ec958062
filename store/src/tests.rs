//! Tests of opening and using a database: on both engines, and on each.

mod either;
mod postgres;
mod sqlite;

use super::{Db, Location, Migration, run};

const NOTE_TEXT: &str = "CREATE TABLE note (id BIGINT PRIMARY KEY, text TEXT NOT NULL);
     CREATE TABLE mark (note_id BIGINT NOT NULL REFERENCES note (id))";
const COLOUR_TEXT: &str = "ALTER TABLE note ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'";

const NOTE: Migration = migration(1, "note", NOTE_TEXT);
const COLOUR: Migration = migration(2, "colour", COLOUR_TEXT);
const FIRST: &[Migration] = &[NOTE];
const SECOND: &[Migration] = &[NOTE, COLOUR];
const EDITED: &[Migration] = &[migration(1, "note", "CREATE TABLE note (id BIGINT PRIMARY KEY)")];
const BROKEN: &[Migration] = &[NOTE, COLOUR, migration(3, "broken", "CREATE GARDEN")];

const fn migration(version: i64, name: &'static str, text: &'static str) -> Migration {
    Migration { version, name, sqlite: text, postgres: text }
}

async fn write(db: &Db, id: i64, text: &str) -> sqlx::Result<()> {
    run!(db.writer(), |db| {
        sqlx::query("INSERT INTO note (id, text) VALUES ($1, $2)").bind(id).bind(text).execute(db).await.map(drop)
    })
}

async fn texts(db: &Db) -> Vec<String> {
    run!(db.reader(), |db| { sqlx::query_scalar("SELECT text FROM note ORDER BY id").fetch_all(db).await.unwrap() })
}
