//! Which RPC a request calls.
//!
//! | file | what |
//! |---|---|
//! | `route.rs` | a route, made from the `google.api.http` option of an RPC |
//! | `router.rs` | finds the route of a method and a path |
//! | `table.rs` | every route of the contracts, made when the edge starts |
//! | `percent.rs` | percent-decoding of path and query |

pub(crate) mod percent;
pub(crate) mod route;
pub(crate) mod router;
pub(crate) mod table;
