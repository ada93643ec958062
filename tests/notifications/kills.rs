//! A message that was accepted is delivered, whatever is killed.

use std::{collections::HashMap, env, sync::Arc, time::Duration};

use drystone::notification::v1::{
    Delivery, DeliveryState, ListDeliveriesRequest, notification_service_client::NotificationServiceClient,
};
use drystone_backends::{Smtp, SmtpOptions};
use drystone_tests::{Production, wait};
use tokio::{sync::Notify, time::sleep};
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use crate::server::{Engine, password_changed, recipient, send, setup};

/// Messages that each round sends.
const MESSAGES: usize = 8;

/// Kills on each engine. `DRYSTONE_TEST_ROUNDS` makes it more.
pub fn rounds() -> u64 {
    env::var("DRYSTONE_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

/// A moment after the first message was accepted, while others are and all are delivered. Each round has another one.
fn moment(round: u64) -> Duration {
    Duration::from_micros(round * 3_779 % 60_000)
}

/// Sends messages until the service is killed. Returns the addresses of those that were accepted.
async fn send_some(channel: Channel, round: u64, first: Arc<Notify>) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 0..MESSAGES {
        let address = format!("ok-{round}-{number}@{number}.example");
        let message = password_changed(recipient(&Uuid::now_v7().to_string(), &address));
        if send(channel.clone(), message).await.is_ok() {
            accepted.push(address);
            first.notify_one();
        }
    }
    accepted
}

/// All deliveries of a mesh, page by page.
async fn deliveries(channel: Channel, filter: &str) -> Result<Vec<Delivery>, Status> {
    let mut client = NotificationServiceClient::new(channel);
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListDeliveriesRequest { page_size: 200, page_token, filter: filter.to_owned() };
        let page = client.list_deliveries(request).await?.into_inner();
        all.extend(page.deliveries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mesh_delivers_what_it_has_accepted() {
    send_and_kill(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mesh_delivers_what_it_has_accepted_on_postgres() {
    send_and_kill(Engine::postgres().await).await;
}

async fn send_and_kill(engine: Engine) {
    let smtp = Smtp::start(SmtpOptions::default());
    let setup = || engine.restartable(setup(&smtp));
    let mut mesh = setup().start();
    let mut accepted = Vec::new();
    for round in 0..rounds() {
        let first = Arc::new(Notify::new());
        let sending = tokio::spawn(send_some(mesh.channel("notification", "auth"), round, Arc::clone(&first)));
        first.notified().await;
        sleep(moment(round)).await;
        mesh = setup().home(mesh.kill()).start();
        accepted.extend(sending.await.unwrap());
    }
    // On PostgreSQL, what was leased to the killed process is attempted when the lease has ended, after a minute.
    wait::until_within(Duration::from_mins(3), "everything is delivered", async || {
        accepted.iter().all(|address| !smtp.mails_to(address).is_empty()).then_some(())
    })
    .await;
    let mut received: HashMap<String, Vec<String>> = HashMap::new();
    for mail in smtp.mails() {
        received.entry(mail.rcpt_to[0].clone()).or_default().push(mail.header("Message-ID").unwrap().to_owned());
    }
    let repeated = received.values().filter(|ids| ids.len() > 1).count();
    for (address, ids) in &received {
        assert!(ids.iter().all(|id| *id == ids[0]), "{address}: a repeated mail has the same id: {ids:?}");
    }
    println!("{} of {} messages were accepted, {repeated} sent twice", accepted.len(), rounds() * MESSAGES as u64);
    assert!(accepted.len() as u64 >= rounds());
    // At most what was in flight when it was killed.
    assert!(repeated as u64 <= rounds() * 8, "{repeated}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_delivers_what_a_killed_one_has_accepted() {
    let production = Production::lock().await;
    let cluster = &production.cluster;
    let mut accepted = 0;
    for round in 0..rounds() {
        let first = Arc::new(Notify::new());
        let channel = cluster.channel("notification", 0, "auth");
        let sending = tokio::spawn(send_some(channel, round, Arc::clone(&first)));
        first.notified().await;
        sleep(moment(round)).await;
        cluster.kill_one("notification", 0);
        accepted += sending.await.unwrap().len();
        cluster.start_one("notification", 0);
        cluster.wait_until_healthy().await;
    }
    let channel = || cluster.channel("notification", 1, "operator");
    // What was leased to the killed one is attempted when the lease has ended, after a minute.
    wait::until_within(Duration::from_mins(3), "everything is delivered", async || {
        deliveries(channel(), "state = queued").await.is_ok_and(|queued| queued.is_empty()).then_some(())
    })
    .await;
    let all = deliveries(channel(), "").await.unwrap();
    let mails: Vec<_> = all.iter().filter(|delivery| delivery.destination.contains('@')).collect();
    assert!(mails.iter().all(|delivery| delivery.state() == DeliveryState::Delivered));
    assert!(mails.len() >= accepted, "{} of {accepted}", mails.len());
    println!("{accepted} of {} messages were accepted", rounds() * MESSAGES as u64);
}
