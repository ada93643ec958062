//! A day of sign-ins, refreshes and sign-outs on a manual clock: what is stored is what is live, and nothing accumulates.

use std::{sync::Arc, time::Duration};

use drystone_backends::Redis as RedisServer;
use drystone_mesh::{clock::Clock, config::ConfigDuration, telemetry::Metrics, token::RevocationView};
use drystone_store::{
    Db,
    redis::{Config as RedisConfig, Redis, cmd},
    run,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    Config, Deps, MIGRATIONS, RedisStore, Service, Session, SessionStore, SqlStore, feed::Feed, rotation::PresentedBy,
    session::NewSession, sweep::sweep,
};

const STEP: Duration = Duration::from_mins(10);
const STEPS_OF_AN_HOUR: usize = 6;
const SIGN_INS_OF_A_STEP: usize = 12;

/// A service, a watcher of its revocations, and what its users do.
struct Day {
    service: Service,
    clock: Clock,
    view: RevocationView,
    cursor: u64,
    sessions: Vec<Session>,
    stop: CancellationToken,
}

impl Day {
    fn start(store: Arc<dyn SessionStore>) -> Self {
        let (clock, stop) = (Clock::manual(Clock::system().now()), CancellationToken::new());
        let service = Service::new(Deps {
            config: Config {
                idle_timeout: ConfigDuration::hours(1),
                lifetime: ConfigDuration::hours(4),
                heartbeat: ConfigDuration::millis(1),
                ..Config::default()
            },
            store,
            clock: clock.clone(),
            metrics: Metrics::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        Self { service, view: RevocationView::new(clock.clone()), clock, cursor: 0, sessions: Vec::new(), stop }
    }

    /// Ten minutes: new sign-ins; a third of the sessions is refreshed each time, a third signs out once, a third is left.
    async fn step(&mut self, is_busy: bool) {
        let sessions = self.service.sessions.clone();
        let now = self.clock.now();
        self.sessions.retain(|session| session.is_active(now));
        for (number, session) in std::mem::take(&mut self.sessions).into_iter().enumerate() {
            match (number % 3, is_busy) {
                (0, true) => {
                    let by = PresentedBy { device: String::new(), address: String::new() };
                    self.sessions.push(sessions.rotate(session.id, session.counter, by).await.unwrap().session);
                }
                (1, true) if now > session.created_at => sessions.revoke(session.user_id, session.id).await.unwrap(),
                _ => self.sessions.push(session),
            }
        }
        for _ in 0..if is_busy { SIGN_INS_OF_A_STEP } else { 0 } {
            let new = NewSession {
                user_id: Uuid::now_v7(),
                device: String::new(),
                address: String::new(),
                methods: Vec::new(),
            };
            self.sessions.push(sessions.create(new).await.unwrap());
        }
        self.watch().await;
        sweep(&*sessions.store, &self.clock, &sessions.metrics).await.unwrap();
        assert_eq!(sessions.store.count_active(now).await.unwrap(), self.sessions.len() as u64);
        self.clock.advance(STEP);
    }

    /// Applies what is new, as every service does.
    async fn watch(&mut self) {
        let slot = self.service.feeds.hub.reserve(None).unwrap();
        let mut feed = Feed::open(self.service.feeds.clone(), slot, self.cursor);
        loop {
            let batch = feed.next().await.unwrap().unwrap();
            self.cursor = batch.cursor;
            let is_last = batch.revocations.is_empty();
            self.view.apply(&batch.revocations.into_iter().map(Into::into).collect::<Vec<_>>());
            if is_last {
                return;
            }
        }
    }
}

/// The sizes at the end of each hour of a busy day, after which nobody comes for five hours.
async fn simulate(store: Arc<dyn SessionStore>, size: impl AsyncFn() -> usize) {
    let mut day = Day::start(store);
    let (mut stored, mut viewed) = (Vec::new(), Vec::new());
    for hour in 0..29 {
        for _ in 0..STEPS_OF_AN_HOUR {
            day.step(hour < 24).await;
        }
        stored.push(size().await);
        viewed.push(day.view.len());
    }
    for sizes in [&stored, &viewed] {
        let max = |hours: std::ops::Range<usize>| sizes[hours].iter().max().copied().unwrap_or_default();
        assert!(max(6..12) > 0 && max(12..24) <= max(6..12) * 11 / 10, "the sizes grow: {sizes:?}");
    }
    assert_eq!(day.service.sessions.store.count_active(day.clock.now()).await.unwrap(), 0);
    assert!(stored[28] <= 1, "more is left than the newest revocation: {stored:?}");
    assert_eq!(day.view.len(), 0, "{viewed:?}");
    day.stop.cancel();
}

#[tokio::test]
async fn a_simulated_day_leaves_only_what_is_live_in_sql() {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(&directory.path().join("session.db"), MIGRATIONS).await.unwrap();
    let rows = async || {
        let rows: i64 = run!(db.reader(), |db| {
            sqlx::query_scalar("SELECT (SELECT COUNT(*) FROM session) + (SELECT COUNT(*) FROM revocation)")
                .fetch_one(db)
                .await
                .unwrap()
        });
        usize::try_from(rows).unwrap()
    };
    simulate(Arc::new(SqlStore::new(db.clone())), rows).await;
}

#[tokio::test]
async fn a_simulated_day_leaves_only_what_is_live_in_redis() {
    let server = RedisServer::shared();
    let prefix = server.prefix();
    let config = RedisConfig {
        url: server.url().to_owned().into(),
        prefix: prefix.clone(),
        timeout: ConfigDuration::seconds(5),
        ..RedisConfig::default()
    };
    let redis = Redis::open(&config).unwrap();
    redis.ready().await;
    // The keys, without those that Redis itself deletes by its own clock, and the length of the stream.
    let size = async || {
        let keys: Vec<String> = redis.query(cmd("KEYS").arg(format!("{prefix}*"))).await.unwrap();
        let marker = format!("{prefix}{{revocations}}");
        let others = keys.iter().filter(|key| !key.starts_with(&marker)).count();
        for key in keys.iter().filter(|key| key.starts_with(&marker) && **key != marker) {
            let left: i64 = redis.query(cmd("PTTL").arg(key)).await.unwrap();
            assert!((1..=70 * 60 * 1000).contains(&left), "{key} expires in {left} ms");
        }
        let stream: usize = redis.query(cmd("XLEN").arg(&marker)).await.unwrap();
        others + stream
    };
    simulate(Arc::new(RedisStore::new(redis.clone())), size).await;
}
