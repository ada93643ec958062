//! The metadata of the authorization server (RFC 8414): where to find what tokens are checked with.

use drystone::auth::v1::AuthorizationServerMetadata;

/// Where the JWK set is, below the address that clients use.
const JWKS_PATH: &str = "/.well-known/jwks.json";

/// The metadata of an issuer whose clients use `public_url`.
#[must_use]
pub fn document(issuer: &str, public_url: &str) -> AuthorizationServerMetadata {
    AuthorizationServerMetadata {
        issuer: issuer.to_owned(),
        jwks_uri: format!("{}{JWKS_PATH}", public_url.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_set_is_where_the_contract_serves_it() {
        for url in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/"] {
            assert_eq!(document("i", url).jwks_uri, "http://127.0.0.1:8080/.well-known/jwks.json");
        }
    }
}
