//! The rate limits of a process, some counted in it and some in a shared store.

use std::sync::{Arc, OnceLock};

use super::{LimitStore, LimiterFactory};
use crate::{module::StartError, telemetry::Metrics};

type OpenStore = dyn Fn() -> Result<Option<Arc<dyn LimitStore>>, StartError> + Send + Sync;

/// The rate limits of a process. The shared store is opened on first use, since not every service needs it.
pub struct SharedLimits {
    in_process: LimiterFactory,
    open: Box<OpenStore>,
    opened: OnceLock<LimiterFactory>,
}

impl SharedLimits {
    /// `open` opens the shared store, if one is configured.
    pub fn new(
        metrics: &Metrics,
        open: impl Fn() -> Result<Option<Arc<dyn LimitStore>>, StartError> + Send + Sync + 'static,
    ) -> Self {
        Self { in_process: LimiterFactory::in_process(metrics), open: Box::new(open), opened: OnceLock::new() }
    }

    /// Creates limits that are counted in this process.
    #[must_use]
    pub fn in_process(&self) -> &LimiterFactory {
        &self.in_process
    }

    /// Creates limits that are counted in the shared store, or in this process if there is none. `on_open` is called with
    /// the store when it is opened.
    ///
    /// # Errors
    /// The store is misconfigured.
    pub fn factory(&self, on_open: impl FnOnce(&dyn LimitStore)) -> Result<&LimiterFactory, StartError> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let factory = match (self.open)()? {
            Some(store) => {
                on_open(&*store);
                self.in_process.clone().with_store(store)
            }
            None => self.in_process.clone(),
        };
        Ok(self.opened.get_or_init(|| factory))
    }
}
