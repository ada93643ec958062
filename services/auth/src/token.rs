//! Tokens: how they are made, and the keys that sign them.
//!
//! | file | what |
//! |---|---|
//! | `tokens.rs` | the pair that a sign-in or a refresh answers |
//! | `access_token_signer.rs` | the access token, a JWT |
//! | `refresh_token.rs` | the refresh token and its MAC |
//! | `key_ring.rs`, `signing_key.rs` | the signing keys |

pub mod access_token_signer;
pub mod key_ring;
pub mod refresh_token;
pub mod signing_key;
pub mod tokens;
