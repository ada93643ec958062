//! PostgreSQL, Redis and SMTP servers for tests: one named in the environment, or a temporary one started from an installed
//! binary.
//!
//! | environment variable | server |
//! |---|---|
//! | `DRYSTONE_TEST_POSTGRES` | a PostgreSQL 15 or newer, such as `postgres://USER:PASSWORD@localhost/postgres`, whose user may create databases |
//! | `DRYSTONE_TEST_REDIS` | a Redis 7 or newer, such as `redis://127.0.0.1:6379` |
//!
//! Without the variable, a server is started on a free port with its data in a temporary directory, and is stopped when the
//! test process exits or is killed. If no binary is installed, tests fail and say what to install; none is skipped.
//!
//! The contract suite of a store runs on each backend, in a module with the name of the backend.

mod ports;
mod postgres;
mod redis;
mod smtp;
mod watchdog;

pub use self::{
    postgres::{Database, Postgres, Scans},
    redis::{Redis, RedisCluster},
    smtp::{Mail, Smtp, SmtpOptions, SmtpTls},
};
