//! Telemetry: logs, metrics, trace context, and the admin port.

pub mod admin;
mod histogram;
mod log_budget;
pub mod logs;
pub mod metrics;
pub mod trace_context;

pub use log_budget::LogBudget;
pub use logs::LogConfig;
pub use metrics::{CallerLabel, MethodMetrics, Metrics};
pub use trace_context::TraceContext;
