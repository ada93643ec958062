//! What one peer uses, over all its connections.

use std::{
    num::NonZero,
    sync::{
        LazyLock,
        atomic::{AtomicU64, AtomicUsize},
    },
    thread,
};

use tokio::sync::Semaphore;

use super::{
    ORDER,
    usage::{now, take},
};

/// How many pages one peer has made, or written as JSON, at once: on half of the cores, since each keeps its thread for a millisecond or
/// more, in which no other call runs there.
pub(super) fn max_pages() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get));
    (*CORES / 2).clamp(1, 4)
}

/// What one peer uses.
#[derive(Debug)]
pub(super) struct PeerUsage {
    pub(super) unsent: AtomicUsize,
    pub(super) request_bytes: AtomicUsize,
    pub(super) pages: Semaphore,
    pub(super) written_pages: Semaphore,
    pub(super) pace: Pace,
}

/// The rate at which the connections of a client are read: 64 KiB in one go, and then 4 KiB a millisecond. Four MiB of small frames keep a
/// core for a good part of a second.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The bytes read, less those that the time since then allows.
    read: AtomicUsize,
    /// When that was last subtracted, in milliseconds.
    updated: AtomicU64,
}

impl Pace {
    const BURST: usize = 64 << 10;
    const BYTES_PER_MILLI: usize = 4 << 10;

    pub(super) fn was_read(&self, bytes: usize) {
        self.read.fetch_add(bytes, ORDER);
    }

    pub(super) fn allows_more(&self) -> bool {
        if self.read.load(ORDER) < Self::BURST {
            return true;
        }
        let now = now();
        let before = self.updated.swap(now, ORDER);
        let millis = usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX);
        let allowed = millis.saturating_mul(Self::BYTES_PER_MILLI);
        take(&self.read, allowed);
        self.read.load(ORDER) < Self::BURST
    }
}

impl Default for PeerUsage {
    fn default() -> Self {
        Self {
            unsent: AtomicUsize::new(0),
            request_bytes: AtomicUsize::new(0),
            pages: Semaphore::new(max_pages()),
            written_pages: Semaphore::new(max_pages()),
            pace: Pace::default(),
        }
    }
}
