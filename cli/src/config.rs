//! The configuration of a process: settings of the mesh, and one section for each service.

use std::{
    collections::BTreeMap,
    env,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use drystone::contract::{Contract, Contracts, EncodedContract};
use drystone_mesh::{
    access::ShadowRules,
    client,
    config::{self, ConfigError, ConfigSources, LayeredConfig, LogConfig},
    identity::{IdentityFiles, TrustDomain},
    module::ShutdownStage,
    server::ServerConfig,
};
use drystone_store::{redis, sealing::SealingConfig};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    certificates::CertificatesConfig,
    limits::{LimitStoreKind, LimitsConfig},
    peer::PeerConfig,
    service::ServiceConfig,
};
use crate::{App, envoy::EnvoyConfig};

mod certificates;
mod limits;
mod peer;
mod service;
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
    pub(crate) fn sources(&self) -> ConfigSources {
        let file =
            self.file.clone().or_else(|| env::var_os(FILE_VARIABLE).filter(|file| !file.is_empty()).map(Into::into));
        let sources = ConfigSources::new().environment(env::vars_os());
        match file {
            Some(file) => sources.file(file),
            None => sources,
        }
    }
}

/// All settings.
#[derive(Debug)]
pub(crate) struct Config {
    /// Those of the mesh.
    pub(crate) mesh: MeshConfig,
    /// Those of each service, in the order of the binary.
    pub(crate) services: Vec<ServiceConfig>,
}

/// The settings of the mesh.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MeshConfig {
    /// The directory of the databases.
    pub(crate) data_dir: PathBuf,
    /// Where certificates are: `NAME.pem` and `NAME.key` of each workload, and the roots in `ca.pem`.
    pub(crate) certs_dir: PathBuf,
    /// Names of the files in `certs_dir`, and what is done about their changes.
    pub(crate) certificates: CertificatesConfig,
    /// The trust domain of the workloads.
    #[serde(with = "trust_domain")]
    pub(crate) trust_domain: TrustDomain,
    /// The `iss` of access tokens: the URL at which the world reaches the edge. Left out, it is the edge's own address.
    pub(crate) issuer: Option<String>,
    /// The contracts of services that are not compiled in: descriptor sets, as `protoc --include_imports` writes them.
    pub(crate) contracts: Vec<PathBuf>,
    /// Access rules.
    pub(crate) access: AccessConfig,
    /// Logging.
    pub(crate) log: LogConfig,
    /// The HTTP port for probes and metrics.
    pub(crate) admin: AdminConfig,
    /// The Redis server, if one is used.
    pub(crate) redis: redis::Config,
    /// The master key that encrypts secrets in databases.
    pub(crate) sealing: SealingConfig,
    /// Rate limits.
    pub(crate) limits: LimitsConfig,
    /// The limits of each gRPC server.
    pub(crate) server: ServerConfig,
    /// What an exported Envoy configuration needs.
    pub(crate) envoy: EnvoyConfig,
    /// Where services in other processes are, and how services are called.
    pub(crate) peers: BTreeMap<String, PeerConfig>,
}

/// The HTTP port for probes and metrics.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdminConfig {
    /// Where it listens for HTTP.
    pub(crate) listen: SocketAddr,
}

/// Access rules.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessConfig {
    /// Contracts of a coming release, whose rules servers apply without denying a call by them: files of
    /// `drystone contract export`.
    pub(crate) shadow_contracts: Vec<PathBuf>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            certs_dir: "certs/dev".into(),
            certificates: CertificatesConfig::default(),
            trust_domain: trust_domain::standard(),
            issuer: None,
            contracts: Vec::new(),
            access: AccessConfig::default(),
            log: LogConfig::default(),
            admin: AdminConfig::default(),
            redis: redis::Config::default(),
            sealing: SealingConfig::default(),
            limits: LimitsConfig::default(),
            server: ServerConfig::default(),
            envoy: EnvoyConfig::default(),
            peers: BTreeMap::new(),
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 8081).into() }
    }
}

impl MeshConfig {
    /// Whether a setting of the mesh has this name. No service can have the same.
    pub(crate) fn has_setting(name: &str) -> bool {
        config::defaults(&Self::default()).is_ok_and(|settings| settings.contains_key(name))
    }
}

impl Config {
    /// Loads and checks the configuration.
    pub(crate) fn load(app: &App, sources: &ConfigSources) -> Result<Self, ConfigError> {
        let mut defaults = config::defaults(&MeshConfig::default())?;
        let mut grpc_services = 0;
        for module in app.modules() {
            if defaults.contains_key(module.name()) {
                let name = module.name();
                return Err(ConfigError::new(format!(
                    "a service cannot be called `{name}`, which is a setting of the mesh"
                )));
            }
            defaults.insert(module.name().to_owned(), service::defaults(*module, grpc_services)?.into());
            grpc_services += u16::from(module.port().is_none());
        }
        let layers = LayeredConfig::read(sources, defaults)?;
        let is_section = |key: &str| app.modules().iter().any(|module| module.name() == key);
        let mesh = layers.extract_top_level(|key| !is_section(key))?;
        let services = app.modules().iter().map(|module| ServiceConfig::read(*module, &layers));
        let config = Self { mesh, services: services.collect::<Result<_, _>>()? };
        config.check().map_err(ConfigError::new)?;
        Ok(config)
    }

    /// The configuration as TOML, with secrets masked.
    pub(crate) fn show(&self) -> Result<String, ConfigError> {
        let mut all = config::defaults(&self.mesh)?;
        for service in &self.services {
            all.insert(service.module.name().to_owned(), service.shown()?.into());
        }
        config::show(&all)
    }

    /// Every contract that the process knows: those that are compiled in, and those of `contracts`. The mesh-wide settings
    /// that name something of them are checked here.
    pub(crate) fn contracts(&self, app: &App) -> Result<Contracts, ConfigError> {
        let fault = |error: &dyn std::fmt::Display| ConfigError::new(error.to_string());
        let files = self.mesh.contracts.iter().map(|path| EncodedContract::read(path));
        let files = files.collect::<Result<Vec<_>, _>>().map_err(|error| fault(&error))?;
        let contracts = Contracts::load(app.contracts().chain(files)).map_err(|error| fault(&error))?;
        let served = contracts.served_workloads();
        if let Some(name) = self.mesh.peers.keys().find(|name| !served.contains(*name)) {
            let known: Vec<&str> = served.iter().map(String::as_str).collect();
            return Err(ConfigError::new(format!(
                "peers.{name} is not a service of this mesh; remove it, name its contract in `contracts`, or use one of {}",
                known.join(", ")
            )));
        }
        let limits = self.mesh.limits.per_minute();
        if let Some(name) = contracts.limits().into_iter().find(|name| !limits.contains_key(*name)) {
            return Err(ConfigError::new(format!(
                "a contract counts calls for the limit `{name}`, which is not set; add `{name} = 60` under [limits.calls_per_minute]"
            )));
        }
        Ok(contracts)
    }

    /// The files of a workload's certificate, key and roots.
    pub(crate) fn identity_files(&self, workload: &str) -> IdentityFiles {
        self.mesh.certificates.files(&self.mesh.certs_dir, workload)
    }

    /// The rules of `access.shadow_contracts`.
    pub(crate) fn shadow_rules(&self) -> Result<ShadowRules, ConfigError> {
        let fault = |text: String| ConfigError::new(format!("access.shadow_contracts: {text}"));
        let mut owners = BTreeMap::new();
        let mut methods = Vec::new();
        for path in &self.mesh.access.shadow_contracts {
            let encoded = EncodedContract::read(path).map_err(|error| fault(error.to_string()))?;
            let contract = Contract::decode(encoded.exported()).map_err(|error| fault(error.to_string()))?;
            for service in contract.services() {
                if let Some(other) = owners.insert(service.clone(), path) {
                    let (path, other) = (path.display(), other.display());
                    return Err(fault(format!("{service} is in {other} and in {path}; leave one of them out")));
                }
            }
            methods.extend_from_slice(contract.methods());
        }
        Ok(ShadowRules::new(&methods))
    }

    /// The section of this service.
    pub(crate) fn service(&self, name: &str) -> Option<&ServiceConfig> {
        self.services.iter().find(|service| service.module.name() == name)
    }

    /// The own keys of a service, as its crate knows them.
    pub(crate) fn own<C: 'static>(&self, name: &str) -> Option<&C> {
        self.service(name).and_then(|service| service.own.values())
    }

    /// The issuer of access tokens, where the edge is reached at `edge`.
    pub(crate) fn issuer(&self, edge: SocketAddr) -> String {
        self.mesh.issuer.clone().unwrap_or_else(|| format!("http://{edge}"))
    }

    /// The issuer of access tokens, where the edge is reached at the address that it is configured to listen on.
    pub(crate) fn configured_issuer(&self) -> String {
        let edge = self.service(drystone_edge::NAME).map(|edge| self.issuer(edge.listen));
        edge.or_else(|| self.mesh.issuer.clone()).unwrap_or_default()
    }

    /// Each service: from `[peers]`, else at the listen address of its section, so that services on one machine find each
    /// other.
    pub(crate) fn peers(&self) -> client::Peers {
        let services = self.services.iter().filter(|service| service.module.shutdown_stage() == ShutdownStage::Service);
        let listens: BTreeMap<&str, String> =
            services.map(|service| (service.module.name(), service.listen.to_string())).collect();
        let named = self.mesh.peers.iter().map(|(name, peer)| (name.clone(), peer.peer(listens.get(&**name).cloned())));
        let others = listens.iter().map(|(name, listen)| ((*name).to_owned(), vec![listen.clone()].into()));
        others.chain(named).collect()
    }

    /// Whether `[peers]` says where a service is.
    pub(crate) fn names_peer(&self, service: &str) -> bool {
        self.mesh.peers.get(service).is_some_and(PeerConfig::has_addresses)
    }

    /// The key that asks for Redis, if one does.
    fn needs_redis(&self) -> Option<String> {
        let of_service = |service: &ServiceConfig| {
            let key = service.module.needs_redis(&service.own)?;
            Some(format!("{}.{key}", service.module.name()))
        };
        let of_limits = (self.mesh.limits.store == LimitStoreKind::Redis).then(|| "limits.store".to_owned());
        self.services.iter().find_map(of_service).or(of_limits)
    }

    /// Checks what types cannot express.
    fn check(&self) -> Result<(), String> {
        self.mesh.redis.check()?;
        self.mesh.certificates.check()?;
        self.mesh.sealing.check()?;
        self.mesh.limits.check()?;
        self.mesh.server.check()?;
        self.mesh.envoy.check()?;
        for (name, peer) in &self.mesh.peers {
            peer.check(name)?;
        }
        if let (Some(auth), Some(session)) = (
            self.own::<drystone_auth::Config>(drystone_auth::NAME),
            self.own::<drystone_session::Config>(drystone_session::NAME),
        ) && auth.access_token_lifetime > session.token_lifetime_max
        {
            // A revocation that is removed before the token expires would make the token valid again.
            return Err(format!(
                "auth.access_token_lifetime must be at most session.token_lifetime_max, which is {}",
                session.token_lifetime_max
            ));
        }
        if let Some(key) = self.needs_redis()
            && self.mesh.redis.url.is_empty()
        {
            return Err(format!("{key} is `redis`, so redis.url must be set, such as `redis://127.0.0.1:6379`"));
        }
        match &self.mesh.issuer {
            Some(issuer) if !is_issuer(issuer) => Err(
                "issuer must be a URL of scheme and host alone, such as `https://id.example.org`: the edge does not serve \
                     the metadata of an issuer with a path"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

/// Whether a text can be an issuer (RFC 8414, section 2). `http` is taken as well, for meshes on one machine. A path is
/// not: section 3.1 puts it behind the well-known one, where no route is.
fn is_issuer(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        let is_valid = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\"<>\\^`{|}".contains(&byte);
        !host.is_empty() && host.bytes().all(is_valid)
    })
}

#[cfg(test)]
mod tests;
