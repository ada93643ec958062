//! The first credentials of a process.

use std::{path::PathBuf, time::Duration};

use drystone_mesh::{
    error::Chain,
    identity::{CredentialSource as _, Identity, IdentityError},
};
use drystone_workload_api::WorkloadApiSource;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Status;

use crate::{
    AUTH, USER,
    agent::{Agent, X509Svid, context, endpoint},
    certificates::{Ca, bundle},
};

/// A machine with a directory for the socket of an agent.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn source(&self, id: &str) -> WorkloadApiSource {
        WorkloadApiSource::connect(endpoint(&self.socket()), id.parse().unwrap())
    }

    /// Why a start fails that does not wait longer than for the first answer.
    async fn failure(&self) -> IdentityError {
        let source = self.source(AUTH).with_start_timeout(Duration::ZERO);
        source.changed().await;
        source.load().await.map(drop).unwrap_err()
    }
}

#[tokio::test]
async fn the_first_context_gives_an_identity() {
    let (host, ca) = (Host::new(), Ca::new("one"));
    let _agent = Agent::issuing(&host.socket(), &[ca.svid(AUTH)]);
    let credentials = host.source(AUTH).load().await.unwrap();
    assert_eq!(credentials.origin.certificate.to_str().unwrap(), format!("{AUTH} from {}", endpoint(&host.socket())));
    // A handshake with itself is part of the verification.
    let identity = Identity::new(credentials).unwrap();
    assert_eq!(identity.id().as_str(), AUTH);
    assert!(identity.client_config(&USER.parse().unwrap()).is_ok());
    // Other trust domains are not trusted.
    assert!(identity.client_config(&"spiffe://other.test/service/user".parse().unwrap()).is_err());
}

#[tokio::test]
async fn of_several_certificates_each_service_takes_its_own() {
    let (host, ca, other) = (Host::new(), Ca::new("one"), Ca::new("other"));
    let mut elsewhere = ca.svid("spiffe://other.test/service/auth");
    elsewhere.bundle = other.der();
    let mut mislabelled = ca.svid(USER);
    mislabelled.spiffe_id = AUTH.to_owned();
    let mut answer = context(&[elsewhere, mislabelled, ca.svid("spiffe://drystone.test/service/auth2"), ca.svid(AUTH)]);
    answer.federated_bundles.insert("spiffe://other.test".to_owned(), bundle(&[&other]));
    answer.crl = vec![b"ignored".to_vec()];
    let _agent = Agent::start(&host.socket(), Ok(answer));
    for id in [AUTH, USER] {
        let identity = Identity::new(host.source(id).load().await.unwrap()).unwrap();
        assert_eq!(identity.id().as_str(), id);
        // The roots of others are not taken.
        assert!(identity.client_config(&"spiffe://other.test/service/user".parse().unwrap()).is_err());
    }
}

#[tokio::test]
async fn without_a_certificate_for_the_workload_the_error_says_how_to_register_it() {
    let (host, ca) = (Host::new(), Ca::new("one"));
    let agent = Agent::issuing(&host.socket(), &[ca.svid(USER)]);
    let answers = [
        (None, format!("it issues {USER};")),
        (Some(Ok(context(&[]))), "it issues none;".to_owned()),
        (Some(Err(Status::permission_denied("no identity issued"))), "no entry matches this process;".to_owned()),
        (Some(Err(Status::permission_denied("not on this node"))), "not on this node;".to_owned()),
        (Some(Ok(context(&vec![ca.svid(USER); 7]))), "and 3 more;".to_owned()),
    ];
    for (answer, expected) in answers {
        if let Some(answer) = answer {
            agent.answer(answer);
        }
        let error = host.failure().await;
        assert!(matches!(error, IdentityError::NotIssued { .. }), "{error:?}");
        let (text, start) = (error.to_string(), format!("the Workload API at {}", endpoint(&host.socket())));
        assert!(text.starts_with(&format!("{start} issues no certificate for {AUTH}: ")), "{text}");
        assert!(text.contains(&expected) && text.contains("register an entry with this SPIFFE ID"), "{text}");
    }
}

#[tokio::test]
async fn a_start_waits_for_the_agent_and_for_the_entry() {
    let (host, ca) = (Host::new(), Ca::new("one"));
    let source = host.source(AUTH);
    let mut load = source.load();
    assert!(timeout(Duration::from_millis(50), &mut load).await.is_err(), "there is no agent");
    let agent = Agent::start(&host.socket(), Err(Status::permission_denied("no identity issued")));
    let enter = async {
        agent.delivered(1).await;
        agent.issue(&[ca.svid(USER)]);
        agent.delivered(2).await;
        agent.issue(&[ca.svid(USER), ca.svid(AUTH)]);
    };
    let (loaded, ()) = tokio::join!(load, enter);
    assert_eq!(Identity::new(loaded.unwrap()).unwrap().id().as_str(), AUTH);
}

#[tokio::test]
async fn without_an_agent_the_error_names_the_socket_and_the_cause() {
    let host = Host::new();
    let error = host.failure().await;
    assert!(matches!(error, IdentityError::Unavailable { .. }), "{error:?}");
    let text = error.to_string();
    let start = format!("the Workload API at {} is unavailable: ", endpoint(&host.socket()));
    assert!(text.starts_with(&start) && text.contains("No such file or directory"), "{text}");
    assert!(text.ends_with("check that the agent runs, and that this process may open its socket"), "{text}");

    // A server that does not answer.
    let _listener = tokio::net::UnixListener::bind(host.socket()).unwrap();
    let source = host.source(AUTH).with_start_timeout(Duration::from_millis(50));
    let text = source.load().await.map(drop).unwrap_err().to_string();
    assert!(text.contains("no answer within 50ms"), "{text}");
}

#[tokio::test]
async fn a_context_that_is_malformed_or_too_large_is_refused() {
    let (host, ca) = (Host::new(), Ca::new("one"));
    let changed = |change: fn(&mut X509Svid)| {
        let mut svid = ca.svid(AUTH);
        change(&mut svid);
        vec![svid]
    };
    let roots: Vec<Ca> = (0..65).map(|number| Ca::new(&number.to_string())).collect();
    let mut with_many_roots = ca.svid(AUTH);
    with_many_roots.bundle = bundle(&roots.iter().collect::<Vec<_>>());
    let contexts = [
        (changed(|svid| svid.chain.truncate(100)), "failed to parse X.509 SVID"),
        (changed(|svid| svid.key = b"key".to_vec()), "PKCS#8"),
        (changed(|svid| svid.bundle.clear()), "X509SVID.bundle"),
        (changed(|svid| svid.bundle = svid.chain.clone()), "certificate 1 is not a CA certificate"),
        (vec![ca.svid(AUTH); 65], "65 certificates"),
        (vec![with_many_roots], "65 roots"),
    ];
    let agent = Agent::issuing(&host.socket(), &[]);
    for (svids, expected) in contexts {
        agent.issue(&svids);
        let error = host.failure().await;
        let text = Chain(&error).to_string();
        assert!(text.contains(expected), "{expected}: {text}");
        assert!(!matches!(error, IdentityError::Unavailable { .. }), "{error:?}");
    }
}
