//! Programs that are not ours: grpcurl and generated clients, Envoy, a service in Python, a binary of another team.

mod clients;
mod envoy;
mod python;
mod tutorial;
