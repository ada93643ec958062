//! Roles and permissions: who gets what, at once, and nobody more than they may give.

use std::time::{Duration, Instant, SystemTime};

use drystone::{
    Reason,
    user::v1::{
        BatchCheckRequest, CheckPermissionRequest, GrantRoleRequest, ListRolesRequest, Permission,
        RegisterPermissionsRequest, role_service_client::RoleServiceClient,
    },
};
use drystone_tests::{
    User,
    grpc::{assert_refused, with_token},
};
use serde_json::{Value, json};

use crate::journey::Journey;

#[tokio::test]
async fn the_first_administrator_is_promoted_by_the_operator() {
    let journey = Journey::start();
    let (user, tokens) = journey.user(&[]).await;
    let output = journey.operator(&["users", "promote", &user.email.to_uppercase()]);
    assert!(output.stdout.ends_with("has the role `admin`; access tokens from before are void\n"), "{output:?}");
    journey.get("/v1/users/me", &tokens).await.refused(Reason::TokenRevoked);
    let tokens = tokens.refresh(journey.mesh.rest()).await;
    journey.get("/v1/roles", &tokens).await.expect(200);

    let shown = journey.operator(&["users", "show", &user.email]);
    assert!(shown.stdout.contains("admin, granted by operator on "), "{shown:?}");
    let json = journey.operator(&["users", "show", &user.id, "--json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["roles"], json!(["admin", "member"]));
    assert!(json["permissions"].as_array().unwrap().contains(&json!("roles:grant")));
    let listed = journey.operator(&["users", "list"]);
    assert!(listed.stdout.contains(&user.email) && listed.stdout.contains("admin member"), "{listed:?}");
    let roles = journey.operator(&["roles", "list", "--json"]);
    let roles: Value = serde_json::from_str(&roles.stdout).unwrap();
    assert_eq!(roles[0]["name"], "admin");
    let role = journey.operator(&["roles", "show", "manager"]);
    assert!(role.stdout.contains("roles:grant"), "{role:?}");
    // The last administrator stays, and so does an unknown user.
    let last = journey.operator(&["roles", "revoke", &user.email, "admin"]);
    assert!(last.status.code() == Some(1) && last.stderr.contains("LAST_ADMINISTRATOR"), "{last:?}");
    let unknown = journey.operator(&["users", "promote", "nobody@example.com"]);
    assert!(unknown.status.code() == Some(1) && unknown.stderr.contains("USER_NOT_FOUND"), "{unknown:?}");
    let (other, _) = journey.user(&["admin"]).await;
    let revoked = journey.operator(&["roles", "revoke", &other.id, "admin"]);
    assert!(revoked.status.success(), "{revoked:?}");
}

#[tokio::test]
async fn a_role_is_created_granted_changed_and_deleted() {
    let journey = Journey::start();
    let (_, admin) = journey.user(&["admin"]).await;
    let (user, tokens) = journey.user(&[]).await;
    let role =
        json!({"name": "support", "description": "Reads accounts.", "level": 200, "permissions": ["users:read"]});
    let created = journey.post("/v1/roles", role.clone(), &admin).await.expect(200).json();
    assert_eq!((&created["permissions"], created.get("builtIn")), (&json!(["users:read"]), Some(&json!(false))));
    journey.post("/v1/roles", role, &admin).await.refused(Reason::RoleExists);
    journey.get("/v1/users", &tokens).await.refused(Reason::PermissionMissing);

    let grant = journey.of_user("grantRole", &user, json!({"role": "support"}), &admin).await.expect(200).json();
    assert_eq!(grant["role"], "support");
    journey.get("/v1/users/me", &tokens).await.refused(Reason::TokenRevoked);
    let tokens = tokens.refresh(journey.mesh.rest()).await;
    journey.get("/v1/users", &tokens).await.expect(200);

    // A change of the role concerns all who have it, at once.
    let etag = &created["etag"];
    let changed = json!({"permissions": ["roles:read"], "etag": etag});
    journey.patch("/v1/roles/support", changed.clone(), &admin).await.expect(200);
    journey.patch("/v1/roles/support", changed, &admin).await.refused(Reason::StaleEtag);
    journey.get("/v1/users/me", &tokens).await.refused(Reason::TokenRevoked);
    let tokens = tokens.refresh(journey.mesh.rest()).await;
    journey.get("/v1/users", &tokens).await.refused(Reason::PermissionMissing);
    journey.get("/v1/roles/support", &tokens).await.expect(200);

    // Who lacks a permission is told why by the derivation.
    let path = format!("/v1/users/{}/permissions", user.id);
    let deny = json!({"permission": "roles:read", "effect": "OVERRIDE_EFFECT_DENY", "reason": "On leave."});
    journey.of_user("setOverride", &user, deny, &admin).await.expect(200);
    let tokens = tokens.refresh(journey.mesh.rest()).await;
    journey.get("/v1/roles", &tokens).await.refused(Reason::PermissionMissing);
    let effective = journey.get(&path, &tokens).await.expect(200).json();
    let denied = effective["permissions"].as_array().unwrap().iter().find(|one| one["permission"] == "roles:read");
    let denied = denied.unwrap();
    assert_eq!(denied["granted"], false);
    let derivation = denied["derivation"].to_string();
    assert!(derivation.contains("support, granted by") && derivation.contains("On leave."), "{derivation}");
    journey.of_user("removeOverride", &user, json!({"permission": "roles:read"}), &admin).await.expect(200);

    journey.delete("/v1/roles/support", &admin).await.refused(Reason::RoleInUse);
    journey.delete("/v1/roles/support?force=true", &admin).await.expect(200);
    journey.get("/v1/roles/support", &admin).await.refused(Reason::RoleNotFound);
    let tokens = tokens.refresh(journey.mesh.rest()).await;
    assert_eq!(journey.get("/v1/users/me", &tokens).await.expect(200).json()["roles"], json!(["member"]));
    journey.get(&path, &tokens).await.expect(200);
}

/// Each refusal is by what the user may do now, whatever their token says.
#[tokio::test]
async fn nobody_gets_more_than_others_may_give() {
    let journey = Journey::start();
    let (admin, admin_tokens) = journey.user(&["admin"]).await;
    let (manager, tokens) = journey.user(&["manager"]).await;
    let (user, user_tokens) = journey.user(&[]).await;
    for (name, level) in [("reader", 100), ("boss", 600)] {
        let role = json!({"name": name, "level": level, "permissions": ["users:read"]});
        journey.post("/v1/roles", role, &admin_tokens).await.expect(200);
    }
    let unknown = json!({"name": "keeper", "level": 300, "permissions": ["users:gone"]});
    journey.post("/v1/roles", unknown, &admin_tokens).await.refused(Reason::InvalidRequest);
    let exceeded = Reason::AuthorityExceeded;
    for (verb, whom, body, reason) in [
        ("grantRole", &user, json!({"role": "admin"}), exceeded),
        ("grantRole", &user, json!({"role": "boss"}), exceeded),
        ("grantRole", &user, json!({"role": "manager"}), exceeded),
        ("grantRole", &manager, json!({"role": "reader"}), exceeded),
        ("grantRole", &admin, json!({"role": "reader"}), exceeded),
        ("revokeRole", &admin, json!({"role": "admin"}), exceeded),
        ("revokeRole", &manager, json!({"role": "manager"}), exceeded),
        ("setOverride", &admin, json!({"permission": "users:read", "effect": "OVERRIDE_EFFECT_DENY"}), exceeded),
        ("setOverride", &manager, json!({"permission": "users:read", "effect": "OVERRIDE_EFFECT_GRANT"}), exceeded),
        (
            "setOverride",
            &user,
            json!({"permission": "users:gone", "effect": "OVERRIDE_EFFECT_GRANT"}),
            Reason::InvalidRequest,
        ),
        ("grantRole", &user, json!({"role": "member"}), Reason::InvalidRequest),
        ("grantRole", &user, json!({"role": "gone"}), Reason::RoleNotFound),
        ("grantRole", &user, json!({"role": "reader", "expireTime": "2020-01-01T00:00:00Z"}), Reason::InvalidRequest),
        ("grantRole", &user, json!({"role": "Reader"}), Reason::InvalidRequest),
    ] {
        let refused = journey.of_user(verb, whom, body.clone(), &tokens).await;
        assert_eq!(refused.reason(), reason.name(), "{verb} {body}: {}", refused.text());
    }
    for (role, reason) in [
        (json!({"name": "new", "level": 500}), exceeded),
        (json!({"name": "new", "level": 1000}), exceeded),
        (json!({"name": "new", "level": 0}), Reason::InvalidRequest),
        (json!({"name": "new", "level": 5, "inherits": ["gone"]}), Reason::InvalidRequest),
        (json!({"name": "new", "level": 5, "inherits": ["new"]}), Reason::InvalidRequest),
        (json!({"name": "new", "level": 5, "inherits": ["reader"]}), Reason::InvalidRequest),
        (json!({"name": "2nd", "level": 5}), Reason::InvalidRequest),
    ] {
        let refused = journey.post("/v1/roles", role.clone(), &tokens).await;
        assert_eq!(refused.reason(), reason.name(), "{role}: {}", refused.text());
    }
    for name in ["admin", "boss", "manager", "member"] {
        let refused =
            journey.patch(&format!("/v1/roles/{name}"), json!({"permissions": ["users:read"]}), &tokens).await;
        assert_eq!(refused.reason(), exceeded.name(), "{name}: {}", refused.text());
    }
    for path in ["/v1/roles", "/v1/permissions", "/v1/roles/admin"] {
        journey.get(path, &user_tokens).await.refused(Reason::PermissionMissing);
        journey.get(path, &tokens).await.expect(200);
    }
    let others = format!("/v1/users/{}/permissions", manager.id);
    journey.get(&others, &user_tokens).await.refused(Reason::UserNotFound);
    journey
        .of_user("grantRole", &user, json!({"role": "reader"}), &user_tokens)
        .await
        .refused(Reason::PermissionMissing);
    journey.of_user("revokeRole", &admin, json!({"role": "admin"}), &admin_tokens).await.refused(exceeded);
    // What a manager may give.
    journey.of_user("grantRole", &user, json!({"role": "reader"}), &tokens).await.expect(200);
    // With a denial, not any more, and at once.
    let deny = json!({"permission": "roles:grant", "effect": "OVERRIDE_EFFECT_DENY"});
    journey.of_user("setOverride", &manager, deny, &admin_tokens).await.expect(200);
    let again = journey.of_user("grantRole", &user, json!({"role": "reader"}), &tokens).await;
    again.refused(Reason::TokenRevoked);
}

#[tokio::test]
async fn a_grant_with_an_expiry_ends_with_its_tokens() {
    let journey = Journey::start();
    let (_, admin) = journey.user(&["admin"]).await;
    let (user, tokens) = journey.user(&[]).await;
    let end = prost_types::Timestamp::from(SystemTime::now() + Duration::from_secs(3));
    let grant = json!({"role": "manager", "expireTime": end.to_string()});
    journey.of_user("grantRole", &user, grant, &admin).await.expect(200);
    let tokens = tokens.refresh(journey.mesh.rest()).await;
    journey.get("/v1/roles", &tokens).await.expect(200);
    drystone_tests::wait::until("the token has expired with the grant", async || {
        // Clocks differ by a few seconds.
        let list = journey.get("/v1/roles", &tokens).await;
        (list.status != 200 && list.reason() == Reason::TokenExpired.name()).then_some(())
    })
    .await;
    let tokens = tokens.refresh(journey.mesh.rest()).await;
    journey.get("/v1/roles", &tokens).await.refused(Reason::PermissionMissing);
}

#[tokio::test]
async fn services_ask_what_a_user_may_do_and_register_permissions() {
    let journey = Journey::start();
    let (user, tokens) = journey.user(&["manager"]).await;
    let (other, _) = journey.user(&[]).await;
    let mut property = RoleServiceClient::new(journey.mesh.channel("user", "property"));
    let check = |user: &User, permission: &str| CheckPermissionRequest {
        user_id: user.id.clone(),
        permission: permission.to_owned(),
    };
    let allowed = property.check_permission(check(&user, "users:read")).await.unwrap().into_inner().allowed;
    assert!(allowed);
    let unknown = uuid::Uuid::now_v7().to_string();
    let checks = vec![
        check(&other, "users:read"),
        check(&user, "users:read"),
        check(&user, "shifts:write"),
        CheckPermissionRequest { user_id: unknown, permission: "users:read".to_owned() },
        check(&user, "roles:read"),
    ];
    let allowed = property.batch_check(BatchCheckRequest { checks }).await.unwrap().into_inner().allowed;
    assert_eq!(allowed, [false, true, false, false, true]);
    let many = vec![check(&user, "users:read"); 101];
    assert_refused(property.batch_check(BatchCheckRequest { checks: many }).await, Reason::InvalidRequest);

    let permission = |name: &str| Permission { name: name.to_owned(), ..Permission::default() };
    let register = |names: &[&str]| RegisterPermissionsRequest {
        permissions: names.iter().map(|name| permission(name)).collect(),
    };
    property.register_permissions(register(&["requests:read", "shifts:write:own"])).await.unwrap();
    let listed = journey.get("/v1/permissions", &tokens).await.expect(200).json();
    let listed = listed["permissions"].as_array().unwrap().clone();
    let registered = listed.iter().find(|one| one["name"] == "requests:read").unwrap();
    assert_eq!(registered["registeredBy"], "property");
    let mut session = RoleServiceClient::new(journey.mesh.channel("user", "session"));
    let taken = session.register_permissions(register(&["requests:read"])).await;
    assert_refused(taken, Reason::PermissionExists);
    for invalid in ["requests", "Requests:read", "requests:read:all", "a:b:own:any"] {
        assert_refused(session.register_permissions(register(&[invalid])).await, Reason::InvalidRequest);
    }
    // A user's token does not make the operator's certificate more than that user.
    let mut operator = RoleServiceClient::new(journey.mesh.channel("user", "operator"));
    operator.list_roles(ListRolesRequest {}).await.unwrap();
    let request = GrantRoleRequest { user_id: other.id.clone(), role: "admin".to_owned(), expire_time: None };
    let as_user = operator.grant_role(with_token(request, &tokens.access)).await;
    assert_refused(as_user, Reason::AuthorityExceeded);
}

/// Not as many revocations as there are users with the role.
#[tokio::test]
async fn a_change_of_a_role_is_one_revocation_for_all_who_have_it() {
    let journey = Journey::start();
    let (_, admin) = journey.user(&["admin"]).await;
    let role = json!({"name": "support", "level": 200, "permissions": ["users:read"]});
    journey.post("/v1/roles", role, &admin).await.expect(200);
    let mut holders = Vec::new();
    for _ in 0..5 {
        holders.push(journey.user(&["support"]).await.1);
    }
    let (_, bystander) = journey.user(&[]).await;
    let started = Instant::now();
    journey.patch("/v1/roles/support", json!({"permissions": []}), &admin).await.expect(200);
    for tokens in &holders {
        journey.get("/v1/users/me", tokens).await.refused(Reason::TokenRevoked);
    }
    journey.get("/v1/users/me", &bystander).await.expect(200);
    assert!(started.elapsed() < Duration::from_mins(1), "a test never hangs");
    let tokens = holders[0].refresh(journey.mesh.rest()).await;
    journey.get("/v1/users", &tokens).await.refused(Reason::PermissionMissing);
}

#[tokio::test]
async fn a_disabled_account_ends_at_once_and_signs_in_again_when_enabled() {
    let journey = Journey::start();
    let (_, admin) = journey.user(&["admin"]).await;
    let (manager, manager_tokens) = journey.user(&["manager"]).await;
    let (user, tokens) = journey.user(&[]).await;
    let other_device = user.sign_in(&journey.mesh).await;
    let sign_in = async || {
        let body = json!({"email": user.email, "password": user.password});
        journey.mesh.rest().post("/v1/auth/login", body).send().await
    };
    journey.of_user("disable", &manager, json!({}), &manager_tokens).await.refused(Reason::AuthorityExceeded);
    journey.of_user("disable", &user, json!({}), &tokens).await.refused(Reason::PermissionMissing);
    let disabled = journey.of_user("disable", &user, json!({}), &manager_tokens).await.expect(200).json();
    assert_eq!(disabled["status"], "USER_STATUS_DISABLED");
    for tokens in [&tokens, &other_device] {
        journey.get("/v1/users/me", tokens).await.refused(Reason::TokenRevoked);
        let refresh = json!({"refreshToken": tokens.refresh});
        journey.mesh.rest().post("/v1/auth/refresh", refresh).send().await.refused(Reason::SessionEnded);
    }
    sign_in().await.refused(Reason::AccountDisabled);
    let path = format!("/v1/users/{}/permissions", manager.id);
    assert!(journey.get(&path, &admin).await.expect(200).text().contains("\"granted\":true"));
    let wrong = json!({"email": user.email, "password": "not the password"});
    journey.mesh.rest().post("/v1/auth/login", wrong).send().await.refused(Reason::InvalidCredentials);

    let enabled = journey.operator(&["users", "enable", &user.email]);
    assert!(enabled.status.success(), "{enabled:?}");
    sign_in().await.expect(200);
    journey.get("/v1/users/me", &tokens).await.refused(Reason::TokenRevoked);
    let output = journey.operator(&["users", "disable", &manager.email]);
    assert!(output.status.success(), "{output:?}");
    journey.get("/v1/users/me", &manager_tokens).await.refused(Reason::TokenRevoked);
    let of_disabled = journey.get(&path, &admin).await.expect(200).text();
    assert!(of_disabled.contains("the account is disabled") && !of_disabled.contains("\"granted\":true"));
    let listed = journey.operator(&["users", "list"]);
    assert!(listed.stdout.contains("disabled") && listed.stdout.contains("active"), "{listed:?}");
    journey.get("/v1/users/me", &admin).await.expect(200);
}
