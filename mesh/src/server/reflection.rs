//! Reflection, as grpcurl and others ask for it: the contracts as they are, custom options and comments included.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use tonic::server::NamedService;
use tonic_reflection::server::{Builder, Error as BuildError};

use super::{Rpc, TonicService};
use crate::error::Error;

type Services = HashMap<&'static str, Arc<dyn Rpc>>;

/// Both versions of the protocol: v1, and v1alpha for older tools. They are made once and shared by all servers of the
/// process, since each holds every contract decoded.
static SERVICES: LazyLock<Result<Services, BuildError>> = LazyLock::new(|| {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(drystone::contract::DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that tools can show the details of a refusal.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(HashMap::from([named(builder().build_v1()?), named(builder().build_v1alpha()?)]))
});

/// The reflection services by name.
pub(super) fn services() -> Result<Services, Error> {
    SERVICES.as_ref().cloned().map_err(|error| Error::internal(error.to_string()))
}

fn named<S: TonicService + NamedService>(service: S) -> (&'static str, Arc<dyn Rpc>) {
    (S::NAME, Arc::new(service))
}
