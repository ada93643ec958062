//! `drystone.auth.v1.MfaService`.

use drystone::auth::v1::{
    BeginTotpEnrolmentRequest, BeginTotpEnrolmentResponse, BeginTotpRequest, BeginTotpResponse, CancelResetRequest,
    CancelResetResponse, ConfirmTotpEnrolmentRequest, ConfirmTotpEnrolmentResponse, ConfirmTotpRequest,
    ConfirmTotpResponse, DisableMfaRequest, DisableMfaResponse, Factor as FactorMessage,
    FactorKind as FactorKindMessage, ListFactorsRequest, ListFactorsResponse, ListTrustedDevicesRequest,
    ListTrustedDevicesResponse, RegenerateBackupCodesRequest, RegenerateBackupCodesResponse, RemoveFactorRequest,
    RenameFactorRequest, ResetFactorsRequest, ResetFactorsResponse, RevokeTrustedDeviceRequest,
    RevokeTrustedDevicesRequest, RevokeTrustedDevicesResponse, TrustedDevice as TrustedDeviceMessage,
    mfa_service_server::MfaService,
};
use drystone_mesh::{
    call::{self, Call},
    display_name::DisplayName,
    id,
    time::to_proto,
};
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};
use zeroize::Zeroizing;

use super::valid;
use crate::{
    factor::{
        Added, Factor, FactorKind,
        management::{BegunTotp, FactorList, Factors},
    },
    trusted_device::{TrustedDevice, TrustedDevices},
};

/// The name of an authenticator app that its user has given none.
const DEFAULT_NAME: &str = "Authenticator app";

/// The handlers.
pub(crate) struct MfaRpc {
    pub(crate) factors: Arc<Factors>,
    pub(crate) trusted_devices: TrustedDevices,
}

#[async_trait]
impl MfaService for MfaRpc {
    async fn list_factors(
        &self,
        request: Request<ListFactorsRequest>,
    ) -> Result<Response<ListFactorsResponse>, Status> {
        let call = Call::of(&request)?;
        let FactorList { factors, backup_codes_left, reset_at } = self.factors.list(&call).await?;
        Ok(Response::new(ListFactorsResponse {
            factors: factors.into_iter().map(to_message).collect(),
            backup_codes_left: i32::try_from(backup_codes_left).unwrap_or(i32::MAX),
            reset_time: reset_at.map(to_proto),
        }))
    }

    async fn begin_totp(&self, request: Request<BeginTotpRequest>) -> Result<Response<BeginTotpResponse>, Status> {
        let call = Call::of(&request)?;
        let BeginTotpRequest { display_name } = request.into_inner();
        let name = if display_name.is_empty() { DEFAULT_NAME } else { &display_name };
        let name = valid("display_name", DisplayName::parse(name))?;
        let BegunTotp { factor_id, secret, uri, qr_code_svg, expires_at } = self.factors.begin(&call, name).await?;
        Ok(Response::new(BeginTotpResponse {
            factor_id: factor_id.to_string(),
            secret,
            uri,
            qr_code_svg,
            expire_time: Some(to_proto(expires_at)),
        }))
    }

    async fn begin_totp_enrolment(
        &self,
        request: Request<BeginTotpEnrolmentRequest>,
    ) -> Result<Response<BeginTotpEnrolmentResponse>, Status> {
        let call = Call::of(&request)?;
        let BeginTotpEnrolmentRequest { challenge_token, display_name } = request.into_inner();
        let challenge_token = Zeroizing::new(challenge_token);
        let name = if display_name.is_empty() { DEFAULT_NAME } else { &display_name };
        let name = valid("display_name", DisplayName::parse(name))?;
        let begun = self.factors.begin_enrolment(&call, &challenge_token, name).await?;
        let BegunTotp { factor_id, secret, uri, qr_code_svg, expires_at } = begun;
        Ok(Response::new(BeginTotpEnrolmentResponse {
            factor_id: factor_id.to_string(),
            secret,
            uri,
            qr_code_svg,
            expire_time: Some(to_proto(expires_at)),
        }))
    }

    async fn confirm_totp_enrolment(
        &self,
        request: Request<ConfirmTotpEnrolmentRequest>,
    ) -> Result<Response<ConfirmTotpEnrolmentResponse>, Status> {
        let call = Call::of(&request)?;
        let ConfirmTotpEnrolmentRequest { challenge_token, factor_id, code } = request.into_inner();
        let (challenge_token, code) = (Zeroizing::new(challenge_token), Zeroizing::new(code));
        let factor_id = id::parse("factor_id", &factor_id)?;
        let added = self.factors.confirm_enrolment(&call, &challenge_token, factor_id, &code).await?;
        let Added { factor, backup_codes, sessions_ended } = added;
        let factor = Some(to_message(factor));
        Ok(Response::new(ConfirmTotpEnrolmentResponse { factor, backup_codes, sessions_ended }))
    }

    async fn confirm_totp(
        &self,
        request: Request<ConfirmTotpRequest>,
    ) -> Result<Response<ConfirmTotpResponse>, Status> {
        let call = Call::of(&request)?;
        let ConfirmTotpRequest { factor_id, code } = request.into_inner();
        let (factor_id, code) = (id::parse("factor_id", &factor_id)?, Zeroizing::new(code));
        let Added { factor, backup_codes, sessions_ended } = self.factors.confirm(&call, factor_id, &code).await?;
        Ok(Response::new(ConfirmTotpResponse { factor: Some(to_message(factor)), backup_codes, sessions_ended }))
    }

    async fn regenerate_backup_codes(
        &self,
        request: Request<RegenerateBackupCodesRequest>,
    ) -> Result<Response<RegenerateBackupCodesResponse>, Status> {
        let call = Call::of(&request)?;
        let backup_codes = self.factors.regenerate(&call).await?;
        Ok(Response::new(RegenerateBackupCodesResponse { backup_codes }))
    }

    async fn rename_factor(&self, request: Request<RenameFactorRequest>) -> Result<Response<FactorMessage>, Status> {
        let call = Call::of(&request)?;
        let RenameFactorRequest { id, display_name } = request.into_inner();
        let name = valid("display_name", DisplayName::parse(&display_name))?;
        let factor = self.factors.rename(&call, id::parse("id", &id)?, name).await?;
        Ok(Response::new(to_message(factor)))
    }

    async fn remove_factor(&self, request: Request<RemoveFactorRequest>) -> Result<Response<()>, Status> {
        let call = Call::of(&request)?;
        self.factors.remove(&call, id::parse("id", &request.get_ref().id)?).await?;
        Ok(Response::new(()))
    }

    async fn disable_mfa(&self, request: Request<DisableMfaRequest>) -> Result<Response<DisableMfaResponse>, Status> {
        let call = Call::of(&request)?;
        self.factors.disable(&call).await?;
        Ok(Response::new(DisableMfaResponse {}))
    }

    async fn list_trusted_devices(
        &self,
        request: Request<ListTrustedDevicesRequest>,
    ) -> Result<Response<ListTrustedDevicesResponse>, Status> {
        let call = Call::of(&request)?;
        let devices = self.trusted_devices.list(&call).await?;
        let trusted_devices = devices.into_iter().map(device_to_message).collect();
        Ok(Response::new(ListTrustedDevicesResponse { trusted_devices }))
    }

    async fn revoke_trusted_device(
        &self,
        request: Request<RevokeTrustedDeviceRequest>,
    ) -> Result<Response<()>, Status> {
        let call = Call::of(&request)?;
        self.trusted_devices.revoke(&call, id::parse("id", &request.get_ref().id)?).await?;
        Ok(Response::new(()))
    }

    async fn revoke_trusted_devices(
        &self,
        request: Request<RevokeTrustedDevicesRequest>,
    ) -> Result<Response<RevokeTrustedDevicesResponse>, Status> {
        let call = Call::of(&request)?;
        let revoked = self.trusted_devices.revoke_all(&call).await?;
        let revoked_count = i32::try_from(revoked).unwrap_or(i32::MAX);
        Ok(Response::new(RevokeTrustedDevicesResponse { revoked_count }))
    }

    async fn reset_factors(
        &self,
        request: Request<ResetFactorsRequest>,
    ) -> Result<Response<ResetFactorsResponse>, Status> {
        let call = Call::of(&request)?;
        let user_id = id::parse("user_id", &request.get_ref().user_id)?;
        call::record_target(user_id);
        let reset = self.factors.reset(&call, user_id).await?;
        let due_time = reset.due_at.map(to_proto);
        Ok(Response::new(ResetFactorsResponse { sessions_ended: reset.sessions_ended, due_time }))
    }

    async fn cancel_reset(
        &self,
        request: Request<CancelResetRequest>,
    ) -> Result<Response<CancelResetResponse>, Status> {
        let call = Call::of(&request)?;
        self.factors.cancel_reset(&call).await?;
        Ok(Response::new(CancelResetResponse {}))
    }
}

pub(super) fn kind_to_message(kind: FactorKind) -> FactorKindMessage {
    match kind {
        FactorKind::Totp => FactorKindMessage::Totp,
        FactorKind::Passkey => FactorKindMessage::Passkey,
        FactorKind::BackupCode => FactorKindMessage::BackupCode,
        FactorKind::Unknown => FactorKindMessage::Unspecified,
    }
}

pub(super) fn to_message(factor: Factor) -> FactorMessage {
    FactorMessage {
        id: factor.id.to_string(),
        kind: kind_to_message(factor.kind).into(),
        display_name: factor.display_name,
        create_time: Some(to_proto(factor.created_at)),
        last_use_time: factor.last_used_at.map(to_proto),
    }
}

fn device_to_message(device: TrustedDevice) -> TrustedDeviceMessage {
    TrustedDeviceMessage {
        id: device.id.to_string(),
        device: device.name,
        create_time: Some(to_proto(device.created_at)),
        expire_time: Some(to_proto(device.expires_at)),
        last_use_time: device.last_used_at.map(to_proto),
    }
}
