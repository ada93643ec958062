//! Which services there are, and what each is put together from.
//!
//! Each function below is one service's assembly: its database, the clients it calls, its server.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use drystone::{
    property::v1::property_service_client::PropertyServiceClient,
    session::v1::session_service_client::SessionServiceClient, user::v1::user_service_client::UserServiceClient,
};
use drystone_auth::AttemptLimits;
use drystone_edge::RequestLimit;
use drystone_mesh::{
    client::{Dialer, DialerConfig},
    health::Kind,
    identity::Identity,
    limit::Limits,
    node::{Node, NodeConfig},
    server::Server,
    store::{
        self, Address, Db, Migration, Settings,
        redis::{self, Redis},
    },
    token::VerifierConfig,
};
use drystone_session::{RedisStore, SessionStore, StoreKind};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{Parts, Process, named};
use crate::config::{Config, LimitStore};

/// How long a database that is not there yet is left alone at first.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How long it is left alone in the end.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The services that have a database, each with where it is and its schema, step by step.
pub(crate) fn databases(config: &Config) -> Vec<(&'static str, Settings<'_>, &'static [Migration])> {
    let mut databases = vec![
        (drystone_auth::NAME, config.auth.database(), drystone_auth::MIGRATIONS),
        (drystone_user::NAME, config.user.database(), drystone_user::MIGRATIONS),
        (drystone_property::NAME, config.property.database(), drystone_property::MIGRATIONS),
    ];
    if config.session.store == StoreKind::Sql {
        databases.insert(2, (drystone_session::NAME, config.session.database(), drystone_session::MIGRATIONS));
    }
    databases
}

/// Whether one of these workloads keeps its database in the data directory.
pub(super) fn need_data_dir<'a>(config: &Config, mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| {
        let mut databases = databases(config).into_iter();
        databases.any(|(service, settings, _)| service == name && matches!(settings.address, Address::File(_)))
    })
}

/// Where a workload listens by its section of the configuration.
pub(super) fn address(config: &Config, name: &str) -> SocketAddr {
    match name {
        drystone_auth::NAME => config.auth.listen,
        drystone_user::NAME => config.user.listen,
        drystone_session::NAME => config.session.listen,
        drystone_property::NAME => config.property.listen,
        _ => config.edge.listen,
    }
}

/// A workload that is put together and has served nobody yet.
pub(super) struct Prepared {
    name: &'static str,
    run: Pin<Box<dyn Future<Output = io::Result<()>> + Send>>,
}

impl Prepared {
    fn new(name: &'static str, run: impl Future<Output = io::Result<()>> + Send + 'static) -> Self {
        Self { name, run: Box::pin(run) }
    }

    /// Opens the door.
    pub(super) fn start(self, parts: &mut Parts) {
        let stage = if self.name == drystone_edge::NAME { &mut parts.front } else { &mut parts.services };
        stage.spawn(named(self.name, self.run));
    }
}

/// Puts one workload together: whatever can go wrong before it serves goes wrong here.
pub(super) async fn prepare(
    process: &Process,
    name: &'static str,
    identity: Identity,
    listener: TcpListener,
) -> Result<Prepared> {
    if name == drystone_edge::NAME {
        return edge(process, identity, listener);
    }
    let node = process.node(name, identity)?;
    let server = match name {
        drystone_auth::NAME => auth(process, &node).await?,
        drystone_user::NAME => user(process, &node).await?,
        drystone_session::NAME => session(process, &node).await?,
        drystone_property::NAME => property(process, &node).await?,
        other => bail!("there is no service `{other}`; there are auth, user, session, property and edge"),
    };
    let stop = process.stop_services.clone();
    Ok(Prepared::new(name, async move {
        let outcome = server.run(listener, stop).await;
        node.stop.cancel();
        node.tasks.close();
        node.tasks.wait().await;
        outcome
    }))
}

async fn auth(process: &Process, node: &Node) -> Result<Server> {
    let config = process.config.auth.clone();
    let db = process.database(node, config.database(), drystone_auth::MIGRATIONS).await?;
    let service = drystone_auth::Service::new(drystone_auth::Deps {
        store: Arc::new(drystone_auth::SqlStore::new(db)),
        users: UserServiceClient::new(node.dialer.dependency("user", Kind::Optional)?),
        properties: PropertyServiceClient::new(node.dialer.dependency("property", Kind::Optional)?),
        sessions: SessionServiceClient::new(node.dialer.channel("session")?),
        clock: node.clock.clone(),
        metrics: node.metrics.clone(),
        attempts: attempts(process, node)?,
        config,
        issuer: process.issuer.clone(),
        public_url: process.issuer.clone(),
        tasks: node.tasks.clone(),
        stop: node.stop.clone(),
    })
    .await?;
    let (auth, keys) = service.into_servers();
    Ok(Server::new(node)?.add_service(auth).add_service(keys))
}

/// How often somebody may try to sign in.
fn attempts(process: &Process, node: &Node) -> Result<AttemptLimits> {
    let config = &process.config.limits;
    let limits = process.limits(node.name, &node.tasks, &node.stop)?;
    Ok(AttemptLimits::new(&limits, config.sign_in_per_minute, config.registration_per_minute))
}

async fn user(process: &Process, node: &Node) -> Result<Server> {
    let db = process.database(node, process.config.user.database(), drystone_user::MIGRATIONS).await?;
    let service = drystone_user::Service::new(drystone_user::Deps {
        store: Arc::new(drystone_user::SqlStore::new(db)),
        sessions: SessionServiceClient::new(node.dialer.channel("session")?),
        clock: node.clock.clone(),
    });
    Ok(Server::new(node)?.add_service(service.into_server()))
}

async fn session(process: &Process, node: &Node) -> Result<Server> {
    let config = process.config.session.clone();
    let store: Arc<dyn SessionStore> = match config.store {
        StoreKind::Sql => {
            let db = process.database(node, config.database(), drystone_session::MIGRATIONS).await?;
            Arc::new(drystone_session::SqlStore::new(db))
        }
        StoreKind::Redis => {
            Arc::new(RedisStore::new(process.redis("session redis", Kind::Vital, &node.tasks, &node.stop)?))
        }
    };
    let service = drystone_session::Service::new(drystone_session::Deps {
        store,
        clock: node.clock.clone(),
        metrics: node.metrics.clone(),
        config,
        tasks: node.tasks.clone(),
        stop: process.stop_services.clone(),
    });
    Ok(Server::new(node)?.add_service(service.into_server()))
}

async fn property(process: &Process, node: &Node) -> Result<Server> {
    let db = process.database(node, process.config.property.database(), drystone_property::MIGRATIONS).await?;
    let service = drystone_property::Service::new(drystone_property::Deps {
        store: Arc::new(drystone_property::SqlStore::new(db)),
        clock: node.clock.clone(),
    });
    Ok(Server::new(node)?.add_service(service.into_server()))
}

/// The edge has no rules and no database of its own: it needs to know who it is and where the others are.
fn edge(process: &Process, identity: Identity, listener: TcpListener) -> Result<Prepared> {
    let tasks = TaskTracker::new();
    let dialer = Dialer::new(DialerConfig {
        caller: drystone_edge::NAME,
        identity,
        peers: process.peers.clone(),
        health: process.health.clone(),
        metrics: process.metrics.clone(),
        tasks: tasks.clone(),
        stop: process.stop_rest.clone(),
    });
    let requests = match process.config.limits.requests_per_minute {
        // An edge that counts nothing needs nowhere to count.
        0 => RequestLimit::none(),
        per_minute => RequestLimit::new(&process.limits(drystone_edge::NAME, &tasks, &process.stop_rest)?, per_minute),
    };
    let service = drystone_edge::Service::new(drystone_edge::Deps {
        dialer,
        health: process.health.clone(),
        metrics: process.metrics.clone(),
        config: process.config.edge.clone(),
        requests,
    })?;
    let stop = process.stop_front.clone();
    Ok(Prepared::new(drystone_edge::NAME, async move { service.run(listener, stop).await }))
}

impl Process {
    fn node(&self, name: &'static str, identity: Identity) -> Result<Node> {
        Ok(Node::start(NodeConfig {
            name,
            identity,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
            peers: self.peers.clone(),
            tokens: VerifierConfig::new(self.issuer.clone(), drystone_auth::AUDIENCE),
            stop: self.stop_rest.child_token(),
        })?)
    }

    /// What counts attempts, for all of the process. Without Redis, a stricter limit of the process holds, so that it is
    /// not vital to whoever counts there.
    fn limits(&self, name: &str, tasks: &TaskTracker, stop: &CancellationToken) -> Result<Limits> {
        let redis = match self.config.limits.store {
            LimitStore::Memory => None,
            LimitStore::Redis => Some(self.redis(&format!("{name} limits"), Kind::Optional, tasks, stop)?),
        };
        let limits = self.limits.get_or_init(|| match redis {
            None => Limits::in_process(&self.metrics),
            Some(redis) => Limits::in_redis(redis, &self.metrics),
        });
        Ok(limits.clone())
    }

    /// The process' Redis, watched over as this component until the stop.
    fn redis(&self, component: &str, kind: Kind, tasks: &TaskTracker, stop: &CancellationToken) -> Result<Redis> {
        let redis = if let Some(redis) = self.redis.get() {
            redis.clone()
        } else {
            let redis = Redis::open(&self.config.redis)?;
            self.redis.get_or_init(|| redis).clone()
        };
        let component = self.health.component(component, kind);
        tasks.spawn(redis::probe(redis.clone(), component, stop.clone()));
        Ok(redis)
    }

    /// Opens the node's database, brings its schema up to date, and watches over it. A server that is not there yet is
    /// waited for, so that it does not matter which of the two is started first.
    async fn database(&self, node: &Node, settings: Settings<'_>, migrations: &'static [Migration]) -> Result<Db> {
        let component = self.health.component(format!("{} database", node.name), Kind::Vital);
        let place = settings.place(&self.config.data_dir);
        let mut pause = FIRST_PAUSE;
        let db = loop {
            match Db::open(place.clone(), migrations).await {
                Ok(db) => break db,
                Err(error) if error.is_temporary() => {
                    warn!(%error, "waiting for a database");
                    component.down(error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        };
        node.tasks.spawn(store::probe(db.clone(), component, node.stop.clone()));
        Ok(db)
    }
}
