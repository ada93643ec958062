//! Real servers for tests: one that the environment names, or a throw-away one started from an installed binary.
//!
//! | environment variable | what it names |
//! |---|---|
//! | `DRYSTONE_TEST_POSTGRES` | a PostgreSQL 15 or newer, such as `postgres://USER:PASSWORD@localhost/postgres`, whose user may create databases |
//! | `DRYSTONE_TEST_REDIS` | a Redis 7 or newer, such as `redis://127.0.0.1:6379` |
//!
//! Without it the server is started on a free port, with its data in a temporary directory, and ends with the test
//! process, however that ends. Where it is not installed either, tests fail and say what to install: none is skipped.
//!
//! A store's contract suite runs on each backend, in a module of the backend's name, so that the output of the tests
//! says what ran on what.

mod ports;
mod postgres;
mod redis;
mod watchdog;

pub use self::{
    postgres::{Database, Postgres, Scans},
    redis::{Redis, RedisCluster},
};
