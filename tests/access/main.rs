//! Authorization of workloads and users, access tokens, and TLS.

mod denylist;
mod enforcers;
mod explain;
mod matrix;
mod shadow;
mod tls;
mod tokens;
