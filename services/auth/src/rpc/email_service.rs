//! `drystone.auth.v1.EmailService`.

use drystone::auth::v1::{
    ChangeEmailRequest, ChangeEmailResponse, ResendVerificationRequest, ResendVerificationResponse,
    UndoEmailChangeRequest, UndoEmailChangeResponse, VerifyEmailRequest, VerifyEmailResponse,
    email_service_server::EmailService,
};
use drystone_mesh::{call::Call, email::Email};
use tonic::{Request, Response, Status, async_trait};

use super::valid;
use crate::{
    account_recovery::AccountRecovery,
    email_change::EmailChange,
    email_verification::{EmailVerification, Verified},
    link::Purpose,
    password::typed_password::TypedPassword,
};

/// The handlers.
pub(crate) struct EmailRpc {
    pub(crate) verification: EmailVerification,
    pub(crate) change: EmailChange,
    pub(crate) recovery: AccountRecovery,
}

#[async_trait]
impl EmailService for EmailRpc {
    async fn verify_email(
        &self,
        request: Request<VerifyEmailRequest>,
    ) -> Result<Response<VerifyEmailResponse>, Status> {
        let call = Call::of(&request)?;
        let Verified { email, is_set } = self.verification.verify(&call, &request.get_ref().token).await?;
        Ok(Response::new(VerifyEmailResponse { email, email_verified: is_set }))
    }

    async fn resend_verification(
        &self,
        request: Request<ResendVerificationRequest>,
    ) -> Result<Response<ResendVerificationResponse>, Status> {
        self.verification.resend(&request.get_ref().email).await?;
        Ok(Response::new(ResendVerificationResponse {}))
    }

    async fn change_email(
        &self,
        request: Request<ChangeEmailRequest>,
    ) -> Result<Response<ChangeEmailResponse>, Status> {
        let call = Call::of(&request)?;
        let ChangeEmailRequest { new_email, current_password } = request.into_inner();
        let new = valid("new_email", Email::parse(&new_email))?;
        self.change.request(&call, new, &TypedPassword::new(current_password)).await?;
        Ok(Response::new(ChangeEmailResponse {}))
    }

    async fn undo_email_change(
        &self,
        request: Request<UndoEmailChangeRequest>,
    ) -> Result<Response<UndoEmailChangeResponse>, Status> {
        let sessions_ended = self.recovery.recover(&request.get_ref().token, Purpose::EmailUndo).await?;
        Ok(Response::new(UndoEmailChangeResponse { sessions_ended }))
    }
}
