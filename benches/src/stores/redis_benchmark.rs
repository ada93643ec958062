//! The throughput of Redis alone with the scripts of the session service, measured by `redis-benchmark`.
//!
//! The data is as in a mesh: each session has the same fields, each user one session. The keys have the same format,
//! but all have the hash tag of one shard: `redis-benchmark` generates the digits of ids and cannot compute their
//! shard. On a single server, hash tags have no effect.

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

/// Inserts a session.
const INSERT: &str = script!("insert.lua");
/// Lists a user's sessions.
const LIST: &str = concat!(script!("fields.lua"), script!("list.lua"));
/// Rotates a session.
const ROTATE: &str = concat!(script!("fields.lua"), script!("rotate.lua"));
/// Resets the counters of sessions.
const RESET: &str = "for number = ARGV[1], ARGV[2] do
  redis.call('HSET', KEYS[1] .. string.format('%012d', number), 'counter', 1)
end
redis.call('DEL', KEYS[2])";

/// The number of sessions. Rotating a session a second time does nothing, so there must be many more sessions than
/// calls in a run.
const SESSIONS: u64 = 200_000;
/// The number of sessions that are listed.
const LISTED: u64 = 10_000;
/// The calls in one run.
const LISTS: u64 = 40_000;
const ROTATIONS: u64 = 20_000;
/// The number of sessions in one pipeline or script call.
const BATCH: u64 = 500;

/// The prefix of ids, a UUID version 7 without its last twelve digits.
const ID_PREFIX: &str = "01942c2c800070008000";
/// The placeholder that `redis-benchmark` replaces with twelve random digits.
const RANDOM_DIGITS: &str = "__rand_int__";
/// The prefixes of keys.
const SESSION: &str = "limit:session:{00}:";
const USER: &str = "limit:user:{00}:";
const ENDS: &str = "limit:ends:{00}";
/// How long a session is stored after its end: five minutes, in milliseconds.
const SLACK: i64 = 300_000;
const DAY: i64 = 24 * 3600 * 1_000_000;

/// `redis-benchmark` with its own sessions.
pub(crate) struct RedisBenchmark {
    port: String,
    connection: MultiplexedConnection,
    list: String,
    rotate: String,
}

impl RedisBenchmark {
    /// Inserts its sessions into this server.
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

    /// List calls per second with this number of clients.
    pub(crate) async fn lists(&self, clients: usize) -> Result<f64> {
        let now = to_micros(Clock::system().now()).to_string();
        // A page of 50, and one more.
        let arguments = [&*self.list, "1", &format!("{USER}{ID_PREFIX}{RANDOM_DIGITS}"), "", "51", &now, SESSION]
            .map(ToOwned::to_owned);
        self.rate(clients, LISTS, LISTED, &arguments).await
    }

    /// Rotations per second with this number of clients.
    pub(crate) async fn rotations(&mut self, clients: usize) -> Result<f64> {
        let reset = Script::new(RESET);
        for first in (0..SESSIONS).step_by(usize::try_from(BATCH)?) {
            let mut reset = reset.prepare_invoke();
            reset.key(format!("{SESSION}{ID_PREFIX}")).key(ENDS).arg(first).arg(first + BATCH - 1);
            reset.invoke_async::<()>(&mut self.connection).await?;
        }
        let now = to_micros(Clock::system().now());
        // Only the key has random digits: those of a second placeholder would differ.
        let key = format!("{SESSION}{ID_PREFIX}{RANDOM_DIGITS}");
        let [now, idle, slack] = [now, now + DAY, SLACK].map(|number| number.to_string());
        let arguments = [&*self.rotate, "2", &key, ENDS, ID_PREFIX, "1", &now, &idle, &slack, DEVICE, "192.0.2.7"]
            .map(ToOwned::to_owned);
        self.rate(clients, ROTATIONS, SESSIONS, &arguments).await
    }

    async fn rate(&self, clients: usize, calls: u64, range: u64, script: &[String]) -> Result<f64> {
        let (clients, calls, range) = (clients.to_string(), calls.to_string(), range.to_string());
        let fixed =
            ["-h", "127.0.0.1", "-p", &self.port, "-c", &clients, "-n", &calls, "-r", &range, "--csv", "EVALSHA"];
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        let output = servers::run("redis-benchmark", &[&fixed[..], &script].concat()).await?;
        // CSV fields: the command, the rate, and six latencies.
        let rate = output.lines().last().and_then(|line| line.rsplit("\",\"").nth(6));
        rate.and_then(|rate| rate.parse().ok())
            .with_context(|| format!("no rate in the output of redis-benchmark: {output}"))
    }
}

async fn insert_all(connection: &mut MultiplexedConnection, insert: &str) -> Result<()> {
    let now = to_micros(Clock::system().now());
    for first in (0..SESSIONS).step_by(usize::try_from(BATCH)?) {
        let mut inserts = redis::pipe();
        for number in first..first + BATCH {
            let id = format!("{ID_PREFIX}{number:012}");
            let command = inserts.cmd("EVALSHA").arg(insert).arg(3);
            command.arg(format!("{SESSION}{id}")).arg(format!("{USER}{id}")).arg(ENDS);
            command.arg(&id).arg(&id).arg(DEVICE).arg("192.0.2.7").arg(now).arg(now).arg(now + 7 * DAY);
            command.arg(now + 90 * DAY).arg(1).arg(7 * DAY / 1000).arg(90 * DAY / 1000).arg(0).ignore();
        }
        inserts.query_async::<()>(connection).await?;
    }
    let inserted: u64 = redis::cmd("ZCARD").arg(ENDS).query_async(connection).await?;
    ensure!(inserted == SESSIONS, "{inserted} of {SESSIONS} sessions were inserted into redis");
    Ok(())
}
