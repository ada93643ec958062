//! The configuration of the whole: a few settings of the mesh, and one section for each service.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use drystone_mesh::{
    client,
    config::{self, ConfigError, LogConfig, Sources},
    identity::TrustDomain,
    store::redis,
};
use drystone_session::StoreKind as SessionStoreKind;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    limits::{LimitStore, LimitsConfig},
    peer::{PeerAddresses, Peers},
};

mod limits;
mod peer;
mod trust_domain;

/// The variable that names the configuration file where no flag does.
const FILE_VARIABLE: &str = "DRYSTONE_CONFIG";

/// The flag that every command with a configuration takes.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigFile {
    /// Read settings from this TOML file [env: DRYSTONE_CONFIG]
    #[arg(long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ConfigFile {
    /// The file, if one is named, and the environment. Flags of the command may be added.
    pub(crate) fn sources(&self) -> Sources {
        let file =
            self.file.clone().or_else(|| env::var_os(FILE_VARIABLE).filter(|file| !file.is_empty()).map(Into::into));
        let sources = Sources::new().environment(env::vars_os());
        match file {
            Some(file) => sources.file(file),
            None => sources,
        }
    }
}

/// All settings.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the databases are.
    pub(crate) data_dir: PathBuf,
    /// Where certificates are: `NAME.pem` and `NAME.key` of each workload, and the roots in `ca.pem`.
    pub(crate) certs_dir: PathBuf,
    /// The trust domain of the workloads.
    #[serde(with = "trust_domain")]
    pub(crate) trust_domain: TrustDomain,
    /// The `iss` of access tokens: the URL at which the world reaches the edge. Left out, it is the edge's own address.
    pub(crate) issuer: Option<String>,
    /// What is logged.
    pub(crate) log: LogConfig,
    /// The port for probes and Prometheus.
    pub(crate) admin: Admin,
    /// Where Redis is, if something is kept there.
    pub(crate) redis: redis::Config,
    /// How often something may be tried.
    pub(crate) limits: LimitsConfig,
    /// Where `serve` finds the other services.
    pub(crate) peers: Peers,
    /// The auth service.
    pub(crate) auth: drystone_auth::Config,
    /// The user service.
    pub(crate) user: drystone_user::Config,
    /// The session service.
    pub(crate) session: drystone_session::Config,
    /// The property service.
    pub(crate) property: drystone_property::Config,
    /// The edge.
    pub(crate) edge: drystone_edge::Config,
}

/// The port for probes and Prometheus.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// Where it listens for HTTP.
    pub(crate) listen: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            certs_dir: "certs/dev".into(),
            trust_domain: trust_domain::standard(),
            issuer: None,
            log: LogConfig::default(),
            admin: Admin::default(),
            redis: redis::Config::default(),
            limits: LimitsConfig::default(),
            peers: Peers::default(),
            auth: drystone_auth::Config::default(),
            user: drystone_user::Config::default(),
            session: drystone_session::Config::default(),
            property: drystone_property::Config::default(),
            edge: drystone_edge::Config::default(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 8081).into() }
    }
}

impl Config {
    /// Puts the configuration together and checks it.
    pub(crate) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let config: Self = config::load(sources)?;
        config.check().map_err(ConfigError::new)?;
        Ok(config)
    }

    /// The issuer of access tokens, where the edge is reached at `edge`.
    pub(crate) fn issuer(&self, edge: SocketAddr) -> String {
        self.issuer.clone().unwrap_or_else(|| format!("http://{edge}"))
    }

    /// Where each service is: what `[peers]` says, else where it listens by its own section, so that services on
    /// one machine find each other.
    pub(crate) fn peers(&self) -> client::Peers {
        let listens = [
            ("auth", &self.peers.auth, self.auth.listen),
            ("user", &self.peers.user, self.user.listen),
            ("session", &self.peers.session, self.session.listen),
            ("property", &self.peers.property, self.property.listen),
        ];
        let addresses = |peer: &Option<PeerAddresses>, listen: SocketAddr| {
            peer.as_ref().map_or_else(|| vec![listen.to_string()], PeerAddresses::to_strings)
        };
        listens.into_iter().map(|(name, peer, listen)| (name.to_owned(), addresses(peer, listen))).collect()
    }

    /// Whether `[peers]` says where a service is.
    pub(crate) fn names_peer(&self, service: &str) -> bool {
        match service {
            "auth" => self.peers.auth.is_some(),
            "user" => self.peers.user.is_some(),
            "session" => self.peers.session.is_some(),
            "property" => self.peers.property.is_some(),
            _ => false,
        }
    }

    /// The key that asks for Redis, if one does.
    fn needs_redis(&self) -> Option<&'static str> {
        if self.session.store == SessionStoreKind::Redis {
            Some("session.store")
        } else if self.limits.store == LimitStore::Redis {
            Some("limits.store")
        } else {
            None
        }
    }

    /// What types cannot say of the values.
    fn check(&self) -> Result<(), String> {
        self.redis.check()?;
        self.limits.check()?;
        self.auth.check()?;
        self.user.check()?;
        self.session.check()?;
        self.property.check()?;
        self.edge.check()?;
        if self.auth.access_token_lifetime > self.session.token_lifetime_max {
            // A revocation that is forgotten before the token ends would bring the token back to life.
            return Err(format!(
                "auth.access_token_lifetime must be at most session.token_lifetime_max, which is {}",
                self.session.token_lifetime_max
            ));
        }
        if let Some(key) = self.needs_redis()
            && self.redis.url.is_empty()
        {
            return Err(format!(
                "{key} is `redis`, so redis.url has to say where it is, such as `redis://127.0.0.1:6379`"
            ));
        }
        match &self.issuer {
            Some(issuer) if !is_issuer(issuer) => {
                Err("issuer must be a URL without query and fragment, such as `https://id.example.org`".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Whether a text can be an issuer (RFC 8414, section 2). `http` is taken as well, for meshes on one machine.
fn is_issuer(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let is_lawful = |byte: u8| byte.is_ascii_graphic() && !b"?#@\"<>\\^`{|}".contains(&byte);
        !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(is_lawful)
    })
}

#[cfg(test)]
mod tests;
