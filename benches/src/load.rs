//! A closed loop of callers: so many calls in flight, for so long.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Result;

/// What a loop measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Calls that ended, a second.
    pub(crate) rate: f64,
    /// Half of the calls took no longer.
    pub(crate) p50: Duration,
    /// All but one in a hundred took no longer.
    pub(crate) p99: Duration,
}

/// Keeps `in_flight` calls going for `time`; each caller makes its own with `caller`.
///
/// # Errors
/// The first call that fails: a figure over failed calls would be none.
pub(crate) async fn closed_loop<C, F, R>(in_flight: usize, time: Duration, mut caller: C) -> Result<Figures>
where
    C: FnMut() -> F,
    F: FnMut() -> R + Send + 'static,
    R: Future<Output = Result<()>> + Send,
{
    let started = Instant::now();
    let end = started + time;
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let mut call = caller();
            tokio::spawn(async move {
                let mut taken = Vec::with_capacity(1 << 16);
                loop {
                    let before = Instant::now();
                    if before >= end {
                        return Ok::<_, anyhow::Error>(taken);
                    }
                    call().await?;
                    taken.push(before.elapsed());
                }
            })
        })
        .collect();

    let mut taken = Vec::new();
    for caller in callers {
        taken.extend(caller.await??);
    }
    let elapsed = started.elapsed();
    taken.sort_unstable();
    let at = |share: f64| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = (taken.len() as f64 * share) as usize;
        taken.get(index.min(taken.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    #[allow(clippy::cast_precision_loss)]
    let rate = taken.len() as f64 / elapsed.as_secs_f64();
    Ok(Figures { rate, p50: at(0.5), p99: at(0.99) })
}

/// The run whose rate is in the middle.
pub(crate) fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    runs[runs.len() / 2]
}
