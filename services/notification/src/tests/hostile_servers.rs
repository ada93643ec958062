//! Mail servers that misbehave, by a server that says what a test wants.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use drystone::notification::v1::{DeliveryState, Recipient};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use super::fixture::{Fixture, ada, reset, sqlite};
use crate::SmtpTls;

/// What is sent for a command; the first one is the empty command of the greeting.
type Reply = fn(&str) -> Vec<u8>;

/// A server of a test. Dropping it ends it.
struct Server {
    address: SocketAddr,
    /// How many mails it has accepted.
    accepted: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Server {
    async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, reply, Arc::clone(&count)));
            }
        });
        Self { address, accepted, task: task.abort_handle() }
    }

    /// Sends one mail over it, and returns what has become of it.
    async fn attempt(&self, tls: SmtpTls) -> (DeliveryState, String) {
        let fixture = Fixture::new(sqlite().await).await;
        let address = self.address;
        let instance = fixture.another(|config| {
            config.smtp.host = address.ip().to_string();
            config.smtp.port = address.port();
            config.smtp.tls = tls;
            config.smtp.from = "no-reply@acme.example".to_owned();
        });
        let instance = instance.await;
        let request = reset(Recipient { email: "ada@example.com".to_owned(), ..ada() });
        let id = instance.send("auth", request).await.unwrap()[0].id.parse().unwrap();
        instance.attempt().await;
        let delivery: drystone::notification::v1::Delivery = instance.store.delivery(id).await.unwrap().unwrap().into();
        (delivery.state(), delivery.last_error)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The receiver may have closed the connection at any time.
async fn serve(stream: TcpStream, reply: Reply, accepted: Arc<AtomicUsize>) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(&reply("")).await.ok()?;
    let mut in_data = false;
    while let Some(line) = lines.next_line().await.ok()? {
        let command = if in_data { "." } else { line.as_str() };
        if in_data && line != "." {
            continue;
        }
        let answer = reply(command);
        accepted.fetch_add(usize::from(in_data && answer.starts_with(b"250")), Ordering::Relaxed);
        in_data = command == "DATA" && answer.starts_with(b"354");
        write.write_all(&answer).await.ok()?;
    }
    Some(())
}

/// Like a server without faults.
fn well(command: &str) -> Vec<u8> {
    let reply: &[u8] = match command {
        "" => b"220 mail\r\n",
        "DATA" => b"354 go on\r\n",
        "QUIT" => b"221 bye\r\n",
        _ => b"250 ok\r\n",
    };
    reply.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_of_these_tests_accepts_mails() {
    let server = Server::start(well).await;
    assert_eq!(server.attempt(SmtpTls::None).await, (DeliveryState::Delivered, String::new()));
    assert_eq!(server.accepted.load(Ordering::Relaxed), 1);
}

/// CVE-2011-0411: replies that are sent before the encryption must not count after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_with_the_one_to_starttls_are_refused() {
    let server = Server::start(|command| match command {
        command if command.starts_with("EHLO") => b"250-mail\r\n250 STARTTLS\r\n".to_vec(),
        "STARTTLS" => {
            b"220 go on\r\n250 injected\r\n250 injected\r\n250 injected\r\n354 injected\r\n250 injected\r\n".to_vec()
        }
        command => well(command),
    });
    let server = server.await;
    let (state, error) = server.attempt(SmtpTls::Starttls).await;
    assert_eq!(state, DeliveryState::Queued, "{error}");
    assert!(!error.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_replies_are_cut() {
    let endless: [Reply; 3] = [
        |_| vec![b'2'; 1 << 20],
        |_| b"220-more\r\n".repeat(100_000),
        |command| if command.starts_with("EHLO") { b"250-more\r\n".repeat(100_000) } else { well(command) },
    ];
    for reply in endless {
        for tls in [SmtpTls::None, SmtpTls::Starttls] {
            let server = Server::start(reply).await;
            let (state, error) = server.attempt(tls).await;
            assert_eq!(state, DeliveryState::Queued, "{error}");
            assert!(error.len() <= 512, "{} bytes", error.len());
        }
    }
}

/// Refusing the sender says nothing of the recipient: the configuration may be mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_the_sender_keeps_the_mail() {
    let server = Server::start(|command| match command {
        command if command.starts_with("MAIL") => b"530 5.7.0 authentication required\r\n".to_vec(),
        command => well(command),
    });
    let (state, error) = server.await.attempt(SmtpTls::None).await;
    assert_eq!(state, DeliveryState::Queued);
    assert!(error.contains("530"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_in_another_encoding_is_one() {
    let server = Server::start(|command| match command {
        command if command.starts_with("RCPT") => b"550 Postfach unbekannt: M\xfcller\x1b[2J\r\n".to_vec(),
        command => well(command),
    });
    let (state, error) = server.await.attempt(SmtpTls::None).await;
    assert_eq!(state, DeliveryState::Dead);
    assert!(error.contains("550") && !error.contains('\u{1b}'), "{error}");
}

/// A server may quote the mail in its refusal, and with it a link that is a secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_does_not_quote_the_mail() {
    let server = Server::start(|command| match command {
        "." => b"554 rejected: https://id.example.com/reset?token=s3cret looks wrong for ada@example.com\r\n".to_vec(),
        command => well(command),
    });
    let (state, error) = server.await.attempt(SmtpTls::None).await;
    assert_eq!(state, DeliveryState::Dead);
    assert!(error.contains("554") && !error.contains("s3cret") && !error.contains("ada@"), "{error}");
}
