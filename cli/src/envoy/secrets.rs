//! Certificates as files that Envoy watches (file-based SDS): renaming a new one into their directory is enough.

use std::path::Path;

use drystone_mesh::identity::IdentityFiles;
use serde_json::{Value, json};

use super::{INGRESS, INGRESS_SECRET, Input, LISTENER_SECRET, ROOTS_SECRET};

/// The certificate for clients, if TLS ends at Envoy.
pub(super) fn listener(input: &Input<'_>) -> Option<Value> {
    let (certificate, key) = (input.envoy.certificate.as_ref()?, input.envoy.key.as_ref()?);
    let (file, key) = (certificate.display().to_string(), key.display().to_string());
    Some(certificate_secret("listener", &file, &key, &directory(certificate)))
}

fn directory(file: &Path) -> String {
    file.parent().unwrap_or(file).display().to_string()
}

/// The certificate of the workload `ingress`.
pub(super) fn ingress(input: &Input<'_>) -> Value {
    let IdentityFiles { certificate, key, .. } = &input.certificates;
    certificate_secret(INGRESS, &certificate.display().to_string(), &key.display().to_string(), &directory(certificate))
}

fn certificate_secret(name: &str, certificate: &str, key: &str, directory: &str) -> Value {
    secret(json!({
        "name": name,
        "tls_certificate": {
            "certificate_chain": {"filename": certificate},
            "private_key": {"filename": key},
            "watched_directory": {"path": directory},
        },
    }))
}

/// The roots of the mesh.
pub(super) fn roots(input: &Input<'_>) -> Value {
    secret(json!({
        "name": "roots",
        "validation_context": {
            "trusted_ca": {"filename": input.certificates.bundle.display().to_string()},
            "watched_directory": {"path": directory(&input.certificates.bundle)},
        },
    }))
}

fn secret(mut secret: Value) -> Value {
    secret["@type"] = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret".into();
    json!({"resources": [secret]})
}

/// Refers to the certificate for clients.
pub(super) fn of_listener(input: &Input<'_>) -> Value {
    reference("listener", &input.file(LISTENER_SECRET))
}

/// Refers to the certificate of the workload.
pub(super) fn of_ingress(input: &Input<'_>) -> Value {
    reference(INGRESS, &input.file(INGRESS_SECRET))
}

/// Refers to the roots.
pub(super) fn of_roots(input: &Input<'_>) -> Value {
    reference("roots", &input.file(ROOTS_SECRET))
}

fn reference(name: &str, file: &str) -> Value {
    json!({
        "name": name,
        "sds_config": {"path_config_source": {"path": file}, "resource_api_version": "V3"},
    })
}
