//! `drystone.auth.v1.AuthService`.

use drystone::auth::v1::{
    RefreshRequest, RefreshResponse, RegisterRequest, RegisterResponse, SignInRequest, SignInResponse, SignOutRequest,
    SignOutResponse, auth_service_server::AuthService,
};
use drystone_mesh::{call::Call, error::Error as MeshError, id};
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};
use uuid::Uuid;

use crate::{
    neighbours::Neighbours,
    password::Password,
    refresh::Refresh,
    register::{NewAccount, Registration},
    sign_in::SignIn,
    tokens::{TOKEN_TYPE, Tokens},
};

/// The handlers.
pub(crate) struct AuthRpc {
    pub(crate) registration: Registration,
    pub(crate) sign_in: SignIn,
    pub(crate) refresh: Refresh,
    pub(crate) neighbours: Arc<dyn Neighbours>,
}

#[async_trait]
impl AuthService for AuthRpc {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let call = Call::of(&request)?;
        let RegisterRequest { email, password, display_name, request_id } = request.into_inner();
        let new = NewAccount {
            email,
            password: Password::new(password),
            display_name,
            request_id: optional_id(&request_id)?,
        };
        let user = self.registration.register(&call, new).await?;
        Ok(Response::new(RegisterResponse { user: Some(user) }))
    }

    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let call = Call::of(&request)?;
        let SignInRequest { email, password } = request.into_inner();
        let Tokens { access_token, refresh_token, expires_in, session_id, user_id } =
            self.sign_in.sign_in(&call, email, Password::new(password)).await?;
        Ok(Response::new(SignInResponse {
            access_token,
            refresh_token,
            expires_in,
            token_type: TOKEN_TYPE.to_owned(),
            session_id: session_id.to_string(),
            user_id: user_id.to_string(),
        }))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        let call = Call::of(&request)?;
        let Tokens { access_token, refresh_token, expires_in, session_id, user_id } =
            self.refresh.refresh(&call, &request.get_ref().refresh_token).await?;
        Ok(Response::new(RefreshResponse {
            access_token,
            refresh_token,
            expires_in,
            token_type: TOKEN_TYPE.to_owned(),
            session_id: session_id.to_string(),
            user_id: user_id.to_string(),
        }))
    }

    async fn sign_out(&self, request: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        let call = Call::of(&request)?;
        let session_id = call.principal()?.session_id;
        self.neighbours.revoke_session(&call, session_id).await?;
        Ok(Response::new(SignOutResponse {}))
    }
}

fn optional_id(text: &str) -> Result<Option<Uuid>, MeshError> {
    if text.is_empty() {
        return Ok(None);
    }
    id::parse("request_id", text).map(Some)
}
