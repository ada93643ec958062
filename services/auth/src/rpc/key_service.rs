//! `drystone.auth.v1.KeyService`.

use std::sync::Arc;

use drystone::auth::v1::{
    AuthorizationServerMetadata, GetDiscoveryRequest, GetJwksRequest, JwkSet, key_service_server::KeyService,
};
use tonic::{Request, Response, Status, async_trait};

use crate::token::key_ring::KeyRing;

/// The handlers.
pub(crate) struct KeyRpc {
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) metadata: AuthorizationServerMetadata,
}

#[async_trait]
impl KeyService for KeyRpc {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<JwkSet>, Status> {
        Ok(Response::new(JwkSet { keys: self.keys.published().to_vec() }))
    }

    async fn get_discovery(
        &self,
        _: Request<GetDiscoveryRequest>,
    ) -> Result<Response<AuthorizationServerMetadata>, Status> {
        Ok(Response::new(self.metadata.clone()))
    }
}
