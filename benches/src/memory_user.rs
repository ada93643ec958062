//! The user service as it is, over a store that holds one account in memory.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone::{session::v1::session_service_client::SessionServiceClient, user::v1::User};
use drystone_mesh::{
    client::{Dialer, DialerConfig, Peers},
    clock::{Clock, Timestamp},
    health::Health,
    identity::Identity,
    node::Node,
    page::Page,
    server::Server,
    telemetry::Metrics,
    token::{Algorithm, Claims, KeySet, PublicKey, RevocationView, Verifier, VerifierConfig, new_token_id},
};
use drystone_user::{Account, DisplayName, Email, Error, NewAccount, Role, Roles, UserStore};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

const ISSUER: &str = "https://bench.example";
const AUDIENCE: &str = "drystone";
const KID: &str = "bench";

/// Serves until `stop`; answers the address, and a token of the account's user.
pub(crate) async fn serve(identity: Identity, stop: CancellationToken) -> Result<(SocketAddr, String)> {
    let clock = Clock::system();
    let account = account(&clock)?;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| anyhow!("no signing key"))?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;
    let keys = KeySet::new();
    keys.replace(vec![PublicKey::new(KID, Algorithm::Es256, key.public_key().as_ref())?]);
    let token = token(&key, account.id, clock.now())?;

    let (health, tasks) = (Health::new(), TaskTracker::new());
    let contracts = drystone::contracts()?;
    let metrics = Metrics::new(&contracts);
    let dialer = Dialer::new(DialerConfig {
        caller: "user",
        identity: identity.clone(),
        contracts: contracts.clone(),
        clock: clock.clone(),
        peers: Peers::from([("session".to_owned(), vec!["127.0.0.1:1".to_owned()])]),
        health: health.clone(),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    let revocations = RevocationView::new(clock.clone());
    revocations.apply(&[]);
    let node = Node {
        name: "user",
        identity,
        contracts: contracts.clone(),
        limits: drystone_mesh::limit::ClassLimits::default(),
        verifier: Verifier::new(VerifierConfig::new(ISSUER, AUDIENCE), keys, revocations, clock.clone()),
        clock: clock.clone(),
        metrics,
        health,
        dialer: dialer.clone(),
        stop: stop.clone(),
        tasks,
    };
    let service = drystone_user::Service::new(drystone_user::Deps {
        store: std::sync::Arc::new(OneAccount(account)),
        sessions: SessionServiceClient::new(dialer.channel("session")?),
        permissions: drystone_user::Permissions::of(&contracts),
        clock,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::new(&node)?.add_service(service.into_server());
    tokio::spawn(server.run(listener, stop));
    Ok((address, token))
}

/// What GetMe answers, more or less: the echo answers the same.
pub(crate) fn user_message() -> User {
    User {
        id: Uuid::now_v7().to_string(),
        email: "bench@example.com".to_owned(),
        display_name: "Bench".to_owned(),
        roles: vec!["member".to_owned()],
        etag: "1".to_owned(),
        create_time: Some(drystone_mesh::time::to_proto(Clock::system().now())),
        update_time: Some(drystone_mesh::time::to_proto(Clock::system().now())),
    }
}

fn account(clock: &Clock) -> Result<Account> {
    Ok(Account {
        id: Uuid::now_v7(),
        email: Email::parse("bench@example.com").context("the address")?,
        display_name: DisplayName::parse("Bench").context("the name")?,
        roles: Role::Member.into(),
        version: 1,
        created_at: clock.now(),
        updated_at: clock.now(),
    })
}

/// A token of the usual size, that outlives the run.
fn token(key: &EcdsaKeyPair, user: Uuid, now: Timestamp) -> Result<String> {
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: user,
        sid: Uuid::now_v7(),
        jti: new_token_id(now),
        client_id: Some("drystone".to_owned()),
        iat: now.timestamp(),
        exp: now.timestamp() + 3000,
        nbf: None,
        auth_time: now.timestamp(),
        amr: vec!["pwd".to_owned()],
        roles: vec!["member".to_owned()],
        perms: Vec::new(),
        props: (0..2).map(|_| (Uuid::now_v7().to_string(), "owner".to_owned())).collect(),
    };
    let header = serde_json::json!({ "alg": "ES256", "typ": "at+jwt", "kid": KID });
    let part = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
    let signed = format!("{}.{}", part(&serde_json::to_vec(&header)?), part(&serde_json::to_vec(&claims)?));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| anyhow!("no signature"))?;
    Ok(format!("{signed}.{}", part(signature.as_ref())))
}

/// Holds one account, and does not change.
struct OneAccount(Account);

#[async_trait]
impl UserStore for OneAccount {
    async fn create(&self, _new: NewAccount, _now: Timestamp) -> Result<Account, Error> {
        Err(Error::EmailTaken)
    }

    async fn find(&self, id: Uuid) -> Result<Option<Account>, Error> {
        Ok((self.0.id == id).then(|| self.0.clone()))
    }

    async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Error> {
        Ok((self.0.email.key() == email.key()).then(|| self.0.clone()))
    }

    async fn list(&self, _page: &Page) -> Result<Vec<Account>, Error> {
        Ok(vec![self.0.clone()])
    }

    async fn rename(
        &self,
        _id: Uuid,
        _name: &DisplayName,
        _version: Option<i64>,
        _now: Timestamp,
    ) -> Result<Option<Account>, Error> {
        Ok(None)
    }

    async fn set_roles(&self, _id: Uuid, _roles: Roles, _now: Timestamp) -> Result<Option<Account>, Error> {
        Ok(None)
    }
}
