//! The discovery document (RFC 8414, OpenID Connect Discovery 1.0): where to find what tokens are checked with.

use drystone::auth::v1::GetDiscoveryResponse;

use crate::signing_key::ALGORITHM;

/// Where the JWK set is, below the address that clients use.
const JWKS_PATH: &str = "/.well-known/jwks.json";

/// What a token can say, in the order in which it says it.
const CLAIMS: [&str; 12] =
    ["iss", "aud", "sub", "sid", "jti", "iat", "exp", "auth_time", "amr", "roles", "perms", "props"];

/// The document of an issuer whose clients use `public_url`.
#[must_use]
pub fn document(issuer: &str, public_url: &str) -> GetDiscoveryResponse {
    GetDiscoveryResponse {
        issuer: issuer.to_owned(),
        jwks_uri: format!("{}{JWKS_PATH}", public_url.trim_end_matches('/')),
        response_types_supported: Vec::new(),
        subject_types_supported: vec!["public".to_owned()],
        id_token_signing_alg_values_supported: vec![ALGORITHM.to_owned()],
        claims_supported: CLAIMS.map(str::to_owned).to_vec(),
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
