//! The development CA: issues a certificate for every workload of a mesh on one machine.
//!
//! It is for development and tests. Its key is stored unencrypted beside the certificates, and any process that can read it
//! can impersonate every workload. In production, SPIRE, cert-manager or your own CA issues the certificates; the profile
//! is the same.

mod rotation;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
pub use rotation::RotationStep;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use uuid::Uuid;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroizing;

use super::{
    files::{self, PUBLIC, SECRET},
    source::IdentityFiles,
    spiffe::{SpiffeId, SpiffeIdError, TrustDomain},
};
use crate::clock::{Clock, Timestamp};

const CA_LIFETIME: TimeDelta = TimeDelta::days(30);
/// A CA with less than this remaining is replaced, so that a certificate can have its full lifetime.
const MIN_CA_REMAINING_LIFETIME: TimeDelta = TimeDelta::days(2);
const LEAF_LIFETIME: TimeDelta = TimeDelta::days(1);
/// How long before the issue time certificates become valid, to tolerate clock skew.
const BACKDATING: TimeDelta = TimeDelta::minutes(5);
/// Names of the CA's own files.
const RESERVED_NAMES: [&str; 2] = ["ca", "ca-next"];
const COMMON_NAME_PREFIX: &str = "Drystone development CA ";

/// The CA of one trust domain, stored in a directory.
pub struct Authority {
    dir: PathBuf,
    domain: TrustDomain,
    clock: Clock,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// What to issue. The defaults are those of [`Authority::issue`].
#[derive(Debug, Clone, Default)]
pub struct IssueOptions {
    /// The workload's name.
    pub name: String,
    /// The trust domain of the ID; that of the CA by default.
    pub trust_domain: Option<TrustDomain>,
    /// The start of the validity; five minutes ago by default.
    pub not_before: Option<Timestamp>,
    /// The end of the validity; a day from now by default.
    pub not_after: Option<Timestamp>,
    /// The directory to write to; that of the CA by default.
    pub dir: Option<PathBuf>,
}

/// An error of the development CA.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or directory cannot be read or written.
    #[error("cannot use {}: {source}; use another directory for the certificates, or give this user write permission", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory contains the CA of another trust domain.
    #[error("{} is the CA of another trust domain than {requested}; use another directory, or remove it to create a new CA", path.display())]
    OtherTrustDomain {
        /// The CA's certificate.
        path: PathBuf,
        /// The requested trust domain.
        requested: TrustDomain,
    },
    /// The name is not valid in a SPIFFE ID.
    #[error("`{name}` is not a valid workload name: {source}")]
    Name {
        /// The name.
        name: String,
        /// The rule that it breaks.
        source: SpiffeIdError,
    },
    /// The name would overwrite the CA's files.
    #[error("`{name}` is not a valid workload name: it is reserved for the CA's files")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// There is no CA.
    #[error("there is no development CA in {}; create one with `drystone certs init`, or name its directory", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// A step of a rotation is not the next one.
    #[error("`{requested}` is not the next step of the rotation of the root, which is `{next}`")]
    RotationOrder {
        /// The requested step.
        requested: RotationStep,
        /// The next step.
        next: RotationStep,
    },
    /// Certificates of an old root are in use.
    #[error(
        "the old root has issued the certificates of {}, which would no longer be trusted; issue new ones with \
         `drystone certs issue NAME`, have their processes read them, then remove the old root",
        names.join(", ")
    )]
    InUse {
        /// Their workloads.
        names: Vec<String>,
    },
    /// The CA's files do not match each other.
    #[error("ca.pem and ca.key in {} are not a CA; create a new one with `drystone certs init`", dir.display())]
    Corrupt {
        /// The directory.
        dir: PathBuf,
    },
    /// The certificate could not be generated.
    #[error("the certificate cannot be generated: {0}")]
    Generate(#[from] rcgen::Error),
}

impl IssueOptions {
    /// The default options for this workload.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

impl Authority {
    /// Opens the CA in `dir` (`ca.pem` and `ca.key`), or creates it. A CA that is about to expire, or whose files do not
    /// match, is replaced; its certificates must then be reissued.
    ///
    /// # Errors
    /// If the directory cannot be used, or contains the CA of another trust domain.
    pub fn open_or_create(dir: &Path, trust_domain: &TrustDomain, clock: Clock) -> Result<Self, AuthorityError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let _lock = lock(dir)?;
        let stored = StoredCa::read(dir)?;
        if let Some(stored) = &stored
            && stored.trust_domain.as_ref() != Some(trust_domain)
        {
            return Err(AuthorityError::OtherTrustDomain {
                path: certificate_path(dir),
                requested: trust_domain.clone(),
            });
        }
        let (not_after, issuer) = match stored {
            Some(stored) if stored.not_after - clock.now() >= MIN_CA_REMAINING_LIFETIME => {
                (stored.not_after, stored.issuer)
            }
            _ => create(dir, trust_domain, clock.now())?,
        };
        Ok(Self { dir: dir.to_owned(), domain: trust_domain.clone(), clock, not_after, issuer })
    }

    /// Opens the CA in `dir`, and creates or replaces none.
    ///
    /// # Errors
    /// There is none, it is that of another trust domain, or its files cannot be read or do not match.
    pub fn open(dir: &Path, trust_domain: &TrustDomain, clock: Clock) -> Result<Self, AuthorityError> {
        if !certificate_path(dir).exists() {
            return Err(AuthorityError::Missing { dir: dir.to_owned() });
        }
        let _lock = lock(dir)?;
        let stored = StoredCa::read(dir)?.ok_or_else(|| AuthorityError::Corrupt { dir: dir.to_owned() })?;
        if stored.trust_domain.as_ref() != Some(trust_domain) {
            return Err(AuthorityError::OtherTrustDomain {
                path: certificate_path(dir),
                requested: trust_domain.clone(),
            });
        }
        let StoredCa { not_after, issuer, .. } = stored;
        Ok(Self { dir: dir.to_owned(), domain: trust_domain.clone(), clock, not_after, issuer })
    }

    /// The path of the root certificate, which verifiers of this CA's certificates need.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        certificate_path(&self.dir)
    }

    /// How long the CA is valid still.
    #[must_use]
    pub fn remaining_lifetime(&self) -> TimeDelta {
        self.not_after - self.clock.now()
    }

    /// The trust domain of this CA.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Issues a certificate for the workload `name` with a new key: `NAME.pem` and `NAME.key`. It is valid for a day, but
    /// never longer than the CA.
    ///
    /// # Errors
    /// If the name is invalid or the files cannot be written.
    pub fn issue(&self, name: &str) -> Result<IdentityFiles, AuthorityError> {
        self.issue_with(&IssueOptions::new(name))
    }

    /// As [`Authority::issue`], with options.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_with(&self, options: &IssueOptions) -> Result<IdentityFiles, AuthorityError> {
        let name = options.name.as_str();
        if RESERVED_NAMES.contains(&name) {
            return Err(AuthorityError::ReservedName { name: name.to_owned() });
        }
        let domain = options.trust_domain.as_ref().unwrap_or(&self.domain);
        let id = SpiffeId::for_workload(domain, name)
            .map_err(|source| AuthorityError::Name { name: name.to_owned(), source })?;
        let now = self.clock.now();
        let mut params = leaf_params(name, &id)?;
        let not_before = options.not_before.unwrap_or(now - BACKDATING);
        let not_after = options.not_after.unwrap_or_else(|| self.not_after.min(now + LEAF_LIFETIME));
        set_validity(&mut params, not_before, not_after);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;

        let dir = options.dir.as_deref().unwrap_or(&self.dir);
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let issued = IdentityFiles {
            certificate: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
            bundle: self.certificate(),
        };
        write_pair(&issued.certificate, certificate.pem().as_bytes(), &issued.key, &key)?;
        Ok(issued)
    }
}

/// A CA as stored on disk.
struct StoredCa {
    trust_domain: Option<TrustDomain>,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
    /// The trusted roots; during a rotation more than one.
    roots: Vec<CertificateDer<'static>>,
    /// The position of the one that issues.
    issuing: usize,
}

impl StoredCa {
    /// `None` if there is no CA, or if its two files are corrupt or do not match.
    fn read(dir: &Path) -> Result<Option<Self>, AuthorityError> {
        let Some(certificate) = read_if_exists(&certificate_path(dir))? else { return Ok(None) };
        let Some(key) = read_if_exists(&key_path(dir))? else { return Ok(None) };
        Ok(Self::parse(&certificate, &key))
    }

    fn parse(certificates: &[u8], key: &[u8]) -> Option<Self> {
        let roots: Vec<_> = CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>().ok()?;
        let key = KeyPair::from_pem(std::str::from_utf8(key).ok()?).ok()?;
        let issuing = position_of(&roots, &key)?;
        let der = roots[issuing].clone();
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
        let names = certificate.subject_alternative_name().ok()?;
        let trust_domain = names.into_iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
            GeneralName::URI(uri) => uri.parse::<SpiffeId>().ok().map(|id| id.trust_domain().clone()),
            _ => None,
        });
        Some(Self {
            trust_domain,
            not_after: Timestamp::from_timestamp(certificate.validity().not_after.timestamp(), 0)?,
            issuer: Issuer::new(params_with_name(name), key),
            roots,
            issuing,
        })
    }

    /// The root of this key.
    fn root_of(&self, key: &KeyPair) -> Option<&CertificateDer<'static>> {
        position_of(&self.roots, key).map(|position| &self.roots[position])
    }
}

/// The position of the root with this key.
fn position_of(roots: &[CertificateDer<'_>], key: &KeyPair) -> Option<usize> {
    roots.iter().position(|root| {
        X509Certificate::from_der(root)
            .is_ok_and(|(_, root)| root.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
    })
}

/// Creates a CA, and replaces an earlier one.
fn create(
    dir: &Path,
    domain: &TrustDomain,
    now: Timestamp,
) -> Result<(Timestamp, Issuer<'static, KeyPair>), AuthorityError> {
    let NewRoot { not_after, params, certificate, key } = generate(domain, now)?;
    write_pair(&certificate_path(dir), certificate.pem().as_bytes(), &key_path(dir), &key)?;
    Ok((not_after, Issuer::new(params, key)))
}

/// A root that is not stored yet.
struct NewRoot {
    not_after: Timestamp,
    params: CertificateParams,
    certificate: Certificate,
    key: KeyPair,
}

fn generate(domain: &TrustDomain, now: Timestamp) -> Result<NewRoot, AuthorityError> {
    // Each CA has a unique name, so that an old one is not confused with its successor.
    let unique = Uuid::now_v7().simple().to_string();
    let mut params = params_with_name(&format!("{COMMON_NAME_PREFIX}{}", &unique[24..]));
    let not_after = now + CA_LIFETIME;
    set_validity(&mut params, now - BACKDATING, not_after);
    params.subject_alt_names = vec![SanType::URI(domain.id().as_str().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(NewRoot { not_after, params, certificate, key })
}

/// The parameters of a workload's certificate, except its validity.
pub(super) fn leaf_params(name: &str, id: &SpiffeId) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params_with_name(name);
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    for host in [name, "localhost"] {
        params.subject_alt_names.push(SanType::DnsName(host.try_into()?));
    }
    for address in ["127.0.0.1", "::1"].into_iter().filter_map(|address| address.parse().ok()) {
        params.subject_alt_names.push(SanType::IpAddress(address));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// Default parameters with this common name.
fn params_with_name(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// Sets the validity of a certificate, to the second.
pub(super) fn set_validity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |at: Timestamp| Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default());
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
}

/// Writes the key first: after a partial write, readers detect that the certificate does not match the key.
fn write_pair(certificate: &Path, pem: &[u8], key_path: &Path, key: &KeyPair) -> Result<(), AuthorityError> {
    let key = Zeroizing::new(key.serialize_pem());
    files::write(key_path, SECRET, key.as_bytes()).map_err(io_error(key_path))?;
    files::write(certificate, PUBLIC, pem).map_err(io_error(certificate))
}

/// Locks the directory while the CA is opened or created, so that concurrent starts create only one.
fn lock(dir: &Path) -> Result<fs::File, AuthorityError> {
    let path = dir.join(".lock");
    let open = || {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(io_error(&path))
}

/// A certificate in PEM (RFC 7468).
fn pem(der: &CertificateDer<'_>) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|&byte| char::from(byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn read_if_exists(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, AuthorityError> {
    match files::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path)(error)),
    }
}

fn certificate_path(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("ca.key")
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::Io { path, source }
}

#[cfg(test)]
mod tests;
