//! End users. Every test creates its own.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Mesh, rest::RestClient};

/// The password of every test user. Not a random one: of those the built-in list takes one in some 33,000 for its own.
pub const PASSWORD: &str = "correct horse battery staple";

/// A user with an account.
#[derive(Debug, Clone)]
pub struct User {
    /// The email address, unique to this user.
    pub email: String,
    /// The password.
    pub password: String,
    /// The account's id.
    pub id: String,
}

/// The tokens of a sign-in or a refresh.
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
    /// Registers a new user.
    pub async fn register(mesh: &Mesh) -> Self {
        Self::register_at(mesh.rest()).await
    }

    /// Registers a new user at an edge.
    pub async fn register_at(rest: RestClient) -> Self {
        let (email, password) = (unique_email(), PASSWORD.to_owned());
        let body = json!({"email": email, "password": password, "displayName": "Ada Lovelace"});
        let registered = rest.post("/v1/auth/register", body).send().await.expect(200).json();
        Self { email, password, id: text(&registered["user"]["id"]) }
    }

    /// Signs the user in.
    pub async fn sign_in(&self, mesh: &Mesh) -> Tokens {
        self.sign_in_at(mesh.rest()).await
    }

    /// Signs the user in at an edge.
    pub async fn sign_in_at(&self, rest: RestClient) -> Tokens {
        let body = json!({"email": self.email, "password": self.password});
        Tokens::of(&rest.post("/v1/auth/login", body).send().await.expect(200).json())
    }

    /// Registers a new user and signs it in.
    pub async fn signed_in(mesh: &Mesh) -> (Self, Tokens) {
        let user = Self::register(mesh).await;
        let tokens = user.sign_in(mesh).await;
        (user, tokens)
    }
}

impl Tokens {
    /// The tokens in a response body.
    ///
    /// # Panics
    /// If one is missing.
    #[must_use]
    pub fn of(body: &Value) -> Self {
        Self {
            access: text(&body["accessToken"]),
            refresh: text(&body["refreshToken"]),
            session_id: text(&body["sessionId"]),
        }
    }

    /// Refreshes the session over REST.
    pub async fn refresh(&self, rest: RestClient) -> Self {
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
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| panic!("{value} is not a non-empty string"))
        .to_owned()
}
