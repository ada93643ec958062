//! Real servers for tests: those that the environment names, or throw-away ones of our own.
//!
//! A store's contract suite runs on each backend, in a module of the backend's name, so that the output of the tests
//! says what ran on what. Nothing is skipped: where there is neither a server nor a program to start one with, the test
//! fails and says what to install.

mod postgres;
mod watchdog;

pub use postgres::{Database, Postgres};
