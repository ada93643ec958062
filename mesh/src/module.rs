//! What a service crate exports: [`Service`] describes a service, and [`Module`] is its type-erased form in a binary.
//!
//! ```
//! use drystone_mesh::{
//!     module::{Context, Module, NoConfig, Service, StartError, Started},
//!     server::Server,
//! };
//!
//! struct Orders;
//!
//! impl Service for Orders {
//!     const NAME: &'static str = "orders";
//!     type Config = NoConfig;
//!
//!     async fn start(context: Context<NoConfig>) -> Result<Started, StartError> {
//!         let node = context.node()?;
//!         // .add_service(OrderServiceServer::new(...))
//!         Ok(Server::new(&node)?.into())
//!     }
//! }
//!
//! let module = Module::of::<Orders>();
//! assert_eq!(module.name(), "orders");
//! ```
//!
//! A service with migrations finds its migrated database in its context (`drystone_store::ContextExt`). Its configuration has
//! the key `listen`, the section `[NAME.database]`, and the keys of [`Service::Config`].

mod context;
mod migration;

use std::{any::Any, error::Error as StdError, fmt, io, pin::Pin, sync::Arc};

use drystone::contract::EncodedContract;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[doc(hidden)]
pub use self::migration::version;
pub use self::{
    context::{Context, Shared},
    migration::Migration,
};
use crate::{
    config::{self, ConfigError, Dict, LayeredConfig},
    server::Server,
};

/// Why a service cannot start: one sentence that says what to do.
pub type StartError = Box<dyn StdError + Send + Sync>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The description of a service by its crate.
pub trait Service: Send + Sync + 'static {
    /// The workload's name, as in its SPIFFE ID and its contract, and the name of its section of the configuration.
    const NAME: &'static str;

    /// The contract of its crate; `None` for Drystone's own contract.
    const CONTRACT: Option<&'static EncodedContract> = None;

    /// Its migrations. A service without migrations has no database.
    const MIGRATIONS: &'static [Migration] = &[];

    /// When it is stopped.
    const SHUTDOWN_STAGE: ShutdownStage = ShutdownStage::Service;

    /// The port of its default address; `None` for the next one from 50051.
    const PORT: Option<u16> = None;

    /// Its own keys in its section of the configuration, with `#[serde(default, deny_unknown_fields)]`. [`NoConfig`] has none.
    type Config: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Checks what types cannot express.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    fn check(_config: &Self::Config) -> Result<(), String> {
        Ok(())
    }

    /// Whether it uses its database with this configuration.
    #[must_use]
    fn needs_database(_config: &Self::Config) -> bool {
        !Self::MIGRATIONS.is_empty()
    }

    /// The key of its section that makes it use Redis, if it does.
    #[must_use]
    fn needs_redis(_config: &Self::Config) -> Option<&'static str> {
        None
    }

    /// Creates the server. Errors before serving are returned from here.
    fn start(context: Context<Self::Config>) -> impl Future<Output = Result<Started, StartError>> + Send;
}

/// The configuration of a service without keys of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// The order of stopping: entry points first, so that no new requests arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownStage {
    /// An entry point, such as the edge.
    EntryPoint,
    /// Any other service.
    Service,
}

/// A service that is ready to serve.
pub struct Started {
    run: Run,
    notice: Option<Notice>,
}

/// A line of the start banner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What it is about, in one word.
    pub subject: &'static str,
    /// What the person who starts it must know.
    pub text: String,
}

/// Serves on a listener until a stop.
type Run = Box<dyn FnOnce(TcpListener, CancellationToken) -> BoxFuture<io::Result<()>> + Send>;

impl Started {
    /// Serves on a listener until a stop.
    pub fn new<F>(run: impl FnOnce(TcpListener, CancellationToken) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self { run: Box::new(|listener, stop| Box::pin(run(listener, stop))), notice: None }
    }

    /// Adds a line to the start banner.
    #[must_use]
    pub fn with_notice(self, notice: Notice) -> Self {
        Self { notice: Some(notice), ..self }
    }

    /// The line of the start banner.
    #[must_use]
    pub fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    /// Serves until `stop`, then drains.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        (self.run)(listener, stop).await
    }
}

impl From<Server> for Started {
    fn from(server: Server) -> Self {
        Self::new(|listener, stop| server.run(listener, stop))
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// A type-erased [`Service`].
#[derive(Debug, Clone, Copy)]
pub struct Module(&'static ModuleTable);

/// The functions of a [`Service`], with its configuration type erased.
#[expect(clippy::type_complexity, reason = "each type is used once, by its function")]
struct ModuleTable {
    name: &'static str,
    migrations: &'static [Migration],
    shutdown_stage: ShutdownStage,
    port: Option<u16>,
    contract: Option<&'static EncodedContract>,
    defaults: fn() -> Result<Dict, ConfigError>,
    read: fn(&LayeredConfig, &dyn Fn(&str) -> bool) -> Result<ModuleConfig, ConfigError>,
    needs_database: fn(&ModuleConfig) -> bool,
    needs_redis: fn(&ModuleConfig) -> Option<&'static str>,
    start: fn(Context<ModuleConfig>) -> BoxFuture<Result<Started, StartError>>,
}

impl fmt::Debug for ModuleTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleTable").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The own configuration of a module.
#[derive(Clone)]
pub struct ModuleConfig {
    values: Arc<dyn Any + Send + Sync>,
    masked: Dict,
}

impl ModuleConfig {
    /// The values, as the service's type.
    #[must_use]
    pub fn values<C: 'static>(&self) -> Option<&C> {
        self.values.downcast_ref()
    }

    /// The values as a table, with secrets masked.
    #[must_use]
    pub fn masked(&self) -> &Dict {
        &self.masked
    }
}

impl fmt::Debug for ModuleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleConfig").field("masked", &self.masked).finish_non_exhaustive()
    }
}

struct ModuleTableOf<S>(S);

impl<S: Service> ModuleTableOf<S> {
    const TABLE: ModuleTable = ModuleTable {
        name: S::NAME,
        migrations: S::MIGRATIONS,
        shutdown_stage: S::SHUTDOWN_STAGE,
        port: S::PORT,
        contract: S::CONTRACT,
        defaults: || config::defaults(&S::Config::default()),
        read: |layers, is_own| {
            let values: S::Config = layers.extract_section(S::NAME, is_own)?;
            S::check(&values).map_err(ConfigError::new)?;
            Ok(ModuleConfig { masked: config::defaults(&values)?, values: Arc::new(values) })
        },
        needs_database: |config| config.values().is_some_and(S::needs_database),
        needs_redis: |config| config.values().and_then(S::needs_redis),
        start: |context| {
            Box::pin(async {
                let config = context.config.values::<S::Config>().cloned();
                let config = config.ok_or("the section belongs to another service; this is a bug")?;
                S::start(context.map_config(|_| config)).await
            })
        },
    };
}

impl Module {
    /// This service as a module.
    #[must_use]
    pub const fn of<S: Service>() -> Self {
        Self(&ModuleTableOf::<S>::TABLE)
    }

    /// The workload's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.name
    }

    /// Its migrations.
    #[must_use]
    pub const fn migrations(&self) -> &'static [Migration] {
        self.0.migrations
    }

    /// When it is stopped.
    #[must_use]
    pub const fn shutdown_stage(&self) -> ShutdownStage {
        self.0.shutdown_stage
    }

    /// The port of its default address, if it has a fixed one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.0.port
    }

    /// Its contract.
    #[must_use]
    pub const fn contract(&self) -> Option<&'static EncodedContract> {
        self.0.contract
    }

    /// The defaults of its own keys.
    ///
    /// # Errors
    /// They are not a table, which is a bug.
    pub fn defaults(&self) -> Result<Dict, ConfigError> {
        (self.0.defaults)()
    }

    /// Reads its own keys: those of its section that `is_own` selects.
    ///
    /// # Errors
    /// A key is unknown, or a value is not valid.
    pub fn read(&self, layers: &LayeredConfig, is_own: &dyn Fn(&str) -> bool) -> Result<ModuleConfig, ConfigError> {
        (self.0.read)(layers, is_own)
    }

    /// Whether it uses its database with this configuration.
    #[must_use]
    pub fn needs_database(&self, config: &ModuleConfig) -> bool {
        (self.0.needs_database)(config)
    }

    /// The key that makes it use Redis, if it does.
    #[must_use]
    pub fn needs_redis(&self, config: &ModuleConfig) -> Option<&'static str> {
        (self.0.needs_redis)(config)
    }

    /// Creates the server.
    ///
    /// # Errors
    /// Why it cannot start, in one sentence.
    pub async fn start(&self, context: Context<ModuleConfig>) -> Result<Started, StartError> {
        (self.0.start)(context).await
    }
}
