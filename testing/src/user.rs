//! End users, of whom every test makes its own.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Mesh, rest::Rest};

/// Somebody with an account.
#[derive(Debug, Clone)]
pub struct User {
    /// The e-mail address, which nobody else has.
    pub email: String,
    /// The password.
    pub password: String,
    /// The account's id.
    pub id: String,
}

/// What a sign-in or a refresh answers.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
    /// The session.
    pub session_id: String,
}

impl User {
    /// Registers somebody new.
    pub async fn register(mesh: &Mesh) -> Self {
        Self::register_at(mesh.rest()).await
    }

    /// Registers somebody new at an edge.
    pub async fn register_at(rest: Rest) -> Self {
        let (email, password) = (unique_email(), format!("correct horse {}", Uuid::now_v7().simple()));
        let body = json!({"email": email, "password": password, "displayName": "Ada Lovelace"});
        let registered = rest.post("/v1/auth/register", body).send().await.expect(200).json();
        Self { email, password, id: text(&registered["user"]["id"]) }
    }

    /// Signs them in.
    pub async fn sign_in(&self, mesh: &Mesh) -> Tokens {
        self.sign_in_at(mesh.rest()).await
    }

    /// Signs them in at an edge.
    pub async fn sign_in_at(&self, rest: Rest) -> Tokens {
        let body = json!({"email": self.email, "password": self.password});
        Tokens::of(&rest.post("/v1/auth/login", body).send().await.expect(200).json())
    }

    /// Registers somebody new and signs them in.
    pub async fn signed_in(mesh: &Mesh) -> (Self, Tokens) {
        let user = Self::register(mesh).await;
        let tokens = user.sign_in(mesh).await;
        (user, tokens)
    }
}

impl Tokens {
    /// What stands in the answer.
    ///
    /// # Panics
    /// If something is missing.
    #[must_use]
    pub fn of(answer: &Value) -> Self {
        Self {
            access: text(&answer["accessToken"]),
            refresh: text(&answer["refreshToken"]),
            session_id: text(&answer["sessionId"]),
        }
    }

    /// Trades the refresh token for new tokens, over REST.
    pub async fn refresh(&self, rest: Rest) -> Self {
        let body = json!({"refreshToken": self.refresh});
        Self::of(&rest.post("/v1/auth/refresh", body).send().await.expect(200).json())
    }
}

/// An address that no other test uses.
#[must_use]
pub fn unique_email() -> String {
    format!("ada.{}@example.com", Uuid::now_v7().simple())
}

fn text(value: &Value) -> String {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
