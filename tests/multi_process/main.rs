//! Services in processes of their own, on PostgreSQL and Redis: outages and restarts.

mod apart;
mod partial_outage;
mod postgres;
mod redis;
mod restart;
