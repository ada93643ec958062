//! The loop that checks a dependency and reports it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Component;
use crate::error::Chain;

/// How often a dependency is probed.
#[derive(Debug, Clone, Copy)]
pub struct ProbeIntervals {
    /// While it is up.
    pub up: Duration,
    /// While it is down.
    pub down: Duration,
}

/// Runs `check` at these intervals and reports its outcome as the health of `component`, until `stop`.
pub async fn probe<F, E>(
    check: impl Fn() -> F,
    component: Component,
    intervals: ProbeIntervals,
    stop: CancellationToken,
) where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    loop {
        let pause = match check().await {
            Ok(()) => {
                component.up();
                intervals.up
            }
            Err(error) => {
                component.down(Chain(&error).to_string());
                intervals.down
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
