//! Accounts: profiles, lists, deletion, import and export.

use std::fs;

use drystone::{
    Reason,
    notification::v1::{Recipient, SendRequest, notification_service_client::NotificationServiceClient},
    user::v1::{
        GetUserByTelegramIdRequest, LinkTelegramIdRequest, ListUsersRequest, user_service_client::UserServiceClient,
    },
};
use drystone_tests::{Tokens, User, grpc::assert_refused, wait};
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use crate::journey::Journey;

impl Journey {
    /// The addresses of a list, and the token of its next page.
    async fn list(&self, query: &str, tokens: &Tokens) -> (Vec<String>, String) {
        let listed = self.get(&format!("/v1/users?{query}"), tokens).await.expect(200).json();
        let users = listed["users"].as_array().unwrap().iter();
        let emails = users.map(|user| user["email"].as_str().unwrap().to_owned()).collect();
        (emails, listed["nextPageToken"].as_str().unwrap_or_default().to_owned())
    }

    async fn sign_in(&self, email: &str, password: &str) -> drystone_tests::RestResponse {
        let body = json!({"email": email, "password": password});
        self.mesh.rest().post("/v1/auth/login", body).send().await
    }
}

#[tokio::test]
async fn a_user_fills_in_their_profile() {
    let journey = Journey::start();
    let (user, tokens) = journey.user(&[]).await;
    let path = format!("/v1/users/{}", user.id);
    let profile = json!({
        "givenName": "Ada", "familyName": "Lovelace", "phone": "+442071838750", "locale": "en-GB",
        "timeZone": "Europe/London", "avatar": "https://example.com/ada.png",
        "preferences": {"mail.digest": "weekly"},
    });
    let changed = journey.patch(&path, profile.clone(), &tokens).await.expect(200).json();
    for (field, value) in profile.as_object().unwrap() {
        assert_eq!(&changed[field], value);
    }
    // A mask names what is changed, also to nothing.
    let cleared =
        journey.patch(&format!("{path}?updateMask=phone,givenName"), json!({"givenName": "A."}), &tokens).await;
    let cleared = cleared.expect(200).json();
    assert_eq!((&cleared["givenName"], &cleared["phone"]), (&json!("A."), &json!("")));
    assert_eq!(cleared["familyName"], "Lovelace");
    let many: serde_json::Map<_, _> = (0..33).map(|number| (format!("p{number}"), json!("x"))).collect();
    let large: serde_json::Map<_, _> = (0..32).map(|number| (format!("p{number}"), json!("x".repeat(256)))).collect();
    for (body, field) in [
        (json!({"phone": "020 7183 8750"}), "phone"),
        (json!({"locale": "english"}), "locale"),
        (json!({"timeZone": "../etc"}), "timeZone"),
        (json!({"avatar": "javascript:alert(1)"}), "avatar"),
        (json!({"preferences": {"Bad Name": "x"}}), "preferences"),
        (json!({"preferences": many}), "preferences"),
        (json!({"preferences": large}), "preferences"),
        (json!({"preferences": {"a": "x".repeat(257)}}), "preferences"),
        (json!({"givenName": "a\nb"}), "givenName"),
        (json!({"telegramId": "7"}), "updateMask"),
        (json!({"status": "USER_STATUS_DISABLED"}), "updateMask"),
        (json!({"email": "eve@example.com"}), "email"),
        (json!({"email": "eve@example.com", "givenName": "Eve"}), "email"),
    ] {
        let refused = journey.patch(&path, body.clone(), &tokens).await;
        assert_eq!(refused.reason(), Reason::InvalidRequest.name(), "{body}");
        assert!(refused.text().contains(field), "{body}: {}", refused.text());
    }
    assert_eq!(journey.get("/v1/users/me", &tokens).await.expect(200).json(), cleared);
}

#[tokio::test]
async fn an_administrator_creates_an_account_once() {
    let journey = Journey::start();
    let (_, admin) = journey.user(&["admin"]).await;
    let (_, user) = journey.user(&[]).await;
    let body = json!({"email": "Ada@example.com", "displayName": "Ada", "locale": "en"});
    let request_id = Uuid::now_v7();
    let path = format!("/v1/users?requestId={request_id}");
    let created = journey.post(&path, body.clone(), &admin).await.expect(200).json();
    assert_eq!((&created["email"], &created["locale"]), (&body["email"], &body["locale"]));
    assert_eq!(journey.post(&path, body.clone(), &admin).await.expect(200).json(), created);
    let other = json!({"email": "Ada@example.com", "displayName": "Ada", "locale": "de"});
    journey.post(&path, other, &admin).await.refused(Reason::RequestIdReused);
    journey.post("/v1/users", body.clone(), &admin).await.refused(Reason::EmailTaken);
    journey.post("/v1/users", body, &user).await.refused(Reason::PermissionMissing);
    for invalid in
        [json!({"displayName": "Ada"}), json!({"email": "a@example.com"}), json!({"email": "a", "displayName": "A"})]
    {
        journey.post("/v1/users", invalid, &admin).await.refused(Reason::InvalidRequest);
    }
    // Nobody knows a password of it.
    journey.sign_in("ada@example.com", "correct horse").await.refused(Reason::InvalidCredentials);
}

#[tokio::test]
async fn accounts_are_filtered_ordered_and_searched() {
    let journey = Journey::start();
    let (reader, admin) = journey.user(&["admin"]).await;
    for name in ["zcarl", "zada", "zbob"] {
        let body = json!({"email": format!("{name}@list.example"), "displayName": format!("{name} Zuse")});
        journey.post("/v1/users", body, &admin).await.expect(200);
    }
    let show = journey.operator(&["users", "disable", "zbob@list.example"]);
    assert!(show.status.success(), "{show:?}");
    let domain = |names: &[&str]| names.iter().map(|name| format!("{name}@list.example")).collect::<Vec<_>>();
    let list = async |query: &str| journey.list(query, &admin).await.0;
    assert_eq!(list("search=zuse").await, domain(&["zcarl", "zada", "zbob"]));
    assert_eq!(list("search=zada").await, domain(&["zada"]));
    assert_eq!(list("search=zuse&filter=status%20%3D%20active").await, domain(&["zcarl", "zada"]));
    assert_eq!(list("filter=status=disabled").await, domain(&["zbob"]));
    assert_eq!(list("filter=role=admin").await, std::slice::from_ref(&reader.email));
    assert_eq!(list("filter=role=member").await.len(), 4, "everybody");
    assert_eq!(list("search=zada%00zuse").await, domain(&["zada"]));
    assert_eq!(list("filter=email=%22ZADA@list*%22").await, domain(&["zada"]));
    assert_eq!(list("filter=email=zada@list.example").await, domain(&["zada"]));
    assert_eq!(list("filter=create_time%3C%222020-01-01T00:00:00Z%22").await, [""; 0]);
    let ordered = list("orderBy=email").await;
    assert!(ordered.is_sorted() && ordered.len() == 4, "{ordered:?}");
    let reversed: Vec<_> = list("orderBy=email%20desc").await;
    assert!(reversed.iter().rev().eq(&ordered));

    let (first, token) = journey.list("pageSize=2&orderBy=email", &admin).await;
    let (second, end) = journey.list(&format!("pageSize=2&orderBy=email&pageToken={token}"), &admin).await;
    assert_eq!(([first, second].concat(), end), (ordered, String::new()));
    let (_, manager) = journey.user(&["manager"]).await;
    for (tokens, query) in [(&admin, "pageSize=2"), (&admin, "orderBy=email&search=x"), (&manager, "orderBy=email")] {
        let path = format!("/v1/users?{query}&pageToken={token}");
        let refused = journey.get(&path, tokens).await;
        let expected = if query.contains("search") { Reason::InvalidRequest } else { Reason::InvalidPageToken };
        refused.refused(expected);
    }
    for (query, text) in [
        ("filter=status%20%3D%20gone", "at character 10, `gone`: expected one of `active`, `disabled`, `deleted`"),
        ("filter=name=x", "at character 1, `name`: expected the name of a field"),
        ("filter=role=Admin", "role"),
        ("filter=status=active%20OR%20status=disabled", "at character 15, `OR`: expected `AND`"),
        ("filter=email=%22a%00%22", "without control characters"),
        ("orderBy=name", "orderBy"),
        ("search=a%20b%20c%20d%20e", "search"),
    ] {
        let refused = journey.get(&format!("/v1/users?{query}"), &admin).await;
        assert_eq!(refused.reason(), Reason::InvalidRequest.name(), "{query}");
        assert!(refused.text().contains(text), "{query}: {}", refused.text());
    }
    let output = journey.operator(&["users", "list", "--filter", "status = disabled", "--json"]);
    let listed: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["status"]), (1, &json!("disabled")));
}

#[tokio::test]
async fn a_deleted_account_ends_at_once_is_restored_and_at_last_removed() {
    let journey = Journey::start();
    let (manager, admin_of) = journey.user(&["manager"]).await;
    let (user, tokens) = journey.user(&[]).await;
    let property = json!({"displayName": "Barn"});
    journey.post("/v1/properties", property, &tokens).await.expect(200);
    let path = format!("/v1/users/{}", user.id);
    journey.delete(&path, &tokens).await.refused(Reason::PermissionMissing);
    journey.delete(&format!("/v1/users/{}", manager.id), &admin_of).await.refused(Reason::AuthorityExceeded);
    journey.delete(&format!("{path}?etag=v99"), &admin_of).await.refused(Reason::StaleEtag);

    let deleted = journey.delete(&path, &admin_of).await.expect(200).json();
    assert_eq!(deleted["status"], "USER_STATUS_DELETED");
    assert!(deleted["purgeTime"].as_str().unwrap() > deleted["deleteTime"].as_str().unwrap());
    journey.get("/v1/users/me", &tokens).await.refused(Reason::TokenRevoked);
    let refresh = json!({"refreshToken": tokens.refresh});
    journey.mesh.rest().post("/v1/auth/refresh", refresh).send().await.refused(Reason::SessionEnded);
    journey.sign_in(&user.email, &user.password).await.refused(Reason::AccountDisabled);
    journey.sign_in(&user.email, "wrong password").await.refused(Reason::InvalidCredentials);
    assert!(!journey.list("", &admin_of).await.0.contains(&user.email));
    assert_eq!(journey.list("filter=status=deleted", &admin_of).await.0, std::slice::from_ref(&user.email));
    assert_eq!(journey.get(&path, &admin_of).await.expect(200).json(), deleted);
    let register = json!({"email": user.email, "password": "another horse", "displayName": "Eve"});
    journey.mesh.rest().post("/v1/auth/register", register.clone()).send().await.refused(Reason::EmailTaken);
    for verb in ["disable", "enable"] {
        journey.of_user(verb, &user, json!({}), &admin_of).await.refused(Reason::UserDeleted);
    }
    let name = json!({"displayName": "Eve"});
    journey.patch(&path, name, &admin_of).await.refused(Reason::UserDeleted);

    journey.of_user("undelete", &user, json!({}), &admin_of).await.expect(200);
    let tokens = user.sign_in(&journey.mesh).await;
    assert!(journey.get("/v1/properties", &tokens).await.expect(200).text().contains("Barn"));
    journey.of_user("purge", &user, json!({}), &admin_of).await.refused(Reason::UserNotDeleted);

    let output = journey.operator(&["users", "delete", &user.email]);
    assert!(output.stdout.contains("is deleted, and can be restored until 20"), "{output:?}");
    let output = journey.operator(&["users", "undelete", &user.email]);
    assert!(output.stdout.ends_with("is restored, and active\n"), "{output:?}");
    journey.delete(&path, &admin_of).await.expect(200);
    journey.of_user("purge", &user, json!({}), &admin_of).await.expect(200);
    journey.get(&path, &admin_of).await.refused(Reason::UserNotFound);
    journey.of_user("purge", &user, json!({}), &admin_of).await.refused(Reason::UserNotFound);
    journey.mesh.rest().post("/v1/auth/register", register).send().await.expect(200);
    let again = User { password: "another horse".to_owned(), ..user.clone() };
    let tokens = again.sign_in(&journey.mesh).await;
    let properties = journey.get("/v1/properties", &tokens).await.expect(200).text();
    assert!(!properties.contains("Barn"), "a new account has nothing of the old one: {properties}");
}

/// How many rows of a service's database concern this user.
async fn count(journey: &Journey, service: &str, query: &'static str, user: Uuid) -> i64 {
    let file = journey.mesh.home().data().join(format!("{service}.db"));
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query_scalar(query).bind(user).fetch_one(&mut connection).await.unwrap()
}

/// What notification has of a user.
const MESSAGES: &str = "SELECT (SELECT count(*) FROM message WHERE user_id = $1) + (SELECT count(*) FROM inbox_message WHERE user_id = $1)";

/// The password, the properties and the messages of a removed account are removed as well.
#[tokio::test]
async fn nothing_is_left_of_a_removed_account() {
    let journey = Journey::start();
    let (user, tokens) = journey.user(&[]).await;
    let property = json!({"displayName": "Barn of a removed user", "requestId": Uuid::now_v7()});
    journey.post("/v1/properties", property, &tokens).await.expect(200);
    let id: Uuid = user.id.parse().unwrap();
    assert_eq!(count(&journey, "auth", "SELECT count(*) FROM credential WHERE user_id = $1", id).await, 1);
    assert_eq!(count(&journey, "property", "SELECT count(*) FROM creation WHERE owner_id = $1", id).await, 1);
    let message = SendRequest {
        message_id: Uuid::now_v7().to_string(),
        template: "session_ended_reuse".to_owned(),
        parameters: ["time", "device", "address"].map(|name| (name.to_owned(), "unknown".to_owned())).into(),
        recipient: Some(Recipient { user_id: user.id.clone(), email: user.email.clone(), ..Default::default() }),
        expire_time: None,
    };
    let mut notifications = NotificationServiceClient::new(journey.mesh.channel("notification", "auth"));
    notifications.send(message).await.unwrap();
    wait::until("both messages, with that to verify the address", async || {
        (count(&journey, "notification", MESSAGES, id).await == 3).then_some(())
    })
    .await;
    for command in ["delete", "purge"] {
        let output = journey.operator(&["users", command, &user.email]);
        assert!(output.status.success(), "{output:?}");
    }
    wait::until("the password, the properties and the messages are removed", async || {
        let counts = [
            count(&journey, "auth", "SELECT count(*) FROM credential WHERE user_id = $1", id).await,
            count(&journey, "property", "SELECT count(*) FROM property WHERE owner_id = $1", id).await,
            count(&journey, "property", "SELECT count(*) FROM creation WHERE owner_id = $1", id).await,
            count(&journey, "user", "SELECT count(*) FROM account WHERE id = $1", id).await,
            count(&journey, "notification", MESSAGES, id).await,
        ];
        (counts == [0; 5]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn metrics_count_accounts_and_grants() {
    let journey = Journey::start();
    let (_, _) = journey.user(&["manager"]).await;
    let (user, _) = journey.user(&[]).await;
    let output = journey.operator(&["users", "delete", &user.email]);
    assert!(output.status.success(), "{output:?}");
    wait::until("the totals are up to date", async || {
        let metrics = journey.mesh.metrics().await;
        let accounts = |status| metrics.sum("drystone_accounts", &[("status", status)]);
        let counts = (accounts("active"), accounts("disabled"), accounts("deleted"));
        let grants = metrics.sum("drystone_role_grants", &[("role", "manager")]);
        (counts == (1.0, 0.0, 1.0) && (grants - 1.0).abs() < f64::EPSILON).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_telegram_user_is_linked_by_administrators_and_by_auth_alone() {
    let journey = Journey::start();
    let (_, admin) = journey.user(&["admin"]).await;
    let (user, tokens) = journey.user(&[]).await;
    let (other, _) = journey.user(&[]).await;
    let link = |id: i64| json!({"telegramId": id.to_string()});
    journey.of_user("setTelegramId", &user, link(7), &tokens).await.refused(Reason::PermissionMissing);
    let linked = journey.of_user("setTelegramId", &user, link(7), &admin).await.expect(200).json();
    assert_eq!(linked["telegramId"], "7");
    journey.of_user("setTelegramId", &other, link(7), &admin).await.refused(Reason::TelegramIdTaken);
    journey.of_user("setTelegramId", &other, link(-7), &admin).await.refused(Reason::InvalidRequest);

    let mut auth = UserServiceClient::new(journey.mesh.channel("user", "auth"));
    let find = |telegram_id| GetUserByTelegramIdRequest { telegram_id };
    assert_eq!(auth.get_user_by_telegram_id(find(7)).await.unwrap().into_inner().id, user.id);
    assert_refused(auth.get_user_by_telegram_id(find(8)).await, Reason::UserNotFound);
    let link = LinkTelegramIdRequest { id: other.id.clone(), telegram_id: 8 };
    auth.link_telegram_id(link.clone()).await.unwrap();
    assert_eq!(auth.get_user_by_telegram_id(find(8)).await.unwrap().into_inner().id, other.id);
    for workload in ["session", "operator"] {
        let mut stranger = UserServiceClient::new(journey.mesh.channel("user", workload));
        assert_refused(stranger.get_user_by_telegram_id(find(7)).await, Reason::CallerNotAllowed);
        assert_refused(stranger.link_telegram_id(link.clone()).await, Reason::CallerNotAllowed);
    }
    let mut operator = UserServiceClient::new(journey.mesh.channel("user", "operator"));
    operator.list_users(ListUsersRequest::default()).await.unwrap();
}

#[tokio::test]
async fn accounts_are_imported_with_their_passwords_and_exported() {
    let journey = Journey::start();
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("users.ndjson");
    let lines = [
        r#"{"email":"ada@old.example","displayName":"Ada","externalId":"17","role_key":"CHIEF","createTime":"2020-02-03T04:05:06Z","telegramId":7,"passwordHash":"$2a$04$VXVggmLAzxJ6fbcnC56teufijtUDgsYNxNzBG4K/.8pkp.VM5iKC2"}"#,
        r#"{"email":"bob@old.example","displayName":"Bob","status":"disabled","passwordHash":"pbkdf2_sha256$1000$seasalt1A2b3C4d5E6f7G8$X4nieDmlxjx2mq6w7X6+XomNr4GJG06LYBFGECon4MY="}"#,
        r#"{"email":"broken"#,
        r#"{"email":"ADA@old.example","displayName":"Ada again","externalId":"18"}"#,
        r#"{"email":"carl@old.example","displayName":"Carl","roles":["owner"]}"#,
        r#"{"email":"dora@old.example","displayName":"Dora","passwordHash":"md5"}"#,
        r#"{"email":"eve@old.example","displayName":"Eve","phone":"12"}"#,
        r#"{"email":"fred@old.example","displayName":"Fred","preferences":{"theme":"dark"}}"#,
        r#"{"email":"gina@old.example","displayName":"Gina","createTime":"-0001-11-30T00:00:00+00:00"}"#,
        r#"{"email":"hugo@old.example","displayName":"Hugo","externalId":"a\u0000b"}"#,
        r#"{"email":"no address","displayName":"Ida"}"#,
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let path = file.to_str().unwrap();
    let import = || journey.operator(&["users", "import", path, "--source", "old", "--role", "CHIEF=manager"]);
    let output = import();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stdout, "3 imported, 0 imported before, 8 refused\n");
    let report = fs::read_to_string(directory.path().join("users.ndjson.refused")).unwrap();
    let refusals: Vec<Value> = report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut refusals: Vec<_> =
        refusals.iter().map(|one| (one["line"].as_u64().unwrap(), one["reason"].as_str().unwrap())).collect();
    refusals.sort_unstable();
    let expected = [
        (3, "EOF while parsing"),
        (4, "e-mail address"),
        (5, "no role `owner`"),
        (6, "password_hash"),
        (7, "user.phone: "),
        (9, "create_time"),
        (10, "external_id: "),
        (11, "user.email: "),
    ];
    for ((line, reason), (expected_line, text)) in refusals.iter().zip(expected) {
        assert!(*line == expected_line && reason.contains(text), "{refusals:?}");
    }
    assert_eq!(refusals.len(), expected.len());

    assert!(refusals.iter().all(|(_, reason)| !reason.contains("INVALID_REQUEST")), "{refusals:?}");
    let over_itself = journey.operator(&["users", "import", path, "--report", path]);
    assert!(over_itself.stderr.contains("is the file to import"), "{over_itself:?}");
    assert!(file.exists());
    let log = journey.mesh.log();
    assert!(log.contains("AuthService/ImportUsers") && !log.contains("Cancelled"), "{log}");

    journey.sign_in("ada@old.example", "correct horse").await.expect(200);
    journey.sign_in("ada@old.example", "correct horsf").await.refused(Reason::InvalidCredentials);
    journey.sign_in("bob@old.example", "correct horse").await.refused(Reason::AccountDisabled);

    // The refused lines are mended, and the same command is run again.
    let mended = [lines[0], lines[1], lines[7], r#"{"email":"carl@old.example","displayName":"Carl"}"#];
    fs::write(&file, mended.join("\n")).unwrap();
    let output = import();
    assert_eq!((output.status.code(), output.stdout.as_str()), (Some(0), "1 imported, 3 imported before, 0 refused\n"));
    assert!(!directory.path().join("users.ndjson.refused").exists());

    let output = journey.operator(&["users", "export"]);
    let exported: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported.len(), 4);
    let ada = exported.iter().find(|user| user["email"] == "ada@old.example").unwrap();
    assert_eq!(ada, &exported[0], "the oldest is first");
    assert_eq!(
        (&ada["roles"], &ada["createTime"], &ada["telegramId"]),
        (&json!(["manager"]), &json!("2020-02-03T04:05:06Z"), &json!(7))
    );
    assert!(!output.stdout.contains("$2a$") && !output.stdout.contains("argon2"));
    let fred = exported.iter().find(|user| user["email"] == "fred@old.example").unwrap();
    assert_eq!(fred["preferences"]["theme"], "dark");

    // Elsewhere, the export is imported.
    let elsewhere = Journey::start();
    fs::write(&file, output.stdout).unwrap();
    let output = elsewhere.operator(&["users", "import", path]);
    assert_eq!(output.stdout, "4 imported, 0 imported before, 0 refused\n", "{output:?}");
}
