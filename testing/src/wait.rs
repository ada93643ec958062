//! Waiting for something to become so, never for time to pass.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const PACE: Duration = Duration::from_millis(5);
/// How long anything may take to become so, on the slowest machine that is still of use.
pub const BOUND: Duration = Duration::from_mins(1);

/// The first `Some` that `condition` answers.
///
/// # Panics
/// If there is none within [`BOUND`].
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < BOUND, "waited {BOUND:?} in vain: {what}");
        tokio::time::sleep(PACE).await;
    }
}

/// As [`until`], for a thread that may block. The condition can give up early with an error.
///
/// # Errors
/// What the condition says, or that the time is up.
pub fn until_blocking<T>(mut condition: impl FnMut() -> Result<Option<T>, String>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() >= BOUND {
            return Err(format!("nothing within {BOUND:?}"));
        }
        thread::sleep(PACE);
    }
}
