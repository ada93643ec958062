//! One process for each service: outages and recovery of single services.

use drystone::Reason;
use drystone_tests::{
    Cluster, RestClient, RestResponse, Tokens, User,
    certs::{LeafParams, TRUST_DOMAIN},
    modules, wait,
};
use serde_json::json;

/// One process for each service, on embedded stores.
struct ServiceProcesses(Cluster);

impl ServiceProcesses {
    async fn start() -> Self {
        Self(Cluster::single_instances().await)
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

    fn rest(&self) -> RestClient {
        self.0.rest(0)
    }

    async fn sign_up(&self) -> (User, Tokens) {
        let user = User::register_at(self.rest()).await;
        let tokens = user.sign_in_at(self.rest()).await;
        (user, tokens)
    }

    async fn get(&self, path: &str, tokens: &Tokens) -> RestResponse {
        self.rest().get(path).bearer(&tokens.access).send().await
    }

    /// Waits until a path is answered with 200.
    async fn wait_until_served(&self, path: &str, tokens: &Tokens) {
        wait::until(path, async || (self.get(path, tokens).await.status == 200).then_some(())).await;
    }

    async fn sign_in(&self, user: &User) -> RestResponse {
        let body = json!({"email": user.email, "password": user.password});
        self.rest().post("/v1/auth/login", body).send().await
    }
}

#[tokio::test]
async fn the_user_journey_works_across_processes() {
    let services = ServiceProcesses::start().await;
    let (_, tokens) = services.sign_up().await;
    let body = json!({"displayName": "Barn"});
    services.rest().post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200);
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        services.get(path, &tokens).await.expect(200);
    }
    let tokens = tokens.refresh(services.rest()).await;
    services.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        services.get(path, &tokens).await.refused(Reason::TokenRevoked);
    }
    modules().into_iter().rev().for_each(|name| services.stop_one(name));
}

#[tokio::test]
async fn the_property_service_recovers_after_a_kill() {
    let services = ServiceProcesses::start().await;
    let (user, tokens) = services.sign_up().await;
    services.kill_one("property");
    services.get("/v1/properties", &tokens).await.refused(Reason::Unavailable);
    let during_outage = user.sign_in_at(services.rest()).await;
    services.get("/v1/users/me", &during_outage).await.expect(200);

    // The restarted service receives revocations from while it was down.
    services.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
    services.start_one("property");
    services.wait_until_served("/v1/properties", &during_outage).await;
    services.get("/v1/properties", &tokens).await.refused(Reason::TokenRevoked);
}

#[tokio::test]
async fn without_the_session_service_tokens_are_accepted_and_sign_in_fails() {
    let services = ServiceProcesses::start().await;
    let (user, tokens) = services.sign_up().await;
    let other = user.sign_in_at(services.rest()).await;
    services.stop_one("session");
    for path in ["/v1/users/me", "/v1/properties"] {
        services.get(path, &tokens).await.expect(200);
    }
    let answer = services.sign_in(&user).await.refused(Reason::Unavailable);
    assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    let body = json!({"refreshToken": tokens.refresh});
    services.rest().post("/v1/auth/refresh", body).send().await.refused(Reason::Unavailable);
    services.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.refused(Reason::Unavailable);

    services.start_one("session");
    services.wait_until_served("/v1/sessions", &tokens).await;
    // Every service watches revocations again.
    services.rest().post("/v1/auth/logout", json!({})).bearer(&other.access).send().await.expect(200);
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        let description = format!("{path} refuses the token");
        wait::until(&description, async || (services.get(path, &other).await.status == 401).then_some(())).await;
    }
    let refreshed = tokens.refresh(services.rest()).await;
    services.get("/v1/users/me", &refreshed).await.expect(200);
    services.sign_in(&user).await.expect(200);
}

#[tokio::test]
async fn without_the_auth_service_issued_tokens_are_accepted() {
    let services = ServiceProcesses::start().await;
    let (user, tokens) = services.sign_up().await;
    services.kill_one("auth");
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        services.get(path, &tokens).await.expect(200);
    }
    services.sign_in(&user).await.refused(Reason::Unavailable);
    services.start_one("auth");
    let signed_in = wait::until("sign-in succeeds", async || {
        let answer = services.sign_in(&user).await;
        (answer.status == 200).then(|| Tokens::of(&answer.json()))
    });
    services.get("/v1/users/me", &signed_in.await).await.expect(200);
}

#[tokio::test]
async fn the_user_service_keeps_its_data_and_receives_revocations_after_a_kill() {
    let services = ServiceProcesses::start().await;
    let (user, tokens) = services.sign_up().await;
    let ended = user.sign_in_at(services.rest()).await;
    services.kill_one("user");
    services.get("/v1/users/me", &tokens).await.refused(Reason::Unavailable);
    services.sign_in(&user).await.refused(Reason::Unavailable);
    services.rest().post("/v1/auth/logout", json!({})).bearer(&ended.access).send().await.expect(200);

    services.start_one("user");
    services.wait_until_served("/v1/users/me", &tokens).await;
    services.get("/v1/users/me", &ended).await.refused(Reason::TokenRevoked);
    services.sign_in(&user).await.expect(200);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_process_uses_transparent_huge_pages_but_for_password_hashes() {
    let services = Cluster::single_instances().await;
    for part in modules() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", services.process_id(part, 0))).unwrap();
        let enabled = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).map(str::trim);
        // Kernels before 5.0 do not report it. Auth switches them on while it allocates the memory of a hash.
        assert!(enabled.is_none_or(|enabled| enabled == "0"), "{part}: {enabled:?}");
    }
}

#[tokio::test]
async fn a_service_with_an_expired_certificate_is_unavailable_with_retry_after() {
    const CERTIFICATE_SECONDS: i64 = 15;
    let services = ServiceProcesses::start().await;
    let certs_dir = tempfile::tempdir().unwrap();
    let certificates = services.0.certificates();
    std::fs::copy(certificates.ca(), certs_dir.path().join("ca.pem")).unwrap();
    let leaf = LeafParams { validity: (-60, CERTIFICATE_SECONDS), ..LeafParams::of(TRUST_DOMAIN, "auth") };
    certificates.authority().issue_in(certs_dir.path(), "auth", &leaf);

    let auth = services.0.extra_instance("auth").set("certs_dir", certs_dir.path().to_str().unwrap()).start();
    let edge = services.0.extra_instance("edge").set("peers.auth", &auth.grpc_address("auth").to_string()).start();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_view_of_revocations_denies_what_needs_a_fresh_one_and_nothing_else() {
    let services = ServiceProcesses::start().await;
    let (user, tokens) = services.sign_up().await;
    services.get("/v1/users/me", &tokens).await.expect(200);
    services.kill_one("session");
    wait::until("health says that revocations are not heard of", async || {
        let health = services.0.health("user", 0).await;
        let component = &health["components"]["user token checks"];
        (component["state"] == "degraded").then_some(())
    })
    .await;

    // The token works where its rule asks for no more.
    services.get("/v1/users/me", &tokens).await.expect(200);
    let deletion = format!("/v1/users/{}", user.id);
    let answer = services.rest().delete(&deletion).bearer(&tokens.access).send().await;
    answer.refused(Reason::Unavailable);
    let labels = [("part", "fresh_revocations")];
    let denied = services.0.metrics("user", 0).await.sum("drystone_denials_total", &labels);
    assert!(denied >= 1.0, "{denied}");

    services.start_one("session");
    wait::until("the view is fresh again", async || {
        let health = services.0.health("user", 0).await;
        (health["components"]["user token checks"]["state"] == "up").then_some(())
    })
    .await;
    // The rest of the rule decides again.
    services.rest().delete(&deletion).bearer(&tokens.access).send().await.refused(Reason::PermissionMissing);
}
