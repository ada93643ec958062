//! Whether the times of two kinds of requests tell them apart.
//!
//! The statistic is that of Mann and Whitney: how often one of two random answers, one of each kind, takes longer. It compares ranks of
//! requests that alternate, so that the load of the machine concerns both alike. 0.5 is no difference; with 150 requests of each kind its
//! standard error is 0.033, and five of these are allowed.

use std::time::Instant;

const SAMPLES: usize = 150;
const MAX_DIFFERENCE: f64 = 5.0 * 0.033;

/// Asserts that two kinds of requests take the same time. Each is called once a request.
///
/// # Panics
/// If one of them takes longer more often.
pub async fn assert_alike(name: &str, first: impl AsyncFn(), second: impl AsyncFn()) {
    let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
    for round in 0..SAMPLES {
        // What a request leaves behind slows each kind as often.
        if round % 2 == 0 {
            of_first.push(time(&first).await);
            of_second.push(time(&second).await);
        } else {
            of_second.push(time(&second).await);
            of_first.push(time(&first).await);
        }
    }
    let statistic = mann_whitney(&of_first, &of_second);
    println!("{name}: {statistic:.3} of {SAMPLES} requests each");
    assert!((statistic - 0.5).abs() < MAX_DIFFERENCE, "{name}: {statistic}");
}

async fn time(request: impl AsyncFn()) -> f64 {
    let started = Instant::now();
    request().await;
    started.elapsed().as_secs_f64()
}

/// The share of pairs in which the first is greater; half of those that are equal.
fn mann_whitney(first: &[f64], second: &[f64]) -> f64 {
    let mut greater = 0.0;
    for one in first {
        for other in second {
            greater += if one > other {
                1.0
            } else if one < other {
                0.0
            } else {
                0.5
            };
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand pairs")]
    let pairs = (first.len() * second.len()) as f64;
    greater / pairs
}
