//! Metrics of second factors.

use drystone_mesh::telemetry::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::factor::FactorKind;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FactorLabels {
    factor: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProofLabels {
    factor: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChallengeLabels {
    outcome: &'static str,
}

/// Metrics of second factors. Clones share their values.
#[derive(Debug, Clone)]
pub struct FactorMetrics {
    users: Family<FactorLabels, Gauge>,
    proofs: Family<ProofLabels, Counter>,
    challenges: Family<ChallengeLabels, Counter>,
}

impl FactorMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let this = Self { users: Family::default(), proofs: Family::default(), challenges: Family::default() };
        for kind in [FactorKind::Totp, FactorKind::Passkey, FactorKind::BackupCode] {
            for outcome in ["succeeded", "failed"] {
                drop(this.proofs.get_or_create(&ProofLabels { factor: kind.name(), outcome }));
            }
        }
        for outcome in ["issued", "completed"] {
            drop(this.challenges.get_or_create(&ChallengeLabels { outcome }));
        }
        metrics.register(|registry| {
            registry.register(
                "drystone_second_factor_users",
                "Users with a second factor, by its kind, as of the last count",
                this.users.clone(),
            );
            registry.register(
                "drystone_second_factor_proofs",
                "Proofs of second factors, by kind and outcome",
                this.proofs.clone(),
            );
            registry.register(
                "drystone_sign_in_challenges",
                "Sign-ins that need a second factor: challenges that were issued, and those that were completed",
                this.challenges.clone(),
            );
        });
        this
    }

    /// Sets how many users have a factor of a kind.
    pub(crate) fn set_users(&self, kind: FactorKind, users: i64) {
        self.users.get_or_create(&FactorLabels { factor: kind.name() }).set(users);
    }

    /// Counts a proof.
    pub(crate) fn proof(&self, kind: FactorKind, succeeded: bool) {
        let outcome = if succeeded { "succeeded" } else { "failed" };
        self.proofs.get_or_create(&ProofLabels { factor: kind.name(), outcome }).inc();
    }

    /// Counts a challenge.
    pub(crate) fn challenge(&self, is_completed: bool) {
        let outcome = if is_completed { "completed" } else { "issued" };
        self.challenges.get_or_create(&ChallengeLabels { outcome }).inc();
    }
}
