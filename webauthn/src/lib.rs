//! The server's part of Web Authentication (W3C, level 3): what a relying party verifies of a passkey.
//!
//! Nothing here reads a clock, a store or a socket. A caller issues challenges, keeps what a registration returns, and decides what a
//! proof allows.
//!
//! | file | content |
//! |---|---|
//! | `relying_party.rs` | who asks: the RP ID and its origins |
//! | `options.rs` | what is asked of the browser |
//! | `response.rs` | what the browser sends, as JSON |
//! | `registration.rs` | section 7.1: registering a new credential |
//! | `authentication.rs` | section 7.2: verifying an authentication assertion |
//! | `client_data.rs` | what the browser says of the ceremony |
//! | `authenticator_data.rs` | what the authenticator says |
//! | `attestation.rs` | the attestation object: the formats `none`, and `packed` as self attestation |
//! | `public_key.rs` | public keys (COSE) and signatures |
//! | `cbor.rs` | what of CBOR authenticators may send |
//! | `failure.rs` | why a response is refused |
//!
//! User verification is always required: a passkey is then two factors of different kinds, what the user has, and what they know or
//! are.

mod attestation;
mod authentication;
mod authenticator_data;
mod cbor;
mod client_data;
mod failure;
mod options;
mod public_key;
mod registration;
mod relying_party;
mod response;

pub use crate::{
    authentication::{Authenticated, StoredCredential},
    failure::Failure,
    options::{CreationOptions, CredentialDescriptor, RequestOptions, User},
    registration::Registered,
    relying_party::{ConfigError, RelyingParty},
    response::{AuthenticationResponse, MAX_CREDENTIAL_ID, RegistrationResponse},
};
