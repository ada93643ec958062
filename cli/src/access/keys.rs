//! The keys that verify tokens: from a file, or from the auth service.

use std::{fs, path::Path};

use anyhow::Result;
use drystone::auth::v1::{GetJwksRequest, Jwk, key_service_client::KeyServiceClient};
use drystone_mesh::token::{KeySet, PublicKey};
use serde::Deserialize;

use crate::{
    App,
    command_line::WrongUsage,
    config::Config,
    operator::{self, Operator},
    process,
};

/// A JWK set (RFC 7517, section 5). Other members are ignored.
#[derive(Deserialize)]
struct KeyFile {
    keys: Vec<KeyInFile>,
}

/// A JWK of a type that signs access tokens.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct KeyInFile {
    kty: String,
    r#use: String,
    alg: String,
    kid: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// Reads the keys of a file, such as a copy of `/.well-known/jwks.json`.
pub(crate) fn read_keys(path: &Path) -> Result<KeySet, WrongUsage> {
    let shown = path.display();
    let text = fs::read(path).map_err(|error| WrongUsage(format!("{shown} cannot be read: {error}")))?;
    let file: KeyFile = serde_json::from_slice(&text).map_err(|error| {
        WrongUsage(format!("{shown} is not a JWK set: {error}; save /.well-known/jwks.json of the edge"))
    })?;
    let keys = file.keys.into_iter().map(|key| {
        let KeyInFile { kty, r#use, alg, kid, crv, x, y, n, e } = key;
        Jwk { kty, r#use, alg, kid, crv, x, y, n, e }
    });
    key_set(keys).ok_or_else(|| WrongUsage(format!("{shown} has no key that verifies access tokens")))
}

/// Fetches the keys from the auth service, as the operator.
pub(crate) fn fetch_keys(app: &App, config: &Config) -> Result<KeySet> {
    process::block_on(async {
        let operator = Operator::connect(app, config)?;
        let mut client = KeyServiceClient::new(operator.channel(drystone_auth::NAME)?);
        let answer = client.get_jwks(GetJwksRequest {}).await.map_err(|status| operator::failure(&status))?;
        let keys = key_set(answer.into_inner().keys);
        keys.ok_or_else(|| anyhow::anyhow!("the auth service has no key that verifies access tokens"))
    })
}

/// The usable keys, as servers select them; `None` without any.
fn key_set(keys: impl IntoIterator<Item = Jwk>) -> Option<KeySet> {
    let usable: Vec<_> = keys.into_iter().filter_map(|key| PublicKey::from_jwk(&key).ok()).collect();
    let keys = KeySet::new();
    keys.replace(usable);
    keys.is_loaded().then_some(keys)
}
