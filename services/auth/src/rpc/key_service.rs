//! `drystone.auth.v1.KeyService`.

use std::sync::Arc;

use drystone::auth::v1::{
    AuthorizationServerMetadata, GetDiscoveryRequest, GetJwksRequest, JwkSet, ListSigningKeysRequest,
    ListSigningKeysResponse, RewrapKeysRequest, RewrapKeysResponse, RotateSigningKeyRequest, RotateSigningKeyResponse,
    SealKeysRequest, SealKeysResponse, SigningKey, SigningKeyState, WithdrawSigningKeyRequest,
    WithdrawSigningKeyResponse, key_service_server::KeyService,
};
use drystone_mesh::time::to_proto;
use tonic::{Request, Response, Status, async_trait};

use crate::{
    error::Error,
    token::{
        key_ring::KeyRing,
        key_rotation::KeyRotation,
        signing_keys::{KeyInfo, KeyState, Rotation, SigningKeys, Withdrawn},
    },
};

/// The handlers.
pub(crate) struct KeyRpc {
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) rotation: KeyRotation,
    pub(crate) signing_keys: Arc<SigningKeys>,
    pub(crate) metadata: AuthorizationServerMetadata,
}

#[async_trait]
impl KeyService for KeyRpc {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<JwkSet>, Status> {
        // Verifiers ask when a key was withdrawn, for its successor. If that cannot be read, they ask again: without it, they would
        // reject its tokens as invalid.
        let keys = self.keys.ready_to_sign().await?;
        Ok(Response::new(JwkSet { keys: self.keys.published(&keys) }))
    }

    async fn get_discovery(
        &self,
        _: Request<GetDiscoveryRequest>,
    ) -> Result<Response<AuthorizationServerMetadata>, Status> {
        Ok(Response::new(self.metadata.clone()))
    }

    async fn seal_keys(&self, _: Request<SealKeysRequest>) -> Result<Response<SealKeysResponse>, Status> {
        let sealed = self.rotation.seal().await.map_err(Error::Keys)?;
        Ok(Response::new(SealKeysResponse { sealed }))
    }

    async fn rewrap_keys(&self, _: Request<RewrapKeysRequest>) -> Result<Response<RewrapKeysResponse>, Status> {
        let rewrapped = self.rotation.rewrap().await.map_err(Error::Keys)?;
        let master_key_id = self.rotation.sealer.key_id();
        Ok(Response::new(RewrapKeysResponse { rewrapped, master_key_id }))
    }

    async fn list_signing_keys(
        &self,
        _: Request<ListSigningKeysRequest>,
    ) -> Result<Response<ListSigningKeysResponse>, Status> {
        let keys = self.signing_keys.list().await?.into_iter().map(to_message).collect();
        Ok(Response::new(ListSigningKeysResponse { keys }))
    }

    async fn rotate_signing_key(
        &self,
        _: Request<RotateSigningKeyRequest>,
    ) -> Result<Response<RotateSigningKeyResponse>, Status> {
        let Rotation { kid, algorithm, signs_from, was_pending } = self.signing_keys.rotate().await?;
        let sign_time = Some(to_proto(signs_from));
        Ok(Response::new(RotateSigningKeyResponse { kid, algorithm, sign_time, was_pending }))
    }

    async fn withdraw_signing_key(
        &self,
        request: Request<WithdrawSigningKeyRequest>,
    ) -> Result<Response<WithdrawSigningKeyResponse>, Status> {
        let Withdrawn { signing_kid, is_applied } = self.signing_keys.withdraw(&request.into_inner().kid).await?;
        let signing_kid = signing_kid.unwrap_or_default();
        Ok(Response::new(WithdrawSigningKeyResponse { signing_kid, applied: is_applied }))
    }
}

fn to_message(key: KeyInfo) -> SigningKey {
    let state = match key.state {
        KeyState::Published => SigningKeyState::Published,
        KeyState::Signing => SigningKeyState::Signing,
        KeyState::Retired => SigningKeyState::Retired,
        KeyState::Withdrawn => SigningKeyState::Withdrawn,
    };
    SigningKey {
        kid: key.kid,
        algorithm: key.algorithm,
        state: state.into(),
        since_time: Some(to_proto(key.since)),
        until_time: key.until.map(to_proto),
    }
}
