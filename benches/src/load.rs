//! Closed-loop load: a fixed number of calls in flight, for a fixed time or a fixed number of calls.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};

/// The result of a load run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadResult {
    /// Completed calls per second.
    pub(crate) rate: f64,
    /// The median latency.
    pub(crate) p50: Duration,
    /// The 99th percentile of the latency.
    pub(crate) p99: Duration,
}

impl LoadResult {
    fn of(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        let quantile = |fraction: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let index = (latencies.len() as f64 * fraction) as usize;
            latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        #[allow(clippy::cast_precision_loss)]
        let rate = latencies.len() as f64 / elapsed.as_secs_f64();
        Self { rate, p50: quantile(0.5), p99: quantile(0.99) }
    }
}

/// Runs `in_flight` concurrent callers for `time`. `caller` is invoked once for each; it returns the function that
/// makes a call.
///
/// # Errors
/// The first call that fails: results with failed calls are meaningless.
pub(crate) async fn closed_loop<C, F, R>(in_flight: usize, time: Duration, mut caller: C) -> Result<LoadResult>
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
                let mut latencies = Vec::with_capacity(1 << 16);
                loop {
                    let before = Instant::now();
                    if before >= end {
                        return Ok::<_, anyhow::Error>(latencies);
                    }
                    call().await?;
                    latencies.push(before.elapsed());
                }
            })
        })
        .collect();

    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await??);
    }
    Ok(LoadResult::of(latencies, started.elapsed()))
}

/// Has each of these callers make `times` calls, one after the other, with `in_flight` callers at once: for calls of which each caller can
/// make a limited number.
///
/// # Errors
/// The first call that fails.
pub(crate) async fn each<T>(
    in_flight: usize,
    callers: &mut [T],
    times: usize,
    call: &impl AsyncFn(&mut T) -> Result<()>,
) -> Result<LoadResult> {
    let started = Instant::now();
    let calls = stream::iter(callers.iter_mut().map(|caller| async move {
        let mut latencies = Vec::with_capacity(times);
        for _ in 0..times {
            let before = Instant::now();
            call(caller).await?;
            latencies.push(before.elapsed());
        }
        anyhow::Ok(latencies)
    }));
    let latencies: Vec<Vec<Duration>> = calls.buffer_unordered(in_flight).try_collect().await?;
    Ok(LoadResult::of(latencies.concat(), started.elapsed()))
}

/// The run with the median rate.
pub(crate) fn median(mut runs: Vec<LoadResult>) -> LoadResult {
    runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    runs[runs.len() / 2]
}
