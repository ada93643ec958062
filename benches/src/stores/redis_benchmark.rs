//! What Redis does by itself with the session service's own scripts, as its own `redis-benchmark` measures it.
//!
//! The scripts find what they find in a mesh: each session has the same fields, each user one session. The keys are of
//! the same shape; only that they all carry the tag of one shard, since the digits of an id are drawn by
//! `redis-benchmark`, which cannot compute its shard. On a single server a tag means nothing.

use anyhow::{Context, Result, ensure};
use drystone_backends::Redis;
use drystone_mesh::{clock::Clock, time::to_micros};
use redis::{Script, aio::MultiplexedConnection};

use super::{seed::DEVICE, servers};

macro_rules! script {
    ($name:literal) => {
        include_str!(concat!("../../../services/session/src/store/redis/scripts/", $name))
    };
}

/// Adds a session.
const INSERT: &str = script!("insert.lua");
/// Lists a user's sessions.
const LIST: &str = concat!(script!("fields.lua"), script!("list.lua"));
/// Moves a session one step on.
const ROTATE: &str = concat!(script!("fields.lua"), script!("rotate.lua"));
/// Puts the counters of sessions back to where they began.
const RESET: &str = "for number = ARGV[1], ARGV[2] do
  redis.call('HSET', KEYS[1] .. string.format('%012d', number), 'counter', 1)
end
redis.call('DEL', KEYS[2])";

/// How many sessions there are to draw from. A rotation that meets one which was rotated before has nothing to do, so
/// that there have to be many more than calls in a run.
const SESSIONS: u64 = 200_000;
/// How many of them are listed.
const LISTED: u64 = 10_000;
/// Calls of one run.
const LISTS: u64 = 40_000;
const ROTATIONS: u64 = 20_000;
/// How many one command of ours sees to.
const BATCH: u64 = 500;

/// What stands before the twelve digits that are drawn: an id of version 7.
const ID: &str = "01942c2c800070008000";
/// What `redis-benchmark` puts twelve random digits in place of.
const DRAWN: &str = "__rand_int__";
/// The keys, apart from the ids.
const SESSION: &str = "limit:session:{00}:";
const USER: &str = "limit:user:{00}:";
const ENDS: &str = "limit:ends:{00}";
/// Five minutes, in milliseconds: how much longer than until its end a session is kept.
const SLACK: i64 = 300_000;
const DAY: i64 = 24 * 3600 * 1_000_000;

/// `redis-benchmark`, and sessions of its own.
pub(crate) struct RedisBenchmark {
    port: String,
    connection: MultiplexedConnection,
    list: String,
    rotate: String,
}

impl RedisBenchmark {
    /// Adds its sessions to this server.
    pub(crate) async fn prepare(server: &Redis) -> Result<Self> {
        let mut connection = servers::connect(server).await?;
        let mut digests = Vec::new();
        for text in [INSERT, LIST, ROTATE, RESET] {
            digests.push(Script::new(text).prepare_invoke().load_async(&mut connection).await?);
        }
        let [insert, list, rotate, _] = digests.try_into().ok().context("four scripts")?;
        insert_all(&mut connection, &insert).await?;
        let port = server.url().rsplit(':').next().context("a port")?.to_owned();
        Ok(Self { port, connection, list, rotate })
    }

    /// Lists a second, with so many clients.
    pub(crate) async fn lists(&self, clients: usize) -> Result<f64> {
        let now = to_micros(Clock::system().now()).to_string();
        // 50 to a page, and one more.
        let arguments =
            [&*self.list, "1", &format!("{USER}{ID}{DRAWN}"), "", "51", &now, SESSION].map(ToOwned::to_owned);
        self.rate(clients, LISTS, LISTED, &arguments).await
    }

    /// Rotations a second, with so many clients.
    pub(crate) async fn rotations(&mut self, clients: usize) -> Result<f64> {
        let reset = Script::new(RESET);
        for first in (0..SESSIONS).step_by(usize::try_from(BATCH)?) {
            let mut reset = reset.prepare_invoke();
            reset.key(format!("{SESSION}{ID}")).key(ENDS).arg(first).arg(first + BATCH - 1);
            reset.invoke_async::<()>(&mut self.connection).await?;
        }
        let now = to_micros(Clock::system().now());
        // The id is drawn for the key alone: two draws for one call would differ.
        let key = format!("{SESSION}{ID}{DRAWN}");
        let [now, idle, slack] = [now, now + DAY, SLACK].map(|number| number.to_string());
        let arguments = [&*self.rotate, "2", &key, ENDS, ID, "1", &now, &idle, &slack].map(ToOwned::to_owned);
        self.rate(clients, ROTATIONS, SESSIONS, &arguments).await
    }

    async fn rate(&self, clients: usize, calls: u64, range: u64, script: &[String]) -> Result<f64> {
        let (clients, calls, range) = (clients.to_string(), calls.to_string(), range.to_string());
        let fixed =
            ["-h", "127.0.0.1", "-p", &self.port, "-c", &clients, "-n", &calls, "-r", &range, "--csv", "EVALSHA"];
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        let output = servers::run("redis-benchmark", &[&fixed[..], &script].concat()).await?;
        // The name, which is the command, the rate, and six latencies.
        let rate = output.lines().last().and_then(|line| line.rsplit("\",\"").nth(6));
        rate.and_then(|rate| rate.parse().ok()).with_context(|| format!("redis-benchmark named no rate: {output}"))
    }
}

async fn insert_all(connection: &mut MultiplexedConnection, insert: &str) -> Result<()> {
    let now = to_micros(Clock::system().now());
    for first in (0..SESSIONS).step_by(usize::try_from(BATCH)?) {
        let mut inserts = redis::pipe();
        for number in first..first + BATCH {
            let id = format!("{ID}{number:012}");
            let command = inserts.cmd("EVALSHA").arg(insert).arg(3);
            command.arg(format!("{SESSION}{id}")).arg(format!("{USER}{id}")).arg(ENDS);
            command.arg(&id).arg(&id).arg(DEVICE).arg("192.0.2.7").arg(now).arg(now).arg(now + 7 * DAY);
            command.arg(now + 90 * DAY).arg(1).arg(7 * DAY / 1000).arg(90 * DAY / 1000).ignore();
        }
        inserts.query_async::<()>(connection).await?;
    }
    let held: u64 = redis::cmd("ZCARD").arg(ENDS).query_async(connection).await?;
    ensure!(held == SESSIONS, "{held} sessions of {SESSIONS} came into redis");
    Ok(())
}
