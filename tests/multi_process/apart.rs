//! Services that run apart, each in a process of its own, and come and go.

use drystone::Reason;
use drystone_tests::{
    Answer, Cluster, Rest, Tokens, User,
    certs::{Leaf, TRUST_DOMAIN},
    parts, wait,
};
use serde_json::json;

/// One process of each, on embedded stores.
struct Apart(Cluster);

impl Apart {
    async fn start() -> Self {
        Self(Cluster::apart().await)
    }

    fn start_one(&self, name: &'static str) {
        self.0.start_one(name, 0);
    }

    fn stop_one(&self, name: &'static str) {
        self.0.stop_one(name, 0);
    }

    fn kill_one(&self, name: &'static str) {
        self.0.kill_one(name, 0);
    }

    fn rest(&self) -> Rest {
        self.0.rest(0)
    }

    async fn sign_up(&self) -> (User, Tokens) {
        let user = User::register_at(self.rest()).await;
        let tokens = user.sign_in_at(self.rest()).await;
        (user, tokens)
    }

    async fn get(&self, path: &str, tokens: &Tokens) -> Answer {
        self.rest().get(path).bearer(&tokens.access).send().await
    }

    /// Waits until a service answers again.
    async fn until_answered(&self, path: &str, tokens: &Tokens) {
        wait::until(path, async || (self.get(path, tokens).await.status == 200).then_some(())).await;
    }

    async fn sign_in(&self, user: &User) -> Answer {
        let body = json!({"email": user.email, "password": user.password});
        self.rest().post("/v1/auth/login", body).send().await
    }
}

#[tokio::test]
async fn the_whole_walk_works_across_processes() {
    let apart = Apart::start().await;
    let (_, tokens) = apart.sign_up().await;
    let body = json!({"displayName": "Barn"});
    apart.rest().post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200);
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        apart.get(path, &tokens).await.expect(200);
    }
    let tokens = tokens.refresh(apart.rest()).await;
    apart.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        apart.get(path, &tokens).await.refused(Reason::TokenRevoked);
    }
    parts().into_iter().rev().for_each(|name| apart.stop_one(name));
}

#[tokio::test]
async fn the_property_service_goes_and_comes_back() {
    let apart = Apart::start().await;
    let (user, tokens) = apart.sign_up().await;
    apart.kill_one("property");
    apart.get("/v1/properties", &tokens).await.refused(Reason::Unavailable);
    let meanwhile = user.sign_in_at(apart.rest()).await;
    apart.get("/v1/users/me", &meanwhile).await.expect(200);

    // What is revoked while it is away is known to it when it is back.
    apart.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
    apart.start_one("property");
    apart.until_answered("/v1/properties", &meanwhile).await;
    apart.get("/v1/properties", &tokens).await.refused(Reason::TokenRevoked);
}

#[tokio::test]
async fn without_the_session_service_tokens_work_and_nobody_signs_in() {
    let apart = Apart::start().await;
    let (user, tokens) = apart.sign_up().await;
    let other = user.sign_in_at(apart.rest()).await;
    apart.stop_one("session");
    for path in ["/v1/users/me", "/v1/properties"] {
        apart.get(path, &tokens).await.expect(200);
    }
    let answer = apart.sign_in(&user).await.refused(Reason::Unavailable);
    assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    let body = json!({"refreshToken": tokens.refresh});
    apart.rest().post("/v1/auth/refresh", body).send().await.refused(Reason::Unavailable);
    apart.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.refused(Reason::Unavailable);

    apart.start_one("session");
    apart.until_answered("/v1/sessions", &tokens).await;
    // Everybody listens again, so that a sign-out is known everywhere.
    apart.rest().post("/v1/auth/logout", json!({})).bearer(&other.access).send().await.expect(200);
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        let what = format!("{path} knows of the sign-out");
        wait::until(&what, async || (apart.get(path, &other).await.status == 401).then_some(())).await;
    }
    let refreshed = tokens.refresh(apart.rest()).await;
    apart.get("/v1/users/me", &refreshed).await.expect(200);
    apart.sign_in(&user).await.expect(200);
}

#[tokio::test]
async fn without_the_auth_service_tokens_that_are_there_work() {
    let apart = Apart::start().await;
    let (user, tokens) = apart.sign_up().await;
    apart.kill_one("auth");
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        apart.get(path, &tokens).await.expect(200);
    }
    apart.sign_in(&user).await.refused(Reason::Unavailable);
    apart.start_one("auth");
    let signed_in = wait::until("sign-in works again", async || {
        let answer = apart.sign_in(&user).await;
        (answer.status == 200).then(|| Tokens::of(&answer.json()))
    });
    apart.get("/v1/users/me", &signed_in.await).await.expect(200);
}

#[tokio::test]
async fn a_user_service_that_comes_back_has_forgotten_nothing() {
    let apart = Apart::start().await;
    let (user, tokens) = apart.sign_up().await;
    let ended = user.sign_in_at(apart.rest()).await;
    apart.kill_one("user");
    apart.get("/v1/users/me", &tokens).await.refused(Reason::Unavailable);
    apart.sign_in(&user).await.refused(Reason::Unavailable);
    apart.rest().post("/v1/auth/logout", json!({})).bearer(&ended.access).send().await.expect(200);

    apart.start_one("user");
    apart.until_answered("/v1/users/me", &tokens).await;
    apart.get("/v1/users/me", &ended).await.refused(Reason::TokenRevoked);
    apart.sign_in(&user).await.expect(200);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_hashes_nothing_does_without_huge_pages() {
    let apart = Cluster::apart().await;
    for part in parts() {
        let expected = if part == "auth" { "1" } else { "0" };
        let status = std::fs::read_to_string(format!("/proc/{}/status", apart.id(part, 0))).unwrap();
        let enabled = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).map(str::trim);
        // Kernels before 5.0 do not say.
        assert!(enabled.is_none_or(|enabled| enabled == expected), "{part}: {enabled:?}");
    }
}

#[tokio::test]
async fn with_an_expired_certificate_a_service_is_unavailable_and_its_clients_are_told_to_come_back() {
    const SECONDS: i64 = 15;
    let apart = Apart::start().await;
    let own = tempfile::tempdir().unwrap();
    let certificates = apart.0.certificates();
    std::fs::copy(certificates.ca(), own.path().join("ca.pem")).unwrap();
    let leaf = Leaf { validity: (-60, SECONDS), ..Leaf::of(TRUST_DOMAIN, "auth") };
    certificates.authority().issue_in(own.path(), "auth", &leaf);

    let auth = apart.0.one_more("auth").set("certs_dir", own.path().to_str().unwrap()).start();
    let edge = apart.0.one_more("edge").set("peers.auth", &auth.grpc_address("auth").to_string()).start();
    let user = User::register_at(edge.rest()).await;
    let sign_in = async || {
        let body = json!({"email": user.email, "password": user.password});
        edge.rest().post("/v1/auth/login", body).send().await
    };
    sign_in().await.expect(200);
    let refused = wait::until("the certificate has expired", async || {
        let answer = sign_in().await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    let refused = refused.refused(Reason::Unavailable);
    assert_eq!(refused.header("retry-after"), "1", "{refused:?}");
}
