//! Authorization server metadata (RFC 8414), with the URL of the JWK set.

use drystone::auth::v1::AuthorizationServerMetadata;

/// The path of the JWK set below the public URL.
const JWKS_PATH: &str = "/.well-known/jwks.json";

/// The metadata of an issuer whose clients connect to `public_url`.
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
    fn jwks_uri_is_the_path_in_the_contract() {
        for url in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/"] {
            assert_eq!(document("i", url).jwks_uri, "http://127.0.0.1:8080/.well-known/jwks.json");
        }
    }
}
