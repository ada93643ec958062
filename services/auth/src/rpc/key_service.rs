//! `drystone.auth.v1.KeyService`.

use std::sync::Arc;

use drystone::auth::v1::{
    AuthorizationServerMetadata, GetDiscoveryRequest, GetJwksRequest, JwkSet, RewrapKeysRequest, RewrapKeysResponse,
    SealKeysRequest, SealKeysResponse, key_service_server::KeyService,
};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    error::Error,
    token::{key_ring::KeyRing, key_rotation::KeyRotation},
};

/// The handlers.
pub(crate) struct KeyRpc {
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) rotation: KeyRotation,
    pub(crate) metadata: AuthorizationServerMetadata,
}

#[async_trait]
impl KeyService for KeyRpc {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<JwkSet>, Status> {
        Ok(Response::new(JwkSet { keys: self.keys.current().published(self.keys.now()) }))
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
}
