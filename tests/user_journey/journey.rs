//! A mesh, its users, and the operator's commands.

use drystone_tests::{
    Mesh, RestResponse, Tokens, User,
    process::{ProcessOutput, drystone, run_to_end},
};
use serde_json::Value;

/// A mesh of its own: what administrators do concerns every user.
pub struct Journey {
    pub mesh: Mesh,
}

impl Journey {
    pub fn start() -> Self {
        Self { mesh: Mesh::start() }
    }

    /// A signed-in user with these roles.
    pub async fn user(&self, roles: &[&str]) -> (User, Tokens) {
        let (user, tokens) = User::signed_in(&self.mesh).await;
        for role in roles {
            let output = self.operator(&["roles", "grant", &user.email, role]);
            assert!(output.status.success(), "{output:?}");
        }
        if roles.is_empty() {
            return (user, tokens);
        }
        let tokens = tokens.refresh(self.mesh.rest()).await;
        (user, tokens)
    }

    /// Runs a command as the operator.
    pub fn operator(&self, command: &[&str]) -> ProcessOutput {
        let mut command = drystone(command);
        command.env("DRYSTONE_CERTS_DIR", self.mesh.certificates().ca().parent().unwrap());
        for service in ["auth", "user"] {
            let name = format!("DRYSTONE_PEERS__{}", service.to_uppercase());
            command.env(name, self.mesh.grpc_address(service).to_string());
        }
        run_to_end(&mut command)
    }

    pub async fn get(&self, path: &str, tokens: &Tokens) -> RestResponse {
        self.mesh.rest().get(path).bearer(&tokens.access).send().await
    }

    pub async fn post(&self, path: &str, body: Value, tokens: &Tokens) -> RestResponse {
        self.mesh.rest().post(path, body).bearer(&tokens.access).send().await
    }

    pub async fn patch(&self, path: &str, body: Value, tokens: &Tokens) -> RestResponse {
        self.mesh.rest().patch(path, body).bearer(&tokens.access).send().await
    }

    pub async fn delete(&self, path: &str, tokens: &Tokens) -> RestResponse {
        self.mesh.rest().delete(path).bearer(&tokens.access).send().await
    }

    pub async fn of_user(&self, verb: &str, user: &User, body: Value, tokens: &Tokens) -> RestResponse {
        self.post(&format!("/v1/users/{}:{verb}", user.id), body, tokens).await
    }
}
