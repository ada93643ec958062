//! Empty databases on both engines, and tests that run on each.

use std::any::Any;

use drystone_backends::Postgres;
use drystone_store::{Db, Location};
use drystone_user::MIGRATIONS;
use tempfile::TempDir;

/// A database, and what keeps it.
pub type Database = (Db, Box<dyn Any>);

pub async fn sqlite() -> Database {
    let directory = TempDir::new().unwrap();
    let db = Db::open(&directory.path().join("user.db"), MIGRATIONS).await.unwrap();
    (db, Box::new(directory))
}

pub async fn postgres() -> Database {
    let database = Postgres::shared().await.database().await;
    let db = Db::open(Location::server("user", database.as_str()).unwrap(), MIGRATIONS).await.unwrap();
    (db, Box::new(database))
}

/// Runs the tests of a module, which take its `Fixture`, on each engine.
macro_rules! on_each_engine {
    ($($test:ident,)+) => {
        on_each_engine! { sqlite: $($test,)+ }
        on_each_engine! { postgres: $($test,)+ }
    };
    ($engine:ident: $($test:ident,)+) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::Fixture::new(crate::database::$engine().await)).await;
                }
            )+
        }
    };
}
pub(crate) use on_each_engine;
