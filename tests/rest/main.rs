//! The REST edge: routes, bad input, and what it hands on into the mesh.

mod bad_input;
mod forwarding;
mod routes;
