//! Services in separate processes, PostgreSQL, Redis, outages and restarts.

mod imports;
mod master_key;
mod partial_outage;
mod postgres;
mod process_per_service;
mod redis;
mod restart;
mod role_changes;
mod signing_keys;
