//! The user service: its store, on both engines, and its RPCs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod accounts;
mod database;
mod email;
mod imports;
mod indexes;
mod lists;
mod roles;
mod rpc;
mod store;
