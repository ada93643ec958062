//! Sources of credentials at an agent that serves the Workload API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod agent;
mod certificates;
mod load;
mod rotation;

/// The workload of the tests.
const AUTH: &str = "spiffe://drystone.test/service/auth";

/// Another workload of its trust domain.
const USER: &str = "spiffe://drystone.test/service/user";
