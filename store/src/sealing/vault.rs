//! The transit engine of HashiCorp Vault as the keeper of the master key, which then never leaves Vault.
//!
//! Source: <https://developer.hashicorp.com/vault/api-docs/secret/transit>. The key must be of an AEAD type, such as the
//! default `aes256-gcm96`, since the place of a value is its `associated_data`.

use std::{fs, io, path::PathBuf, time::Duration};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use drystone_mesh::{error::Chain, https::Origin};
use http::{Method, Request, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::{net::lookup_host, time::timeout};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{DataKey, KeyEncryption, SealError, VaultConfig};

/// The timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of a response in bytes.
const MAX_RESPONSE: usize = 64 * 1024;

/// A key of the transit engine.
pub struct Vault {
    origin: Origin,
    mount: String,
    key: String,
    namespace: Option<String>,
    token_file: PathBuf,
    id: String,
}

impl Vault {
    /// A client with these settings. It connects for each call.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn new(config: &VaultConfig) -> Result<Self, String> {
        config.check()?;
        let url = Url::parse(&config.address).map_err(|error| format!("sealing.vault.address is no URL: {error}"))?;
        let origin = Origin::new(&url, &config.ca).map_err(|error| format!("sealing.vault: {}", Chain(&error)))?;
        Ok(Self {
            origin,
            mount: config.mount.clone(),
            key: config.key.clone(),
            namespace: config.namespace.clone(),
            token_file: config.token_file.clone(),
            id: format!("vault:{}/{}", config.mount, config.key),
        })
    }

    /// Calls `POST /v1/MOUNT/OPERATION/KEY`, and returns the response's `data`.
    async fn call(&self, operation: &str, body: &Body<'_>) -> Result<Data, SealError> {
        let path = format!("/v1/{}/{operation}/{}", self.mount, self.key);
        let body = serde_json::to_vec(body).map(Zeroizing::new);
        let body = body.map_err(|error| SealError::Unavailable(error.to_string()))?;
        let host = self.origin.host();
        let (status, bytes) = timeout(CALL_TIMEOUT, self.send(&path, body))
            .await
            .map_err(|_| SealError::Unavailable(format!("no response from {host} within {CALL_TIMEOUT:?}")))?
            .map_err(|error| SealError::Unavailable(format!("{host}: {}", Chain(&*error))))?;
        if status != StatusCode::OK {
            let errors = serde_json::from_slice::<Errors>(&bytes).map(|errors| errors.errors.join("; "));
            let text = format!("Vault answered {status} to {operation}: {}", errors.unwrap_or_default());
            // A ciphertext that another key made, or with other associated data, or a version of the key that may not decrypt.
            let is_invalid = operation == "decrypt" && status == StatusCode::BAD_REQUEST;
            return Err(if is_invalid { SealError::Refused(text) } else { SealError::Unavailable(text) });
        }
        let response: Response = serde_json::from_slice(&bytes)
            .map_err(|_| SealError::Unavailable(format!("Vault's response to {operation} is not as documented")))?;
        Ok(response.data)
    }

    async fn send(&self, path: &str, body: Zeroizing<Vec<u8>>) -> Result<(StatusCode, Zeroizing<Vec<u8>>), BoxError> {
        let token = Zeroizing::new(fs::read_to_string(&self.token_file).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("the token file {} cannot be read: {error}", self.token_file.display()),
            )
        })?);
        let mut token = http::HeaderValue::from_str(token.trim())?;
        token.set_sensitive(true);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-vault-request", "true")
            .header("x-vault-token", token);
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        let request = request.body(Bytes::from_owner(body))?;
        let port = self.origin.port();
        let addresses: Vec<_> = match self.origin.host() {
            Host::Domain(name) => lookup_host((name.as_str(), port)).await?.collect(),
            Host::Ipv4(address) => vec![(*address, port).into()],
            Host::Ipv6(address) => vec![(*address, port).into()],
        };
        let connection = self.origin.connect(&addresses, CALL_TIMEOUT).await?;
        let (head, body) = connection.exchange(request, CALL_TIMEOUT, MAX_RESPONSE).await?.into_parts();
        Ok((head.status, Zeroizing::new(body.to_vec())))
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("id", &self.id).field("origin", &self.origin).finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyEncryption for Vault {
    fn key_id(&self) -> String {
        self.id.clone()
    }

    async fn encrypt(&self, key: &DataKey, context: &[u8]) -> Result<(String, Vec<u8>), SealError> {
        let plaintext = Zeroizing::new(BASE64_STANDARD.encode(key.expose()));
        let body = Body { plaintext: Some(&plaintext), ..Body::new(context) };
        let ciphertext = self.call("encrypt", &body).await?.ciphertext;
        let ciphertext = ciphertext.ok_or_else(|| SealError::Unavailable("Vault encrypted to nothing".to_owned()))?;
        Ok((self.id.clone(), ciphertext.into_bytes()))
    }

    async fn decrypt(&self, key_id: &str, encrypted: &[u8], context: &[u8]) -> Result<DataKey, SealError> {
        if key_id != self.id {
            return Err(SealError::UnknownKey(key_id.to_owned()));
        }
        let ciphertext = str::from_utf8(encrypted).map_err(|_| SealError::Malformed)?;
        let body = Body { ciphertext: Some(ciphertext), ..Body::new(context) };
        let text = self.call("decrypt", &body).await?.plaintext;
        let text = text.ok_or_else(|| SealError::Unavailable("Vault decrypted to nothing".to_owned()))?;
        let bytes = BASE64_STANDARD.decode(text.as_bytes()).map(Zeroizing::new);
        bytes.ok().and_then(|bytes| DataKey::from_bytes(&bytes)).ok_or(SealError::Malformed)
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request. Bodies with a data key are in buffers that are wiped, except those of the HTTP connection.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<&'a str>,
    associated_data: String,
}

impl Body<'_> {
    fn new(context: &[u8]) -> Self {
        Self { plaintext: None, ciphertext: None, associated_data: BASE64_STANDARD.encode(context) }
    }
}

#[derive(Deserialize)]
struct Response {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    plaintext: Option<Zeroizing<String>>,
    #[serde(default)]
    ciphertext: Option<String>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}
