//! Keeps an identity up to date: credentials from their source, and the denylist.
//!
//! A set that cannot be used is refused, logged once, counted, and tried again: it may only be incomplete, or not valid yet.

use std::{future, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Identity,
    denylist::Denylist,
    error::IdentityError,
    source::{CredentialSource, UnverifiedCredentials, WatchedFiles, blocking},
};
use crate::{clock::Clock, error::Chain, health::Component, telemetry::Metrics};

/// How often what was refused is tried again, and the health is reported.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The fraction of a certificate's time below which the health is degraded: it should have been replaced by then.
const LATE_FRACTION: i32 = 10;

/// Certificates as metrics, by service.
#[derive(Debug, Clone, Default)]
pub struct CertificateMetrics {
    not_after: Family<ServiceLabels, Gauge>,
    loads: Family<LoadLabels, Counter>,
    denied: Family<ServiceLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoadLabels {
    service: &'static str,
    what: &'static str,
    outcome: &'static str,
}

impl CertificateMetrics {
    /// Those of a process.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        metrics.shared(Self::register)
    }

    fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        let help = "When the certificate of a service expires, in seconds since the Unix epoch";
        registry.register("drystone_certificate_expiry_timestamp_seconds", help, this.not_after.clone());
        let help = "Certificates and denylists that were loaded or refused after a change";
        registry.register("drystone_certificate_loads", help, this.loads.clone());
        registry.register("drystone_denylist_entries", "Entries of the denylist", this.denied.clone());
        this
    }
}

/// Keeps one identity up to date.
#[derive(Debug)]
pub struct Follower {
    service: &'static str,
    identity: Identity,
    source: Arc<dyn CredentialSource>,
    denylist: Option<WatchedFiles<PathBuf>>,
    metrics: CertificateMetrics,
    clock: Clock,
    /// Why the last certificate and the last denylist were refused.
    refused_certificate: Option<String>,
    refused_denylist: Option<String>,
}

/// Why something is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// It has changed.
    Change,
    /// It was refused before, and may be usable now.
    Retry,
}

impl Follower {
    /// Follows a source for the identity of this service.
    #[must_use]
    pub fn new(
        service: &'static str,
        identity: Identity,
        source: Arc<dyn CredentialSource>,
        metrics: CertificateMetrics,
        clock: Clock,
    ) -> Self {
        let (refused_certificate, refused_denylist) = (None, None);
        Self { service, identity, source, denylist: None, metrics, clock, refused_certificate, refused_denylist }
    }

    /// Reads a denylist, and follows it as well.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn with_denylist(mut self, file: WatchedFiles<PathBuf>) -> Result<Self, IdentityError> {
        self.identity.set_denylist(Denylist::read(file.files())?);
        self.denylist = Some(file);
        Ok(self)
    }

    /// Follows until `stop`. `health` is degraded while the certificate should have been replaced or something new is refused,
    /// and down when the certificate has expired.
    pub async fn run(mut self, health: Component, stop: CancellationToken) {
        let (source, denylist) = (self.source.clone(), self.denylist.take());
        let mut source_changed = pin!(source.changed());
        let list_changed = || async {
            match &denylist {
                Some(file) => file.changed().await,
                None => future::pending().await,
            }
        };
        let mut denylist_changed = pin!(list_changed());
        let mut retry = tokio::time::interval(RETRY_INTERVAL);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.report(&health);
            tokio::select! {
                () = stop.cancelled() => return,
                () = source_changed.as_mut() => {
                    self.reload(Occasion::Change).await;
                    source_changed.set(source.changed());
                }
                () = denylist_changed.as_mut() => {
                    self.reload_denylist(denylist.as_ref(), Occasion::Change).await;
                    denylist_changed.set(list_changed());
                }
                _ = retry.tick() => {
                    if self.refused_certificate.is_some() {
                        self.reload(Occasion::Retry).await;
                    }
                    if self.refused_denylist.is_some() {
                        self.reload_denylist(denylist.as_ref(), Occasion::Retry).await;
                    }
                }
            }
        }
    }

    async fn reload(&mut self, occasion: Occasion) {
        let replaced = match self.source.load().await {
            Ok(credentials) => self.replace(credentials).await,
            Err(error) => Err(error),
        };
        match replaced {
            Ok(has_changed) => {
                self.refused_certificate = None;
                if has_changed {
                    self.count("certificate", "loaded");
                    let svid = self.identity.svid();
                    info!(service = self.service, serial = svid.serial, not_after = %svid.not_after, "certificate replaced");
                }
            }
            Err(error) => {
                let cause = Chain(&error).to_string();
                if occasion == Occasion::Change {
                    self.count("certificate", "refused");
                    warn!(service = self.service, cause, "new certificate refused; the old one stays in use");
                }
                self.refused_certificate = Some(cause);
            }
        }
    }

    /// Verifies and replaces, off the async threads.
    async fn replace(&self, credentials: UnverifiedCredentials) -> Result<bool, IdentityError> {
        let identity = self.identity.clone();
        blocking(move || identity.replace(credentials)).await
    }

    async fn reload_denylist(&mut self, file: Option<&WatchedFiles<PathBuf>>, occasion: Occasion) {
        let Some(file) = file else { return };
        match file.read(|path| Denylist::read(path)).await {
            Ok(list) => {
                self.refused_denylist = None;
                let (before, entries) = (self.identity.denylist_entries(), list.len());
                if !self.identity.set_denylist(list) {
                    return;
                }
                self.count("denylist", "loaded");
                if entries == 0 && before > 0 {
                    warn!(service = self.service, before, "denylist is empty now: nobody is denied any longer");
                } else {
                    info!(service = self.service, entries, "denylist replaced");
                }
            }
            Err(error) => {
                let cause = Chain(&error).to_string();
                if occasion == Occasion::Change {
                    self.count("denylist", "refused");
                    warn!(service = self.service, cause, "new denylist refused; the old one stays in use");
                }
                self.refused_denylist = Some(cause);
            }
        }
    }

    fn count(&self, what: &'static str, outcome: &'static str) {
        self.metrics.loads.get_or_create(&LoadLabels { service: self.service, what, outcome }).inc();
    }

    fn report(&self, health: &Component) {
        let labels = ServiceLabels { service: self.service };
        let svid = self.identity.svid();
        let not_after = svid.not_after;
        self.metrics.not_after.get_or_create(&labels).set(not_after.timestamp());
        let entries = self.identity.denylist_entries();
        self.metrics.denied.get_or_create(&labels).set(i64::try_from(entries).unwrap_or(i64::MAX));
        let now = self.clock.now();
        if now >= not_after {
            health.down(format!("the certificate expired at {not_after}; issue a new one"));
        } else if let Some(cause) = &self.refused_certificate {
            health.degraded(format!("a new certificate is refused: {cause}"));
        } else if let Some(cause) = &self.refused_denylist {
            health.degraded(format!("a new denylist is refused: {cause}"));
        } else if not_after - now < (not_after - svid.not_before) / LATE_FRACTION {
            health.degraded(format!("the certificate expires at {not_after}, and no new one has been issued"));
        } else {
            health.up();
        }
    }
}

#[cfg(test)]
mod tests;
