//! Sign-in reveals nothing about accounts, and upgrades and bounds password hashing.

use drystone::Reason;
use drystone_tests::{Mesh, RestResponse, User, logs, unique_email, wait};
use serde_json::{Value, json};

/// How many passwords have been hashed.
const HASHES: &str = "drystone_password_hash_duration_seconds_count";

async fn sign_in(mesh: &Mesh, email: &str, password: &str) -> RestResponse {
    mesh.rest().post("/v1/auth/login", json!({"email": email, "password": password})).send().await
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_password_get_identical_responses() {
    let mesh = Mesh::shared();
    let user = User::register(mesh).await;
    let wrong = sign_in(mesh, &user.email, "not the password").await.refused(Reason::InvalidCredentials);
    let unknown = sign_in(mesh, &unique_email(), &user.password).await.refused(Reason::InvalidCredentials);
    let no_address = sign_in(mesh, "nobody", &user.password).await.refused(Reason::InvalidCredentials);
    let names = |answer: &RestResponse| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
    for other in [&unknown, &no_address] {
        assert_eq!(other.body, wrong.body, "the bodies are identical");
        assert_eq!(other.status, wrong.status);
        assert_eq!(names(other), names(&wrong));
    }
}

/// The crate of auth tests that attempts are counted by the same normal form.
#[tokio::test]
async fn every_spelling_of_an_address_signs_in_to_one_account() {
    let mesh = Mesh::shared();
    let name = unique_email().to_lowercase();
    let (local, domain) = name.split_once('@').unwrap();
    let registered = format!("{}@{domain}", local.to_uppercase());
    let body = json!({"email": registered, "password": "correct horse", "displayName": "Ada"});
    mesh.rest().post("/v1/auth/register", body).send().await.expect(200);

    let spellings = [
        registered.clone(),
        name.clone(),
        name.to_uppercase(),
        format!("{local}@{}", domain.to_uppercase()),
        format!(" {name}"),
        format!("{name}\t"),
        format!("\u{3000}{name}\n"),
        format!("  {}  ", name.to_uppercase()),
    ];
    let mut accounts = Vec::new();
    for spelling in &spellings {
        let tokens = sign_in(mesh, spelling, "correct horse").await.expect(200).json();
        accounts.push(tokens["userId"].as_str().unwrap().to_owned());
    }
    accounts.dedup();
    assert_eq!(accounts.len(), 1, "{accounts:?}");
}

/// Equal work (one hash, the same upstream calls) means that response times do not reveal which accounts exist.
#[tokio::test]
async fn an_unknown_address_and_a_wrong_password_cost_the_same() {
    // Its own mesh, since the counters must not include other tests.
    let mesh = Mesh::start();
    let user = User::register(&mesh).await;
    let cost = async |email: &str| {
        let work = async || {
            let metrics = mesh.metrics().await;
            let lookups = metrics.sum("drystone_calls_total", &[("method", "LookUpForSignIn")]);
            let claims = metrics.sum("drystone_calls_total", &[("method", "ListPropertyClaims")]);
            (metrics.sum(HASHES, &[]), lookups, claims)
        };
        let before = work().await;
        for _ in 0..5 {
            sign_in(&mesh, email, "not the password").await.refused(Reason::InvalidCredentials);
        }
        // A call to the property service is counted when it ends, possibly after the response of sign-in.
        wait::until("five calls are counted", async || (work().await.2 >= before.2 + 5.0).then_some(())).await;
        let after = work().await;
        (after.0 - before.0, after.1 - before.1, after.2 - before.2)
    };
    assert_eq!(cost(&user.email).await, (5.0, 5.0, 5.0));
    assert_eq!(cost(&unique_email()).await, (5.0, 5.0, 5.0));
}

#[tokio::test]
async fn an_old_hash_is_upgraded_at_sign_in() {
    let cheap = |memory: &str| Mesh::setup().set("auth.password.memory_kib", memory).set("log.format", "json");
    let mesh = cheap("1024").start();
    let user = User::register(&mesh).await;
    let mesh = cheap("2048").home(mesh.stop()).start();
    let is_upgrade = |event: &Value| event["message"] == "password hash upgraded";
    user.sign_in(&mesh).await;
    wait::until("the hash is upgraded", async || logs::events(&mesh.log()).iter().any(is_upgrade).then_some(())).await;
    sign_in(&mesh, &user.email, "not the password").await.refused(Reason::InvalidCredentials);

    // The hash is upgraded once.
    let mesh = cheap("2048").home(mesh.stop()).start();
    user.sign_in(&mesh).await;
    user.sign_in(&mesh).await;
    let home = mesh.stop();
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert_eq!(logs::events(&log).iter().filter(|event| is_upgrade(event)).count(), 1);
}

#[tokio::test]
async fn a_full_hashing_queue_is_answered_with_overloaded_and_retry_after() {
    let mesh = Mesh::setup().set("auth.hashing.threads", "1").set("auth.hashing.queue_per_thread", "1").start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let body = json!({"email": user.email, "password": user.password});
    let rest = mesh.rest();
    let all: Vec<_> = (0..24).map(|_| tokio::spawn(rest.post("/v1/auth/login", body.clone()).send())).collect();
    let (mut signed_in, mut refused) = (0, 0);
    for one in all {
        let answer = one.await.unwrap();
        if answer.status == 200 {
            signed_in += 1;
        } else {
            let answer = answer.refused(Reason::Overloaded);
            assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{answer:?}");
            refused += 1;
        }
    }
    assert!(signed_in > 0 && refused > 0, "{signed_in} signed in, {refused} were refused");
    // Calls with an access token are not affected.
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
}

#[tokio::test]
async fn a_password_is_matched_exactly() {
    let mesh = Mesh::shared();
    let longest: String = "а long sentence, with 🔑 and 密码. ".chars().cycle().take(256).collect();
    for password in ["пароль 密码 🔑", "  three spaces  ", "\"quotes\" \\ and <tags>", &longest] {
        let email = unique_email();
        let body = json!({"email": email, "password": password, "displayName": "Ada"});
        mesh.rest().post("/v1/auth/register", body).send().await.expect(200);
        sign_in(mesh, &email, password).await.expect(200);
        for other in [
            password.trim(),
            &password.to_uppercase(),
            &password[..password.len() - password.chars().last().unwrap().len_utf8()],
        ] {
            if other != password {
                sign_in(mesh, &email, other).await.refused(Reason::InvalidCredentials);
            }
        }
    }
}

/// The maximum length in the contract, in code points: accounts of earlier releases may have such a password.
#[tokio::test]
async fn a_password_of_1024_code_points_is_checked_and_a_longer_one_is_refused() {
    let mesh = Mesh::shared();
    let user = User::register(mesh).await;
    for character in ["\u{e9}", "\u{5bc6}", "\u{1f511}"] {
        sign_in(mesh, &user.email, &character.repeat(1024)).await.refused(Reason::InvalidCredentials);
        let answer = sign_in(mesh, &user.email, &character.repeat(1025)).await.refused(Reason::InvalidRequest);
        assert_eq!(answer.fields(), ["password"], "{}", answer.text());
    }
}
