//! Loading and replacing identities.

use std::{fs, os::unix::fs::PermissionsExt};

use chrono::{TimeDelta, Utc};
use tempfile::TempDir;

use super::*;
use crate::identity::{
    SvidError,
    testing::{TestCa, set_validity},
};

fn valid_files() -> (TempDir, TestCa, IdentityFiles) {
    let (dir, ca) = (TempDir::new().unwrap(), TestCa::new("drystone.test"));
    let files = ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]);
    (dir, ca, files)
}

fn load_error(files: &IdentityFiles) -> IdentityError {
    let error = Identity::load(files).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&files.certificate.parent().unwrap().display().to_string()),
        "does not name the file: {text}"
    );
    error
}

#[test]
fn valid_files_are_loaded() {
    let (_dir, ca, files) = valid_files();
    let identity = Identity::load(&files).unwrap();
    assert_eq!(identity.id().as_str(), "spiffe://drystone.test/service/auth");
    assert_eq!(identity.trust_domain(), ca.domain);
    assert_eq!(identity.svid().id, identity.id());
    assert!(Arc::ptr_eq(&identity.server_config(), &identity.server_config()));
}

#[test]
fn a_server_issues_no_tickets_and_accepts_no_early_data() {
    let (_dir, _ca, files) = valid_files();
    let config = Identity::load(&files).unwrap().server_config();
    assert_eq!(config.send_tls13_tickets, 0);
    assert_eq!(config.max_early_data_size, 0);
    assert!(!config.session_storage.can_cache());
    assert!(!config.ticketer.enabled());
    assert_eq!(config.alpn_protocols, [b"h2"]);
}

#[test]
fn the_error_names_a_missing_file() {
    for which in 0..3 {
        let (_dir, _ca, files) = valid_files();
        let path = [&files.certificate, &files.key, &files.bundle][which];
        fs::remove_file(path).unwrap();
        let error = load_error(&files);
        assert!(matches!(&error, IdentityError::Read { path: named, .. } if named == path), "{error}");
    }
}

#[test]
fn the_error_names_a_file_with_the_wrong_content() {
    for which in 0..3 {
        let (_dir, _ca, files) = valid_files();
        fs::write([&files.certificate, &files.key, &files.bundle][which], "something else").unwrap();
        match load_error(&files) {
            IdentityError::Content { path, .. } => assert_eq!(&path, [&files.certificate, &files.key][which]),
            IdentityError::Bundle { path, .. } => assert_eq!(path, files.bundle),
            other => panic!("unexpected: {other}"),
        }
    }
}

#[test]
fn a_key_that_other_users_can_read_is_rejected() {
    for mode in [0o604, 0o660, 0o601, 0o666] {
        let (_dir, _ca, files) = valid_files();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        let error = load_error(&files);
        assert!(matches!(error, IdentityError::ExposedKey { .. }), "{mode:o}: {error}");
        assert!(error.to_string().contains("chmod 600"));
    }
}

#[test]
fn an_encrypted_key_is_reported() {
    for pem in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHsMFcGCSqGSIb3DQEFDTBK\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,00\r\n\r\nMIHs\r\n-----END EC PRIVATE KEY-----\r\n",
    ] {
        let (_dir, _ca, files) = valid_files();
        fs::write(&files.key, pem).unwrap();
        let error = load_error(&files);
        assert!(matches!(error, IdentityError::EncryptedKey { .. }), "{error}");
        assert!(error.to_string().contains("openssl pkey -in") && error.to_string().contains("chmod 600"), "{error}");
    }
}

#[test]
fn a_key_of_another_certificate_is_rejected() {
    let (_dir, ca, files) = valid_files();
    let other = TempDir::new().unwrap();
    let other_files = ca.leaf("auth", |_| {}).write(other.path(), &[&ca]);
    let error = load_error(&IdentityFiles { key: other_files.key, ..files });
    assert!(matches!(error, IdentityError::KeyMismatch { .. }), "{error}");
}

#[test]
fn a_certificate_that_breaks_the_profile_is_rejected() {
    let (dir, ca, _) = valid_files();
    let files = ca.leaf("auth", |params| params.key_usages.clear()).write(dir.path(), &[&ca]);
    let error = load_error(&files);
    assert!(matches!(error, IdentityError::Profile { source: SvidError::KeyUsage, .. }), "{error}");
}

#[test]
fn an_untrusted_or_expired_certificate_is_rejected() {
    let (dir, ca, _) = valid_files();
    let other_ca = TestCa::new("drystone.test");
    let error = load_error(&ca.leaf("auth", |_| {}).write(dir.path(), &[&other_ca]));
    assert!(matches!(error, IdentityError::Untrusted { .. }), "{error}");

    let past = |params: &mut rcgen::CertificateParams| {
        set_validity(params, Utc::now() - TimeDelta::hours(2), Utc::now() - TimeDelta::hours(1));
    };
    let error = load_error(&ca.leaf("auth", past).write(dir.path(), &[&ca]));
    assert!(matches!(error, IdentityError::Untrusted { .. }), "{error}");
}

#[test]
fn a_failed_replacement_keeps_the_old_credentials() {
    let (_dir, ca, files) = valid_files();
    let identity = Identity::load(&files).unwrap();
    let (before, config) = (identity.svid(), identity.server_config());

    fs::write(&files.certificate, "broken").unwrap();
    files.read().and_then(|credentials| identity.replace(credentials)).unwrap_err();
    let other = TempDir::new().unwrap();
    let user = ca.leaf("user", |_| {}).write(other.path(), &[&ca]);
    let error = identity.replace(user.read().unwrap()).unwrap_err();
    assert!(matches!(error, IdentityError::WorkloadMismatch { .. }), "{error}");

    assert_eq!(identity.svid(), before);
    assert!(Arc::ptr_eq(&identity.server_config(), &config));
}

#[test]
fn a_replacement_is_visible_to_every_clone() {
    let (dir, ca, files) = valid_files();
    let identity = Identity::load(&files).unwrap();
    let clone = identity.clone();
    let before = identity.svid();
    identity.replace(ca.leaf("auth", |_| {}).write(dir.path(), &[&ca]).read().unwrap()).unwrap();
    assert_ne!(clone.svid().serial, before.serial);
    assert_eq!(clone.id(), before.id);
}

#[test]
fn connecting_to_a_trust_domain_without_roots_is_rejected() {
    let (_dir, _ca, files) = valid_files();
    let identity = Identity::load(&files).unwrap();
    let error = identity.client_config(&"spiffe://other.test/service/user".parse().unwrap()).unwrap_err();
    assert!(matches!(error, IdentityError::UntrustedDomain(_)), "{error}");
}
