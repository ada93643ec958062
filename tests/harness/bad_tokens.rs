//! Invalid access tokens, each of which must be refused.
//!
//! Each token is derived from a valid one and differs from it in one property. Unless the signature is the fault, it is
//! signed with the valid key. The groups correspond to the check that must refuse the token.
//!
//! Every token is a valid HTTP header value.

#![allow(clippy::expect_used, reason = "test code fails by panicking")]

mod claims;
mod forge;
mod headers;
mod shapes;
mod signatures;

pub use claims::bad_claims;
pub use headers::bad_headers;
pub use shapes::bad_shapes;
pub use signatures::bad_signatures;

use serde_json::{Map, Value};

/// The parts of a valid token.
#[derive(Debug, Clone)]
pub struct GoodToken {
    /// The signing key: P-256, PKCS#8.
    pub key: Vec<u8>,
    /// The key id.
    pub kid: String,
    /// Claims that are valid now, as in `drystone_mesh::token::Claims`.
    pub claims: Map<String, Value>,
}

/// A token that must be refused.
#[derive(Debug, Clone)]
pub struct BadToken {
    /// The fault.
    pub name: String,
    /// The token.
    pub token: String,
}

impl GoodToken {
    /// The valid token. Tests must check that it is accepted.
    #[must_use]
    pub fn token(&self) -> String {
        self.sign(&self.header(), self.claims_text())
    }
}

/// All invalid tokens.
#[must_use]
pub fn bad_tokens(good: &GoodToken) -> Vec<BadToken> {
    [bad_shapes(good), bad_headers(good), bad_signatures(good), bad_claims(good)].concat()
}

fn bad(name: impl Into<String>, token: impl Into<String>) -> BadToken {
    BadToken { name: name.into(), token: token.into() }
}
