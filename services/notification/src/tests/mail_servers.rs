//! Connections to mail servers: encryption, authentication, and how long they are kept.

use std::{fs, path::PathBuf};

use drystone::notification::v1::{DeliveryState, Recipient};
use drystone_backends::{Smtp, SmtpOptions, SmtpTls as ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::fixture::{Fixture, ada, reset, sqlite};
use crate::{SmtpConfig, SmtpTls};

/// A root, and a certificate of it for 127.0.0.1.
struct Certificates {
    directory: TempDir,
}

impl Certificates {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "mail test root");
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &root).unwrap();
        let write = |name: &str, text: String| fs::write(directory.path().join(name), text).unwrap();
        write("root.pem", root.pem());
        write("leaf.pem", leaf.pem());
        write("leaf.key", key.serialize_pem());
        Self { directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self, is_starttls: bool) -> Smtp {
        let (certificate, key) = (self.file("leaf.pem"), self.file("leaf.key"));
        let tls =
            if is_starttls { ServerTls::StartTls { certificate, key } } else { ServerTls::Tls { certificate, key } };
        Smtp::start(SmtpOptions { tls, require_auth: Some(("acme".to_owned(), "s3cret".to_owned())) })
    }
}

/// An instance that knows the root, the user and the password.
async fn instance(smtp: &Smtp, certificates: &Certificates, change: impl FnOnce(&mut SmtpConfig)) -> Fixture {
    let fixture = Fixture::new(sqlite().await).await;
    let (address, ca) = (smtp.address(), certificates.file("root.pem"));
    fixture
        .another(|config| {
            config.smtp = SmtpConfig {
                host: address.ip().to_string(),
                port: address.port(),
                username: "acme".to_owned(),
                password: "s3cret".to_owned().into(),
                from: "Acme <no-reply@acme.example>".to_owned(),
                ca,
                ..SmtpConfig::default()
            };
            change(&mut config.smtp);
        })
        .await
}

async fn attempt(instance: &Fixture, address: &str) -> (DeliveryState, String) {
    let request = reset(Recipient { email: address.to_owned(), ..ada() });
    let id = instance.send("auth", request).await.unwrap()[0].id.parse().unwrap();
    instance.attempt().await;
    let delivery: drystone::notification::v1::Delivery = instance.store.delivery(id).await.unwrap().unwrap().into();
    (delivery.state(), delivery.last_error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_are_sent_encrypted_and_authenticated() {
    let certificates = Certificates::new();
    for (is_starttls, tls) in [(true, SmtpTls::Starttls), (false, SmtpTls::Tls)] {
        let smtp = certificates.server(is_starttls);
        let instance = instance(&smtp, &certificates, |smtp| smtp.tls = tls).await;
        let (state, error) = attempt(&instance, "ada@example.com").await;
        assert_eq!((state, error.as_str()), (DeliveryState::Delivered, ""), "{tls:?}");
        let mail = smtp.wait_for_mail("ada@example.com").await;
        assert!(mail.is_tls && mail.user.as_deref() == Some("acme"));
    }
}

/// What is wrong with the server or the configuration costs no mail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_certificate_or_password_keeps_the_mail_in_the_queue() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    for (is_starttls, tls) in [(true, SmtpTls::Starttls), (false, SmtpTls::Tls)] {
        let smtp = certificates.server(is_starttls);
        let other_root = others.file("root.pem");
        let untrusting = instance(&smtp, &certificates, |smtp| (smtp.tls, smtp.ca) = (tls, other_root)).await;
        let (state, error) = attempt(&untrusting, "ada@example.com").await;
        assert_eq!(state, DeliveryState::Queued);
        assert!(error.contains("certificate") || error.contains("UnknownIssuer"), "{error}");

        let wrong = instance(&smtp, &certificates, |smtp| (smtp.tls, smtp.password) = (tls, "wrong".to_owned().into()));
        let (state, error) = attempt(&wrong.await, "ada@example.com").await;
        assert_eq!(state, DeliveryState::Queued);
        assert!(error.contains("535") && !error.contains("wrong"), "{error}");
        assert_eq!(smtp.mails().len(), 0);
    }
}

/// A password is never sent where somebody has removed STARTTLS from the server's answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_encryption_is_refused() {
    let certificates = Certificates::new();
    let smtp = Smtp::start(SmtpOptions::default());
    let instance = instance(&smtp, &certificates, |_| ()).await;
    let (state, error) = attempt(&instance, "ada@example.com").await;
    assert_eq!(state, DeliveryState::Queued);
    assert!(error.contains("STARTTLS"), "{error}");
    assert_eq!(smtp.mails().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_and_replaced_when_the_server_ends_them() {
    let smtp = Smtp::start(SmtpOptions::default());
    let certificates = Certificates::new();
    let plain = |smtp: &mut SmtpConfig| {
        *smtp =
            SmtpConfig { tls: SmtpTls::None, username: String::new(), password: String::new().into(), ..smtp.clone() };
    };
    let instance = instance(&smtp, &certificates, plain).await;
    for number in 0..10 {
        let (state, error) = attempt(&instance, &format!("ok-{number}@example.com")).await;
        assert_eq!((state, error.as_str()), (DeliveryState::Delivered, ""));
    }
    assert_eq!(smtp.connections(), 1);
    smtp.close_connections();
    let (state, error) = attempt(&instance, "ok@example.com").await;
    assert_eq!((state, error.as_str()), (DeliveryState::Delivered, ""), "a dead connection costs no attempt");
    // What is refused ends its connection, and no reply is taken for that of another mail.
    attempt(&instance, "permanent-1@example.com").await;
    let (state, _) = attempt(&instance, "ok-after@example.com").await;
    assert_eq!(state, DeliveryState::Delivered);
    assert_eq!(smtp.mails().len(), 12);
}
