//! Ceremonies by a software authenticator, and the test vectors of the specification.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod ceremonies;
mod vectors;
