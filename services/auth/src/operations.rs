//! What the operations on passwords, addresses and second factors share, and how they are put together.

use std::sync::Arc;

use drystone_mesh::clock::Clock;
use drystone_store::outbox::Relay;

use crate::{
    account_recovery::AccountRecovery,
    config::{Config, PasskeyConfig},
    email_change::EmailChange,
    email_verification::EmailVerification,
    error::StartError,
    factor::{check::FactorCheck, management::Factors, passkey::Passkeys},
    metrics::FactorMetrics,
    password::new_password::NewPasswords,
    password_change::PasswordChange,
    password_check::PasswordCheck,
    password_reset::PasswordReset,
    rpc::{AuthRpc, EmailRpc, PasskeyRpc, PasswordRpc},
    step_up::StepUp,
    store::AuthStore,
    token::key_ring::KeyRing,
    upstreams::Upstreams,
};

/// What the operations on passwords and addresses share.
pub(crate) struct Operations {
    pub(crate) upstreams: Arc<dyn Upstreams>,
    pub(crate) store: AuthStore,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
    pub(crate) factor_metrics: FactorMetrics,
}

impl Operations {
    pub(crate) fn recovery(&self) -> AccountRecovery {
        let Self { store, keys, relay, clock, .. } = self;
        AccountRecovery { store: store.clone(), keys: Arc::clone(keys), relay: relay.clone(), clock: clock.clone() }
    }

    pub(crate) fn emails(&self, check: &PasswordCheck) -> EmailRpc {
        let Self { upstreams, store, keys, relay, clock, .. } = self;
        EmailRpc {
            verification: EmailVerification {
                upstreams: Arc::clone(upstreams),
                store: store.clone(),
                keys: Arc::clone(keys),
                relay: relay.clone(),
                clock: clock.clone(),
            },
            change: EmailChange {
                passwords: check.clone(),
                store: store.clone(),
                relay: relay.clone(),
                clock: clock.clone(),
            },
            recovery: self.recovery(),
        }
    }

    /// Passkeys, as they are configured.
    pub(crate) fn passkeys(&self, config: &Config, issuer: &str) -> Result<Passkeys, StartError> {
        let Self { store, keys, clock, factor_metrics, .. } = self;
        let PasskeyConfig { rp_name, .. } = &config.passkeys;
        Ok(Passkeys {
            relying_party: config.passkeys.relying_party().map_err(StartError::Config)?.map(Arc::new),
            name: if rp_name.is_empty() { config.mfa.issuer_name(issuer) } else { rp_name.clone() },
            keys: Arc::clone(keys),
            metrics: factor_metrics.clone(),
            store: store.clone(),
            clock: clock.clone(),
        })
    }

    pub(crate) fn factors(&self, check: &FactorCheck, config: &Config, issuer: &str) -> Arc<Factors> {
        let Self { upstreams, store, relay, clock, .. } = self;
        Arc::new(Factors {
            check: check.clone(),
            upstreams: Arc::clone(upstreams),
            store: store.clone(),
            relay: relay.clone(),
            clock: clock.clone(),
            issuer_name: config.mfa.issuer_name(issuer),
            requirement: config.mfa.requirement(store),
            reset_delay: config.mfa.reset_delay.duration(),
        })
    }

    pub(crate) fn step_up(&self, passwords: &PasswordCheck, factors: &FactorCheck) -> Arc<StepUp> {
        let Self { upstreams, store, relay, clock, .. } = self;
        Arc::new(StepUp {
            passwords: passwords.clone(),
            factors: factors.clone(),
            upstreams: Arc::clone(upstreams),
            store: store.clone(),
            relay: relay.clone(),
            clock: clock.clone(),
        })
    }

    pub(crate) fn passwords(&self, check: &PasswordCheck, passwords: &NewPasswords) -> PasswordRpc {
        let Self { store, keys, relay, clock, .. } = self;
        PasswordRpc {
            change: PasswordChange {
                check: check.clone(),
                passwords: passwords.clone(),
                store: store.clone(),
                relay: relay.clone(),
                clock: clock.clone(),
            },
            reset: PasswordReset {
                passwords: passwords.clone(),
                store: store.clone(),
                keys: Arc::clone(keys),
                relay: relay.clone(),
                clock: clock.clone(),
            },
        }
    }
}

impl AuthRpc {
    pub(crate) fn passkeys(&self, factors: &Arc<Factors>) -> PasskeyRpc {
        let Self { sign_in, step_up, .. } = self;
        PasskeyRpc { factors: Arc::clone(factors), sign_in: Arc::clone(sign_in), step_up: Arc::clone(step_up) }
    }
}
