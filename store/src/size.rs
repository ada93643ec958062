//! How large a database is, and how many rows its tables have, as metrics.

use std::time::Duration;

use drystone_mesh::{error::Chain, telemetry::Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use tokio_util::sync::CancellationToken;

use crate::{Db, Either};

const INTERVAL: Duration = Duration::from_mins(1);

/// Those of all services of a process.
#[derive(Clone, Default)]
struct Gauges {
    bytes: Family<ServiceLabel, Gauge>,
    rows: Family<TableLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabels {
    service: &'static str,
    table: String,
}

/// The size of a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Size {
    /// Of all tables and indexes, in bytes.
    pub bytes: i64,
    /// The rows of each table as the server estimates them, without a scan. SQLite has no estimates.
    pub rows: Vec<(String, i64)>,
}

impl Db {
    /// The size of the database.
    ///
    /// # Errors
    /// The database fails.
    pub async fn size(&self) -> sqlx::Result<Size> {
        match self.reader() {
            Either::Sqlite(db) => {
                let bytes =
                    sqlx::query_scalar("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()");
                Ok(Size { bytes: bytes.fetch_one(db).await?, rows: Vec::new() })
            }
            Either::Postgres(db) => {
                let tables: Vec<(String, i64, i64)> = sqlx::query_as(
                    "SELECT CAST(relname AS TEXT), CAST(reltuples AS BIGINT), pg_total_relation_size(pg_class.oid)
                     FROM pg_class
                     JOIN pg_namespace ON pg_namespace.oid = relnamespace
                     WHERE nspname = current_schema() AND relkind = 'r'",
                )
                .fetch_all(db)
                .await?;
                let bytes = tables.iter().map(|(_, _, bytes)| bytes).sum();
                // Before the first ANALYZE there is no estimate.
                let rows = tables.into_iter().filter(|(_, rows, _)| *rows >= 0).map(|(table, rows, _)| (table, rows));
                Ok(Size { bytes, rows: rows.collect() })
            }
        }
    }
}

/// Measures the database of a service periodically, until `stop`.
pub async fn watch_size(db: Db, service: &'static str, metrics: Metrics, stop: CancellationToken) {
    let Gauges { bytes, rows } = metrics.shared(|registry| {
        let gauges = Gauges::default();
        let Gauges { bytes, rows } = &gauges;
        registry.register("drystone_database_bytes", "Size of tables and indexes", bytes.clone());
        registry.register("drystone_table_rows", "Rows of a table of PostgreSQL, as it estimates them", rows.clone());
        gauges
    });
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        match db.size().await {
            Ok(size) => {
                bytes.get_or_create(&ServiceLabel { service }).set(size.bytes);
                for (table, count) in size.rows {
                    rows.get_or_create(&TableLabels { service, table }).set(count);
                }
            }
            Err(error) => tracing::debug!(service, cause = %Chain(&error), "the size of a database is unknown"),
        }
    }
}
