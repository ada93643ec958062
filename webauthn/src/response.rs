//! What the browser sends: the JSON of `PublicKeyCredential.toJSON()` (section 5.1). Members that nothing here needs are ignored, since
//! browsers add some.

use std::fmt;

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use crate::failure::Failure;

/// The longest id of a credential, in bytes (section 5.8.3).
pub const MAX_CREDENTIAL_ID: usize = 1023;

/// The longest values of a response, in bytes.
const MAX_CLIENT_DATA: usize = 4 * 1024;
const MAX_ATTESTATION: usize = 16 * 1024;
const MAX_AUTHENTICATOR_DATA: usize = 4 * 1024;
const MAX_SIGNATURE: usize = 1024;
/// Section 5.4.3.
const MAX_USER_HANDLE: usize = 64;

/// How many transports a credential may name, and how long each: those that are more are ignored.
const MAX_TRANSPORTS: usize = 8;
const MAX_TRANSPORT: usize = 32;

const TYPE: &str = "public-key";

/// The specification has no padding; some libraries write it.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The response of a browser to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationResponse {
    pub(crate) id: Vec<u8>,
    pub(crate) client_data: Vec<u8>,
    pub(crate) attestation_object: Vec<u8>,
    pub(crate) transports: Vec<String>,
}

/// The response of a browser to an authentication: a proof that serves until its challenge expires, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthenticationResponse {
    pub(crate) id: Vec<u8>,
    pub(crate) client_data: Vec<u8>,
    pub(crate) authenticator_data: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) user_handle: Option<Vec<u8>>,
}

/// Each member is optional here, so that an error names the one that is missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credential<R> {
    id: Option<String>,
    raw_id: Option<String>,
    r#type: Option<String>,
    response: Option<R>,
}

#[derive(Deserialize)]
struct AttestationJson {
    #[serde(rename = "clientDataJSON")]
    client_data_json: Option<String>,
    #[serde(rename = "attestationObject")]
    attestation_object: Option<String>,
    transports: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AssertionJson {
    #[serde(rename = "clientDataJSON")]
    client_data_json: Option<String>,
    authenticator_data: Option<String>,
    signature: Option<String>,
    user_handle: Option<String>,
}

impl RegistrationResponse {
    /// Reads a `RegistrationResponseJSON`.
    ///
    /// # Errors
    /// [`Failure::Malformed`].
    pub fn from_json(json: &str) -> Result<Self, Failure> {
        let (id, response) = read::<AttestationJson>(json)?;
        let is_known = |text: &String| {
            (1..=MAX_TRANSPORT).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let transports = response.transports.unwrap_or_default().into_iter().filter(is_known);
        Ok(Self {
            id,
            client_data: decode("clientDataJSON", response.client_data_json, MAX_CLIENT_DATA)?,
            attestation_object: decode("attestationObject", response.attestation_object, MAX_ATTESTATION)?,
            transports: transports.take(MAX_TRANSPORTS).collect(),
        })
    }
}

impl AuthenticationResponse {
    /// Reads an `AuthenticationResponseJSON`.
    ///
    /// # Errors
    /// [`Failure::Malformed`].
    pub fn from_json(json: &str) -> Result<Self, Failure> {
        let (id, response) = read::<AssertionJson>(json)?;
        let user_handle = response.user_handle.filter(|text| !text.is_empty());
        Ok(Self {
            id,
            client_data: decode("clientDataJSON", response.client_data_json, MAX_CLIENT_DATA)?,
            authenticator_data: decode("authenticatorData", response.authenticator_data, MAX_AUTHENTICATOR_DATA)?,
            signature: decode("signature", response.signature, MAX_SIGNATURE)?,
            user_handle: user_handle.map(|text| decode("userHandle", Some(text), MAX_USER_HANDLE)).transpose()?,
        })
    }

    /// The id of the credential.
    #[must_use]
    pub fn credential_id(&self) -> &[u8] {
        &self.id
    }

    /// The user that the authenticator names, if it does: always for a discoverable credential that was not asked for by its id.
    #[must_use]
    pub fn user_handle(&self) -> Option<&[u8]> {
        self.user_handle.as_deref()
    }
}

impl fmt::Debug for AuthenticationResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticationResponse").finish_non_exhaustive()
    }
}

fn read<'a, R: Deserialize<'a>>(json: &'a str) -> Result<(Vec<u8>, R), Failure> {
    let malformed = Failure::Malformed("the credential");
    // A list of the members would be read as well.
    if !json.trim_start().starts_with('{') {
        return Err(malformed);
    }
    let Credential { id, raw_id, r#type, response } = serde_json::from_str(json).map_err(|_| malformed)?;
    if r#type.as_deref() != Some(TYPE) {
        return Err(Failure::Malformed("type"));
    }
    let (id, raw_id) = (decode("id", id, MAX_CREDENTIAL_ID)?, decode("rawId", raw_id, MAX_CREDENTIAL_ID)?);
    if id.is_empty() || id != raw_id {
        return Err(Failure::Malformed("rawId"));
    }
    Ok((id, response.ok_or(Failure::Malformed("response"))?))
}

fn decode(name: &'static str, text: Option<String>, max: usize) -> Result<Vec<u8>, Failure> {
    let text = text.filter(|text| text.len() <= max.div_ceil(3) * 4).ok_or(Failure::Malformed(name))?;
    let bytes = BASE64URL.decode(text).map_err(|_| Failure::Malformed(name))?;
    if bytes.len() <= max { Ok(bytes) } else { Err(Failure::Malformed(name)) }
}
