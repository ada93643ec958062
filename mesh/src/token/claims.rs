//! The claims of an access token.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta};
use serde::{Deserialize, Deserializer, Serialize, de};
use uuid::{Uuid, Variant, Version};

use super::{Principal, TokenError, json};
use crate::clock::Timestamp;

/// The tolerated clock skew, in seconds.
const LEEWAY: i64 = 5;

/// The claims of an access token (RFC 9068, section 2.2; RFC 7519). Times are in seconds since the Unix epoch.
///
/// Of the authorization claims (RFC 9068, section 2.2.3.1) `roles` is used, as a list of names; `groups` and
/// `entitlements` are not: permissions are in `perms`, since an entitlement is not a permission. There is no `scope`,
/// which requires an authorization request with one, and no `acr` (section 2.2.1), since no levels of assurance are
/// defined. `sid`, `perms` and `props` are private claims.
///
/// Unknown members are ignored when a token is parsed, so that later versions can add claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer.
    pub iss: String,
    /// The audience: one, never a list.
    pub aud: String,
    /// The user.
    #[serde(deserialize_with = "canonical_uuid")]
    pub sub: Uuid,
    /// The session.
    #[serde(deserialize_with = "canonical_uuid")]
    pub sid: Uuid,
    /// The token's id, a UUID of version 7 whose timestamp is the issue time in milliseconds. Create it with
    /// [`crate::id::v7_at`].
    #[serde(deserialize_with = "canonical_uuid")]
    pub jti: Uuid,
    /// The OAuth client that the token was issued to (RFC 9068, section 2.2).
    ///
    /// Optional for now: during a rolling update, instances of the previous release still issue tokens without it. The
    /// next release requires it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "client_id")]
    pub client_id: Option<String>,
    /// When the token was issued.
    pub iat: i64,
    /// When the token expires.
    pub exp: i64,
    /// When the token becomes valid, if later than `iat`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "non_null")]
    pub nbf: Option<i64>,
    /// When the user last authenticated.
    pub auth_time: i64,
    /// The authentication methods (RFC 8176), such as `pwd`.
    #[serde(default)]
    pub amr: Vec<String>,
    /// The user's roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The user's permissions, as `RESOURCE:ACTION`.
    #[serde(default)]
    pub perms: Vec<String>,
    /// The properties that the user has a relation to: id and relation.
    #[serde(default)]
    pub props: BTreeMap<String, String>,
}

/// What a verifier requires of claims.
pub(super) struct Requirements<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    pub(super) max_lifetime: i64,
    pub(super) now: Timestamp,
    /// The key of the token.
    pub(super) key_id: &'a Arc<str>,
}

impl Claims {
    /// Parses the claims of a token whose signature is verified.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, TokenError> {
        let text = json::object(payload).ok_or(TokenError::Claims)?;
        serde_json::from_str(text).map_err(|_| TokenError::Claims)
    }

    /// Checks issuer, audience and validity, and returns the principal.
    pub(super) fn check(self, required: &Requirements<'_>) -> Result<Principal, TokenError> {
        if self.iss != required.issuer {
            return Err(TokenError::Issuer);
        }
        if self.aud != required.audience {
            return Err(TokenError::Audience);
        }
        let lifetime = self.exp.checked_sub(self.iat).ok_or(TokenError::Lifetime)?;
        if lifetime <= 0 || lifetime > required.max_lifetime {
            return Err(TokenError::Lifetime);
        }
        let max_start = required.now.timestamp() + LEEWAY;
        if self.iat > max_start || self.nbf.is_some_and(|nbf| nbf > max_start) {
            return Err(TokenError::NotYetValid);
        }
        let expires_at = timestamp(self.exp)?;
        if has_expired(expires_at, required.now) {
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
            key_id: Arc::clone(required.key_id),
            issued_at,
            expires_at,
            auth_time: timestamp(self.auth_time)?,
            amr: self.amr,
            roles: self.roles,
            permissions: self.perms,
            properties: self.props,
        })
    }
}

/// Whether a token with this expiry has expired, leeway included.
pub(super) fn has_expired(expires_at: Timestamp, now: Timestamp) -> bool {
    now - expires_at >= TimeDelta::seconds(LEEWAY)
}

/// How long it takes until [`has_expired`]; zero from then on.
pub(super) fn time_to_expiry(expires_at: Timestamp, now: Timestamp) -> Duration {
    (expires_at - now + TimeDelta::seconds(LEEWAY)).to_std().unwrap_or_default()
}

/// The issue time in the token id. It must match `iat`, since revocation compares it.
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

fn timestamp(seconds: i64) -> Result<Timestamp, TokenError> {
    DateTime::from_timestamp(seconds, 0).ok_or(TokenError::Claims)
}

/// Accepts only the canonical form of a UUID: lower case, with hyphens, not nil.
fn canonical_uuid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let text = String::deserialize(deserializer)?;
    let id = Uuid::try_parse(&text).map_err(|_| de::Error::custom("not a UUID"))?;
    let mut buffer = Uuid::encode_buffer();
    if id.is_nil() || *id.hyphenated().encode_lower(&mut buffer) != text {
        return Err(de::Error::custom("not a UUID in its canonical form"));
    }
    Ok(id)
}

/// Accepts only a valid client id.
fn client_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_client_id(&text) { Ok(Some(text)) } else { Err(de::Error::custom("not a client id")) }
}

/// Whether a text is a valid client id: printable ASCII, not empty (RFC 6749, appendix A.1).
#[must_use]
pub fn is_client_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Accepts an absent member, but not `null`.
fn non_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    i64::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::testing::clock;

    #[test]
    fn a_token_has_expired_when_no_time_is_left_leeway_included() {
        let expires_at = clock().now();
        let moments = [-10, 0, 4, 5, 6].map(TimeDelta::seconds).map(|after| expires_at + after);
        let left = moments.map(|now| time_to_expiry(expires_at, now).as_secs());
        assert_eq!(left, [15, 5, 1, 0, 0]);
        assert_eq!(moments.map(|now| has_expired(expires_at, now)), [false, false, false, true, true]);
    }
}
