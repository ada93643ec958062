//! Messages to users: how many are accepted, and how many mails a local server receives.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use drystone::notification::v1::{Recipient, SendRequest, notification_service_client::NotificationServiceClient};
use drystone_tests::Mesh;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::{
    load::{closed_loop, median},
    report::Measurement,
};

const IN_FLIGHT: usize = 8;
const TIME: Duration = Duration::from_secs(4);
const RUNS: usize = 3;

/// Mails that are waited for.
const MAILS: usize = 4000;

/// The domains that these mails go to.
const DOMAINS: usize = 16;

/// Measures one process on SQLite.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let server = MailServer::start().await?;
    let mesh = Mesh::setup()
        .set("notification.smtp.host", "127.0.0.1")
        .set("notification.smtp.port", &server.address.port().to_string())
        .set("notification.smtp.tls", "none")
        .set("notification.smtp.from", "Bench <bench@bench.example>")
        .set("notification.mails_per_minute", "0")
        .start();
    let channel = || mesh.channel("notification", "auth");

    // To the inbox alone: nothing is delivered meanwhile.
    let mut accepted = Vec::new();
    for _ in 0..RUNS {
        let caller = || {
            let client = NotificationServiceClient::new(channel());
            move || send(client.clone(), "new_device_notice", Uuid::now_v7(), String::new())
        };
        accepted.push(closed_loop(IN_FLIGHT, TIME, caller).await?);
    }

    // Accepted at first, so that the time is that of the deliveries, as far as they do not begin meanwhile.
    let before = server.received();
    let started = Instant::now();
    let mut senders = Vec::new();
    for sender in 0..IN_FLIGHT {
        let client = NotificationServiceClient::new(channel());
        senders.push(tokio::spawn(async move {
            for number in 0..MAILS / IN_FLIGHT {
                let address = format!("user-{sender}-{number}@{}.example", number % DOMAINS);
                send(client.clone(), "password_reset", Uuid::now_v7(), address).await?;
            }
            anyhow::Ok(())
        }));
    }
    for sender in senders {
        sender.await??;
    }
    server.wait_for(before + MAILS).await?;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let mails = MAILS as f64 / started.elapsed().as_secs_f64();
    Ok(vec![
        Measurement::plain("Send to an inbox, 8 in flight", median(accepted).rate, "a second"),
        Measurement::plain("mails with an encrypted link, from Send to a local server", mails, "a second"),
    ])
}

async fn send(mut client: NotificationServiceClient<Channel>, template: &str, user: Uuid, email: String) -> Result<()> {
    let parameters: &[(&str, &str)] = if template == "password_reset" {
        &[("link", "https://id.example.com/reset#token=0123456789abcdef0123456789abcdef"), ("minutes", "30")]
    } else {
        &[("time", "2026-01-31T12:00:00Z"), ("device", "Firefox"), ("address", "203.0.113.7"), ("method", "password")]
    };
    client
        .send(SendRequest {
            message_id: Uuid::now_v7().to_string(),
            template: template.to_owned(),
            parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            recipient: Some(Recipient {
                user_id: user.to_string(),
                email,
                display_name: "Ada".to_owned(),
                locale: String::new(),
            }),
            expire_time: None,
        })
        .await?;
    Ok(())
}

/// A mail server that accepts everything and keeps nothing.
struct MailServer {
    address: SocketAddr,
    received: Arc<AtomicUsize>,
    changed: watch::Receiver<()>,
}

impl MailServer {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let received = Arc::new(AtomicUsize::new(0));
        let (notify, changed) = watch::channel(());
        let (count, notify) = (Arc::clone(&received), Arc::new(notify));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, notify) = (Arc::clone(&count), Arc::clone(&notify));
                tokio::spawn(async move {
                    // A client that disconnects ends the connection.
                    let _ = serve(stream, &count, &notify).await;
                });
            }
        });
        Ok(Self { address, received, changed })
    }

    fn received(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }

    async fn wait_for(&self, count: usize) -> Result<()> {
        let mut changed = self.changed.clone();
        while self.received() < count {
            changed.changed().await?;
        }
        Ok(())
    }
}

async fn serve(stream: TcpStream, received: &AtomicUsize, notify: &watch::Sender<()>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 bench\r\n").await?;
    let (mut line, mut is_data) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let reply: &[u8] = match line.get(..4).unwrap_or(&line) {
            _ if is_data && line != ".\r\n" => continue,
            _ if is_data => {
                is_data = false;
                received.fetch_add(1, Ordering::SeqCst);
                notify.send_replace(());
                b"250 accepted\r\n"
            }
            "DATA" => {
                is_data = true;
                b"354 go on\r\n"
            }
            "EHLO" => b"250-bench\r\n250 8BITMIME\r\n",
            "QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        stream.write_all(reply).await?;
    }
}
