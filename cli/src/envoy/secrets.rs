//! Certificates as files that Envoy watches (file-based SDS): renaming a new one into their directory is enough.

use serde_json::{Value, json};

use super::{INGRESS, INGRESS_SECRET, Input, LISTENER_SECRET, ROOTS_SECRET};

/// The certificate for clients, if TLS ends at Envoy.
pub(super) fn listener(input: &Input<'_>) -> Option<Value> {
    let (certificate, key) = (input.envoy.certificate.as_ref()?, input.envoy.key.as_ref()?);
    let directory = certificate.parent().unwrap_or(certificate);
    Some(certificate_secret(
        "listener",
        &certificate.display().to_string(),
        &key.display().to_string(),
        &directory.display().to_string(),
    ))
}

/// The certificate of the workload `ingress`.
pub(super) fn ingress(input: &Input<'_>) -> Value {
    let file = |extension: &str| input.certificates.join(format!("{INGRESS}.{extension}")).display().to_string();
    certificate_secret(INGRESS, &file("pem"), &file("key"), &input.certificates.display().to_string())
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
            "trusted_ca": {"filename": input.certificates.join("ca.pem").display().to_string()},
            "watched_directory": {"path": input.certificates.display().to_string()},
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
