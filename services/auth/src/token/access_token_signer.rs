//! Makes access tokens: JWTs (RFC 7519) of the profile of RFC 9068, as mesh's verifier takes them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{SubsecRound, TimeDelta};
use drystone_mesh::{clock::Timestamp, id, token::Claims};
use jsonwebtoken::{Algorithm, Header};
use uuid::Uuid;

use crate::{error::Error, token::key_ring::KeyRing};

/// Whom all access tokens are made for.
pub const AUDIENCE: &str = "drystone";

/// What kind of JWT an access token is (RFC 9068, section 2.1).
const TYPE: &str = "at+jwt";

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
pub struct AccessTokenSigner {
    keys: Arc<KeyRing>,
    issuer: String,
    client_id: String,
    lifetime: TimeDelta,
    /// The header is the same in every token.
    header: Header,
}

impl AccessTokenSigner {
    /// A maker of tokens that are signed with the ring's newest key and issued to this client.
    #[must_use]
    pub fn new(keys: Arc<KeyRing>, issuer: String, client_id: String, lifetime: Duration) -> Self {
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: Some(keys.signing().kid().to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        let lifetime = TimeDelta::from_std(lifetime).unwrap_or(TimeDelta::zero());
        Self { keys, issuer, client_id, lifetime, header }
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn make(&self, grant: Grant) -> Result<AccessToken, Error> {
        let issued_at = grant.as_of;
        let expires_at = (issued_at + self.lifetime).trunc_subsecs(0);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: grant.user_id,
            sid: grant.session_id,
            jti: id::v7_at(issued_at),
            client_id: Some(self.client_id.clone()),
            iat: issued_at.timestamp(),
            exp: expires_at.timestamp(),
            nbf: None,
            // A session begins after its user's roles were read, but no token is older than the proof it rests on.
            auth_time: grant.auth_time.min(issued_at).timestamp(),
            amr: vec![PASSWORD.to_owned()],
            roles: grant.roles,
            perms: grant.permissions,
            props: grant.properties,
        };
        let jwt = jsonwebtoken::encode(&self.header, &claims, self.keys.signing().private()).map_err(Error::Signing)?;
        Ok(AccessToken { jwt, expires_at })
    }
}
