//! The development CA: makes a certificate for every workload of a mesh on one machine.
//!
//! It is for development and tests. Its key lies unencrypted beside the certificates, and who reads it is everybody.
//! In production the certificates come from SPIRE, cert-manager or a CA of your own; the profile is the same.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::TimeDelta;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use uuid::Uuid;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroizing;

use super::{
    credentials::IdentityFiles,
    files::{self, PUBLIC, SECRET},
    spiffe::{SpiffeId, SpiffeIdError, TrustDomain},
};
use crate::clock::{Clock, Timestamp};

const AUTHORITY_LIFE: TimeDelta = TimeDelta::days(30);
/// An authority with less than this to go is made anew, so that what it issues can live its day.
const AUTHORITY_REMAINDER: TimeDelta = TimeDelta::days(2);
const LEAF_LIFE: TimeDelta = TimeDelta::days(1);
/// How far certificates reach into the past, for clocks that are behind.
const BACKDATING: TimeDelta = TimeDelta::minutes(5);
const NAME_PREFIX: &str = "Drystone development CA ";

/// A CA of one trust domain, kept in a directory.
pub struct Authority {
    dir: PathBuf,
    domain: TrustDomain,
    clock: Clock,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

/// What to issue. The defaults are those of [`Authority::issue`]; tests ask for other things.
#[derive(Debug, Clone, Default)]
pub struct IssueOptions {
    /// The workload's name.
    pub name: String,
    /// Another trust domain than the authority's own.
    pub trust_domain: Option<TrustDomain>,
    /// When the certificate begins; five minutes ago by default.
    pub not_before: Option<Timestamp>,
    /// When it ends; a day from now by default.
    pub not_after: Option<Timestamp>,
    /// Where to write it; the authority's own directory by default.
    pub dir: Option<PathBuf>,
}

/// Why the development CA cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or directory cannot be read or written.
    #[error("cannot use {}: {source}; give another directory for the certificates, or let this user write there", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory holds the CA of another trust domain.
    #[error("{} holds the CA of another trust domain than {asked}; give another directory, or remove it to start anew", path.display())]
    OtherTrustDomain {
        /// The CA's certificate.
        path: PathBuf,
        /// The trust domain that was asked for.
        asked: TrustDomain,
    },
    /// The name cannot stand in a SPIFFE ID.
    #[error("`{name}` cannot be a workload's name: {source}")]
    Name {
        /// The name.
        name: String,
        /// The rule that it breaks.
        source: SpiffeIdError,
    },
    /// The name would overwrite the CA's own files.
    #[error("`ca` cannot be a workload's name: the CA's own files are called so")]
    ReservedName,
    /// The certificate could not be made.
    #[error("the certificate cannot be made: {0}")]
    Making(#[from] rcgen::Error),
}

impl IssueOptions {
    /// What [`Authority::issue`] makes for this workload.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

impl Authority {
    /// The CA that lies in `dir`, or a new one: `ca.pem` and `ca.key`. A CA that is about to end, or whose files do
    /// not fit together, is replaced; what it issued must then be issued anew.
    ///
    /// # Errors
    /// If the directory cannot be used, or belongs to another trust domain.
    pub fn open_or_create(dir: &Path, trust_domain: &TrustDomain, clock: Clock) -> Result<Self, AuthorityError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let _lock = lock(dir)?;
        let found = Found::in_dir(dir)?;
        if let Some(found) = &found
            && found.trust_domain.as_ref() != Some(trust_domain)
        {
            return Err(AuthorityError::OtherTrustDomain { path: certificate_path(dir), asked: trust_domain.clone() });
        }
        let (not_after, issuer) = match found {
            Some(found) if found.not_after - clock.now() >= AUTHORITY_REMAINDER => (found.not_after, found.issuer),
            _ => create(dir, trust_domain, clock.now())?,
        };
        Ok(Self { dir: dir.to_owned(), domain: trust_domain.clone(), clock, not_after, issuer })
    }

    /// The roots' file, to be given to whoever is to believe what this CA issues.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        certificate_path(&self.dir)
    }

    /// The trust domain that this CA vouches for.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Issues a certificate for the workload `name` with a new key: `NAME.pem` and `NAME.key`. It lives for a day,
    /// though never longer than the CA.
    ///
    /// # Errors
    /// If the name is invalid or the files cannot be written.
    pub fn issue(&self, name: &str) -> Result<IdentityFiles, AuthorityError> {
        self.issue_with(&IssueOptions::new(name))
    }

    /// As [`Authority::issue`], with some things otherwise.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_with(&self, options: &IssueOptions) -> Result<IdentityFiles, AuthorityError> {
        let name = options.name.as_str();
        if name == "ca" {
            return Err(AuthorityError::ReservedName);
        }
        let domain = options.trust_domain.as_ref().unwrap_or(&self.domain);
        let id = SpiffeId::for_workload(domain, name)
            .map_err(|source| AuthorityError::Name { name: name.to_owned(), source })?;
        let now = self.clock.now();
        let mut params = leaf_params(name, &id)?;
        let not_before = options.not_before.unwrap_or(now - BACKDATING);
        let not_after = options.not_after.unwrap_or_else(|| self.not_after.min(now + LEAF_LIFE));
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

/// A CA as it lies on disk.
struct Found {
    trust_domain: Option<TrustDomain>,
    not_after: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

impl Found {
    /// `None` if there is no CA, or none whose two files are whole and fit together.
    fn in_dir(dir: &Path) -> Result<Option<Self>, AuthorityError> {
        let Some(certificate) = read_if_there(&certificate_path(dir))? else { return Ok(None) };
        let Some(key) = read_if_there(&key_path(dir))? else { return Ok(None) };
        Ok(Self::parse(&certificate, &key))
    }

    fn parse(certificate: &[u8], key: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(certificate).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let key = KeyPair::from_pem(std::str::from_utf8(key).ok()?).ok()?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return None;
        }
        let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
        let names = certificate.subject_alternative_name().ok()?;
        let trust_domain = names.into_iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
            GeneralName::URI(uri) => uri.parse::<SpiffeId>().ok().map(|id| id.trust_domain().clone()),
            _ => None,
        });
        Some(Self {
            trust_domain,
            not_after: Timestamp::from_timestamp(certificate.validity().not_after.timestamp(), 0)?,
            issuer: Issuer::new(named(name), key),
        })
    }
}

fn create(
    dir: &Path,
    domain: &TrustDomain,
    now: Timestamp,
) -> Result<(Timestamp, Issuer<'static, KeyPair>), AuthorityError> {
    // Each CA has a name of its own, so that nothing confuses an old one with its successor.
    let unique = Uuid::now_v7().simple().to_string();
    let mut params = named(&format!("{NAME_PREFIX}{}", &unique[24..]));
    let not_after = now + AUTHORITY_LIFE;
    set_validity(&mut params, now - BACKDATING, not_after);
    params.subject_alt_names = vec![SanType::URI(domain.id().as_str().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    write_pair(&certificate_path(dir), certificate.pem().as_bytes(), &key_path(dir), &key)?;
    Ok((not_after, Issuer::new(params, key)))
}

/// All of a workload's certificate but its time.
pub(super) fn leaf_params(name: &str, id: &SpiffeId) -> Result<CertificateParams, rcgen::Error> {
    let mut params = named(name);
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

/// Parameters with this common name, and else the library's defaults.
fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// When a certificate begins and ends, to the second.
pub(super) fn set_validity(params: &mut CertificateParams, not_before: Timestamp, not_after: Timestamp) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |at: Timestamp| Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default());
    params.not_before = epoch + since(not_before);
    params.not_after = epoch + since(not_after);
}

/// The key goes first: where only half is written, the certificate that lies there is still that of the old key,
/// and readers see that the two do not fit.
fn write_pair(certificate: &Path, pem: &[u8], key_path: &Path, key: &KeyPair) -> Result<(), AuthorityError> {
    let key = Zeroizing::new(key.serialize_pem());
    files::write(key_path, SECRET, key.as_bytes()).map_err(io_error(key_path))?;
    files::write(certificate, PUBLIC, pem).map_err(io_error(certificate))
}

/// Held while the CA is looked for or made, so that two that start together make one.
fn lock(dir: &Path) -> Result<fs::File, AuthorityError> {
    let path = dir.join(".lock");
    let open = || {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(io_error(&path))
}

fn read_if_there(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, AuthorityError> {
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
