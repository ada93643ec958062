//! `drystone certs show`: the certificates in a file, or those of a server.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};
use drystone_mesh::{
    clock::Clock,
    identity::{CertificateSummary, certificates_in, server_chain},
};
use tokio::net::lookup_host;

use crate::{certificates, output, process};

/// The flags of `drystone certs show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A PEM file, or the address of a server, such as `127.0.0.1:50051`
    #[arg(value_name = "FILE|ADDRESS")]
    of: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let path = Path::new(&args.of);
    let chain = if path.exists() { certificates_in(path)? } else { of_server(&args.of)? };
    let mut text = String::new();
    for (position, certificate) in (1..).zip(&chain) {
        if position > 1 {
            text.push('\n');
        }
        describe(&mut text, certificate)?;
    }
    output::print(text)
}

fn of_server(address: &str) -> Result<Vec<CertificateSummary>> {
    process::block_on(async {
        let address: SocketAddr =
            lookup_host(address).await.ok().and_then(|mut addresses| addresses.next()).with_context(|| {
                format!("`{address}` is neither a file nor the address of a server, such as `127.0.0.1:50051`")
            })?;
        let chain = server_chain(address).await;
        chain
            .with_context(|| format!("no TLS handshake with {address}; check that a service of the mesh listens there"))
    })
}

fn describe(text: &mut String, certificate: &CertificateSummary) -> Result<()> {
    let now = Clock::system().now();
    let validity = match certificate.not_after - now {
        _ if now < certificate.not_before => "not valid yet".to_owned(),
        left if left <= chrono::TimeDelta::zero() => "expired".to_owned(),
        left if left.num_days() > 0 => format!("{} days left", left.num_days()),
        left => format!("{} minutes left", left.num_minutes()),
    };
    let profile = match (&certificate.svid, certificate.is_ca) {
        (Ok(_), _) => "that of an X.509-SVID; its issuer was not checked".to_owned(),
        (Err(_), true) => "a CA".to_owned(),
        (Err(fault), false) => format!("not that of an X.509-SVID: {fault}"),
    };
    let id = certificate.svid.as_ref().map_or_else(|_| "-".to_owned(), |svid| svid.id.to_string());
    let rows = [
        ("SPIFFE ID", id),
        ("subject", certificate.subject.clone()),
        ("issuer", certificate.issuer.clone()),
        ("serial number", certificate.serial.clone()),
        ("valid from", certificates::time(certificate.not_before)),
        ("valid until", format!("{} ({validity})", certificates::time(certificate.not_after))),
        ("key", certificate.key.clone()),
        ("key hash", format!("sha256:{}", certificate.key_sha256)),
        ("fingerprint", format!("sha256:{}", certificate.fingerprint)),
        ("profile", profile),
    ];
    for (name, value) in rows {
        writeln!(text, "{name:<14} {value}")?;
    }
    Ok(())
}
