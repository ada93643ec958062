//! Interoperability: grpcurl, generated clients, Envoy, a Python service, and the binary of the tutorial.

mod clients;
mod envoy;
mod python;
mod tutorial;
