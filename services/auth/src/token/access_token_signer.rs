//! Access tokens: JWTs (RFC 7519) of the profile in RFC 9068, as verified by `drystone_mesh::token`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{SubsecRound, TimeDelta};
use drystone_mesh::{
    clock::Timestamp,
    id,
    token::{Claims, MAX_TOKEN_LENGTH},
};
use uuid::Uuid;

use crate::{error::Error, token::key_ring::KeyRing};

/// The `aud` claim of all access tokens.
pub const AUDIENCE: &str = "drystone";

/// The `typ` header of an access token (RFC 9068, section 2.1).
pub(super) const TYPE: &str = "at+jwt";

/// The inputs of an access token.
#[derive(Debug, Clone)]
pub struct AccessTokenParams {
    /// The user.
    pub user_id: Uuid,
    /// The session.
    pub session_id: Uuid,
    /// When the user authenticated.
    pub auth_time: Timestamp,
    /// How (RFC 8176).
    pub amr: Vec<String>,
    /// A time before the roles, permissions and properties were read. It is the issue time of the token, so that a
    /// concurrent change of roles revokes the token.
    pub as_of: Timestamp,
    /// The user's roles.
    pub roles: Vec<String>,
    /// The user's permissions.
    pub permissions: Vec<String>,
    /// When the first of these expires: the token is valid until then at most.
    pub claims_expire_at: Option<Timestamp>,
    /// The user's relations to properties, by property id.
    pub properties: BTreeMap<String, String>,
}

/// A signed access token.
#[derive(Debug)]
pub struct AccessToken {
    /// The JWT.
    pub jwt: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// Builds and signs access tokens, one JWT at a time; `TokenIssuer` uses it to issue token pairs.
#[derive(Debug)]
pub struct AccessTokenSigner {
    keys: Arc<KeyRing>,
    issuer: String,
    client_id: String,
    lifetime: TimeDelta,
}

impl AccessTokenSigner {
    /// Signs with the keys of `keys`. `client_id` becomes the claim of that name.
    #[must_use]
    pub fn new(keys: Arc<KeyRing>, issuer: String, client_id: String, lifetime: Duration) -> Self {
        let lifetime = TimeDelta::from_std(lifetime).unwrap_or(TimeDelta::zero());
        Self { keys, issuer, client_id, lifetime }
    }

    /// Builds and signs a token.
    ///
    /// # Errors
    /// [`Error::Signing`]; [`Error::KeysStale`] if the key was withdrawn meanwhile.
    pub fn sign(&self, params: AccessTokenParams) -> Result<AccessToken, Error> {
        let issued_at = params.as_of;
        let end = (issued_at + self.lifetime).min(params.claims_expire_at.unwrap_or(Timestamp::MAX_UTC));
        // Never at the second of its issue, which no verifier accepts.
        let expires_at = end.trunc_subsecs(0).max(issued_at.trunc_subsecs(0) + TimeDelta::seconds(1));
        let mut claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: params.user_id,
            sid: params.session_id,
            jti: id::v7_at(issued_at),
            client_id: Some(self.client_id.clone()),
            iat: issued_at.timestamp(),
            exp: expires_at.timestamp(),
            nbf: None,
            // A session starts after the roles were read, but `auth_time` must not be later than `iat`.
            auth_time: params.auth_time.min(issued_at).timestamp(),
            amr: params.amr,
            roles: params.roles,
            perms: params.permissions,
            props: params.properties,
        };
        let keys = self.keys.current();
        let signing = self.keys.signing_key(&keys)?;
        let sign = |claims: &Claims| signing.sign(claims).map_err(Error::Signing);
        let mut jwt = sign(&claims)?;
        if jwt.len() > MAX_TOKEN_LENGTH && !claims.props.is_empty() {
            // No verifier would accept it. Services do without properties, as when the property service does not answer.
            tracing::warn!(user_id = %claims.sub, properties = claims.props.len(), "properties do not fit into the access token");
            claims.props.clear();
            jwt = sign(&claims)?;
        }
        Ok(AccessToken { jwt, expires_at })
    }
}
