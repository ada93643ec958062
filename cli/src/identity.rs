//! The identities of a process's services, with the sources of their changes.

use std::sync::Arc;

use anyhow::Result;
use drystone_mesh::{
    config::ConfigError,
    identity::{CredentialSource, Identity, IdentityError, IdentityFiles, SpiffeId, WatchedFiles},
};
#[cfg(feature = "workload-api")]
use drystone_workload_api::{Endpoint, WorkloadApiSource};

use crate::config::CertificatesConfig;

/// The identity of a service, and where its changes come from.
pub(crate) struct ServiceIdentity {
    /// The identity.
    pub(crate) identity: Identity,
    /// The source of its credentials.
    pub(crate) source: Arc<dyn CredentialSource>,
}

impl ServiceIdentity {
    /// From files, which are looked at in intervals.
    pub(crate) fn from_files(files: &IdentityFiles, config: &CertificatesConfig) -> Result<Self, IdentityError> {
        let source = Arc::new(WatchedFiles::new(files.clone(), config.check_interval.duration()));
        Ok(Self { identity: Identity::load(files)?, source })
    }

    /// From the Workload API at this endpoint. Waits some seconds for the agent.
    pub(crate) async fn from_workload_api(setting: &str, id: SpiffeId) -> Result<Self> {
        let source = workload_api_source(setting, id).map_err(ConfigError::new)?;
        Ok(Self { identity: Identity::new(source.load().await?)?, source })
    }
}

/// Checks the setting `certificates.workload_api`.
#[cfg(feature = "workload-api")]
pub(crate) fn check_workload_api(setting: &str) -> Result<(), String> {
    endpoint(setting).map(drop)
}

#[cfg(feature = "workload-api")]
fn workload_api_source(setting: &str, id: SpiffeId) -> Result<Arc<dyn CredentialSource>, String> {
    Ok(Arc::new(WorkloadApiSource::connect(endpoint(setting)?, id)))
}

#[cfg(feature = "workload-api")]
fn endpoint(setting: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_setting(setting, std::env::var_os(Endpoint::VARIABLE));
    endpoint.map_err(|error| format!("certificates.workload_api: {error}"))
}

/// Refuses the setting `certificates.workload_api`.
#[cfg(not(feature = "workload-api"))]
pub(crate) fn check_workload_api(_setting: &str) -> Result<(), String> {
    Err(WITHOUT_WORKLOAD_API.to_owned())
}

#[cfg(not(feature = "workload-api"))]
fn workload_api_source(_setting: &str, _id: SpiffeId) -> Result<Arc<dyn CredentialSource>, String> {
    Err(WITHOUT_WORKLOAD_API.to_owned())
}

#[cfg(not(feature = "workload-api"))]
const WITHOUT_WORKLOAD_API: &str = "certificates.workload_api is set, but this binary was built without the feature \
     `workload-api`; build it with `cargo build --release --package drystone-cli --features workload-api`, or remove the setting";
