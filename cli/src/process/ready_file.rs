//! The ready file: all addresses as JSON, for the process that started the mesh.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use drystone_mesh::identity::IdentityFiles;
use serde_json::{Map, Value, json};

/// The certificates of a mesh that are files: the root, and each workload's own. None are where they come from the Workload API.
#[derive(Debug, Clone, Default)]
pub(crate) struct CertificatePaths {
    /// The root.
    pub(crate) ca: Option<PathBuf>,
    /// Certificate and key by workload name.
    pub(crate) workloads: BTreeMap<String, IdentityFiles>,
}

/// Writes the file atomically.
pub(super) fn write(
    path: &Path,
    addresses: &BTreeMap<&'static str, SocketAddr>,
    admin: SocketAddr,
    certificates: &CertificatePaths,
) -> Result<()> {
    let grpc: Map<String, Value> = addresses
        .iter()
        .filter(|(name, _)| **name != "edge")
        .map(|(name, address)| ((*name).to_owned(), json!(address.to_string())))
        .collect();
    let mut certs: Map<String, Value> = certificates
        .workloads
        .iter()
        .map(|(name, files)| (name.clone(), json!({ "cert": files.certificate, "key": files.key })))
        .collect();
    certs.extend(certificates.ca.as_ref().map(|ca| ("ca".to_owned(), json!(ca))));
    let ready = json!({
        "rest": addresses.get("edge").map(|edge| format!("http://{edge}")),
        "grpc": grpc,
        "admin": format!("http://{admin}"),
        "certs": certs,
    });

    let cannot = || format!("the ready file {} cannot be written", path.display());
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, serde_json::to_vec_pretty(&ready)?).with_context(cannot)?;
    fs::rename(&unfinished, path).with_context(cannot)
}
