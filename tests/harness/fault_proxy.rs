//! A TCP proxy that injects network faults between a client and a server, switched by a test while it runs.
//!
//! Faults concern whole connections: what a proxy has swallowed is lost, so that a connection with lost bytes is reset when its
//! mode passes bytes again, as a firewall does with a connection that it has forgotten.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What happens to a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass.
    #[default]
    Pass,
    /// Each piece of bytes waits for this time.
    Delay {
        /// From the client to the server.
        to_server: Duration,
        /// From the server to the client.
        to_client: Duration,
    },
    /// The connection is reset; a new one too, after it was accepted.
    Cut,
    /// Everything is swallowed; a new connection is accepted and leads nowhere.
    BlackHole,
    /// What goes in this direction is swallowed, the rest passes.
    HalfOpen(Direction),
    /// After this many bytes in both directions together, the connection is reset.
    CutAfter(usize),
}

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A proxy in front of one address. It ends with all its connections when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct State {
    server: SocketAddr,
    /// The mode of new connections.
    mode: Mutex<Mode>,
    connections: Mutex<Vec<Weak<Connection>>>,
    accepted: AtomicUsize,
}

/// One connection of a client.
#[derive(Debug)]
struct Connection {
    mode: watch::Sender<Mode>,
    /// Bytes that have passed since the mode was set.
    passed: AtomicUsize,
    /// Whether bytes have been swallowed.
    has_lost: AtomicBool,
}

/// The connection is to be reset.
#[derive(Debug)]
struct Reset;

impl FaultProxy {
    /// A proxy on a free port in front of this server.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State {
            server,
            mode: Mutex::default(),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, state.clone())).abort_handle();
        Self { address, state, accepting }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the mode of all connections, present and future ones.
    pub fn set(&self, mode: Mode) {
        *lock(&self.state.mode) = mode;
        self.set_present(mode);
    }

    /// Sets the mode of the present connections only.
    pub fn set_present(&self, mode: Mode) {
        for connection in self.state.open() {
            connection.passed.store(0, Ordering::SeqCst);
            connection.mode.send_replace(mode);
        }
    }

    /// How many connections have been accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.state.open().len()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn open(&self) -> Vec<Arc<Connection>> {
        lock(&self.connections).iter().filter_map(Weak::upgrade).collect()
    }

    /// Registers a connection, with the mode of new ones.
    fn register(&self) -> Arc<Connection> {
        // Held, so that a change of the mode reaches the connection either here or among the present ones.
        let mode = lock(&self.mode);
        let (passed, has_lost) = (AtomicUsize::new(0), AtomicBool::new(false));
        let connection = Arc::new(Connection { mode: watch::Sender::new(*mode), passed, has_lost });
        let mut connections = lock(&self.connections);
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(&connection));
        self.accepted.fetch_add(1, Ordering::SeqCst);
        connection
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Ends all connections when dropped.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let connection = state.register();
                connections.spawn(serve(client, state.server, connection));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut client: TcpStream, server: SocketAddr, connection: Arc<Connection>) {
    let mode = *connection.mode.borrow();
    if mode == Mode::BlackHole {
        connection.swallow_all(&mut client).await;
        return reset(&client);
    }
    if mode == Mode::Cut {
        return reset(&client);
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return reset(&client) };
    let nodelay = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let outcome = {
        let ((client_read, client_write), (server_read, server_write)) = (client.split(), server.split());
        let up = connection.pump(client_read, server_write, Direction::ToServer);
        let down = connection.pump(server_read, client_write, Direction::ToClient);
        tokio::select! {
            both = async { tokio::try_join!(up, down) } => both.map(drop),
            () = connection.is_to_be_reset() => Err(Reset),
        }
    };
    if outcome.is_err() || nodelay.is_err() {
        reset(&client);
        reset(&server);
    }
}

/// Closing the socket now sends a reset instead of an orderly end.
fn reset(socket: &TcpStream) {
    // It may be closed already.
    let _ = socket.set_zero_linger();
}

impl Connection {
    /// Passes bytes in one direction until its end.
    async fn pump(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, direction: Direction) -> Result<(), Reset> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let length = from.read(&mut buffer).await.map_err(of_error)?;
            let mode = *self.mode.borrow();
            if mode == Mode::BlackHole || mode == Mode::HalfOpen(direction) {
                // The end of one direction is swallowed as well.
                self.has_lost.store(true, Ordering::SeqCst);
                if length == 0 {
                    return std::future::pending().await;
                }
                continue;
            }
            if length == 0 {
                return to.shutdown().await.map_err(of_error);
            }
            if let Mode::Delay { to_server, to_client } = mode {
                tokio::time::sleep(if direction == Direction::ToServer { to_server } else { to_client }).await;
            }
            let before = self.passed.fetch_add(length, Ordering::SeqCst);
            let allowed = match mode {
                Mode::CutAfter(limit) => limit.saturating_sub(before).min(length),
                _ => length,
            };
            to.write_all(&buffer[..allowed]).await.map_err(of_error)?;
            if allowed < length {
                return Err(Reset);
            }
        }
    }

    /// Waits until the connection is cut, or passes bytes again after it has lost some.
    async fn is_to_be_reset(&self) {
        let is_reset = |mode: &Mode| match mode {
            Mode::Cut => true,
            Mode::BlackHole | Mode::HalfOpen(_) => false,
            Mode::Pass | Mode::Delay { .. } | Mode::CutAfter(_) => self.has_lost.load(Ordering::SeqCst),
        };
        // The sender is this connection's own.
        let _ = self.mode.subscribe().wait_for(is_reset).await;
    }

    /// Swallows what a client sends, until the mode changes.
    async fn swallow_all(&self, client: &mut TcpStream) {
        let mut changes = self.mode.subscribe();
        let swallow = async {
            let mut buffer = vec![0; 16 << 10];
            while client.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        };
        tokio::select! {
            () = swallow => {}
            _ = changes.wait_for(|mode| *mode != Mode::BlackHole) => {}
        }
    }
}

/// A connection that is broken on one side is broken on the other.
fn of_error(_: io::Error) -> Reset {
    Reset
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;

    /// A server that sends back what it receives, behind a proxy.
    async fn echo() -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap()).await;
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        proxy
    }

    async fn connect(proxy: &FaultProxy) -> TcpStream {
        TcpStream::connect(proxy.address()).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    fn is_reset<T>(outcome: &io::Result<T>) -> bool {
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof];
        outcome.as_ref().is_err_and(|error| kinds.contains(&error.kind()))
    }

    #[tokio::test]
    async fn bytes_pass_and_a_cut_resets_present_and_new_connections() {
        let proxy = echo().await;
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, b"one").await.unwrap(), b"one");
        assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
        proxy.set(Mode::Cut);
        assert!(is_reset(&ask(&mut stream, b"two").await));
        assert!(is_reset(&ask(&mut connect(&proxy).await, b"three").await));
        proxy.set(Mode::Pass);
        assert_eq!(ask(&mut connect(&proxy).await, b"four").await.unwrap(), b"four");
        wait::until("closed connections are forgotten", async || (proxy.open() <= 1).then_some(())).await;
    }

    #[tokio::test]
    async fn a_black_hole_answers_nothing_and_ends_when_it_passes_again() {
        let proxy = echo().await;
        let mut present = connect(&proxy).await;
        assert_eq!(ask(&mut present, b"one").await.unwrap(), b"one");
        proxy.set(Mode::BlackHole);
        let mut new = connect(&proxy).await;
        for stream in [&mut present, &mut new] {
            let answer = tokio::time::timeout(Duration::from_millis(50), ask(stream, b"two")).await;
            assert!(answer.is_err(), "{answer:?}");
        }
        proxy.set(Mode::Pass);
        for stream in [&mut present, &mut new] {
            assert!(is_reset(&stream.read_u8().await));
        }
    }

    #[tokio::test]
    async fn one_direction_of_a_half_open_connection_is_dead() {
        let proxy = echo().await;
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, b"one").await.unwrap(), b"one");
        proxy.set_present(Mode::HalfOpen(Direction::ToClient));
        let answer = tokio::time::timeout(Duration::from_millis(50), ask(&mut stream, b"two")).await;
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(ask(&mut connect(&proxy).await, b"new ones pass").await.unwrap(), b"new ones pass");
    }

    #[tokio::test]
    async fn a_connection_is_cut_after_a_number_of_bytes() {
        let proxy = echo().await;
        proxy.set(Mode::CutAfter(5));
        let mut stream = connect(&proxy).await;
        stream.write_all(b"abc").await.unwrap();
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ab", "three bytes to the server, and two back");
        assert!(is_reset(&stream.read_u8().await));
    }

    #[tokio::test]
    async fn a_delay_holds_bytes_back() {
        let proxy = echo().await;
        let delay = Duration::from_millis(50);
        proxy.set(Mode::Delay { to_server: delay, to_client: delay });
        let start = std::time::Instant::now();
        assert_eq!(ask(&mut connect(&proxy).await, b"late").await.unwrap(), b"late");
        assert!(start.elapsed() >= 2 * delay);
    }
}
