//! What a person sees when the mesh is up: what runs where, and what to try next.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr};

use drystone_mesh::module::Notice;

use super::CertificatePaths;
use crate::config::Config;

/// The greeting.
pub(super) fn text(
    addresses: &BTreeMap<&'static str, SocketAddr>,
    admin: SocketAddr,
    certificates: &CertificatePaths,
    config: &Config,
    notices: &[Notice],
) -> String {
    let mut text = String::from("\nDrystone is up.\n\n");
    if let Some(edge) = addresses.get("edge") {
        let _ = writeln!(text, "  REST         http://{edge}");
    }
    for (name, address) in addresses.iter().filter(|(name, _)| **name != "edge") {
        let _ = writeln!(text, "  {name:<12} {address}  (gRPC, mutual TLS)");
    }
    let _ = writeln!(text, "  admin        http://{admin}  (/health/detailed, /metrics)");
    let _ = writeln!(text, "  data         {}", config.mesh.data_dir.display());
    for notice in notices {
        let _ = writeln!(text, "  {:<12} {}", notice.subject, notice.text);
    }
    let _ = writeln!(text, "  certs        {}", config.mesh.certs_dir.display());

    let CertificatePaths { ca, workloads } = certificates;
    let (Some(edge), Some(user), Some(ca), Some(operator)) =
        (addresses.get("edge"), addresses.get("user"), ca, workloads.get("operator"))
    else {
        return text;
    };
    let _ = write!(
        text,
        "\nTry next:\n\n  \
         curl -s http://{edge}/v1/auth/register -H 'content-type: application/json' \\\n    \
         -d '{{\"email\":\"ada@example.com\",\"password\":\"correct horse\",\"displayName\":\"Ada\"}}'\n\n  \
         curl -s http://{edge}/v1/auth/login -H 'content-type: application/json' \\\n    \
         -d '{{\"email\":\"ada@example.com\",\"password\":\"correct horse\"}}'\n\n  \
         grpcurl -cacert {ca} -cert {cert} -key {key} {user} list\n\n\
         Ctrl-C stops it; data is kept.\n",
        ca = ca.display(),
        cert = operator.certificate.display(),
        key = operator.key.display(),
    );
    text
}
