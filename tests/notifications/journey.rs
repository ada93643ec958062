//! A message from its sender to its reader, over gRPC, REST and the command line.

use std::time::Duration;

use drystone::{
    Reason,
    notification::v1::{
        WatchMessagesRequest, inbox_service_client::InboxServiceClient,
        notification_service_client::NotificationServiceClient,
    },
};
use drystone_tests::{
    Mesh, Tokens, User,
    grpc::{assert_refused, with_token},
    process::{ProcessOutput, drystone, run_to_end},
    wait,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::server::{password_changed, recipient, send, start, wait_for_subject};

fn operator(mesh: &Mesh, command: &[&str]) -> ProcessOutput {
    let mut command = drystone(command);
    command.env("DRYSTONE_CERTS_DIR", mesh.certificates().ca().parent().unwrap());
    for service in ["auth", "user", "notification"] {
        let name = format!("DRYSTONE_PEERS__{}", service.to_uppercase());
        command.env(name, mesh.grpc_address(service).to_string());
    }
    run_to_end(&mut command)
}

async fn get(mesh: &Mesh, path: &str, tokens: &Tokens) -> Value {
    mesh.rest().get(path).bearer(&tokens.access).send().await.expect(200).json()
}

async fn post(mesh: &Mesh, path: &str, body: Value, tokens: &Tokens) -> Value {
    mesh.rest().post(path, body).bearer(&tokens.access).send().await.expect(200).json()
}

/// A user who may read and requeue deliveries.
async fn administrator(mesh: &Mesh) -> Tokens {
    let (user, tokens) = User::signed_in(mesh).await;
    let granted = operator(mesh, &["roles", "grant", &user.email, "admin"]);
    assert!(granted.status.success(), "{granted:?}");
    tokens.refresh(mesh.rest()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_mail_and_inbox_in_the_language_of_its_reader() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let message = password_changed(recipient(&user.id, &user.email));
    let sent = send(mesh.channel("notification", "auth"), message.clone()).await.unwrap();
    assert_eq!(sent.len(), 2);
    assert_eq!(send(mesh.channel("notification", "auth"), message).await.unwrap().len(), 2, "repeated");

    let mail = wait_for_subject(&smtp, &user.email, "Passwort").await;
    assert!(mail.text.as_ref().unwrap().contains("Hallo Ada"), "{mail:?}");
    assert!(mail.html.as_ref().unwrap().contains("lang=\"de\""));

    let inbox = get(&mesh, "/v1/messages", &tokens).await;
    assert_eq!((inbox["messages"].as_array().unwrap().len(), &inbox["unreadCount"]), (1, &json!(1)));
    assert_eq!(inbox["messages"][0]["category"], "security");
    let id = inbox["messages"][0]["id"].as_str().unwrap();
    let marked = post(&mesh, "/v1/messages:markRead", json!({"ids": [id]}), &tokens).await;
    assert_eq!(marked["markedCount"], 1);
    let unread = get(&mesh, "/v1/messages?unreadOnly=true", &tokens).await;
    assert_eq!(unread["messages"].as_array().map_or(0, Vec::len), 0);

    // Nobody else sees it.
    let (_, other) = User::signed_in(&mesh).await;
    assert_eq!(get(&mesh, "/v1/messages", &other).await["messages"].as_array().map_or(0, Vec::len), 0);
    let told =
        |mail: &drystone_backends::Mail| mail.subject.as_ref().is_some_and(|subject| subject.contains("Passwort"));
    assert_eq!(smtp.mails_to(&user.email).into_iter().filter(told).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_senders_of_a_template_may_send_it() {
    let mesh = Mesh::shared();
    let message = || password_changed(recipient("019b0000-0000-7000-8000-000000000001", "ada@example.com"));
    for workload in ["property", "user", "session"] {
        assert_refused(send(mesh.channel("notification", workload), message()).await, Reason::CallerNotAllowed);
    }
    for workload in ["operator", "edge"] {
        assert_refused(send(mesh.channel("notification", workload), message()).await, Reason::CallerNotAllowed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preferences_are_read_and_changed_over_rest() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let listed = get(mesh, "/v1/notificationPreferences", &tokens).await;
    let security: Vec<_> = listed["preferences"].as_array().unwrap().iter().collect();
    assert!(security.iter().all(|one| one["enabled"] == true && one["mutable"] != true), "{security:?}");
    let body = json!({"category": "security", "channel": "CHANNEL_MAIL", "enabled": false});
    let refused = mesh.rest().post("/v1/notificationPreferences:set", body).bearer(&tokens.access).send().await;
    let refused = refused.expect(400);
    assert!(refused.text().contains("cannot be switched off"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_found_and_requeued() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let admin = administrator(&mesh).await;
    let message = password_changed(recipient(&user.id, "permanent-1@example.com"));
    let sent = send(mesh.channel("notification", "auth"), message).await.unwrap();
    smtp.wait_for_attempts("permanent-1@example.com", 1).await;
    let id = sent[0].id.as_str();
    let dead = wait::until("the delivery is dead", async || {
        let listed = get(&mesh, "/v1/deliveries?filter=state%20%3D%20dead", &admin).await;
        listed["deliveries"].as_array().filter(|all| !all.is_empty()).map(|all| all[0].clone())
    })
    .await;
    assert_eq!((dead["id"].as_str(), dead["destination"].as_str()), (Some(id), Some("permanent-1@example.com")));
    assert!(dead["lastError"].as_str().unwrap().contains("550"), "{dead}");

    let listed = operator(&mesh, &["notifications", "list", "--filter", "state = dead", "--json"]);
    assert!(listed.status.success() && listed.stdout.contains(id), "{listed:?}");
    let requeued = operator(&mesh, &["notifications", "requeue", id]);
    assert!(requeued.status.success(), "{requeued:?}");
    smtp.wait_for_attempts("permanent-1@example.com", 2).await;

    // Nobody without the permission.
    for (path, is_post) in [("/v1/deliveries".to_owned(), false), (format!("/v1/deliveries/{id}:requeue"), true)] {
        let request = if is_post { mesh.rest().post(&path, json!({})) } else { mesh.rest().get(&path) };
        request.bearer(&tokens.access).send().await.refused(Reason::PermissionMissing);
    }
    let metrics = mesh.metrics().await;
    let failed = metrics.sum("drystone_notification_attempts_total", &[("channel", "mail"), ("outcome", "given_up")]);
    assert!(failed >= 1.0, "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_when_its_session_is_signed_out() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    let mut client = InboxServiceClient::new(mesh.channel("notification", "operator"));
    let mut watch =
        client.watch_messages(with_token(WatchMessagesRequest::default(), &tokens.access)).await.unwrap().into_inner();
    let next = async |watch: &mut tonic::Streaming<_>| {
        timeout(Duration::from_secs(30), watch.message()).await.expect("a response in time").unwrap()
    };
    assert_eq!(
        next(&mut watch)
            .await
            .map(|response: drystone::notification::v1::WatchMessagesResponse| response.messages.len()),
        Some(0)
    );
    let message = password_changed(recipient(&user.id, &user.email));
    send(mesh.channel("notification", "auth"), message).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap().messages.len(), 1);
    mesh.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
    let ended = timeout(Duration::from_secs(30), watch.message()).await.expect("the stream ends");
    assert_refused(ended.map(drop), Reason::TokenRevoked);
    let again = client.watch_messages(with_token(WatchMessagesRequest::default(), &tokens.access)).await;
    assert_refused(again.map(drop), Reason::TokenRevoked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_mail_server_the_banner_names_the_folder() {
    let mesh = Mesh::setup().interactive().start();
    let banner = mesh.stdout();
    let folder = mesh.home().data().join("mail");
    let line = banner.lines().find(|line| line.trim_start().starts_with("mail")).unwrap_or_default();
    assert!(line.contains(&*folder.to_string_lossy()) && line.contains("notification.smtp.host"), "{banner}");
    let (user, _) = User::signed_in(&mesh).await;
    let message = password_changed(recipient(&user.id, &user.email));
    let sent = send(mesh.channel("notification", "auth"), message).await.unwrap();
    let file = folder.join(format!("{}.eml", sent[0].id));
    let mail = wait::until("the mail is written", async || std::fs::read_to_string(&file).ok()).await;
    assert!(mail.contains("Hallo Ada"), "{mail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_parameters_are_put_under_a_new_master_key() {
    let mesh = Mesh::start();
    let rewrapped = operator(&mesh, &["keys", "rewrap"]);
    assert!(rewrapped.status.success(), "{rewrapped:?}");
    assert!(rewrapped.stdout.contains("0 messages are under the master key"), "{}", rewrapped.stdout);
    let mut client = NotificationServiceClient::new(mesh.channel("notification", "auth"));
    assert_refused(
        client.rewrap_parameters(drystone::notification::v1::RewrapParametersRequest {}).await,
        Reason::CallerNotAllowed,
    );
}
