//! `drystone.auth.v1.MfaService`.

use drystone::auth::v1::{
    BeginTotpRequest, BeginTotpResponse, ConfirmTotpRequest, ConfirmTotpResponse, DisableMfaRequest,
    DisableMfaResponse, Factor as FactorMessage, FactorKind, ListFactorsRequest, ListFactorsResponse,
    RegenerateBackupCodesRequest, RegenerateBackupCodesResponse, RemoveFactorRequest, RenameFactorRequest,
    ResetFactorsRequest, ResetFactorsResponse, mfa_service_server::MfaService,
};
use drystone_mesh::{
    call::{self, Call},
    display_name::DisplayName,
    id,
    time::to_proto,
};
use tonic::{Request, Response, Status, async_trait};
use zeroize::Zeroizing;

use super::valid;
use crate::factor::{
    Factor,
    management::{BegunTotp, ConfirmedTotp, Factors},
};

/// The name of an authenticator app that its user has given none.
const DEFAULT_NAME: &str = "Authenticator app";

/// The handlers.
pub(crate) struct MfaRpc(pub(crate) Factors);

#[async_trait]
impl MfaService for MfaRpc {
    async fn list_factors(
        &self,
        request: Request<ListFactorsRequest>,
    ) -> Result<Response<ListFactorsResponse>, Status> {
        let call = Call::of(&request)?;
        let (factors, left) = self.0.list(&call).await?;
        let factors = factors.into_iter().map(to_message).collect();
        Ok(Response::new(ListFactorsResponse { factors, backup_codes_left: i32::try_from(left).unwrap_or(i32::MAX) }))
    }

    async fn begin_totp(&self, request: Request<BeginTotpRequest>) -> Result<Response<BeginTotpResponse>, Status> {
        let call = Call::of(&request)?;
        let BeginTotpRequest { display_name } = request.into_inner();
        let name = if display_name.is_empty() { DEFAULT_NAME } else { &display_name };
        let name = valid("display_name", DisplayName::parse(name))?;
        let BegunTotp { factor_id, secret, uri, qr_code_svg, expires_at } = self.0.begin(&call, name).await?;
        Ok(Response::new(BeginTotpResponse {
            factor_id: factor_id.to_string(),
            secret,
            uri,
            qr_code_svg,
            expire_time: Some(to_proto(expires_at)),
        }))
    }

    async fn confirm_totp(
        &self,
        request: Request<ConfirmTotpRequest>,
    ) -> Result<Response<ConfirmTotpResponse>, Status> {
        let call = Call::of(&request)?;
        let ConfirmTotpRequest { factor_id, code } = request.into_inner();
        let (factor_id, code) = (id::parse("factor_id", &factor_id)?, Zeroizing::new(code));
        let ConfirmedTotp { factor, backup_codes, sessions_ended } = self.0.confirm(&call, factor_id, &code).await?;
        Ok(Response::new(ConfirmTotpResponse { factor: Some(to_message(factor)), backup_codes, sessions_ended }))
    }

    async fn regenerate_backup_codes(
        &self,
        request: Request<RegenerateBackupCodesRequest>,
    ) -> Result<Response<RegenerateBackupCodesResponse>, Status> {
        let call = Call::of(&request)?;
        let backup_codes = self.0.regenerate(&call).await?;
        Ok(Response::new(RegenerateBackupCodesResponse { backup_codes }))
    }

    async fn rename_factor(&self, request: Request<RenameFactorRequest>) -> Result<Response<FactorMessage>, Status> {
        let call = Call::of(&request)?;
        let RenameFactorRequest { id, display_name } = request.into_inner();
        let name = valid("display_name", DisplayName::parse(&display_name))?;
        let factor = self.0.rename(&call, id::parse("id", &id)?, name).await?;
        Ok(Response::new(to_message(factor)))
    }

    async fn remove_factor(&self, request: Request<RemoveFactorRequest>) -> Result<Response<()>, Status> {
        let call = Call::of(&request)?;
        self.0.remove(&call, id::parse("id", &request.get_ref().id)?).await?;
        Ok(Response::new(()))
    }

    async fn disable_mfa(&self, request: Request<DisableMfaRequest>) -> Result<Response<DisableMfaResponse>, Status> {
        let call = Call::of(&request)?;
        self.0.disable(&call).await?;
        Ok(Response::new(DisableMfaResponse {}))
    }

    async fn reset_factors(
        &self,
        request: Request<ResetFactorsRequest>,
    ) -> Result<Response<ResetFactorsResponse>, Status> {
        let call = Call::of(&request)?;
        let user_id = id::parse("user_id", &request.get_ref().user_id)?;
        call::record_user(user_id);
        let sessions_ended = self.0.reset(&call, user_id).await?;
        Ok(Response::new(ResetFactorsResponse { sessions_ended }))
    }
}

fn to_message(factor: Factor) -> FactorMessage {
    FactorMessage {
        id: factor.id.to_string(),
        kind: FactorKind::Totp.into(),
        display_name: factor.display_name,
        create_time: Some(to_proto(factor.created_at)),
        last_use_time: factor.last_used_at.map(to_proto),
    }
}
