//! `drystone.auth.v1.PasswordService`.

use drystone::auth::v1::{
    ChangePasswordRequest, ChangePasswordResponse, RequestPasswordResetRequest, RequestPasswordResetResponse,
    ResetPasswordRequest, ResetPasswordResponse, password_service_server::PasswordService,
};
use drystone_mesh::call::Call;
use tonic::{Request, Response, Status, async_trait};

use super::valid;
use crate::{password::typed_password::TypedPassword, password_change::PasswordChange, password_reset::PasswordReset};

/// The handlers.
pub(crate) struct PasswordRpc {
    pub(crate) change: PasswordChange,
    pub(crate) reset: PasswordReset,
}

#[async_trait]
impl PasswordService for PasswordRpc {
    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        let call = Call::of(&request)?;
        let ChangePasswordRequest { current_password, new_password } = request.into_inner();
        let new = valid("new_password", TypedPassword::parse_new(new_password))?;
        let sessions_ended = self.change.change(&call, TypedPassword::new(current_password), new).await?;
        Ok(Response::new(ChangePasswordResponse { sessions_ended }))
    }

    async fn request_password_reset(
        &self,
        request: Request<RequestPasswordResetRequest>,
    ) -> Result<Response<RequestPasswordResetResponse>, Status> {
        self.reset.request(&request.get_ref().email).await?;
        Ok(Response::new(RequestPasswordResetResponse {}))
    }

    async fn reset_password(
        &self,
        request: Request<ResetPasswordRequest>,
    ) -> Result<Response<ResetPasswordResponse>, Status> {
        let call = Call::of(&request)?;
        let ResetPasswordRequest { token, new_password } = request.into_inner();
        let new = valid("new_password", TypedPassword::parse_new(new_password))?;
        let sessions_ended = self.reset.reset(&call, &token, new).await?;
        Ok(Response::new(ResetPasswordResponse { sessions_ended }))
    }
}
