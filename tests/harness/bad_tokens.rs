//! Ways in which an access token can be wrong, each of which must be refused.
//!
//! The table is made from a good token, so that each entry differs from it in one thing, and every entry whose
//! signature is not itself the fault is signed with the right key. The groups say which check has to catch an entry.
//!
//! All of them can be sent in an HTTP header as they are.

#![allow(clippy::expect_used, reason = "a test whose tokens cannot be made has nothing to prove")]

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

/// What a good token is made of.
#[derive(Debug, Clone)]
pub struct GoodToken {
    /// The signing key: P-256, PKCS#8.
    pub key: Vec<u8>,
    /// The key's name.
    pub kid: String,
    /// Claims that are accepted now, those of `drystone_mesh::token::Claims`.
    pub claims: Map<String, Value>,
}

/// A token that must be refused.
#[derive(Debug, Clone)]
pub struct BadToken {
    /// What is wrong with it.
    pub name: String,
    /// The token.
    pub token: String,
}

impl GoodToken {
    /// The good token itself: it must be accepted, or the bad ones prove nothing.
    #[must_use]
    pub fn token(&self) -> String {
        self.sign(&self.header(), self.claims_text())
    }
}

/// Every way there is.
#[must_use]
pub fn bad_tokens(good: &GoodToken) -> Vec<BadToken> {
    [bad_shapes(good), bad_headers(good), bad_signatures(good), bad_claims(good)].concat()
}

fn bad(name: impl Into<String>, token: impl Into<String>) -> BadToken {
    BadToken { name: name.into(), token: token.into() }
}
