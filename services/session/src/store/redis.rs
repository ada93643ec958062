//! Sessions and revocations in Redis.
//!
//! # Where things lie
//!
//! Users are divided into shards, and a session's id tells its user's ([`Shard`]). So a session, its user's list of
//! sessions and what the sweep needs lie in one slot of a Cluster, whether one comes with the session or with the user,
//! and each transition is one script. The keys are listed in `keys.rs`.
//!
//! # What is atomic, and what happens in between
//!
//! The stream of revocations is one for all, so in a Cluster it lies in another slot than most sessions, and no script
//! reaches both. An ending therefore goes in three steps, each of them atomic and safe to repeat:
//!
//! 1. `end.lua` (or `end_all.lua`) deletes the session and notes in the shard's outbox that its tokens are void.
//! 2. `publish.lua` adds the revocation to the stream, unless it is there already, and remembers its place.
//! 3. The note is deleted.
//!
//! If the service or the connection dies before 1, nothing has happened. Between 1 and 2, the session is over and its
//! tokens are not void yet; nobody has been told that they are. The same call again, or any other ending in that shard,
//! finds the note and publishes it before it answers; otherwise the sweep of any instance does, within 10 seconds.
//! Between 2 and 3 the note is published again, which finds the place of the first time. A rotation that finds its
//! session gone sees to the notes of its shard as well.
//!
//! Presenting a used token is judged by [`Lifetimes::classify`] on the session as `rotate.lua` found it, and ended by
//! `end.lua`: counters only grow, so that what was a reuse stays one.
//!
//! # Time
//!
//! What is live is a question of the caller's clock, as in every store. Redis' own clock only removes what nobody would
//! find any more, a while later, and numbers the revocations.

mod keys;
mod row;

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use chrono::TimeDelta;
use drystone_mesh::{clock::Timestamp, page::Page, time::to_micros};
use drystone_store::redis::{Dedicated, Redis, Script, cmd};
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::streams::{StreamRangeReply, StreamReadReply};
use tokio::sync::Mutex;
use uuid::Uuid;

use self::{
    keys::{Keys, text},
    row::{Outbox, Row},
};
use super::{Ended, SessionStore, StoreError, Swept};
use crate::{
    revocation::Revocation,
    rotation::{NotCurrent, Rotation},
    session::{Lifetimes, Session, Shard},
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
static END: LazyLock<Script> = LazyLock::new(|| script!("end.lua" with fields));
static END_ALL: LazyLock<Script> = LazyLock::new(|| script!("end_all.lua"));
static LIST: LazyLock<Script> = LazyLock::new(|| script!("list.lua" with fields));
static PUBLISH: LazyLock<Script> = LazyLock::new(|| script!("publish.lua"));
static NEWEST: LazyLock<Script> = LazyLock::new(|| script!("newest.lua"));
static TRIM: LazyLock<Script> = LazyLock::new(|| script!("trim.lua"));
static SWEEP: LazyLock<Script> = LazyLock::new(|| script!("sweep.lua"));

/// How much longer than until its end Redis keeps a session: so much may clocks differ.
const SLACK: TimeDelta = TimeDelta::minutes(5);
/// How many sessions or revocations one script takes on: while it runs, Redis does nothing else.
const BATCH: usize = 200;
/// How many shards are visited at once.
const VISITS: usize = 16;
/// How long Redis holds back an answer to who waits for news.
const WAIT: Duration = Duration::from_secs(1);

/// Sessions and revocations in Redis.
#[derive(Debug)]
pub struct RedisStore {
    redis: Redis,
    keys: Keys,
    /// The connection on which news are waited for.
    tail: Mutex<Option<Dedicated>>,
}

impl RedisStore {
    /// The store in this Redis.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { keys: Keys::of(&redis), redis, tail: Mutex::new(None) }
    }

    /// Ends a session, whosever it is if no user is given. Answers it as it was, and what is to be published.
    async fn end_one(
        &self,
        user_id: Option<Uuid>,
        id: Uuid,
        rules: &Lifetimes,
        now: Timestamp,
    ) -> Result<(Option<Session>, Outbox), StoreError> {
        let shard = Shard::of_session(id);
        let mut script = END.prepare_invoke();
        script.key(self.keys.session(id)).key(self.keys.ends(shard)).key(self.keys.outbox(shard));
        script.arg(text(id)).arg(user_id.map(text).unwrap_or_default()).arg(to_micros(now));
        script.arg(to_micros(rules.forget_at(now))).arg(self.keys.users(shard));
        let (row, outbox): (Option<Row>, Outbox) = self.redis.run(&script).await?;
        Ok((row.map(|row| row::session(id, row)).transpose()?, outbox))
    }

    /// Adds what an outbox holds to the stream, and clears it. Answers the number of each.
    async fn publish(&self, shard: Shard, outbox: Outbox, now: Timestamp) -> Result<HashMap<Uuid, u64>, StoreError> {
        let mut numbers = HashMap::new();
        for batch in outbox.chunks(BATCH) {
            let ids = batch.iter().map(|(id, _)| row::uuid(id)).collect::<Result<Vec<_>, _>>()?;
            let last = batch.iter().map(|(_, forget_at)| *forget_at).max().unwrap_or_default();
            let mut script = PUBLISH.prepare_invoke();
            script.key(self.keys.stream());
            script.arg(((last - to_micros(now)).max(0) / 1000) + SLACK.num_milliseconds());
            for (id, (text, forget_at)) in ids.iter().zip(batch) {
                script.key(self.keys.place(*id)).arg(text).arg(forget_at);
            }
            let places: Vec<String> = self.redis.run(&script).await?;
            for (id, place) in ids.into_iter().zip(places) {
                numbers.insert(id, row::seq(&place)?);
            }
            let mut clear = cmd("HDEL");
            clear.arg(self.keys.outbox(shard)).arg(batch.iter().map(|(id, _)| id).collect::<Vec<_>>());
            if let Err(error) = self.redis.query::<()>(&clear).await {
                // What is published again is found to be published.
                tracing::debug!(%error, "outbox of a shard not cleared");
            }
        }
        Ok(numbers)
    }

    /// Publishes what an earlier ending in this shard could not.
    async fn publish_rest(&self, shard: Shard, now: Timestamp) -> Result<(), StoreError> {
        let outbox: Outbox = self.redis.query(cmd("HGETALL").arg(self.keys.outbox(shard))).await?;
        self.publish(shard, outbox, now).await.map(drop)
    }

    async fn sweep_shard(&self, shard: Shard, now: Timestamp) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            let mut script = SWEEP.prepare_invoke();
            script.key(self.keys.ends(shard)).key(self.keys.outbox(shard));
            script.arg(to_micros(now)).arg(BATCH).arg(self.keys.sessions(shard)).arg(self.keys.users(shard));
            let (sessions, outbox): (u64, Outbox) = self.redis.run(&script).await?;
            self.publish(shard, outbox, now).await?;
            swept += sessions;
            if sessions < BATCH as u64 {
                return Ok(swept);
            }
        }
    }

    async fn trim(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut trimmed = 0;
        loop {
            let mut script = TRIM.prepare_invoke();
            let count: u64 = self.redis.run(script.key(self.keys.stream()).arg(to_micros(now)).arg(BATCH)).await?;
            trimmed += count;
            if count < BATCH as u64 {
                return Ok(trimmed);
            }
        }
    }

    /// Waits for what comes into the stream after this number, for a while.
    async fn wait(&self, tail: &mut Option<Dedicated>, after: u64) -> Result<Option<u64>, StoreError> {
        if tail.is_none() {
            let connection = self.redis.dedicated(WAIT).await?;
            let newest = self.newest_revocation().await?;
            *tail = Some(connection);
            if newest < after {
                tracing::warn!("redis has lost revocations; watchers start over with those that it has");
            }
            if newest != after {
                return Ok(Some(newest));
            }
        }
        let Some(connection) = tail else { return Ok(None) };
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(BATCH).arg("BLOCK").arg(WAIT.as_millis().to_string());
        read.arg("STREAMS").arg(self.keys.stream()).arg(row::place(after));
        let reply: Option<StreamReadReply> = connection.query(&read).await?;
        let last = reply.as_ref().and_then(|reply| reply.keys.first()).and_then(|key| key.ids.last());
        last.map(|entry| row::seq(&entry.id)).transpose()
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn insert(&self, session: &Session) -> Result<(), StoreError> {
        let shard = Shard::of_session(session.id);
        if shard != Shard::of_user(session.user_id) {
            return Err(StoreError::Unreadable("a session whose id is not of its user's shard"));
        }
        let kept = |until| row::milliseconds(until, session.created_at) + SLACK.num_milliseconds();
        let mut script = INSERT.prepare_invoke();
        script.key(self.keys.session(session.id)).key(self.keys.user(session.user_id)).key(self.keys.ends(shard));
        script.arg(text(session.id)).arg(text(session.user_id)).arg(&session.device).arg(&session.address);
        script.arg(to_micros(session.created_at)).arg(to_micros(session.last_seen_at));
        script.arg(to_micros(session.idle_expires_at)).arg(to_micros(session.expires_at)).arg(session.counter);
        script.arg(kept(session.idle_expires_at)).arg(kept(session.expires_at));
        Ok(self.redis.run(&script).await?)
    }

    async fn rotate(&self, id: Uuid, counter: u64, rules: &Lifetimes, now: Timestamp) -> Result<Rotation, StoreError> {
        let shard = Shard::of_session(id);
        let mut script = ROTATE.prepare_invoke();
        script.key(self.keys.session(id)).key(self.keys.ends(shard));
        script.arg(text(id)).arg(counter).arg(to_micros(now)).arg(to_micros(now + rules.idle_timeout));
        let answer: Option<(bool, Row)> = self.redis.run(script.arg(SLACK.num_milliseconds())).await?;
        let Some((has_moved, row)) = answer else {
            self.publish_rest(shard, now).await?;
            return Ok(Rotation::Over);
        };
        let session = row::session(id, row)?;
        if has_moved {
            return Ok(Rotation::Advanced(session));
        }
        match rules.classify(&session, counter, now) {
            NotCurrent::Repeat => Ok(Rotation::Repeated(session)),
            NotCurrent::NeverIssued => Ok(Rotation::NeverIssued),
            NotCurrent::Over => Ok(Rotation::Over),
            NotCurrent::Reuse => {
                let (session, outbox) = self.end_one(None, id, rules, now).await?;
                let numbers = self.publish(shard, outbox, now).await?;
                let reused = session.zip(numbers.get(&id).copied());
                // Somebody else ended it in between.
                Ok(reused.map_or(Rotation::Over, |(session, revocation)| Rotation::Reused { session, revocation }))
            }
        }
    }

    async fn list(&self, user_id: Uuid, page: &Page, now: Timestamp) -> Result<Vec<Session>, StoreError> {
        let mut script = LIST.prepare_invoke();
        script.key(self.keys.user(user_id)).arg(page.after.map(text).unwrap_or_default()).arg(page.limit());
        script.arg(to_micros(now)).arg(self.keys.sessions(Shard::of_user(user_id)));
        let found: Vec<(String, Row)> = self.redis.run(&script).await?;
        found.into_iter().map(|(id, row)| row::session(row::uuid(id)?, row)).collect()
    }

    async fn end(&self, user_id: Uuid, id: Uuid, rules: &Lifetimes, now: Timestamp) -> Result<Ended, StoreError> {
        let (session, outbox) = self.end_one(Some(user_id), id, rules, now).await?;
        let numbers = self.publish(Shard::of_session(id), outbox, now).await?;
        Ok(Ended { sessions: session.is_some().into(), revocation: numbers.get(&id).copied() })
    }

    async fn end_all(
        &self,
        user_id: Uuid,
        keep: Option<Uuid>,
        rules: &Lifetimes,
        now: Timestamp,
    ) -> Result<Ended, StoreError> {
        let shard = Shard::of_user(user_id);
        let mut script = END_ALL.prepare_invoke();
        script.key(self.keys.user(user_id)).key(self.keys.ends(shard)).key(self.keys.outbox(shard));
        script.arg(text(user_id)).arg(keep.map(text).unwrap_or_default()).arg(to_micros(now));
        script.arg(to_micros(rules.forget_at(now))).arg(self.keys.sessions(shard));
        let (ended, outbox): (Vec<String>, Outbox) = self.redis.run(&script).await?;
        let numbers = self.publish(shard, outbox, now).await?;
        let ended = ended.into_iter().map(row::uuid).collect::<Result<Vec<_>, _>>()?;
        let own = ended.iter().filter_map(|id| numbers.get(id)).max();
        // If none is ended now, what an earlier call left behind is what there is to wait for.
        let revocation = own.or_else(|| numbers.values().max()).copied();
        Ok(Ended { sessions: u32::try_from(ended.len()).unwrap_or(u32::MAX), revocation })
    }

    async fn void_tokens(&self, user_id: Uuid, rules: &Lifetimes, now: Timestamp) -> Result<u64, StoreError> {
        let mut add = cmd("XADD");
        add.arg(self.keys.stream()).arg("*").arg("user").arg(text(user_id)).arg("until").arg(to_micros(now));
        add.arg("forget").arg(to_micros(rules.forget_at(now)));
        row::seq(&self.redis.query::<String>(&add).await?)
    }

    async fn revocations_after(&self, seq: u64, limit: u32, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        let limit = limit as usize;
        let (mut found, mut after) = (Vec::new(), seq);
        loop {
            let mut range = cmd("XRANGE");
            range.arg(self.keys.stream()).arg(format!("({}", row::place(after))).arg("+").arg("COUNT").arg(limit);
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
        let place: Option<String> = self.redis.run(NEWEST.prepare_invoke().key(self.keys.stream())).await?;
        place.map_or(Ok(0), |place| row::seq(&place))
    }

    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        let shards = stream::iter(Shard::all()).map(|shard| self.sweep_shard(shard, now));
        let sessions = shards.buffer_unordered(VISITS).try_fold(0, async |sum, count| Ok(sum + count)).await?;
        Ok(Swept { sessions, revocations: self.trim(now).await? })
    }

    async fn count_live(&self, now: Timestamp) -> Result<u64, StoreError> {
        let counts = stream::iter(Shard::all()).map(async |shard| {
            let mut count = cmd("ZCOUNT");
            count.arg(self.keys.ends(shard)).arg(format!("({}", to_micros(now))).arg("+inf");
            Ok::<u64, StoreError>(self.redis.query(&count).await?)
        });
        counts.buffer_unordered(VISITS).try_fold(0, async |sum, count| Ok(sum + count)).await
    }

    async fn news(&self, after: u64) -> Result<u64, StoreError> {
        let mut tail = self.tail.lock().await;
        loop {
            match self.wait(&mut tail, after).await {
                Ok(None) => {}
                Ok(Some(newest)) => return Ok(newest),
                Err(error) => {
                    *tail = None;
                    return Err(error);
                }
            }
        }
    }
}
