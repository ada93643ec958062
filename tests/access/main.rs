//! Who may call what: workloads, users, tokens, and the sockets beneath.

mod matrix;
mod tls;
mod tokens;
