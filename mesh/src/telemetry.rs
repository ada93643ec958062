//! Telemetry: logs, metrics, trace context, and the admin port.

pub mod admin;
mod audit_file;
pub(crate) mod histogram;
mod log_budget;
pub mod logs;
pub mod metrics;
pub mod trace_context;

pub use audit_file::AuditFileError;
pub use log_budget::LogBudget;
pub use logs::LogConfig;
pub(crate) use metrics::Label;
pub use metrics::{CallerLabel, MethodMetrics, Metrics};
pub use trace_context::TraceContext;
