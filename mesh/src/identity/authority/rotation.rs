//! The rotation of the root, in three steps, so that no connection fails on the way:
//!
//! 1. [`Add`](RotationStep::Add): a new root is trusted beside the old one, which still issues.
//! 2. [`Issue`](RotationStep::Issue): the new root issues, and every certificate in the directory is replaced. The old key is
//!    deleted.
//! 3. [`Remove`](RotationStep::Remove): the old root is no longer trusted.
//!
//! Between two steps every process has to read the files of the step before: the roots before it sees a certificate of the
//! new one, and its certificate before others distrust the old one.

use std::{fmt, fs, path::Path};

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};
use zeroize::Zeroizing;

use super::{
    Authority, AuthorityError, IssueOptions, StoredCa, certificate_path, generate, io_error, key_path, lock, pem,
    read_if_exists,
};
use crate::identity::{
    TrustBundle,
    files::{self, PUBLIC, SECRET},
    spiffe::TrustDomain,
    svid::Svid,
    verifier::{Usage, VerifyError, verify},
};

/// One step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationStep {
    /// Trust a new root as well.
    Add,
    /// Issue certificates from the new root.
    Issue,
    /// Trust the old roots no longer.
    Remove,
}

impl RotationStep {
    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Issue => "issue",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for RotationStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Authority {
    /// The next step of the rotation that is under way, or the first one.
    ///
    /// # Errors
    /// The CA's files cannot be read.
    pub fn next_rotation_step(&self) -> Result<RotationStep, AuthorityError> {
        next_step(&self.dir, &self.stored()?)
    }

    /// Takes one step. Returns the workloads whose certificates were replaced, which [`RotationStep::Issue`] does.
    ///
    /// # Errors
    /// [`AuthorityError::RotationOrder`] if it is not the next step, [`AuthorityError::InUse`] if a certificate in the directory is of a
    /// root that would be removed, and if files cannot be read or written.
    pub fn rotate(&mut self, step: RotationStep) -> Result<Vec<String>, AuthorityError> {
        let dir = self.dir.clone();
        let _lock = lock(&dir)?;
        let stored = self.stored()?;
        let next = next_step(&dir, &stored)?;
        if step != next {
            return Err(AuthorityError::RotationOrder { requested: step, next });
        }
        match step {
            RotationStep::Add => self.add_root(&stored).map(|()| Vec::new()),
            RotationStep::Issue => self.issue_from_new_root(),
            RotationStep::Remove => self.remove_old_roots(&stored).map(|()| Vec::new()),
        }
    }

    fn stored(&self) -> Result<StoredCa, AuthorityError> {
        StoredCa::read(&self.dir)?.ok_or_else(|| AuthorityError::Corrupt { dir: self.dir.clone() })
    }

    fn add_root(&self, stored: &StoredCa) -> Result<(), AuthorityError> {
        let root = generate(&self.domain, self.clock.now())?;
        let key = Zeroizing::new(root.key.serialize_pem());
        let (next_key, roots) = (next_key_path(&self.dir), certificate_path(&self.dir));
        // The key first: a new root without its key could never issue.
        files::write(&next_key, SECRET, key.as_bytes()).map_err(io_error(&next_key))?;
        let bundle = stored.roots.iter().chain([root.certificate.der()]).map(|root| pem(root)).collect::<String>();
        files::write(&roots, PUBLIC, bundle.as_bytes()).map_err(io_error(&roots))
    }

    fn issue_from_new_root(&mut self) -> Result<Vec<String>, AuthorityError> {
        let (next_key, key) = (next_key_path(&self.dir), key_path(&self.dir));
        fs::rename(&next_key, &key).map_err(io_error(&key))?;
        let stored = self.stored()?;
        (self.not_after, self.issuer) = (stored.not_after, stored.issuer);
        let names = self.workloads()?;
        for name in &names {
            self.issue_with(&IssueOptions::new(name))?;
        }
        Ok(names)
    }

    fn remove_old_roots(&self, stored: &StoredCa) -> Result<(), AuthorityError> {
        let issuing = pem(&stored.roots[stored.issuing]);
        let mut in_use = Vec::new();
        for name in self.workloads()? {
            if is_of_another_root(&self.dir.join(format!("{name}.pem")), &self.domain, &issuing)? {
                in_use.push(name);
            }
        }
        if !in_use.is_empty() {
            return Err(AuthorityError::InUse { names: in_use });
        }
        let roots = certificate_path(&self.dir);
        files::write(&roots, PUBLIC, issuing.as_bytes()).map_err(io_error(&roots))
    }

    /// The workloads of the trust domain with a certificate and a key in the directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn workloads(&self) -> Result<Vec<String>, AuthorityError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error(&self.dir))? {
            let path = entry.map_err(io_error(&self.dir))?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let is_pair =
                path.extension().is_some_and(|extension| extension == "pem") && path.with_extension("key").exists();
            if is_pair && self.is_certificate_of(&path, name)? {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whether a file has a certificate of this workload: others, such as of a public listener, are not ours to replace.
    fn is_certificate_of(&self, path: &Path, name: &str) -> Result<bool, AuthorityError> {
        let Some(content) = read_if_exists(path)? else { return Ok(false) };
        let svid = CertificateDer::from_pem_slice(&content).ok().and_then(|leaf| Svid::parse(&leaf).ok());
        Ok(svid.is_some_and(|svid| *svid.id.trust_domain() == self.domain && svid.id.workload() == Some(name)))
    }
}

fn next_step(dir: &Path, stored: &StoredCa) -> Result<RotationStep, AuthorityError> {
    // A key whose root is not in the bundle is of a first step that did not end.
    if let Some(key) = read_if_exists(&next_key_path(dir))?
        && let Some(key) = std::str::from_utf8(&key).ok().and_then(|key| KeyPair::from_pem(key).ok())
        && stored.root_of(&key).is_some()
    {
        return Ok(RotationStep::Issue);
    }
    Ok(if stored.roots.len() > 1 { RotationStep::Remove } else { RotationStep::Add })
}

/// Whether a certificate is valid, but not with this root alone.
fn is_of_another_root(path: &Path, domain: &TrustDomain, root: &str) -> Result<bool, AuthorityError> {
    let Some(content) = read_if_exists(path)? else { return Ok(false) };
    let Ok(leaf) = CertificateDer::from_pem_slice(&content) else { return Ok(false) };
    let Ok(bundle) = TrustBundle::from_pem(domain, root.as_bytes()) else { return Ok(false) };
    let verified = verify(&bundle, &leaf, &[], UnixTime::now(), Usage::Client);
    Ok(matches!(
        verified,
        Err(VerifyError::Chain {
            source: webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey,
            ..
        })
    ))
}

fn next_key_path(dir: &Path) -> std::path::PathBuf {
    dir.join("ca-next.key")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::{clock::Clock, identity::Identity};

    fn open(dir: &TempDir) -> Authority {
        Authority::open_or_create(dir.path(), &"drystone.test".parse().unwrap(), Clock::system()).unwrap()
    }

    fn roots(dir: &TempDir) -> usize {
        CertificateDer::pem_file_iter(certificate_path(dir.path())).unwrap().count()
    }

    #[test]
    fn every_certificate_is_valid_after_each_step_of_a_rotation() {
        let dir = TempDir::new().unwrap();
        let mut authority = open(&dir);
        let files = ["auth", "user"].map(|name| authority.issue(name).unwrap());
        let identity = Identity::load(&files[0]).unwrap();
        let old_root = fs::read_to_string(certificate_path(dir.path())).unwrap();

        assert_eq!(authority.next_rotation_step().unwrap(), RotationStep::Add);
        assert!(authority.rotate(RotationStep::Add).unwrap().is_empty());
        assert_eq!(roots(&dir), 2);
        identity.replace(files[0].read().unwrap()).unwrap();
        assert!(!identity.has_removed_root_since(0));
        // The old one still issues, also after a restart.
        let added = open(&dir).issue("property").unwrap();
        let serial = Identity::load(&added).unwrap().svid().serial.clone();

        assert_eq!(authority.next_rotation_step().unwrap(), RotationStep::Issue);
        assert_eq!(authority.rotate(RotationStep::Issue).unwrap(), ["auth", "property", "user"]);
        assert_ne!(Identity::load(&added).unwrap().svid().serial, serial);
        assert!(!next_key_path(dir.path()).exists());
        identity.replace(files[0].read().unwrap()).unwrap();

        assert_eq!(authority.next_rotation_step().unwrap(), RotationStep::Remove);
        authority.rotate(RotationStep::Remove).unwrap();
        assert_eq!(roots(&dir), 1);
        assert_ne!(fs::read_to_string(certificate_path(dir.path())).unwrap(), old_root);
        identity.replace(files[0].read().unwrap()).unwrap();
        assert!(identity.has_removed_root_since(2) && !identity.has_removed_root_since(3));
        Identity::load(&open(&dir).issue("session").unwrap()).unwrap();
        assert_eq!(authority.next_rotation_step().unwrap(), RotationStep::Add);
    }

    #[test]
    fn a_step_out_of_order_is_refused_and_changes_nothing() {
        let dir = TempDir::new().unwrap();
        let mut authority = open(&dir);
        for step in [RotationStep::Issue, RotationStep::Remove] {
            let error = authority.rotate(step).unwrap_err();
            assert!(matches!(error, AuthorityError::RotationOrder { next: RotationStep::Add, .. }), "{error}");
        }
        authority.rotate(RotationStep::Add).unwrap();
        for step in [RotationStep::Add, RotationStep::Remove] {
            let error = authority.rotate(step).unwrap_err();
            assert!(matches!(error, AuthorityError::RotationOrder { next: RotationStep::Issue, .. }), "{error}");
        }
        assert_eq!(roots(&dir), 2);
    }

    #[test]
    fn a_root_whose_certificates_are_in_use_is_not_removed() {
        let dir = TempDir::new().unwrap();
        let mut authority = open(&dir);
        let files = authority.issue("auth").unwrap();
        let old = [&files.certificate, &files.key].map(|path| fs::read(path).unwrap());
        authority.rotate(RotationStep::Add).unwrap();
        authority.rotate(RotationStep::Issue).unwrap();
        // As if the process had not got its new certificate.
        fs::write(&files.certificate, &old[0]).unwrap();
        fs::write(&files.key, &old[1]).unwrap();
        let error = authority.rotate(RotationStep::Remove).unwrap_err();
        assert!(matches!(&error, AuthorityError::InUse { names } if names == &["auth"]), "{error}");
        Identity::load(&files).unwrap();
        authority.issue("auth").unwrap();
        authority.rotate(RotationStep::Remove).unwrap();
    }

    #[test]
    fn other_files_in_the_directory_are_left_alone() {
        let dir = TempDir::new().unwrap();
        let mut authority = open(&dir);
        let files = authority.issue("auth").unwrap();
        // As if it were that of a public listener, and one with a name that no workload can have.
        for name in ["public", "no workload"] {
            fs::copy(&files.certificate, dir.path().join(format!("{name}.pem"))).unwrap();
            fs::copy(&files.key, dir.path().join(format!("{name}.key"))).unwrap();
        }
        let before = fs::read(dir.path().join("public.pem")).unwrap();
        authority.rotate(RotationStep::Add).unwrap();
        assert_eq!(authority.rotate(RotationStep::Issue).unwrap(), ["auth"]);
        authority.rotate(RotationStep::Remove).unwrap();
        assert_eq!(fs::read(dir.path().join("public.pem")).unwrap(), before);
        assert!(matches!(authority.issue("ca-next"), Err(AuthorityError::ReservedName { .. })));
    }

    #[test]
    fn only_a_ca_that_exists_is_opened() {
        let dir = TempDir::new().unwrap();
        let domain = "drystone.test".parse().unwrap();
        let open = || Authority::open(dir.path(), &domain, Clock::system()).map(drop);
        assert!(matches!(open(), Err(AuthorityError::Missing { .. })));
        Authority::open_or_create(dir.path(), &domain, Clock::system()).unwrap();
        open().unwrap();
        fs::write(certificate_path(dir.path()), "").unwrap();
        assert!(matches!(open(), Err(AuthorityError::Corrupt { .. })));
    }

    #[test]
    fn a_first_step_that_did_not_end_is_taken_again() {
        let dir = TempDir::new().unwrap();
        let mut authority = open(&dir);
        fs::write(next_key_path(dir.path()), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert_eq!(authority.next_rotation_step().unwrap(), RotationStep::Add);
        authority.rotate(RotationStep::Add).unwrap();
        assert_eq!(authority.next_rotation_step().unwrap(), RotationStep::Issue);
    }
}
