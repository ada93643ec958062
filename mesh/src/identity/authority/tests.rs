//! The development CA.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::identity::{Identity, IdentityError, Svid};

fn domain() -> TrustDomain {
    "drystone.test".parse().unwrap()
}

fn open(dir: &Path, clock: &Clock) -> Authority {
    Authority::open_or_create(dir, &domain(), clock.clone()).unwrap()
}

fn content(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn svid(files: &IdentityFiles) -> Svid {
    Svid::parse(&CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap()
}

#[test]
fn an_issued_certificate_is_an_identity_valid_for_a_day() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::system();
    let files = open(dir.path(), &clock).issue("auth").unwrap();
    let identity = Identity::load(&files).unwrap();
    assert_eq!(identity.id().as_str(), "spiffe://drystone.test/service/auth");
    let lifetime = identity.svid().not_after - clock.now();
    assert!(TimeDelta::hours(23) < lifetime && lifetime <= TimeDelta::hours(24), "{lifetime}");
}

#[test]
fn only_the_owner_can_read_keys_and_everybody_can_read_certificates() {
    let dir = TempDir::new().unwrap();
    let files = open(dir.path(), &Clock::system()).issue("auth").unwrap();
    assert_eq!(mode(&files.key), 0o600);
    assert_eq!(mode(&dir.path().join("ca.key")), 0o600);
    assert_eq!(mode(&files.certificate), 0o644);
    assert_eq!(mode(&files.bundle), 0o644);
}

#[test]
fn leaf_and_ca_differ_in_name_and_key_identifier() {
    let dir = TempDir::new().unwrap();
    let files = open(dir.path(), &Clock::system()).issue("auth").unwrap();
    let [ca, leaf] = [&files.bundle, &files.certificate].map(|path| CertificateDer::from_pem_file(path).unwrap());
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();

    assert_ne!(ca.subject(), leaf.subject());
    assert_eq!(ca.subject(), leaf.issuer());
    let key_id = |certificate: &X509Certificate<'_>| {
        certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    };
    assert!(key_id(&ca).is_some() && key_id(&leaf).is_some());
    assert_ne!(key_id(&ca), key_id(&leaf));
    let constraints = leaf.basic_constraints().unwrap().expect("a leaf must have basic constraints");
    assert!(constraints.critical && !constraints.value.ca);
}

#[test]
fn a_reopened_ca_is_the_same_and_its_certificates_stay_valid() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::system();
    let before = open(dir.path(), &clock).issue("auth").unwrap();
    let root = content(&before.bundle);
    let after = open(dir.path(), &clock).issue("user").unwrap();
    assert_eq!(content(&after.bundle), root);
    Identity::load(&before).unwrap();
    Identity::load(&after).unwrap();
}

#[test]
fn the_ca_is_replaced_when_less_than_two_days_remain() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::manual(chrono::Utc::now());
    let day = Duration::from_hours(24);
    let root = content(&open(dir.path(), &clock).certificate());
    clock.advance(27 * day);
    assert_eq!(content(&open(dir.path(), &clock).certificate()), root);
    clock.advance(2 * day);
    assert_ne!(content(&open(dir.path(), &clock).certificate()), root);
}

#[test]
fn a_leaf_does_not_outlive_its_ca() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::manual(chrono::Utc::now());
    let authority = open(dir.path(), &clock);
    let end = authority.not_after;
    clock.advance(Duration::from_hours(30 * 24 - 1));
    assert!(svid(&authority.issue("auth").unwrap()).not_after <= end);
}

#[test]
fn a_ca_with_corrupt_files_is_replaced() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::system();
    open(dir.path(), &clock);
    for broken in ["ca.pem", "ca.key"] {
        fs::write(dir.path().join(broken), "broken").unwrap();
        Identity::load(&open(dir.path(), &clock).issue("auth").unwrap()).unwrap();
    }
}

#[test]
fn the_ca_of_another_trust_domain_is_not_overwritten() {
    let dir = TempDir::new().unwrap();
    let clock = Clock::system();
    let root = content(&open(dir.path(), &clock).certificate());
    let other = Authority::open_or_create(dir.path(), &"other.test".parse().unwrap(), clock);
    assert!(matches!(other, Err(AuthorityError::OtherTrustDomain { .. })));
    assert_eq!(content(&dir.path().join("ca.pem")), root);
}

#[test]
fn an_invalid_workload_name_is_rejected() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path(), &Clock::system());
    for name in ["", "..", "a/b", "../escape"] {
        assert!(matches!(authority.issue(name), Err(AuthorityError::Name { .. })), "{name}");
    }
    assert!(matches!(authority.issue("ca"), Err(AuthorityError::ReservedName { .. })));
}

#[test]
fn options_set_the_trust_domain_the_validity_and_the_directory() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let clock = Clock::system();
    let authority = open(dir.path(), &clock);
    let hour = TimeDelta::hours(1);
    let expired = IssueOptions {
        trust_domain: Some("other.test".parse().unwrap()),
        not_before: Some(clock.now() - hour * 2),
        not_after: Some(clock.now() - hour),
        dir: Some(other.path().join("deeper")),
        ..IssueOptions::new("auth")
    };
    let files = authority.issue_with(&expired).unwrap();
    assert!(files.certificate.starts_with(other.path()));
    assert_eq!(svid(&files).id.as_str(), "spiffe://other.test/service/auth");
    assert!(matches!(Identity::load(&files), Err(IdentityError::Untrusted { .. })));
}

#[test]
fn concurrent_starts_share_one_ca() {
    let dir = TempDir::new().unwrap();
    let roots: Vec<_> = std::thread::scope(|scope| {
        let open = || content(&open(dir.path(), &Clock::system()).certificate());
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
}

#[test]
fn the_error_names_an_unusable_directory() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Authority::open_or_create(&file, &domain(), Clock::system()).err().unwrap();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}
