//! The user journey from sign-up to sign-out, over REST.

use drystone::Reason;
use drystone_tests::{Mesh, Tokens, unique_email};
use serde_json::json;

#[tokio::test]
async fn the_user_journey_from_sign_up_to_sign_out() {
    let mesh = Mesh::shared();
    let (rest, email) = (mesh.rest(), unique_email());
    let password = "correct horse battery staple";

    // Register.
    let body = json!({"email": email, "password": password, "displayName": "Ada"});
    let registered = rest.post("/v1/auth/register", body).send().await.expect(200).json();
    assert_eq!(registered["verificationRequired"], false, "an account can be used at once");
    let registered = &registered["user"];
    assert_eq!(registered["email"], email);
    assert_eq!(registered["displayName"], "Ada");
    assert_eq!(registered["roles"], json!(["member"]));
    assert!(registered.get("password").is_none(), "{registered}");

    // Sign in.
    let body = json!({"email": email, "password": password});
    let answer = rest.post("/v1/auth/login", body).header("user-agent", "journey/1.0").send().await.expect(200).json();
    assert_eq!(answer["tokenType"], "Bearer");
    // Five minutes, minus the duration of the sign-in.
    assert!((290..=300).contains(&answer["expiresIn"].as_i64().unwrap()), "{}", answer["expiresIn"]);
    assert_eq!(answer["userId"], registered["id"]);
    let tokens = Tokens::of(&answer);

    // Get the current user.
    let me = rest.get("/v1/users/me").bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(&me, registered);

    // Change the profile.
    let path = format!("/v1/users/{}", me["id"].as_str().unwrap());
    let body = json!({"displayName": "Ada Lovelace", "etag": me["etag"]});
    let changed = rest.patch(&path, body).bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(changed["displayName"], "Ada Lovelace");
    assert_eq!(changed["email"], email);
    assert_ne!(changed["etag"], me["etag"]);
    assert_eq!(rest.get(&path).bearer(&tokens.access).send().await.expect(200).json(), changed);

    // Create a property, and list properties.
    let body = json!({"displayName": "The Engine", "labels": {"kind": "analytical"}});
    let property = rest.post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(property["displayName"], "The Engine");
    assert_eq!(property["labels"], json!({"kind": "analytical"}));
    assert_eq!(property["ownerId"], me["id"]);
    let properties = rest.get("/v1/properties").bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(properties, json!({"properties": [property], "nextPageToken": ""}));

    // List sessions.
    let sessions = rest.get("/v1/sessions").bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");
    let session = &sessions["sessions"][0];
    assert_eq!(session["id"], tokens.session_id.as_str());
    assert_eq!(session["device"], "journey/1.0");
    assert_eq!(session["address"], "127.0.0.1");
    assert_eq!(session["current"], true);

    // Refresh.
    let refreshed = tokens.refresh(rest).await;
    assert_eq!(refreshed.session_id, tokens.session_id);
    assert_ne!(refreshed.access, tokens.access);
    assert_ne!(refreshed.refresh, tokens.refresh);
    rest.get("/v1/users/me").bearer(&refreshed.access).send().await.expect(200);

    // Sign out.
    rest.post("/v1/auth/logout", json!({})).bearer(&refreshed.access).send().await.expect(200);

    // Every token of the session is refused.
    for token in [&tokens.access, &refreshed.access] {
        let answer = rest.get("/v1/users/me").bearer(token).send().await.refused(Reason::TokenRevoked);
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{:?}", answer.headers);
    }
    let body = json!({"refreshToken": refreshed.refresh});
    rest.post("/v1/auth/refresh", body).send().await.refused(Reason::SessionEnded);
}

#[tokio::test]
async fn an_address_has_one_account_regardless_of_case() {
    let (rest, email) = (Mesh::shared().rest(), unique_email());
    let account = |email: &str| json!({"email": email, "password": "correct horse", "displayName": "Ada"});
    rest.post("/v1/auth/register", account(&email)).send().await.expect(200);
    for same in [email.clone(), email.to_uppercase()] {
        rest.post("/v1/auth/register", account(&same)).send().await.refused(Reason::EmailTaken);
    }
    let body = json!({"email": email.to_uppercase(), "password": "correct horse"});
    rest.post("/v1/auth/login", body).send().await.expect(200);
}

#[tokio::test]
async fn a_registration_is_idempotent_by_request_id() {
    let (rest, email) = (Mesh::shared().rest(), unique_email());
    let request_id = uuid::Uuid::now_v7().to_string();
    let body =
        |password: &str| json!({"email": email, "password": password, "displayName": "Ada", "requestId": request_id});
    let first = rest.post("/v1/auth/register", body("correct horse")).send().await.expect(200).json();
    let again = rest.post("/v1/auth/register", body("correct horse")).send().await.expect(200).json();
    assert_eq!(again["user"]["id"], first["user"]["id"]);
    rest.post("/v1/auth/register", body("another horse")).send().await.refused(Reason::RequestIdReused);
}

#[tokio::test]
async fn only_the_owner_can_read_change_and_delete_a_property() {
    let mesh = Mesh::shared();
    let rest = mesh.rest();
    let (_, owner) = drystone_tests::User::signed_in(mesh).await;
    let (_, other_user) = drystone_tests::User::signed_in(mesh).await;
    let body = json!({"displayName": "Barn", "description": "red", "requestId": uuid::Uuid::now_v7().to_string()});
    let property = rest.post("/v1/properties", body.clone()).bearer(&owner.access).send().await.expect(200).json();
    let repeated = rest.post("/v1/properties", body).bearer(&owner.access).send().await.expect(200).json();
    assert_eq!(repeated, property, "the same request id returns the same property");
    let path = format!("/v1/properties/{}", property["id"].as_str().unwrap());

    // Another user's property is not found.
    rest.get(&path).bearer(&other_user.access).send().await.refused(Reason::PropertyNotFound);
    let change = json!({"displayName": "Mine"});
    rest.patch(&path, change).bearer(&other_user.access).send().await.refused(Reason::PropertyNotFound);
    rest.delete(&path).bearer(&other_user.access).send().await.refused(Reason::PropertyNotFound);

    // Only what is sent is changed.
    let body = json!({"description": "", "etag": property["etag"]});
    let changed = rest.patch(&path, body).bearer(&owner.access).send().await.expect(200).json();
    assert_eq!((&changed["displayName"], &changed["description"]), (&json!("Barn"), &json!("")));

    // The earlier etag is stale.
    let stale = json!({"displayName": "Shed", "etag": property["etag"]});
    rest.patch(&path, stale).bearer(&owner.access).send().await.refused(Reason::StaleEtag);
    rest.get(&path).bearer(&owner.access).send().await.expect(200);

    rest.delete(&path).bearer(&owner.access).send().await.expect(200);
    rest.get(&path).bearer(&owner.access).send().await.refused(Reason::PropertyNotFound);
}

#[tokio::test]
async fn a_list_is_paginated() {
    let mesh = Mesh::shared();
    let rest = mesh.rest();
    let (_, tokens) = drystone_tests::User::signed_in(mesh).await;
    for number in 1..=5 {
        let body = json!({"displayName": format!("Field {number}")});
        rest.post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200);
    }
    let (mut names, mut sizes, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let path = format!("/v1/properties?pageSize=2&pageToken={page_token}");
        let page = rest.get(&path).bearer(&tokens.access).send().await.expect(200).json();
        let properties = page["properties"].as_array().unwrap();
        sizes.push(properties.len());
        names.extend(properties.iter().map(|property| property["displayName"].as_str().unwrap().to_owned()));
        page_token = page["nextPageToken"].as_str().unwrap().to_owned();
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["Field 1", "Field 2", "Field 3", "Field 4", "Field 5"]);
    assert_eq!(sizes, [2, 2, 1]);
    let path = "/v1/properties?pageToken=bm90LW91cnM";
    rest.get(path).bearer(&tokens.access).send().await.refused(Reason::InvalidPageToken);
}
