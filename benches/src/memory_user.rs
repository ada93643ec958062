//! GetMe behind the full server stack, with the user in memory.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone::user::v1::{GetMeRequest, User, user_service_server::UserServiceServer};
use drystone_mesh::{
    call::Call,
    client::{Dialer, DialerConfig, Peers},
    clock::{Clock, Timestamp},
    health::Health,
    id,
    identity::Identity,
    node::Node,
    server::Server,
    telemetry::Metrics,
    token::{Algorithm, Claims, KeySet, PublicKey, RevocationView, TokenVerifier, TokenVerifierConfig},
};
use drystone_tests::PartialService;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};
use uuid::Uuid;

const ISSUER: &str = "https://bench.example";
const AUDIENCE: &str = "drystone";
const KID: &str = "bench";

/// Serves until `stop`; returns the address, and an access token of the user.
pub(crate) async fn serve(identity: Identity, stop: CancellationToken) -> Result<(SocketAddr, String)> {
    let clock = Clock::system();
    let user = user_message();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| anyhow!("no signing key"))?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;
    let keys = KeySet::new();
    keys.replace(vec![PublicKey::new(KID, Algorithm::Es256, key.public_key().as_ref())?]);
    let token = token(&key, user.id.parse()?, clock.now())?;

    let (health, tasks) = (Health::new(), TaskTracker::new());
    let contracts = drystone::contracts()?;
    let metrics = Metrics::new(&contracts);
    let dialer = Dialer::new(DialerConfig {
        caller: "user",
        identity: identity.clone(),
        contracts: contracts.clone(),
        clock: clock.clone(),
        peers: Peers::from([("session".to_owned(), vec!["127.0.0.1:1".to_owned()].into())]),
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
        server_limits: drystone_mesh::server::ServerLimits::default(),
        shadow_rules: drystone_mesh::access::ShadowRules::default(),
        verifier: TokenVerifier::new(TokenVerifierConfig::new(ISSUER, AUDIENCE), keys, revocations, clock.clone()),
        clock: clock.clone(),
        metrics,
        health,
        dialer: dialer.clone(),
        stop: stop.clone(),
        tasks,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::new(&node)?.add_service(service(user));
    tokio::spawn(server.run(listener, stop));
    Ok((address, token))
}

/// The response of GetMe and of the echo.
pub(crate) fn user_message() -> User {
    User {
        id: Uuid::now_v7().to_string(),
        email: "bench@example.com".to_owned(),
        display_name: "Bench".to_owned(),
        roles: vec!["member".to_owned()],
        create_time: Some(drystone_mesh::time::to_proto(Clock::system().now())),
        update_time: Some(drystone_mesh::time::to_proto(Clock::system().now())),
        ..User::default()
    }
}

/// An access token of typical size that does not expire during the run.
fn token(key: &EcdsaKeyPair, user: Uuid, now: Timestamp) -> Result<String> {
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: user,
        sid: Uuid::now_v7(),
        jti: id::v7_at(now),
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
    let segment = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
    let signed = format!("{}.{}", segment(&serde_json::to_vec(&header)?), segment(&serde_json::to_vec(&claims)?));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| anyhow!("cannot sign the token"))?;
    Ok(format!("{signed}.{}", segment(signature.as_ref())))
}

/// GetMe as the user service implements it, with the user in memory instead of a database.
fn service(user: User) -> PartialService<UserServiceServer<()>> {
    let user = Arc::new(user);
    PartialService::new().unary("GetMe", move |request: Request<GetMeRequest>| {
        let user = Arc::clone(&user);
        async move {
            let call = Call::of(&request)?;
            if call.principal()?.user_id.to_string() != user.id {
                return Err(Status::not_found("no such user"));
            }
            Ok(Response::new(User::clone(&user)))
        }
    })
}
