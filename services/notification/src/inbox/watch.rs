//! Watching inboxes: who watches is notified of new messages, also of those that another instance has accepted.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use drystone_mesh::{clock::Clock, error::Chain, id, token::Principal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::InboxMessage;
use crate::{Error, store::NotificationStore};

/// How often one user may watch at once, and all users together.
const MAX_WATCHERS_PER_USER: usize = 16;
const MAX_WATCHERS: usize = 10_000;

/// How often messages are looked for that another instance has accepted.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often a watcher is sent a heartbeat.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Ids are in the order of time, but may become visible late: by the clocks of instances and the length of a transaction. So messages
/// of this last time are read again, and those that were sent are skipped.
const OVERLAP: TimeDelta = TimeDelta::seconds(10);

/// How many messages one response has, at most.
const MAX_RESPONSE: usize = 50;

/// How many users one poll notifies.
const POLL_LIMIT: u32 = 1000;

/// The watchers of inboxes. Clones share them.
#[derive(Clone)]
pub(crate) struct Inboxes(Arc<Inner>);

struct Inner {
    store: NotificationStore,
    clock: Clock,
    watchers: Mutex<HashMap<Uuid, Watchers>>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Watchers {
    count: usize,
    notify: Arc<Notify>,
}

impl Inboxes {
    /// Of this store.
    pub(crate) fn new(store: NotificationStore, clock: Clock, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner { store, clock, watchers: Mutex::default(), stop }))
    }

    /// Notifies the watchers of this user.
    pub(crate) fn notify(&self, user: Uuid) {
        if let Some(watchers) = self.lock().get(&user) {
            watchers.notify.notify_waiters();
        }
    }

    /// Watches the inbox of the user of this token, from the message `after` on.
    ///
    /// # Errors
    /// [`Error::TooManyWatchers`].
    pub(crate) fn watch(&self, principal: Arc<Principal>, after: Option<Uuid>) -> Result<Watch, Error> {
        let user = principal.user_id;
        let notify = {
            let mut all = self.lock();
            if all.values().map(|watchers| watchers.count).sum::<usize>() >= MAX_WATCHERS {
                return Err(Error::TooManyWatchers);
            }
            let watchers = all.entry(user).or_default();
            if watchers.count >= MAX_WATCHERS_PER_USER {
                return Err(Error::TooManyWatchers);
            }
            watchers.count += 1;
            Arc::clone(&watchers.notify)
        };
        let now = self.0.clock.now();
        // What is read again is sent again, but for the known one: what became visible late may be unknown. And no id of the client
        // leads past what arrives from now on.
        let (cursor, sent) = match after {
            Some(known) => (known.min(id::v7_at(now)), BTreeSet::from([known])),
            None => (id::v7_at(now), BTreeSet::new()),
        };
        Ok(Watch {
            inboxes: self.clone(),
            principal,
            notify,
            cursor,
            skipped: after.is_none().then_some(cursor),
            sent,
            pending: VecDeque::new(),
            is_first_read: true,
        })
    }

    /// Looks for messages that another instance has accepted, while somebody watches.
    pub(crate) async fn follow(self) {
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.0.stop.run_until_cancelled(interval.tick()).await.is_some() {
            if self.lock().is_empty() {
                continue;
            }
            let since = self.0.clock.now() - OVERLAP;
            match self.0.store.users_with_messages_since(since, POLL_LIMIT).await {
                Ok(users) => users.into_iter().for_each(|user| self.notify(user)),
                Err(error) => tracing::debug!(cause = %Chain(&error), "inboxes could not be followed"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Watchers>> {
        self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watcher of one inbox.
pub(crate) struct Watch {
    inboxes: Inboxes,
    principal: Arc<Principal>,
    notify: Arc<Notify>,
    /// Messages up to this id were read.
    cursor: Uuid,
    /// Those up to this id are never sent.
    skipped: Option<Uuid>,
    /// Those that are read again.
    sent: BTreeSet<Uuid>,
    /// Those that were read and not sent yet.
    pending: VecDeque<InboxMessage>,
    is_first_read: bool,
}

impl Watch {
    /// Waits for the next messages; none are a heartbeat, and the first response is never waited for. `None` ends the stream: the service
    /// stops. When the token is no longer valid, the server ends the stream
    /// ([`TokenVerifier::invalidation`](drystone_mesh::token::TokenVerifier::invalidation)).
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<InboxMessage>, Error>> {
        let notify = Arc::clone(&self.notify);
        let stop = self.inboxes.0.stop.clone();
        let heartbeat = tokio::time::sleep(if self.is_first_read { Duration::ZERO } else { HEARTBEAT_INTERVAL });
        tokio::pin!(heartbeat);
        let mut is_read_due = true;
        loop {
            let notified = notify.notified();
            tokio::pin!(notified);
            // Enabled before the read, so that what is accepted during it causes another one.
            notified.as_mut().enable();
            if stop.is_cancelled() {
                return None;
            }
            if std::mem::take(&mut is_read_due)
                && self.pending.is_empty()
                && let Err(error) = self.read().await
            {
                return Some(Err(error));
            }
            if !self.pending.is_empty() {
                let count = self.pending.len().min(MAX_RESPONSE);
                return Some(Ok(self.pending.drain(..count).collect()));
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = heartbeat.as_mut() => return Some(Ok(Vec::new())),
                () = notified => is_read_due = true,
            }
        }
    }

    /// Reads what was not sent, into `pending`.
    async fn read(&mut self) -> Result<(), Error> {
        let Self { inboxes, principal, cursor, skipped, sent, is_first_read, .. } = self;
        let start = before(*cursor, OVERLAP);
        let messages = inboxes.0.store.inbox_after(principal.user_id, start).await?;
        *sent = sent.split_off(&start);
        *is_first_read = false;
        for message in messages {
            let is_new = sent.insert(message.id) && skipped.is_none_or(|skipped| message.id > skipped);
            *cursor = (*cursor).max(message.id);
            if is_new {
                self.pending.push_back(message);
            }
        }
        Ok(())
    }
}

/// An id that precedes all ids from this time before that of `id` on.
fn before(id: Uuid, time: TimeDelta) -> Uuid {
    let millis = (id.as_u128() >> 80).saturating_sub(u128::from(time.num_milliseconds().unsigned_abs()));
    Uuid::from_u128(millis << 80)
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = self.inboxes.lock();
        if let Some(watchers) = all.get_mut(&self.principal.user_id) {
            watchers.count -= 1;
            if watchers.count == 0 {
                all.remove(&self.principal.user_id);
            }
        }
    }
}
