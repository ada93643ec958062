//! `drystone.auth.v1.AuthService`.

use drystone::auth::v1::{
    CompleteSignInRequest, CompleteSignInResponse, ForgetUserRequest, ForgetUserResponse, ImportUsersRequest,
    ImportUsersResponse, RefreshRequest, RefreshResponse, RegisterRequest, RegisterResponse, SignInChallenge,
    SignInRequest, SignInResponse, SignOutRequest, SignOutResponse, VerifyCredentialRequest, VerifyCredentialResponse,
    auth_service_server::AuthService,
};
use drystone_mesh::{
    call::{self, Call},
    display_name::DisplayName,
    email::Email,
    error::Error as MeshError,
    id,
    time::to_proto,
};
use drystone_webauthn::AuthenticationResponse;
use futures_util::{Stream, stream};
use std::{pin::Pin, sync::Arc};
use tonic::{Request, Response, Status, Streaming, async_trait};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{mfa_service::kind_to_message, valid};
use crate::{
    error::Error,
    factor::FactorProof,
    import::UserImport,
    password::typed_password::TypedPassword,
    refresh::Refresh,
    register::{NewRegistration, Registration},
    sign_in::{FirstStep, NewChallenge, SignIn, SignedIn},
    step_up::{Proof, StepUp},
    token::tokens::{TOKEN_TYPE, TokenPair},
    upstreams::Upstreams,
};

/// The handlers.
pub(crate) struct AuthRpc {
    pub(crate) registration: Registration,
    pub(crate) sign_in: Arc<SignIn>,
    pub(crate) refresh: Refresh,
    pub(crate) step_up: Arc<StepUp>,
    pub(crate) import: UserImport,
    pub(crate) upstreams: Arc<dyn Upstreams>,
}

#[async_trait]
impl AuthService for AuthRpc {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let call = Call::of(&request)?;
        let RegisterRequest { email, password, display_name, request_id } = request.into_inner();
        let new = NewRegistration {
            email: valid("email", Email::parse(&email))?,
            password: valid("password", TypedPassword::parse_new(password))?,
            display_name: valid("display_name", DisplayName::parse(&display_name))?,
            request_id: optional_id(&request_id)?,
        };
        let user = self.registration.register(&call, new).await?;
        let verification_required = user.is_none();
        Ok(Response::new(RegisterResponse { user, verification_required }))
    }

    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let call = Call::of(&request)?;
        let SignInRequest { email, password, device_token } = request.into_inner();
        let first = self.sign_in.sign_in(&call, &email, TypedPassword::new(password), &device_token).await?;
        let SignedIn { tokens, device_token, second_factor_required_at, .. } = match first {
            FirstStep::SignedIn(signed_in) => signed_in,
            FirstStep::Challenged(NewChallenge { token, factors, enrols, expires_at }) => {
                let challenge = SignInChallenge {
                    challenge_token: token,
                    enrolment_required: enrols,
                    factors: factors.into_iter().map(|kind| kind_to_message(kind).into()).collect(),
                    expire_time: Some(to_proto(expires_at)),
                };
                return Ok(Response::new(SignInResponse { challenge: Some(challenge), ..SignInResponse::default() }));
            }
        };
        let TokenPair { access_token, refresh_token, expires_in, session_id, user_id } = tokens;
        Ok(Response::new(SignInResponse {
            access_token: Some(access_token),
            refresh_token: Some(refresh_token),
            expires_in: Some(expires_in),
            token_type: Some(TOKEN_TYPE.to_owned()),
            session_id: Some(session_id.to_string()),
            user_id: Some(user_id.to_string()),
            device_token: Some(device_token),
            challenge: None,
            second_factor_required_time: second_factor_required_at.map(to_proto),
        }))
    }

    async fn complete_sign_in(
        &self,
        request: Request<CompleteSignInRequest>,
    ) -> Result<Response<CompleteSignInResponse>, Status> {
        let call = Call::of(&request)?;
        let CompleteSignInRequest { challenge_token, totp_code, backup_code, passkey, remember_device } =
            request.into_inner();
        let challenge_token = Zeroizing::new(challenge_token);
        let [proof] = <[FactorProof; 1]>::try_from(proofs(totp_code, backup_code, &passkey)?).map_err(|_| {
            let text = "give one of a code of an authenticator app, a backup code, and a passkey";
            MeshError::invalid_field("totp_code", text)
        })?;
        let SignedIn { tokens, device_token, trusted_until, .. } =
            self.sign_in.complete(&call, &challenge_token, &proof, remember_device).await?;
        let TokenPair { access_token, refresh_token, expires_in, session_id, user_id } = tokens;
        Ok(Response::new(CompleteSignInResponse {
            access_token,
            refresh_token,
            expires_in,
            token_type: TOKEN_TYPE.to_owned(),
            session_id: session_id.to_string(),
            user_id: user_id.to_string(),
            device_token,
            trusted_until: trusted_until.map(to_proto),
        }))
    }

    async fn verify_credential(
        &self,
        request: Request<VerifyCredentialRequest>,
    ) -> Result<Response<VerifyCredentialResponse>, Status> {
        let call = Call::of(&request)?;
        let VerifyCredentialRequest { password, totp_code, backup_code, passkey } = request.into_inner();
        let mut proofs: Vec<Proof> = proofs(totp_code, backup_code, &passkey)?.into_iter().map(Proof::Factor).collect();
        if !password.is_empty() {
            proofs.push(Proof::Password(TypedPassword::new(password)));
        }
        let [proof] = <[Proof; 1]>::try_from(proofs).map_err(|_| {
            let text = "give one of the password, a code of an authenticator app, a backup code, and a passkey";
            MeshError::invalid_field("password", text)
        })?;
        let (auth_time, amr) = self.step_up.verify(&call, proof).await?;
        Ok(Response::new(VerifyCredentialResponse { auth_time: Some(to_proto(auth_time)), amr }))
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        let call = Call::of(&request)?;
        let TokenPair { access_token, refresh_token, expires_in, session_id, user_id } =
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
        self.upstreams.revoke_session(&call, session_id).await?;
        Ok(Response::new(SignOutResponse {}))
    }

    type ImportUsersStream = Pin<Box<dyn Stream<Item = Result<ImportUsersResponse, Status>> + Send>>;

    async fn import_users(
        &self,
        request: Request<Streaming<ImportUsersRequest>>,
    ) -> Result<Response<Self::ImportUsersStream>, Status> {
        let import = self.import.clone();
        // The next accounts are read once these are answered.
        let answers = stream::try_unfold(request.into_inner(), move |mut requests| {
            let import = import.clone();
            async move {
                let Some(request) = requests.message().await? else { return Ok(None) };
                let results = import.import(request).await?;
                Ok::<_, Status>(Some((ImportUsersResponse { results }, requests)))
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn forget_user(&self, request: Request<ForgetUserRequest>) -> Result<Response<ForgetUserResponse>, Status> {
        let user_id = id::parse("user_id", &request.get_ref().user_id)?;
        call::record_user(user_id);
        self.import.store.delete_credential(user_id).await.map_err(Error::from)?;
        Ok(Response::new(ForgetUserResponse {}))
    }
}

/// What a request proves a second factor by: as many as it has.
fn proofs(totp: String, backup: String, passkey: &str) -> Result<Vec<FactorProof>, Error> {
    let (totp, backup) = (Zeroizing::new(totp), Zeroizing::new(backup));
    let mut proofs = Vec::new();
    if !totp.is_empty() {
        proofs.push(FactorProof::Totp(totp));
    }
    if !backup.is_empty() {
        proofs.push(FactorProof::Backup(backup));
    }
    if !passkey.is_empty() {
        proofs.push(FactorProof::Passkey(Box::new(AuthenticationResponse::from_json(passkey)?)));
    }
    Ok(proofs)
}

fn optional_id(text: &str) -> Result<Option<Uuid>, MeshError> {
    if text.is_empty() {
        return Ok(None);
    }
    id::parse("request_id", text).map(Some)
}
