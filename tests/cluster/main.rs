//! Two instances of each service and of the edge on PostgreSQL and Redis, one process each.

mod certificates;
mod direct_clients;
mod envoy;
mod rate_limits;
mod refresh;
mod restarts;
mod revocations;
mod signing_keys;
mod user_journey;

use std::collections::BTreeSet;

use drystone_tests::{Cluster, Production, modules, services};
use rustls::{pki_types::ServerName, version::TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// All instances of all services and of the edge.
fn all_instances(cluster: &Cluster) -> impl Iterator<Item = (&'static str, usize)> {
    modules().into_iter().flat_map(|part| (0..cluster.instances()).map(move |number| (part, number)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_instance_has_its_own_certificate_with_the_spiffe_id_of_its_service() {
    let mesh = Production::lock().await;
    let cluster = &mesh.cluster;
    for part in services() {
        let mut certificates = BTreeSet::new();
        for number in 0..cluster.instances() {
            let certificate = certificate_of(cluster, part, number).await;
            let (_, parsed) = X509Certificate::from_der(&certificate).unwrap();
            let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.iter();
            let uris: Vec<_> =
                names.filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
            assert_eq!(uris, [format!("spiffe://drystone.local/service/{part}")]);
            certificates.insert(certificate);
        }
        assert_eq!(certificates.len(), cluster.instances(), "{part}");
    }
}

async fn certificate_of(cluster: &Cluster, part: &str, number: usize) -> Vec<u8> {
    let certificates = cluster.certificates();
    let config = certificates.client_config(Some(certificates.of("operator")), &[&TLS13]);
    let stream = TcpStream::connect(cluster.address(part, number)).await.unwrap();
    let name = ServerName::try_from(part.to_owned()).unwrap();
    let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}
