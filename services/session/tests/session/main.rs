//! The session service: its stores, and its RPCs with several instances.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod indexes;
mod instances;
mod races;
mod redis;
mod rotation;
mod rpc;
mod store;
