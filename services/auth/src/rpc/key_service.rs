//! `drystone.auth.v1.KeyService`.

use std::sync::Arc;

use drystone::auth::v1::{
    GetDiscoveryRequest, GetDiscoveryResponse, GetJwksRequest, GetJwksResponse, key_service_server::KeyService,
};
use tonic::{Request, Response, Status, async_trait};

use crate::key_ring::KeyRing;

/// The handlers.
pub(crate) struct KeyRpc {
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) discovery: GetDiscoveryResponse,
}

#[async_trait]
impl KeyService for KeyRpc {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<GetJwksResponse>, Status> {
        Ok(Response::new(GetJwksResponse { keys: self.keys.published().to_vec() }))
    }

    async fn get_discovery(&self, _: Request<GetDiscoveryRequest>) -> Result<Response<GetDiscoveryResponse>, Status> {
        Ok(Response::new(self.discovery.clone()))
    }
}
