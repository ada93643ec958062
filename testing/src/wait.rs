//! Polling of conditions. Tests never sleep for a fixed time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The interval between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The timeout of a condition, for slow machines.
pub const WAIT_TIMEOUT: Duration = Duration::from_mins(1);

/// Polls `condition` until it returns `Some`.
///
/// # Panics
/// After [`WAIT_TIMEOUT`].
pub async fn until<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(WAIT_TIMEOUT, what, condition).await
}

/// As [`until`], with another timeout.
///
/// # Panics
/// After the timeout.
pub async fn until_within<T>(timeout: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < timeout, "not within {timeout:?}: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// As [`until`], but blocks the thread. The condition can stop early with an error.
///
/// # Errors
/// The error of the condition, or a timeout.
pub fn until_blocking<T>(mut condition: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() >= WAIT_TIMEOUT {
            return Err(format!("timeout after {WAIT_TIMEOUT:?}"));
        }
        thread::sleep(POLL_INTERVAL);
    }
}
