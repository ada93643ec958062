//! HTTP: requests and responses apart from the messages that they carry.
//!
//! | file | what |
//! |---|---|
//! | `serve.rs` | connections: accepted, limited, drained when the edge stops |
//! | `protocol.rs` | the rules of HTTP itself: host, target, expectations |
//! | `body.rs`, `content_type.rs` | the body, within limits of size, time and memory |
//! | `headers.rs` | the headers that become part of the call: request id, trace, deadline, client |
//! | `token.rs` | the access token, checked before anything else is done |
//! | `proxies.rs`, `forwarded.rs` | the client's address, as trusted proxies report it |
//! | `response.rs` | responses with JSON |
//! | `error.rs`, `error_response.rs` | errors, and their responses with `google.rpc.Status` |

pub(crate) mod body;
pub(crate) mod content_type;
pub(crate) mod error;
pub(crate) mod error_response;
pub(crate) mod forwarded;
pub(crate) mod headers;
pub(crate) mod protocol;
pub(crate) mod proxies;
pub(crate) mod proxy_protocol;
pub(crate) mod response;
pub(crate) mod serve;
pub(crate) mod token;
