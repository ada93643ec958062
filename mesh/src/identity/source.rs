//! Where the certificate, the key and the roots of an identity come from.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use super::{bundle::TrustBundle, error::IdentityError, files, spiffe::TrustDomain, svid::Svid};

/// The paths of an identity's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFiles {
    /// The workload's certificate in PEM, followed by intermediates.
    pub certificate: PathBuf,
    /// Its private key in PEM. Only its owner may read the file, or root's group if root owns it.
    pub key: PathBuf,
    /// The roots of the workload's trust domain, concatenated PEM.
    pub bundle: PathBuf,
}

/// A certificate chain, its key and the roots, not verified yet.
pub struct UnverifiedCredentials {
    /// The leaf, then intermediates; at least one.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// The roots.
    pub bundle: TrustBundle,
    /// What errors name.
    pub origin: IdentityFiles,
}

impl fmt::Debug for UnverifiedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedCredentials").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// A source of credentials that can change.
pub trait CredentialSource: fmt::Debug + Send + Sync {
    /// Reads the current credentials.
    fn load(&self) -> BoxFuture<'_, Result<UnverifiedCredentials, IdentityError>>;

    /// Waits until the credentials may have changed since the last [`load`](Self::load). Cancel safe.
    fn changed(&self) -> BoxFuture<'_, ()>;
}

impl IdentityFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// If a file cannot be read, does not have the expected content, or is a key to which others have access.
    pub fn read(&self) -> Result<UnverifiedCredentials, IdentityError> {
        let chain = read_chain(&self.certificate)?;
        let key = read_key(&self.key)?;
        let svid = Svid::parse(&chain[0])
            .map_err(|source| IdentityError::Profile { path: self.certificate.clone(), source })?;
        let bundle = read_bundle(svid.id.trust_domain(), &self.bundle)?;
        Ok(UnverifiedCredentials { chain, key, bundle, origin: self.clone() })
    }
}

/// Files that are looked at in intervals: that works on every file system, and follows symbolic links that are swapped, as
/// those of secrets that Kubernetes mounts.
#[derive(Debug)]
pub struct WatchedFiles<F> {
    files: F,
    interval: Duration,
    /// The state of the files when they were read last.
    seen: Mutex<Vec<FileState>>,
}

/// Files to watch.
pub trait Files: fmt::Debug + Clone + Send + Sync + 'static {
    /// Their paths.
    fn paths(&self) -> Vec<&Path>;
}

/// How long files must stay the same before they are read: several are not replaced at once.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Files that never settle are read all the same.
const MAX_SETTLE_ROUNDS: u32 = 20;

/// What identifies the content of a file, without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FileState {
    Present { device: u64, inode: u64, size: u64, modified: (i64, i64), changed: (i64, i64) },
    Unreadable(io::ErrorKind),
}

impl FileState {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(data) => Self::Present {
                device: data.dev(),
                inode: data.ino(),
                size: data.len(),
                modified: (data.mtime(), data.mtime_nsec()),
                changed: (data.ctime(), data.ctime_nsec()),
            },
            Err(error) => Self::Unreadable(error.kind()),
        }
    }
}

impl<F: Files> WatchedFiles<F> {
    /// Looks at the files in this interval. The first look counts as a change: they may have been replaced since they were read
    /// at the start.
    #[must_use]
    pub fn new(files: F, interval: Duration) -> Self {
        Self { files, interval, seen: Mutex::default() }
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &F {
        &self.files
    }

    /// Reads the files, off the async threads. Their state is remembered before, so that a change in between is noticed.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&F) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let files = self.files.clone();
        let (state, outcome) = blocking(move || (states(&files), read(&files))).await;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = state;
        outcome
    }

    /// Waits until the files differ from when they were last read, and have settled.
    pub async fn changed(&self) {
        loop {
            tokio::time::sleep(self.interval).await;
            let mut current = self.states().await;
            if *self.seen.lock().unwrap_or_else(PoisonError::into_inner) == current {
                continue;
            }
            for _ in 0..MAX_SETTLE_ROUNDS {
                tokio::time::sleep(SETTLE_TIME).await;
                let settled = self.states().await;
                if settled == current {
                    break;
                }
                current = settled;
            }
            return;
        }
    }

    async fn states(&self) -> Vec<FileState> {
        let files = self.files.clone();
        blocking(move || states(&files)).await
    }
}

fn states(files: &impl Files) -> Vec<FileState> {
    files.paths().into_iter().map(FileState::of).collect()
}

/// Runs what may block, as a file on a network may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime stops, and with it the caller.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Files for IdentityFiles {
    fn paths(&self) -> Vec<&Path> {
        vec![&self.certificate, &self.key, &self.bundle]
    }
}

impl Files for PathBuf {
    fn paths(&self) -> Vec<&Path> {
        vec![self]
    }
}

impl CredentialSource for WatchedFiles<IdentityFiles> {
    fn load(&self) -> BoxFuture<'_, Result<UnverifiedCredentials, IdentityError>> {
        Box::pin(self.read(IdentityFiles::read))
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.changed())
    }
}

/// Reads a chain of at least one certificate.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    const WHAT: &str = "the certificate";
    let pem = files::read(path).map_err(|source| unreadable(WHAT, path, source))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content("a certificate", path, &error))?;
    if chain.is_empty() { Err(content("a certificate", path, &"it contains none")) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let pem = files::read_secret(path)
        .map_err(|source| unreadable("the private key", path, source))?
        .ok_or_else(|| IdentityError::ExposedKey { path: path.to_owned() })?;
    if is_encrypted(&pem) {
        return Err(IdentityError::EncryptedKey { path: path.to_owned() });
    }
    // The parser's error is not shown: it may quote the key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| content("a private key", path, &"it is not a private key in PEM"))
}

/// Whether a key is encrypted, as PKCS#8 (RFC 5958) or in the older PEM format (RFC 1421) of OpenSSL.
fn is_encrypted(pem: &[u8]) -> bool {
    let mut lines = pem.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    lines.any(|line| {
        line == b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
            || line.strip_prefix(b"Proc-Type:").is_some_and(|kind| kind.trim_ascii_start() == b"4,ENCRYPTED")
    })
}

fn read_bundle(domain: &TrustDomain, path: &Path) -> Result<TrustBundle, IdentityError> {
    let pem = files::read(path).map_err(|source| unreadable("the trust bundle", path, source))?;
    TrustBundle::from_pem(domain, &pem).map_err(|source| IdentityError::Bundle { path: path.to_owned(), source })
}

fn unreadable(what: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Read { what, path: path.to_owned(), source }
}

fn content(what: &'static str, path: &Path, reason: &impl ToString) -> IdentityError {
    IdentityError::Content { what, path: path.to_owned(), reason: reason.to_string() }
}
