//! What is taken from a context: the certificates and roots of everything that a process may be.

use std::sync::Arc;

use drystone_mesh::identity::{IdentityError, IdentityFiles, SpiffeId, TrustBundle, UnverifiedCredentials};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::{X509Bundle, X509Context, X509Svid};

use crate::{endpoint::Endpoint, failure::Failure};

/// More certificates for one process are refused. The client bounds the bytes of a context (4 MiB), and the length of a chain.
const MAX_SVIDS: usize = 64;

/// More roots of our trust domain are refused: each handshake looks through them.
const MAX_ROOTS: usize = 64;

/// How many SPIFFE IDs an error names.
const MAX_SHOWN_IDS: usize = 4;

/// The certificate and key of one workload, and the roots of its trust domain. The key is zeroed on drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    svid: Arc<X509Svid>,
    bundle: Arc<X509Bundle>,
}

impl Credentials {
    /// Those with this SPIFFE ID, which is read from the certificate. Of several with the same, the first: the agent's default.
    pub(crate) fn select(context: &X509Context, id: &SpiffeId) -> Result<Self, Failure> {
        let svids = context.svids();
        if svids.len() > MAX_SVIDS {
            let cause = format!("it has {} certificates for this process; at most {MAX_SVIDS} are taken", svids.len());
            return Err(Failure::Malformed(cause));
        }
        let own = svids.iter().find(|svid| svid.spiffe_id().to_string() == id.as_str());
        let Some(svid) = own else { return Err(Failure::NotIssued(others(svids))) };
        let domain = svid.spiffe_id().trust_domain();
        let Some(bundle) = context.bundle_set().get(domain) else {
            return Err(Failure::Malformed(format!("there are no roots of {domain}")));
        };
        let roots = bundle.authorities().len();
        if roots > MAX_ROOTS {
            let cause = format!("there are {roots} roots of {domain}; at most {MAX_ROOTS} are taken");
            return Err(Failure::Malformed(cause));
        }
        Ok(Self { svid: svid.clone(), bundle })
    }

    /// As the mesh verifies them. `endpoint` is what errors name.
    pub(crate) fn to_unverified(
        &self,
        endpoint: &Endpoint,
        id: &SpiffeId,
    ) -> Result<UnverifiedCredentials, IdentityError> {
        let origin = origin(endpoint, id);
        let certificate = |certificate: &spiffe::Certificate| CertificateDer::from(certificate.as_bytes().to_vec());
        let roots: Vec<_> = self.bundle.authorities().iter().map(certificate).collect();
        let bundle = TrustBundle::from_certificates(id.trust_domain(), &roots)
            .map_err(|source| IdentityError::Bundle { path: origin.bundle.clone(), source })?;
        Ok(UnverifiedCredentials {
            chain: self.svid.cert_chain().iter().map(certificate).collect(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.svid.private_key().as_bytes().to_vec())),
            bundle,
            origin,
        })
    }
}

/// In the place of paths.
fn origin(endpoint: &Endpoint, id: &SpiffeId) -> IdentityFiles {
    let of_agent = |what: &str| format!("{what} from {endpoint}").into();
    IdentityFiles {
        certificate: of_agent(id.as_str()),
        key: of_agent(id.as_str()),
        bundle: of_agent(id.trust_domain().as_str()),
    }
}

/// What the agent issues instead.
fn others(svids: &[Arc<X509Svid>]) -> String {
    let shown: Vec<String> = svids.iter().take(MAX_SHOWN_IDS).map(|svid| svid.spiffe_id().to_string()).collect();
    let more = svids.len().saturating_sub(shown.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("it issues {}{more}", shown.join(", "))
}
