//! The platform library of every service. It depends on no service.
//!
//! | module | content |
//! |---|---|
//! | [`identity`] | SPIFFE IDs, X.509-SVIDs and their verification, the development CA |
//! | [`access`] | access rules, and the layer that enforces them |
//! | [`token`] | access tokens: verification, key sets, revocations |
//! | [`accept`] | the bounded accept loop of every listener |
//! | [`server`] | the acceptor, the layer stack, health, reflection, shutdown |
//! | [`client`] | calls to other services: discovery, mutual TLS, deadlines, retries, trace context |
//! | [`call`] | the context of a call in a handler |
//! | [`error`] | errors with a closed set of reasons, and their gRPC statuses |
//! | [`deadline`] | deadlines of calls |
//! | [`limit`] | rate limits |
//! | [`page`], [`filter`], [`etag`], [`mask`], [`id`], [`time`] | pagination, filters, row versions, field masks, ids and timestamps in messages |
//! | [`backoff`], [`consecutive_failures`] | delays between retries, the failure count of circuit breakers |
//! | [`email`], [`display_name`], [`text`] | validation of e-mail addresses, names and other free-form text |
//! | [`telemetry`] | logs, metrics, trace context, the admin port |
//! | [`health`] | the health of components |
//! | [`host`] | validation of the host of HTTP requests |
//! | [`json`] | strict JSON: no duplicate members, bounded nesting, the position of an error |
//! | [`body`] | response bodies that end early, with an error in their trailers |
//! | [`config`] | defaults < file < environment < flags |
//! | [`clock`] | the injected source of time |
//! | [`node`] | one service's instances of all of these |
//! | [`module`] | what a service crate exports, and the context that it starts with |

pub mod accept;
pub mod access;
pub mod backoff;
pub mod body;
pub mod call;
pub mod client;
pub mod clock;
pub mod config;
pub mod connections;
pub mod consecutive_failures;
pub mod deadline;
pub mod display_name;
pub mod email;
pub mod error;
pub mod etag;
pub mod filter;
pub mod health;
pub mod host;
pub mod https;
pub mod id;
pub mod identity;
pub mod json;
pub mod limit;
pub mod mask;
pub mod memory;
pub mod module;
pub mod node;
pub mod page;
pub mod server;
pub mod telemetry;
pub mod text;
pub mod time;
pub mod token;
