//! HTTP: what a request and an answer have beside the message that they carry.
//!
//! | file | what |
//! |---|---|
//! | `serve.rs` | connections: accepted, bounded, drained when the edge stops |
//! | `protocol.rs` | what HTTP itself demands: host, target, expectations |
//! | `body.rs` | the bytes of a body, within limits of size, time and memory |
//! | `headers.rs` | what goes into the mesh: request id, trace, deadline, token, client |
//! | `proxies.rs`, `forwarded.rs` | the client's address, as trusted proxies report it |
//! | `answer.rs`, `refusal.rs` | responses: JSON, or an error as `google.rpc.Status` |

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod forwarded;
pub(crate) mod headers;
pub(crate) mod protocol;
pub(crate) mod proxies;
pub(crate) mod refusal;
pub(crate) mod serve;
