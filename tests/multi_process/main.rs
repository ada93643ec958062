//! Services in processes of their own, on PostgreSQL and Redis: outages, restarts, several instances.

mod apart;
mod cluster;
mod faults;
mod partial_outage;
mod postgres;
mod redis;
mod restart;
