//! The REST edge: routes, bad input, and forwarding to services.

mod bad_input;
mod forwarding;
mod routes;
