//! What can be seen from outside: logs, metrics, the place in a trace, and the port that shows them.

pub mod admin;
mod histogram;
pub mod logs;
pub mod metrics;
pub mod trace_context;

pub use logs::LogConfig;
pub use metrics::{CallerLabel, MethodMetrics, Metrics};
pub use trace_context::TraceContext;
