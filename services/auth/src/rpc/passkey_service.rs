//! `drystone.auth.v1.PasskeyService`.

use drystone::auth::v1::{
    BeginPasskeyEnrolmentRequest, BeginPasskeyEnrolmentResponse, BeginPasskeyRegistrationRequest,
    BeginPasskeyRegistrationResponse, BeginPasskeySignInRequest, BeginPasskeySignInResponse,
    BeginPasskeyVerificationRequest, BeginPasskeyVerificationResponse, EnrolPasskeyRequest, EnrolPasskeyResponse,
    GetRelatedOriginsRequest, RegisterPasskeyRequest, RegisterPasskeyResponse, RelatedOrigins,
    SignInWithPasskeyRequest, SignInWithPasskeyResponse, passkey_service_server::PasskeyService,
};
use drystone_mesh::{call::Call, display_name::DisplayName, time::to_proto};
use drystone_webauthn::{AuthenticationResponse, RegistrationResponse, RelyingParty};
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};
use zeroize::Zeroizing;

use super::{json, mfa_service::to_message, valid};
use crate::{
    error::Error,
    factor::{Added, management::Factors, passkey::Begun},
    sign_in::{SignIn, SignedIn},
    step_up::StepUp,
    token::tokens::{TOKEN_TYPE, TokenPair},
};

/// The name of a passkey that its user has given none.
const DEFAULT_NAME: &str = "Passkey";

/// The handlers.
pub(crate) struct PasskeyRpc {
    pub(crate) factors: Arc<Factors>,
    pub(crate) sign_in: Arc<SignIn>,
    pub(crate) step_up: Arc<StepUp>,
}

#[async_trait]
impl PasskeyService for PasskeyRpc {
    async fn begin_passkey_registration(
        &self,
        request: Request<BeginPasskeyRegistrationRequest>,
    ) -> Result<Response<BeginPasskeyRegistrationResponse>, Status> {
        let Begun { options, expires_at } = self.factors.begin_passkey(&Call::of(&request)?).await?;
        let options = Some(json::to_struct(options));
        Ok(Response::new(BeginPasskeyRegistrationResponse { options, expire_time: Some(to_proto(expires_at)) }))
    }

    async fn register_passkey(
        &self,
        request: Request<RegisterPasskeyRequest>,
    ) -> Result<Response<RegisterPasskeyResponse>, Status> {
        let call = Call::of(&request)?;
        let RegisterPasskeyRequest { display_name, credential } = request.into_inner();
        let name = if display_name.is_empty() { DEFAULT_NAME } else { &display_name };
        let name = valid("display_name", DisplayName::parse(name))?;
        let response = RegistrationResponse::from_json(&credential).map_err(Error::from)?;
        let Added { factor, backup_codes, sessions_ended } =
            self.factors.register_passkey(&call, response, name).await?;
        Ok(Response::new(RegisterPasskeyResponse { factor: Some(to_message(factor)), backup_codes, sessions_ended }))
    }

    async fn begin_passkey_enrolment(
        &self,
        request: Request<BeginPasskeyEnrolmentRequest>,
    ) -> Result<Response<BeginPasskeyEnrolmentResponse>, Status> {
        let call = Call::of(&request)?;
        let challenge_token = Zeroizing::new(request.into_inner().challenge_token);
        let Begun { options, expires_at } = self.factors.begin_passkey_enrolment(&call, &challenge_token).await?;
        let options = Some(json::to_struct(options));
        Ok(Response::new(BeginPasskeyEnrolmentResponse { options, expire_time: Some(to_proto(expires_at)) }))
    }

    async fn enrol_passkey(
        &self,
        request: Request<EnrolPasskeyRequest>,
    ) -> Result<Response<EnrolPasskeyResponse>, Status> {
        let call = Call::of(&request)?;
        let EnrolPasskeyRequest { challenge_token, display_name, credential } = request.into_inner();
        let challenge_token = Zeroizing::new(challenge_token);
        let name = if display_name.is_empty() { DEFAULT_NAME } else { &display_name };
        let name = valid("display_name", DisplayName::parse(name))?;
        let response = RegistrationResponse::from_json(&credential).map_err(Error::from)?;
        let added = self.factors.enrol_passkey(&call, &challenge_token, response, name).await?;
        let Added { factor, backup_codes, sessions_ended } = added;
        Ok(Response::new(EnrolPasskeyResponse { factor: Some(to_message(factor)), backup_codes, sessions_ended }))
    }

    async fn begin_passkey_sign_in(
        &self,
        request: Request<BeginPasskeySignInRequest>,
    ) -> Result<Response<BeginPasskeySignInResponse>, Status> {
        let challenge_token = Zeroizing::new(request.into_inner().challenge_token);
        let Begun { options, expires_at } = self.sign_in.begin_passkey(&challenge_token).await?;
        let options = Some(json::to_struct(options));
        Ok(Response::new(BeginPasskeySignInResponse { options, expire_time: Some(to_proto(expires_at)) }))
    }

    async fn sign_in_with_passkey(
        &self,
        request: Request<SignInWithPasskeyRequest>,
    ) -> Result<Response<SignInWithPasskeyResponse>, Status> {
        let call = Call::of(&request)?;
        let SignInWithPasskeyRequest { credential, device_token } = request.into_inner();
        let response = AuthenticationResponse::from_json(&credential).map_err(Error::from)?;
        let SignedIn { tokens, device_token, .. } =
            self.sign_in.sign_in_with_passkey(&call, &response, &device_token).await?;
        let TokenPair { access_token, refresh_token, expires_in, session_id, user_id } = tokens;
        Ok(Response::new(SignInWithPasskeyResponse {
            access_token,
            refresh_token,
            expires_in,
            token_type: TOKEN_TYPE.to_owned(),
            session_id: session_id.to_string(),
            user_id: user_id.to_string(),
            device_token,
        }))
    }

    async fn begin_passkey_verification(
        &self,
        request: Request<BeginPasskeyVerificationRequest>,
    ) -> Result<Response<BeginPasskeyVerificationResponse>, Status> {
        let Begun { options, expires_at } = self.step_up.begin_passkey(&Call::of(&request)?).await?;
        let options = Some(json::to_struct(options));
        Ok(Response::new(BeginPasskeyVerificationResponse { options, expire_time: Some(to_proto(expires_at)) }))
    }

    async fn get_related_origins(
        &self,
        _: Request<GetRelatedOriginsRequest>,
    ) -> Result<Response<RelatedOrigins>, Status> {
        let relying_party = self.sign_in.factors.passkeys.relying_party().ok();
        let origins = relying_party.into_iter().flat_map(RelyingParty::related_origins).map(str::to_owned).collect();
        Ok(Response::new(RelatedOrigins { origins }))
    }
}
