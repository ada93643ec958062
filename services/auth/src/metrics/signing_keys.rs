//! The metrics of signing keys, computed when they are read.

use std::{fmt, sync::Arc};

use chrono::TimeDelta;
use drystone_mesh::{clock::Timestamp, telemetry::Metrics};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
};

use crate::token::signing_keys::SigningKeys;

/// Registers the metrics.
pub(crate) fn register(metrics: &Metrics, keys: Arc<SigningKeys>) {
    metrics.register(|registry| registry.register_collector(Box::new(SigningKeyAge(keys))));
}

#[derive(Debug)]
struct SigningKeyAge(Arc<SigningKeys>);

impl Collector for SigningKeyAge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (keys, now) = (self.0.keys.current(), self.0.clock.now());
        if let Some(signing) = keys.timed_signing(now) {
            let gauge = ConstGauge::new((now - signing.begins_at()).max(TimeDelta::zero()).num_seconds());
            let help = "How long the key has signed access tokens that signs them now";
            let name = "drystone_signing_key_age_seconds";
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        // While a rotation is pending, the last key of the set has been published for it already.
        let next = self.0.next_rotation(&keys, now).or(keys.all_signing().next().map(|(last, _)| last.signs_from));
        let gauge = ConstGauge::new(next.as_ref().map_or(0, Timestamp::timestamp));
        let help = "When the next rotation of signing keys begins, or the pending one ends, in seconds since 1970";
        let name = "drystone_signing_key_next_rotation_timestamp_seconds";
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
    }
}
