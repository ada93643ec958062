//! Access tokens, refresh tokens, and the keys that sign them.
//!
//! | file | content |
//! |---|---|
//! | `tokens.rs` | the token pair of a sign-in or refresh, and its issuer |
//! | `access_token_signer.rs` | the access token, a signed JWT |
//! | `refresh_token.rs` | the refresh token |
//! | `device_token.rs` | the device token, which proves an earlier sign-in |
//! | `link_token.rs` | what a link in a mail has |
//! | `passkey_challenge.rs` | the challenges that passkeys sign |
//! | `mac_keys.rs`, `mac.rs` | the secrets and the MAC of those four |
//! | `key_ring.rs`, `signing_key.rs`, `key_spec.rs` | the keys of a running service |
//! | `signing_keys.rs` | rotation and withdrawal of signing keys |
//! | `key_rotation.rs` | sealing and replacement of stored keys |

pub mod access_token_signer;
pub mod device_token;
pub mod key_ring;
pub mod key_rotation;
pub mod key_spec;
pub mod link_token;
pub mod mac;
pub mod mac_keys;
pub mod passkey_challenge;
pub mod refresh_token;
pub mod signing_key;
pub mod signing_keys;
pub mod tokens;
