//! Telemetry: logs, metrics, trace context, and the admin port.

pub mod admin;
mod histogram;
pub mod logs;
pub mod metrics;
pub mod trace_context;

pub use logs::LogConfig;
pub use metrics::{CallerLabel, MethodMetrics, Metrics};
pub use trace_context::TraceContext;
