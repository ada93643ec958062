//! Makes access tokens: JWTs (RFC 7519) of the profile of RFC 9068, as mesh's verifier takes them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use drystone_mesh::{
    clock::Timestamp,
    token::{Claims, new_token_id},
};
use uuid::Uuid;

use crate::{error::Error, key_ring::KeyRing, signing_key::ALGORITHM};

/// Whom all access tokens are made for.
pub const AUDIENCE: &str = "drystone";

/// How users sign in, in the words of RFC 8176.
const PASSWORD: &str = "pwd";

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Who.
    pub user_id: Uuid,
    /// In which session.
    pub session_id: Uuid,
    /// When the user proved who they are.
    pub auth_time: Timestamp,
    /// When the rest of the grant was true: before it was read, so that a token made of roles that change in the
    /// meantime is among those that the change voids.
    pub as_of: Timestamp,
    /// The user's roles.
    pub roles: Vec<String>,
    /// The permissions that the roles bring.
    pub permissions: Vec<String>,
    /// The user's relations to properties, by the property's id.
    pub properties: BTreeMap<String, String>,
}

/// A token, ready to be handed out.
#[derive(Debug)]
pub struct AccessToken {
    /// The JWT.
    pub jwt: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Makes the tokens of one issuer.
#[derive(Debug)]
pub struct TokenMaker {
    keys: Arc<KeyRing>,
    issuer: String,
    lifetime: TimeDelta,
    /// The header is the same in every token: encoded once.
    header: String,
}

impl TokenMaker {
    /// A maker of tokens with the ring's newest key.
    #[must_use]
    pub fn new(keys: Arc<KeyRing>, issuer: String, lifetime: Duration) -> Self {
        let header = serde_json::json!({ "alg": ALGORITHM, "typ": "at+jwt", "kid": keys.signing().kid() });
        let header = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
        let lifetime = TimeDelta::from_std(lifetime).unwrap_or(TimeDelta::zero());
        Self { keys, issuer, lifetime, header }
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn make(&self, grant: Grant) -> Result<AccessToken, Error> {
        let issued_at = grant.as_of;
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: grant.user_id,
            sid: grant.session_id,
            jti: new_token_id(issued_at),
            iat: issued_at.timestamp(),
            exp: (issued_at + self.lifetime).timestamp(),
            nbf: None,
            // A session begins after its user's roles were read, but no token is older than the proof it rests on.
            auth_time: grant.auth_time.min(issued_at).timestamp(),
            amr: vec![PASSWORD.to_owned()],
            roles: grant.roles,
            perms: grant.permissions,
            props: grant.properties,
        };
        let expires_at = Timestamp::from_timestamp(claims.exp, 0).ok_or(Error::Signing)?;
        let payload = serde_json::to_vec(&claims).map_err(|_| Error::Signing)?;

        let mut jwt = String::with_capacity(self.header.len() + payload.len() * 4 / 3 + 96);
        jwt.push_str(&self.header);
        jwt.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut jwt);
        let signature = self.keys.signing().sign(jwt.as_bytes()).ok_or(Error::Signing)?;
        jwt.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(AccessToken { jwt, expires_at })
    }
}
