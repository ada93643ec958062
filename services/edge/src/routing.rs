//! From a request to the RPC that it calls.
//!
//! | file | what |
//! |---|---|
//! | `route.rs` | a route, from the `google.api.http` option of an RPC |
//! | `router.rs` | finds the route of a method and a path |
//! | `table.rs` | all routes of the contracts, built when the edge starts |
//! | `body_limit.rs` | the maximum size of a body, from the bounds in the contract |
//! | `percent.rs` | percent-decoding of path and query |

mod body_limit;
pub(crate) mod percent;
pub(crate) mod route;
pub(crate) mod router;
pub(crate) mod table;
