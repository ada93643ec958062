//! Both ceremonies by a software authenticator: valid ones pass, and each single change is refused with its own failure.

mod attestation;
mod authentication;
mod authenticator;
mod json;
mod mutation;
mod public_key;
mod registration;
