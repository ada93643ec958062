//! What every service stands on. It knows no service by name.
//!
//! | module | holds |
//! |---|---|
//! | [`identity`] | SPIFFE IDs, certificates and how they are proven, the development CA |
//! | [`access`] | the rules of the contract, and the layer that holds callers to them |
//! | [`token`] | access tokens: strict verification, key sets, what has been revoked |
//! | [`accept`] | the bounded accept loop of every listener |
//! | [`server`] | the acceptor, the layer stack, health, reflection, shutdown |
//! | [`client`] | calls to other services: identity of the callee, deadline, trace |
//! | [`call`] | one call as a handler sees it |
//! | [`error`] | one closed set of reasons, and its way onto the wire |
//! | [`deadline`] | how long a call may take |
//! | [`limit`] | how often something may be tried |
//! | [`page`], [`etag`], [`mask`], [`id`], [`time`] | pages of lists, row versions, field masks, ids and times in messages |
//! | [`backoff`] | delays between retries |
//! | [`email`], [`display_name`], [`text`] | addresses, names and other texts of people: one rule for every service |
//! | [`telemetry`] | logs, metrics, traces, the admin port |
//! | [`health`] | what is up, and what that means |
//! | [`host`] | the host that an HTTP request names |
//! | [`json`] | strict JSON: no duplicate members, bounded nesting, the position of an error |
//! | [`body`] | response bodies that end early, with an error in their trailers |
//! | [`config`] | defaults < file < environment < flags |
//! | [`clock`] | time, passed in |
//! | [`node`] | one service's share of all this, put together |
//! | [`module`] | what a service crate exports, and what its service is started with |

pub mod accept;
pub mod access;
pub mod backoff;
pub mod body;
pub mod call;
pub mod client;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod display_name;
pub mod email;
pub mod error;
pub mod etag;
pub mod health;
pub mod host;
pub mod id;
pub mod identity;
pub mod json;
pub mod limit;
pub mod mask;
pub mod module;
pub mod node;
pub mod page;
pub mod server;
pub mod telemetry;
pub mod text;
pub mod time;
pub mod token;
