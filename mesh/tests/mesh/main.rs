//! Promises of the mesh that need no service.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_tokens;
mod client;
mod server;
