//! Which sets of files are an identity, and what happens to the others.

use std::{fs, os::unix::fs::PermissionsExt};

use chrono::{TimeDelta, Utc};
use tempfile::TempDir;

use super::*;
use crate::identity::testing::{TestCa, set_validity};

fn set() -> (TempDir, TestCa, IdentityFiles) {
    let (dir, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
    let files = ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]);
    (dir, ca, files)
}

fn refusal(files: &IdentityFiles) -> IdentityError {
    let error = Identity::load(files).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&files.certificate.parent().unwrap().display().to_string()), "names no file: {text}");
    error
}

#[test]
fn a_whole_set_is_an_identity() {
    let (_dir, ca, files) = set();
    let identity = Identity::load(&files).unwrap();
    assert_eq!(identity.id().as_str(), "spiffe://drystone.test/service/auth");
    assert_eq!(identity.trust_domain(), ca.domain);
    assert_eq!(identity.svid().id, identity.id());
    assert!(Arc::ptr_eq(&identity.server_config(), &identity.server_config()));
}

#[test]
fn a_server_gives_nothing_away_that_outlives_the_certificates() {
    let (_dir, _ca, files) = set();
    let config = Identity::load(&files).unwrap().server_config();
    assert_eq!(config.send_tls13_tickets, 0);
    assert_eq!(config.max_early_data_size, 0);
    assert!(!config.session_storage.can_cache());
    assert!(!config.ticketer.enabled());
    assert_eq!(config.alpn_protocols, [b"h2"]);
}

#[test]
fn a_missing_file_is_named() {
    for which in 0..3 {
        let (_dir, _ca, files) = set();
        let path = [&files.certificate, &files.key, &files.bundle][which];
        fs::remove_file(path).unwrap();
        let error = refusal(&files);
        assert!(matches!(&error, IdentityError::Read { path: named, .. } if named == path), "{error}");
    }
}

#[test]
fn a_file_with_something_else_in_it_is_named() {
    for which in 0..3 {
        let (_dir, _ca, files) = set();
        fs::write([&files.certificate, &files.key, &files.bundle][which], "something else").unwrap();
        match refusal(&files) {
            IdentityError::Content { path, .. } => assert_eq!(&path, [&files.certificate, &files.key][which]),
            IdentityError::Bundle { path, .. } => assert_eq!(path, files.bundle),
            other => panic!("unexpected: {other}"),
        }
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    for mode in [0o640, 0o604, 0o660, 0o601] {
        let (_dir, _ca, files) = set();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        let error = refusal(&files);
        assert!(matches!(error, IdentityError::ExposedKey { .. }), "{mode:o}: {error}");
        assert!(error.to_string().contains("chmod 600"));
    }
}

#[test]
fn an_encrypted_key_is_said_to_be_so() {
    for pem in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHsMFcGCSqGSIb3DQEFDTBK\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,00\r\n\r\nMIHs\r\n-----END EC PRIVATE KEY-----\r\n",
    ] {
        let (_dir, _ca, files) = set();
        fs::write(&files.key, pem).unwrap();
        let error = refusal(&files);
        assert!(matches!(error, IdentityError::EncryptedKey { .. }), "{error}");
        assert!(error.to_string().contains("openssl pkey -in") && error.to_string().contains("chmod 600"), "{error}");
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (_dir, ca, files) = set();
    let other = TempDir::new().unwrap();
    let theirs = ca.leaf("auth", |_| {}).write(other.path(), &[&ca]);
    let error = refusal(&IdentityFiles { key: theirs.key, ..files });
    assert!(matches!(error, IdentityError::KeyMismatch { .. }), "{error}");
}

#[test]
fn an_invalid_certificate_is_refused() {
    let (dir, ca, _) = set();
    let files = ca.leaf("auth", |params| params.key_usages.clear()).write(dir.path(), &[&ca]);
    let error = refusal(&files);
    assert!(matches!(error, IdentityError::Profile { source: SvidError::KeyUsage, .. }), "{error}");
}

#[test]
fn a_certificate_that_no_peer_would_believe_is_refused() {
    let (dir, ca, _) = set();
    let stranger = TestCa::new("drystone.test");
    let error = refusal(&ca.leaf("auth", |_| {}).write(dir.path(), &[&stranger]));
    assert!(matches!(error, IdentityError::Unproven { .. }), "{error}");

    let past = |params: &mut rcgen::CertificateParams| {
        set_validity(params, Utc::now() - TimeDelta::hours(2), Utc::now() - TimeDelta::hours(1));
    };
    let error = refusal(&ca.leaf("auth", past).write(dir.path(), &[&ca]));
    assert!(matches!(error, IdentityError::Unproven { .. }), "{error}");
}

#[test]
fn a_bad_set_leaves_the_old_one_in_place() {
    let (_dir, ca, files) = set();
    let identity = Identity::load(&files).unwrap();
    let (before, config) = (identity.svid(), identity.server_config());

    fs::write(&files.certificate, "broken").unwrap();
    identity.replace(&files).unwrap_err();
    let other = TempDir::new().unwrap();
    let user = ca.leaf("user", |_| {}).write(other.path(), &[&ca]);
    let error = identity.replace(&user).unwrap_err();
    assert!(matches!(error, IdentityError::OtherWorkload { .. }), "{error}");

    assert_eq!(identity.svid(), before);
    assert!(Arc::ptr_eq(&identity.server_config(), &config));
}

#[test]
fn a_good_set_is_seen_by_every_clone() {
    let (dir, ca, files) = set();
    let identity = Identity::load(&files).unwrap();
    let clone = identity.clone();
    let before = identity.svid();
    identity.replace(&ca.leaf("auth", |_| {}).write(dir.path(), &[&ca])).unwrap();
    assert_ne!(clone.svid().serial, before.serial);
    assert_eq!(clone.id(), before.id);
}

#[test]
fn a_workload_of_a_domain_without_roots_cannot_be_dialled() {
    let (_dir, _ca, files) = set();
    let identity = Identity::load(&files).unwrap();
    let error = identity.client_config(&"spiffe://other.test/service/user".parse().unwrap()).unwrap_err();
    assert!(matches!(error, IdentityError::UntrustedDomain(_)), "{error}");
}
