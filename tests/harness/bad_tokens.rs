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

use std::{fs, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone_testing::{Mesh, User};
use serde_json::{Map, Value};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use crate::sealed;

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
    /// A valid token of a new user, and the mesh's own key, read from its database: a bad token must be wrong in one
    /// property only, so most need a valid signature.
    ///
    /// # Panics
    /// If the database cannot be read.
    pub async fn of(mesh: &Mesh) -> Self {
        let (_, tokens) = User::signed_in(mesh).await;
        let payload = tokens.access.split('.').nth(1).expect("a token has three segments");
        let claims = URL_SAFE_NO_PAD.decode(payload).expect("a segment is base64url");
        let claims = serde_json::from_slice(&claims).expect("the claims are an object");
        let options = SqliteConnectOptions::new().filename(mesh.home().data().join("auth.db")).read_only(true);
        let options = options.busy_timeout(Duration::from_secs(5));
        let mut database = options.connect().await.expect("the database can be opened");
        let query = "SELECT kid, private_key FROM signing_key ORDER BY created_at DESC LIMIT 1";
        let (kid, envelope): (String, Vec<u8>) =
            sqlx::query_as(query).fetch_one(&mut database).await.expect("there is a signing key");
        database.close().await.expect("the database can be closed");
        let master = fs::read_to_string(mesh.home().data().join("master.key")).expect("there is a master key");
        let key = sealed::open(&master, &envelope, ["signing_key", &kid, "private_key"]);
        Self { key, kid, claims }
    }

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
