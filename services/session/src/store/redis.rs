//! Sessions and revocations in Redis.
//!
//! # Data layout
//!
//! Users are partitioned into shards, and a session's id contains its user's ([`UserShard`]). So a session, its user's
//! list of sessions and the sweep's index are in one slot of a Cluster, whether a call names the session or the user,
//! and each transition is one script. `keys.rs` lists the keys.
//!
//! # Atomicity
//!
//! There is one stream of revocations, so in a Cluster it is in another slot than most sessions, and no script can
//! access both. Sessions are therefore ended in three steps (a transactional outbox), each atomic and idempotent:
//!
//! 1. `end.lua` (or `end_all.lua`) deletes the session and adds it to the shard's outbox.
//! 2. `publish.lua` adds the revocation to the stream, unless it is there already, and stores its stream id.
//! 3. The entry in the outbox is deleted.
//!
//! If the service or the connection fails before 1, nothing has happened. Between 1 and 2 the session has ended but its
//! tokens are not void yet, and no response has claimed that they are. A retry of the call, or any other call that ends
//! a session in that shard, finds the entry and publishes it before its response; otherwise the sweep of any instance
//! does, within 10 seconds. Between 2 and 3 the entry is published again, which finds the stored stream id. A rotation
//! that finds no session publishes the outbox of its shard as well.
//!
//! `rotate.lua` advances a session. Any other token is judged by [`Lifetimes::present`] on the session as that script read
//! it. `save.lua` applies the result if the session is still the same, and `end.lua` ends a session whose token was reused:
//! counters only grow, so a reuse remains a reuse.
//!
//! # Time
//!
//! Whether a session is active depends on the caller's clock, as in every store. The clock of Redis only deletes keys
//! some time after they have expired, and numbers the revocations.

mod keys;
mod row;

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use chrono::TimeDelta;
use drystone_mesh::{clock::Timestamp, page::Page, time::to_micros};
use drystone_store::redis::{DedicatedConnection, Redis, Script, cmd};
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::streams::{StreamRangeReply, StreamReadReply};
use tokio::sync::Mutex;
use uuid::Uuid;

use self::{
    keys::{Keys, text},
    row::{Outbox, SessionFields},
};
use super::{EndedSessions, SessionStore, StoreError, Swept};
use crate::{
    revocation::{Holder, KEY_RETENTION, Revocation},
    rotation::{Presented, PresentedBy, Rotation},
    session::{Lifetimes, Session, UserShard},
};

macro_rules! script {
    ($name:literal) => {
        Script::new(include_str!(concat!("redis/scripts/", $name)))
    };
    ($name:literal with fields) => {
        Script::new(concat!(include_str!("redis/scripts/fields.lua"), include_str!(concat!("redis/scripts/", $name))))
    };
}

static INSERT: LazyLock<Script> = LazyLock::new(|| script!("insert.lua"));
static ROTATE: LazyLock<Script> = LazyLock::new(|| script!("rotate.lua" with fields));
static SAVE: LazyLock<Script> = LazyLock::new(|| script!("save.lua"));
static READ: LazyLock<Script> = LazyLock::new(|| script!("read.lua" with fields));
static RAISE: LazyLock<Script> = LazyLock::new(|| script!("raise.lua"));
static END: LazyLock<Script> = LazyLock::new(|| script!("end.lua" with fields));
static END_ALL: LazyLock<Script> = LazyLock::new(|| script!("end_all.lua"));
static LIST: LazyLock<Script> = LazyLock::new(|| script!("list.lua" with fields));
static PUBLISH: LazyLock<Script> = LazyLock::new(|| script!("publish.lua"));
static NEWEST: LazyLock<Script> = LazyLock::new(|| script!("newest.lua"));
static TRIM: LazyLock<Script> = LazyLock::new(|| script!("trim.lua"));
static SWEEP: LazyLock<Script> = LazyLock::new(|| script!("sweep.lua"));

/// How long Redis keeps a session after it has expired, since clocks may differ by that much.
const CLOCK_SKEW_MARGIN: TimeDelta = TimeDelta::minutes(5);
/// How many sessions or revocations one script processes: Redis executes nothing else meanwhile.
const SCRIPT_BATCH_SIZE: usize = 200;
/// How many shards are swept or counted concurrently.
const MAX_CONCURRENT_SHARDS: usize = 16;
/// How long a blocking read of the stream waits for an entry.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Sessions and revocations in Redis.
#[derive(Debug)]
pub struct RedisStore {
    redis: Redis,
    keys: Keys,
    /// The connection for blocking reads of the stream.
    blocking: Mutex<Option<DedicatedConnection>>,
}

impl RedisStore {
    /// A store in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { keys: Keys::of(&redis), redis, blocking: Mutex::new(None) }
    }

    /// Ends a session; of any user, if none is given. Returns it as it was, and the outbox to publish.
    async fn end_one(
        &self,
        user_id: Option<Uuid>,
        id: Uuid,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<(Option<Session>, Outbox), StoreError> {
        let shard = UserShard::of_session(id);
        let mut script = END.prepare_invoke();
        script.key(self.keys.session(id)).key(self.keys.ends(shard)).key(self.keys.outbox(shard));
        script.arg(text(id)).arg(user_id.map(text).unwrap_or_default()).arg(to_micros(now));
        script.arg(to_micros(lifetimes.forget_at(now))).arg(self.keys.users(shard));
        let (row, outbox): (Option<SessionFields>, Outbox) = self.redis.run(&script).await?;
        Ok((row.map(|row| row::session(id, row)).transpose()?, outbox))
    }

    /// The outcome of a token; `None` if the session was rotated concurrently.
    async fn rotate_once(
        &self,
        id: Uuid,
        counter: u64,
        by: &PresentedBy,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Option<Rotation>, StoreError> {
        let shard = UserShard::of_session(id);
        let mut script = ROTATE.prepare_invoke();
        script.key(self.keys.session(id)).key(self.keys.ends(shard));
        script.arg(text(id)).arg(counter).arg(to_micros(now)).arg(to_micros(now + lifetimes.idle_timeout));
        script.arg(CLOCK_SKEW_MARGIN.num_milliseconds()).arg(&by.device).arg(&by.address);
        let reply: Option<(bool, SessionFields)> = self.redis.run(&script).await?;
        let Some((has_advanced, row)) = reply else {
            self.publish_outbox(shard, now).await?;
            return Ok(Some(Rotation::Ended));
        };
        let session = row::session(id, row)?;
        if has_advanced {
            return Ok(Some(Rotation::Advanced(session)));
        }
        Ok(match lifetimes.present(&session, counter, by, now) {
            Presented::Advance(_) => None,
            Presented::Repeat(next) => self.save(&session, &next, now).await?.then_some(Rotation::Repeated(next)),
            Presented::Replace(next) => self.save(&session, &next, now).await?.then_some(Rotation::Replaced(next)),
            Presented::RepeatedTooOften => Some(Rotation::RepeatedTooOften(session)),
            Presented::NeverIssued => Some(Rotation::NeverIssued),
            Presented::Ended => Some(Rotation::Ended),
            Presented::Reuse => {
                let (session, outbox) = self.end_one(None, id, lifetimes, now).await?;
                let seqs = self.publish(shard, outbox, now).await?;
                let reused = session.zip(seqs.get(&id).copied());
                // Otherwise it was ended concurrently.
                Some(reused.map_or(Rotation::Ended, |(session, revocation)| Rotation::Reused { session, revocation }))
            }
        })
    }

    /// Replaces the state of a session's rotation. Returns whether it was still the previous one.
    async fn save(&self, previous: &Session, next: &Session, now: Timestamp) -> Result<bool, StoreError> {
        let shard = UserShard::of_session(next.id);
        let mut script = SAVE.prepare_invoke();
        script.key(self.keys.session(next.id)).key(self.keys.ends(shard));
        script.arg(text(next.id)).arg(previous.counter).arg(previous.repeats);
        script.arg(next.counter).arg(next.repeats).arg(next.replacements).arg(next.repeated_rotations);
        script.arg(to_micros(next.last_seen_at)).arg(to_micros(next.idle_expires_at));
        script.arg(&next.last_device).arg(&next.last_address);
        script.arg(row::milliseconds(next.idle_expires_at, now) + CLOCK_SKEW_MARGIN.num_milliseconds());
        script.arg(next.confirmed);
        Ok(self.redis.run(&script).await?)
    }

    /// Ends up to [`SCRIPT_BATCH_SIZE`] sessions of a user. Returns the id to continue after; empty at the end.
    async fn end_batch(
        &self,
        user_id: Uuid,
        keep: Option<Uuid>,
        after: &str,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<(EndedSessions, String), StoreError> {
        let shard = UserShard::of_user(user_id);
        let mut script = END_ALL.prepare_invoke();
        script.key(self.keys.user(user_id)).key(self.keys.ends(shard)).key(self.keys.outbox(shard));
        script.arg(text(user_id)).arg(keep.map(text).unwrap_or_default()).arg(to_micros(now));
        script.arg(to_micros(lifetimes.forget_at(now))).arg(self.keys.sessions(shard));
        script.arg(after).arg(SCRIPT_BATCH_SIZE);
        let (ended, outbox, next): (Vec<String>, Outbox, String) = self.redis.run(&script).await?;
        let seqs = self.publish(shard, outbox, now).await?;
        let ended = ended.into_iter().map(row::uuid).collect::<Result<Vec<_>, _>>()?;
        let newest = ended.iter().filter_map(|id| seqs.get(id)).max();
        // If none was ended now, the caller waits for what an earlier call left in the outbox.
        let revocation = newest.or_else(|| seqs.values().max()).copied();
        Ok((EndedSessions { sessions: u32::try_from(ended.len()).unwrap_or(u32::MAX), revocation }, next))
    }

    /// Adds the entries of an outbox to the stream, and clears it. Returns the sequence number of each revocation.
    async fn publish(
        &self,
        shard: UserShard,
        outbox: Outbox,
        now: Timestamp,
    ) -> Result<HashMap<Uuid, u64>, StoreError> {
        let mut seqs = HashMap::new();
        for batch in outbox.chunks(SCRIPT_BATCH_SIZE) {
            let ids = batch.iter().map(|(id, _)| row::uuid(id)).collect::<Result<Vec<_>, _>>()?;
            let last = batch.iter().map(|(_, forget_at)| *forget_at).max().unwrap_or_default();
            let mut script = PUBLISH.prepare_invoke();
            script.key(self.keys.stream());
            script.arg(((last - to_micros(now)).max(0) / 1000) + CLOCK_SKEW_MARGIN.num_milliseconds());
            for (id, (text, forget_at)) in ids.iter().zip(batch) {
                script.key(self.keys.stream_id(*id)).arg(text).arg(forget_at);
            }
            let stream_ids: Vec<String> = self.redis.run(&script).await?;
            for (id, stream_id) in ids.into_iter().zip(stream_ids) {
                seqs.insert(id, row::seq(&stream_id)?);
            }
            let mut clear = cmd("HDEL");
            clear.arg(self.keys.outbox(shard)).arg(batch.iter().map(|(id, _)| id).collect::<Vec<_>>());
            if let Err(error) = self.redis.query::<()>(&clear).await {
                // Publishing it again has no effect.
                tracing::debug!(%error, "outbox of a shard was not cleared");
            }
        }
        Ok(seqs)
    }

    /// Publishes the outbox that earlier calls in this shard left behind.
    async fn publish_outbox(&self, shard: UserShard, now: Timestamp) -> Result<(), StoreError> {
        let outbox: Outbox = self.redis.query(cmd("HGETALL").arg(self.keys.outbox(shard))).await?;
        self.publish(shard, outbox, now).await.map(drop)
    }

    async fn sweep_shard(&self, shard: UserShard, now: Timestamp) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            let mut script = SWEEP.prepare_invoke();
            script.key(self.keys.ends(shard)).key(self.keys.outbox(shard));
            script
                .arg(to_micros(now))
                .arg(SCRIPT_BATCH_SIZE)
                .arg(self.keys.sessions(shard))
                .arg(self.keys.users(shard));
            let (sessions, outbox): (u64, Outbox) = self.redis.run(&script).await?;
            self.publish(shard, outbox, now).await?;
            swept += sessions;
            if sessions < SCRIPT_BATCH_SIZE as u64 {
                return Ok(swept);
            }
        }
    }

    async fn trim(&self, now: Timestamp) -> Result<u64, StoreError> {
        let (mut trimmed, mut after) = (0, String::new());
        loop {
            let mut script = TRIM.prepare_invoke();
            script.key(self.keys.stream()).arg(to_micros(now)).arg(SCRIPT_BATCH_SIZE).arg(after);
            let (count, next): (u64, String) = self.redis.run(&script).await?;
            trimmed += count;
            if next.is_empty() {
                return Ok(trimmed);
            }
            after = next;
        }
    }

    /// Waits for an entry of the stream after this number, for at most [`BLOCK_TIMEOUT`].
    async fn read_blocking(
        &self,
        blocking: &mut Option<DedicatedConnection>,
        after: u64,
    ) -> Result<Option<u64>, StoreError> {
        if blocking.is_none() {
            let connection = self.redis.dedicated(BLOCK_TIMEOUT).await?;
            let newest = self.newest_revocation().await?;
            *blocking = Some(connection);
            if newest < after {
                tracing::warn!("redis has lost revocations; watchers start from all revocations again");
            }
            if newest != after {
                return Ok(Some(newest));
            }
        }
        let Some(connection) = blocking else { return Ok(None) };
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(SCRIPT_BATCH_SIZE).arg("BLOCK").arg(BLOCK_TIMEOUT.as_millis().to_string());
        read.arg("STREAMS").arg(self.keys.stream()).arg(row::stream_id(after));
        let reply: Option<StreamReadReply> = connection.query(&read).await?;
        let last = reply.as_ref().and_then(|reply| reply.keys.first()).and_then(|key| key.ids.last());
        last.map(|entry| row::seq(&entry.id)).transpose()
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn insert(&self, session: &Session) -> Result<(), StoreError> {
        let shard = UserShard::of_session(session.id);
        if shard != UserShard::of_user(session.user_id) {
            return Err(StoreError::Unreadable("a session whose id is not in its user's shard"));
        }
        let ttl = |until| row::milliseconds(until, session.created_at) + CLOCK_SKEW_MARGIN.num_milliseconds();
        let mut script = INSERT.prepare_invoke();
        script.key(self.keys.session(session.id)).key(self.keys.user(session.user_id)).key(self.keys.ends(shard));
        script.arg(text(session.id)).arg(text(session.user_id)).arg(&session.device).arg(&session.address);
        script.arg(to_micros(session.created_at)).arg(to_micros(session.last_seen_at));
        script.arg(to_micros(session.idle_expires_at)).arg(to_micros(session.expires_at)).arg(session.counter);
        script.arg(ttl(session.idle_expires_at)).arg(ttl(session.expires_at)).arg(session.confirmed);
        script.arg(session.authentication.to_text());
        Ok(self.redis.run(&script).await?)
    }

    async fn rotate(
        &self,
        id: Uuid,
        counter: u64,
        by: &PresentedBy,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Rotation, StoreError> {
        loop {
            if let Some(rotation) = self.rotate_once(id, counter, by, lifetimes, now).await? {
                return Ok(rotation);
            }
        }
    }

    async fn raise(
        &self,
        user_id: Uuid,
        id: Uuid,
        methods: &[String],
        now: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        loop {
            let mut read = READ.prepare_invoke();
            let row: Option<SessionFields> = self.redis.run(read.key(self.keys.session(id))).await?;
            let Some(row) = row else { return Ok(None) };
            let stored = row::authentication(&row).to_owned();
            let mut session = row::session(id, row)?;
            if session.user_id != user_id || !session.is_active(now) {
                return Ok(None);
            }
            session.authentication = session.authentication.raised(now, methods);
            let mut script = RAISE.prepare_invoke();
            script.key(self.keys.session(id)).arg(stored).arg(session.authentication.to_text());
            if self.redis.run(&script).await? {
                return Ok(Some(session));
            }
        }
    }

    async fn list(&self, user_id: Uuid, page: &Page, now: Timestamp) -> Result<Vec<Session>, StoreError> {
        let mut script = LIST.prepare_invoke();
        script.key(self.keys.user(user_id)).arg(page.after.map(text).unwrap_or_default()).arg(page.limit());
        script.arg(to_micros(now)).arg(self.keys.sessions(UserShard::of_user(user_id)));
        let found: Vec<(String, SessionFields)> = self.redis.run(&script).await?;
        found.into_iter().map(|(id, row)| row::session(row::uuid(id)?, row)).collect()
    }

    /// With those that have expired and are not swept yet.
    async fn count_of_user(&self, user_id: Uuid, _now: Timestamp) -> Result<u64, StoreError> {
        let mut count = cmd("ZCARD");
        count.arg(self.keys.user(user_id));
        Ok(self.redis.query(&count).await?)
    }

    async fn end(
        &self,
        user_id: Uuid,
        id: Uuid,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<EndedSessions, StoreError> {
        let (session, outbox) = self.end_one(Some(user_id), id, lifetimes, now).await?;
        let seqs = self.publish(UserShard::of_session(id), outbox, now).await?;
        Ok(EndedSessions { sessions: session.is_some().into(), revocation: seqs.get(&id).copied() })
    }

    async fn end_all(
        &self,
        user_id: Uuid,
        keep: Option<Uuid>,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<EndedSessions, StoreError> {
        let (mut total, mut after) = (EndedSessions::default(), String::new());
        loop {
            let (ended, next) = self.end_batch(user_id, keep, &after, lifetimes, now).await?;
            total.sessions += ended.sessions;
            total.revocation = total.revocation.max(ended.revocation);
            if next.is_empty() {
                return Ok(total);
            }
            after = next;
        }
    }

    async fn void_tokens(&self, of: &[Holder], lifetimes: &Lifetimes, now: Timestamp) -> Result<u64, StoreError> {
        let mut last = 0;
        for (user_id, role) in of.iter().map(Holder::to_columns) {
            let mut add = cmd("XADD");
            add.arg(self.keys.stream()).arg("*").arg("user").arg(text(user_id)).arg("until").arg(to_micros(now));
            if let Some(role) = role {
                add.arg("role").arg(role);
            }
            add.arg("forget").arg(to_micros(lifetimes.forget_at(now)));
            last = row::seq(&self.redis.query::<String>(&add).await?)?;
        }
        Ok(last)
    }

    async fn void_key(&self, key_id: &str, now: Timestamp) -> Result<u64, StoreError> {
        let mut add = cmd("XADD");
        // With the nil user, as for a role: a release that does not know keys reads a revocation of nobody's tokens.
        add.arg(self.keys.stream()).arg("*").arg("user").arg(text(Uuid::nil())).arg("until").arg(to_micros(now));
        add.arg("key").arg(key_id).arg("forget").arg(to_micros(now + KEY_RETENTION));
        row::seq(&self.redis.query::<String>(&add).await?)
    }

    async fn revocations_after(&self, seq: u64, limit: u32, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        let limit = limit as usize;
        let (mut found, mut after) = (Vec::new(), seq);
        loop {
            let mut range = cmd("XRANGE");
            range.arg(self.keys.stream()).arg(format!("({}", row::stream_id(after))).arg("+").arg("COUNT").arg(limit);
            let read: StreamRangeReply = self.redis.query(&range).await?;
            for entry in &read.ids {
                let revocation = row::revocation(entry)?;
                after = revocation.seq;
                if revocation.forget_at > now {
                    found.push(revocation);
                }
                if found.len() == limit {
                    return Ok(found);
                }
            }
            if read.ids.len() < limit {
                return Ok(found);
            }
        }
    }

    async fn newest_revocation(&self) -> Result<u64, StoreError> {
        let stream_id: Option<String> = self.redis.run(NEWEST.prepare_invoke().key(self.keys.stream())).await?;
        stream_id.map_or(Ok(0), |stream_id| row::seq(&stream_id))
    }

    async fn sweep(&self, now: Timestamp, forget_until: Timestamp) -> Result<Swept, StoreError> {
        let shards = stream::iter(UserShard::all()).map(|shard| self.sweep_shard(shard, now));
        let sessions =
            shards.buffer_unordered(MAX_CONCURRENT_SHARDS).try_fold(0, async |sum, count| Ok(sum + count)).await?;
        Ok(Swept { sessions, revocations: self.trim(forget_until).await? })
    }

    async fn count_active(&self, now: Timestamp) -> Result<u64, StoreError> {
        let counts = stream::iter(UserShard::all()).map(async |shard| {
            let mut count = cmd("ZCOUNT");
            count.arg(self.keys.ends(shard)).arg(format!("({}", to_micros(now))).arg("+inf");
            Ok::<u64, StoreError>(self.redis.query(&count).await?)
        });
        counts.buffer_unordered(MAX_CONCURRENT_SHARDS).try_fold(0, async |sum, count| Ok(sum + count)).await
    }

    async fn wait_for_revocation(&self, after: u64) -> Result<u64, StoreError> {
        let mut blocking = self.blocking.lock().await;
        loop {
            match self.read_blocking(&mut blocking, after).await {
                Ok(None) => {}
                Ok(Some(newest)) => return Ok(newest),
                Err(error) => {
                    *blocking = None;
                    return Err(error);
                }
            }
        }
    }
}
