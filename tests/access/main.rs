//! Authorization of workloads and users, access tokens, and TLS.

mod matrix;
mod tls;
mod tokens;
