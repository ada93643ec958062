//! What an access token says, typed.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta};
use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::{Uuid, Variant, Version};

use super::{Principal, TokenError, json};
use crate::clock::Timestamp;

/// How far the clocks of two machines may be apart, in seconds.
const LEEWAY: i64 = 5;

/// The claims of an access token (RFC 9068, section 2.2; RFC 7519). Times are seconds since 1970.
///
/// Of the claims of authorization (RFC 9068, section 2.2.3.1) `roles` is used, as a list of names; `groups` and
/// `entitlements` are not: permissions are `perms`, since entitlements say what somebody has and not what they may do.
/// There is no `scope`, which goes with an authorization request that names one, and no `acr` (section 2.2.1), as no
/// levels of assurance are defined. `sid`, `perms` and `props` are private claims.
///
/// Serialise to make a token. Members that are not listed here are ignored when reading, so that a token can say
/// more than this version knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who made the token.
    pub iss: String,
    /// Whom it is made for: one audience, never a list.
    pub aud: String,
    /// The user.
    #[serde(deserialize_with = "canonical_uuid")]
    pub sub: Uuid,
    /// The session.
    #[serde(deserialize_with = "canonical_uuid")]
    pub sid: Uuid,
    /// The token's id, a UUID of version 7: the time in it is the issue time to the millisecond. Make it with
    /// [`crate::id::v7_at`].
    #[serde(deserialize_with = "canonical_uuid")]
    pub jti: Uuid,
    /// The OAuth client that the token was issued to (RFC 9068, section 2.2).
    ///
    /// May be absent for as long as instances of the release before issue tokens without it: during an update both
    /// run, and the last of those tokens ends a few minutes later. The next release requires it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "client_id")]
    pub client_id: Option<String>,
    /// When the token was made.
    pub iat: i64,
    /// When the token ends.
    pub exp: i64,
    /// When the token begins, if that is later than `iat`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub nbf: Option<i64>,
    /// When the user last proved who they are.
    pub auth_time: i64,
    /// How they did (RFC 8176), such as `pwd`.
    #[serde(default)]
    pub amr: Vec<String>,
    /// The user's roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The user's permissions, as `RESOURCE:ACTION`.
    #[serde(default)]
    pub perms: Vec<String>,
    /// The properties that the user has to do with: id, and relation to it.
    #[serde(default)]
    pub props: BTreeMap<String, String>,
}

/// What a verifier holds claims against.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    pub(super) max_lifetime: i64,
    pub(super) now: Timestamp,
}

impl Claims {
    /// Reads the claims of a token whose signature has been proved.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, TokenError> {
        let text = json::object(payload).ok_or(TokenError::Claims)?;
        serde_json::from_str(text).map_err(|_| TokenError::Claims)
    }

    /// Whom the token speaks of, if it is made by the right one, for the right one, and its time is now.
    pub(super) fn check(self, expected: &Expected<'_>) -> Result<Principal, TokenError> {
        if self.iss != expected.issuer {
            return Err(TokenError::Issuer);
        }
        if self.aud != expected.audience {
            return Err(TokenError::Audience);
        }
        let lifetime = self.exp.checked_sub(self.iat).ok_or(TokenError::Lifetime)?;
        if lifetime <= 0 || lifetime > expected.max_lifetime {
            return Err(TokenError::Lifetime);
        }
        let latest_start = expected.now.timestamp() + LEEWAY;
        if self.iat > latest_start || self.nbf.is_some_and(|nbf| nbf > latest_start) {
            return Err(TokenError::NotYetValid);
        }
        let expires_at = moment(self.exp)?;
        if has_ended(expires_at, expected.now) {
            return Err(TokenError::Expired);
        }
        let issued_at = issue_time(self.jti, self.iat)?;
        if self.auth_time < 0 || self.auth_time > self.iat + LEEWAY {
            return Err(TokenError::Claims);
        }
        Ok(Principal {
            user_id: self.sub,
            session_id: self.sid,
            token_id: self.jti,
            issued_at,
            expires_at,
            auth_time: moment(self.auth_time)?,
            roles: self.roles,
            permissions: self.perms,
            properties: self.props,
        })
    }
}

/// Whether a token that ends then is over now.
pub(super) fn has_ended(expires_at: Timestamp, now: Timestamp) -> bool {
    now - expires_at >= TimeDelta::seconds(LEEWAY)
}

/// The issue time that the token id carries. Revocation compares it, so it has to agree with `iat`.
fn issue_time(jti: Uuid, iat: i64) -> Result<Timestamp, TokenError> {
    if jti.get_version() != Some(Version::SortRand) || jti.get_variant() != Variant::RFC4122 {
        return Err(TokenError::Claims);
    }
    let (seconds, nanos) = jti.get_timestamp().ok_or(TokenError::Claims)?.to_unix();
    let seconds = i64::try_from(seconds).map_err(|_| TokenError::Claims)?;
    if seconds.abs_diff(iat) > LEEWAY.unsigned_abs() {
        return Err(TokenError::Claims);
    }
    DateTime::from_timestamp(seconds, nanos).ok_or(TokenError::Claims)
}

fn moment(seconds: i64) -> Result<Timestamp, TokenError> {
    DateTime::from_timestamp(seconds, 0).ok_or(TokenError::Claims)
}

/// One spelling for one id: lower case, hyphens, and not the nil UUID.
fn canonical_uuid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let text = String::deserialize(deserializer)?;
    let id = Uuid::try_parse(&text).map_err(|_| de::Error::custom("not a UUID"))?;
    let mut buffer = Uuid::encode_buffer();
    if id.is_nil() || *id.hyphenated().encode_lower(&mut buffer) != text {
        return Err(de::Error::custom("not a UUID in its canonical spelling"));
    }
    Ok(id)
}

/// A client id: at least one visible ASCII character or space, and nothing else (RFC 6749, appendix A.1).
fn client_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_client_id(&text) { Ok(Some(text)) } else { Err(de::Error::custom("not a client id")) }
}

/// Whether a text can be a client id (RFC 6749, appendix A.1).
#[must_use]
pub fn is_client_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A member that may be left out, but is no `null` when it is there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    i64::deserialize(deserializer).map(Some)
}
