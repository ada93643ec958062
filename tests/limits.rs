//! How often somebody may try to sign in or to register, with the limits of a mesh that nobody has configured.

use drystone::{
    Reason,
    auth::v1::{SignInRequest, auth_service_client::AuthServiceClient},
};
use drystone_backends::Redis;
use drystone_tests::{
    Answer, Mesh, User,
    grpc::{assert_refused, reason},
    unique_email,
};
use serde_json::json;

async fn sign_in(mesh: &Mesh, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password});
    // What a client says of where it comes from counts for nothing.
    let call = mesh.rest().post("/v1/auth/login", body).header("x-forwarded-for", &format!("192.0.2.{}", rand_byte()));
    call.header("x-drystone-client-address", "192.0.2.1").send().await
}

async fn register(mesh: &Mesh) -> Answer {
    let body = json!({"email": unique_email(), "password": "correct horse", "displayName": "Ada"});
    mesh.rest().post("/v1/auth/register", body).send().await
}

fn rand_byte() -> u8 {
    uuid::Uuid::now_v7().as_bytes()[15]
}

/// A refusal that says when to come back: at least `least` seconds from now, and at most `most`.
#[track_caller]
fn says_when(answer: Answer, least: u64, most: u64) {
    let answer = answer.refused(Reason::RateLimited);
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((least..=most).contains(&seconds), "{seconds}");
    assert!(answer.detail("google.rpc.RetryInfo").is_some(), "{answer:?}");
}

#[tokio::test]
async fn ten_sign_ins_a_minute_come_from_one_address_and_five_registrations() {
    ten_sign_ins_and_five_registrations(&Mesh::setup().limited().start()).await;
}

#[tokio::test]
async fn ten_sign_ins_a_minute_come_from_one_address_and_five_registrations_over_redis() {
    let server = Redis::shared();
    let prefix = server.prefix();
    let setup = || {
        let setup = Mesh::setup().limited().set("limits.store", "redis").set("redis.url", server.url());
        // What a test machine needs under load is no measure for a time limit.
        setup.set("redis.prefix", &prefix).set("redis.timeout", "1s")
    };
    let mesh = setup().start();
    ten_sign_ins_and_five_registrations(&mesh).await;
    // They are counted for all meshes with this Redis.
    let another = setup().start();
    says_when(sign_in(&another, &unique_email(), "whatever it is").await, 1, 6);
    says_when(register(&another).await, 1, 12);
}

async fn ten_sign_ins_and_five_registrations(mesh: &Mesh) {
    let user = User::register(mesh).await;
    for _ in 0..4 {
        register(mesh).await.expect(200);
    }
    says_when(register(mesh).await, 1, 12);

    let before = mesh.metrics().await.sum("drystone_hashing_seconds_count", &[]);
    for attempt in 0..10 {
        if attempt % 2 == 0 {
            sign_in(mesh, &user.email, &user.password).await.expect(200);
        } else {
            sign_in(mesh, &unique_email(), "whatever it is").await.refused(Reason::InvalidCredentials);
        }
    }
    says_when(sign_in(mesh, &user.email, &user.password).await, 1, 6);
    says_when(sign_in(mesh, &unique_email(), "whatever it is").await, 1, 6);

    let metrics = mesh.metrics().await;
    let hashed = metrics.sum("drystone_hashing_seconds_count", &[]) - before;
    assert!((hashed - 10.0).abs() < 0.1, "{hashed} were hashed, and those that were refused were not");
    assert!(metrics.sum("drystone_rate_limited_total", &[("limit", "sign_in_address")]) >= 2.0);
    assert!(metrics.sum("drystone_rate_limited_total", &[("limit", "registration_address")]) >= 1.0);
}

#[tokio::test]
async fn who_calls_without_a_front_door_is_limited_for_each_account_alone() {
    let mesh = Mesh::setup().limited().start();
    let user = User::register(&mesh).await;
    let client = AuthServiceClient::new(mesh.channel("auth", "operator"));
    let attempt = async |email: &str| {
        let request = SignInRequest { email: email.to_owned(), password: "not the password".to_owned() };
        client.clone().sign_in(request).await.map(drop)
    };
    for _ in 0..30 {
        assert_refused(attempt(&unique_email()).await, Reason::InvalidCredentials);
    }
    let mut refused = 0;
    for _ in 0..12 {
        refused += u32::from(reason(&attempt(&user.email).await.unwrap_err()) == Some(Reason::RateLimited));
    }
    assert!((1..=2).contains(&refused), "{refused} of twelve were refused");
}
