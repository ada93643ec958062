//! A request in progress: how far its response is, and its end before that.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;
use hyper::rt::Executor;
use tokio::sync::SemaphorePermit;

use super::{
    ORDER, RequestBytes, Usage,
    body::MAX_IN_TRANSPORT,
    peer::PeerUsage,
    proxied::ProxiedClient,
    usage::{NEVER, OverBudget, now, take},
};
use crate::limit::Key;

/// A request in progress, until its response has ended.
#[derive(Debug)]
pub struct Request {
    usage: Usage,
    id: u64,
    progress: Arc<Progress>,
    client: Option<ProxiedClient>,
}

/// What others see of a request.
#[derive(Debug)]
pub(super) struct Progress {
    /// Since when there is data that the transport has not taken, or has taken and could not send; [`NEVER`] if there is none.
    waiting_since: AtomicU64,
    /// The bytes of the response that have not been handed to the transport.
    held: AtomicUsize,
    /// How many of those that have been handed to it may not have been sent: at most [`MAX_IN_TRANSPORT`].
    in_transport: AtomicUsize,
    /// The client, behind a proxy.
    client: OnceLock<Arc<PeerUsage>>,
    /// Whether it has an HTTP/2 stream, which can end without its connection.
    has_stream: AtomicBool,
    is_reset: AtomicBool,
    /// The task of the stream.
    task: AtomicWaker,
}

impl Request {
    pub(super) fn new(usage: Usage, id: u64, progress: Arc<Progress>) -> Self {
        Self { usage, id, progress, client: None }
    }

    /// The connection's usage.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// States the client. Behind a proxy it has a budget of its own, that of a peer; elsewhere the connection is its own.
    #[must_use]
    pub fn of_client(mut self, client: Key) -> Self {
        if self.usage.is_of_proxy() {
            let client = self.usage.proxied_client(client);
            let _ = self.progress.client.set(client.usage().clone());
            self.client = Some(client);
        }
        self
    }

    /// No bytes of the request yet.
    #[must_use]
    pub fn bytes(&self) -> RequestBytes {
        RequestBytes::new(self.usage.clone(), self.progress.client.get().cloned())
    }

    /// Waits until the pages that are made for this client leave half of the cores free, and counts one until the permit
    /// is dropped. A proxy that states no client does not wait: nobody knows how many it has.
    pub async fn turn_for_page(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.client()?.pages.acquire().await.ok()
    }

    /// The same to write a page as JSON, whose call may have given up its turn.
    pub async fn turn_to_write_page(&self) -> Option<SemaphorePermit<'_>> {
        self.client()?.written_pages.acquire().await.ok()
    }

    /// Whose pages take turns.
    fn client(&self) -> Option<&PeerUsage> {
        let Usage(connection) = &self.usage;
        match self.progress.client.get() {
            Some(client) => Some(client),
            None if self.usage.is_of_proxy() => None,
            None => Some(&connection.peer),
        }
    }

    /// Counts the bytes of a response.
    pub(super) fn hold(&self, bytes: usize) -> Result<(), OverBudget> {
        let client = self.progress.client.get();
        if client.is_some_and(|client| self.usage.exceeds_that_of_peer(client, bytes)) {
            return Err(OverBudget);
        }
        self.usage.hold(bytes, &self.progress)?;
        self.progress.held.fetch_add(bytes, ORDER);
        if let Some(client) = client {
            client.unsent.fetch_add(bytes, ORDER);
        }
        Ok(())
    }

    /// Whether so much of the connection or its client is unsent that another large response would hardly fit: the request is better
    /// refused before any work.
    #[must_use]
    pub fn is_nearly_full(&self) -> bool {
        let client = self.progress.client.get();
        self.usage.is_nearly_full() || client.is_some_and(|client| self.usage.is_nearly_full_for(client))
    }

    /// The transport has taken held bytes.
    pub(super) fn hand_over(&self, bytes: usize) {
        let handed = self.progress.give_up(bytes);
        self.progress.take_in(handed);
        self.usage.hand_over(handed);
    }

    /// The transport has taken bytes that were not held.
    pub(super) fn buffer(&self, bytes: usize) {
        self.progress.take_in(bytes);
        self.usage.buffer(bytes);
    }

    /// Held bytes will not be sent.
    pub(super) fn discard(&self, bytes: usize) {
        self.usage.discard(self.progress.give_up(bytes));
    }

    /// There is data for the transport, or the transport has taken a piece and may not be able to send it.
    pub(super) fn starts_waiting(&self) {
        self.progress.waiting_since.store(now(), ORDER);
    }

    /// The transport has sent every piece so far, and there is no more yet.
    pub(super) fn ends_waiting(&self) {
        self.progress.waiting_since.store(NEVER, ORDER);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.progress.end();
        self.usage.end_request(self.id);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            waiting_since: AtomicU64::new(NEVER),
            held: AtomicUsize::new(0),
            in_transport: AtomicUsize::new(0),
            client: OnceLock::new(),
            has_stream: AtomicBool::new(false),
            is_reset: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }
}

impl Progress {
    pub(super) fn waiting_since(&self) -> u64 {
        self.waiting_since.load(ORDER)
    }

    /// The bytes of the response that may not have been sent.
    pub(super) fn unsent(&self) -> usize {
        self.held.load(ORDER) + self.in_transport.load(ORDER)
    }

    /// The client that the proxy states, and what it has not taken of all its responses.
    pub(super) fn client(&self) -> Option<(*const PeerUsage, usize)> {
        self.client.get().map(|client| (Arc::as_ptr(client), client.unsent.load(ORDER)))
    }

    /// The transport has taken so many bytes more.
    fn take_in(&self, bytes: usize) {
        let before = self.in_transport.load(ORDER);
        // One task sends a response.
        let after = before.saturating_add(bytes).min(MAX_IN_TRANSPORT);
        self.in_transport.store(after, ORDER);
        if let Some(client) = self.client.get() {
            client.unsent.fetch_add(after - before, ORDER);
        }
    }

    /// The response has ended.
    fn end(&self) {
        let bytes = self.in_transport.swap(0, ORDER);
        if let Some(client) = self.client.get() {
            take(&client.unsent, bytes);
        }
    }

    pub(super) fn is_reset(&self) -> bool {
        self.is_reset.load(Ordering::SeqCst)
    }

    pub(super) fn has_stream(&self) -> bool {
        self.has_stream.load(ORDER)
    }

    /// Whether it can end without its connection, and has not.
    pub(super) fn can_be_reset(&self) -> bool {
        self.has_stream() && !self.is_reset()
    }

    /// Ends the stream, and the work on its response. What was held counts no more.
    pub(super) fn reset(&self, usage: &Usage) {
        self.is_reset.store(true, Ordering::SeqCst);
        usage.discard(self.give_up(usize::MAX));
        self.task.wake();
    }

    /// Held bytes are not any more. Returns how many were.
    fn give_up(&self, bytes: usize) -> usize {
        let bytes = take(&self.held, bytes);
        if let Some(client) = self.client.get() {
            take(&client.unsent, bytes);
        }
        bytes
    }

    /// Drives a stream until it ends or is reset.
    async fn drive(&self, stream: impl Future) {
        let mut stream = pin!(stream);
        poll_fn(|cx| {
            // Registered first, so that no reset is missed.
            self.task.register(cx.waker());
            if self.is_reset() { Poll::Ready(()) } else { stream.as_mut().poll(cx).map(drop) }
        })
        .await;
    }
}

/// Spawns the streams of one HTTP/2 connection, so that each can be reset.
#[derive(Debug, Clone)]
pub struct StreamExecutor(Usage);

impl StreamExecutor {
    /// The executor of this connection alone.
    #[must_use]
    pub fn new(usage: Usage) -> Self {
        Self(usage)
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // hyper calls the service, which starts the request, and then hands its stream over.
        match self.0.take_started_request() {
            Some(progress) => {
                progress.has_stream.store(true, ORDER);
                tokio::spawn(async move { progress.drive(stream).await });
            }
            None => drop(tokio::spawn(stream)),
        }
    }
}
