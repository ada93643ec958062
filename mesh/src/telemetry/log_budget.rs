//! A budget of log lines for events that any peer can cause, such as denials: a flood of them must not fill the disk, or
//! rotate other lines away. Every event is still counted in its metric.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use tracing::warn;

/// How many lines of one kind are logged in a period.
const LINES: u32 = 100;
const PERIOD: Duration = Duration::from_secs(5);

/// The budget of one kind of event. Clones share it.
#[derive(Debug, Clone)]
pub struct LogBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: &'static str,
    /// All suppressed lines.
    suppressed: Counter,
    period: Mutex<Period>,
}

#[derive(Debug)]
struct Period {
    start: Instant,
    lines: u32,
    suppressed: u64,
}

impl LogBudget {
    pub(super) fn new(event: &'static str, suppressed: Counter) -> Self {
        let period = Period { start: Instant::now(), lines: 0, suppressed: 0 };
        Self(Arc::new(Inner { event, suppressed, period: Mutex::new(period) }))
    }

    /// Whether to log this event. After a period with suppressed lines, one line says how many.
    #[must_use]
    pub fn allows(&self) -> bool {
        let (is_allowed, ended) = self.check(Instant::now());
        if let Some(suppressed) = ended {
            warn!(event = self.0.event, suppressed, "log lines of one kind were suppressed");
        }
        is_allowed
    }

    /// Whether a line is within the budget, and how many were suppressed in a period that has ended.
    fn check(&self, now: Instant) -> (bool, Option<u64>) {
        let mut period = self.0.period.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = None;
        if now.saturating_duration_since(period.start) >= PERIOD {
            ended = Some(period.suppressed).filter(|suppressed| *suppressed > 0);
            *period = Period { start: now, lines: 0, suppressed: 0 };
        }
        if period.lines < LINES {
            period.lines += 1;
            return (true, ended);
        }
        period.suppressed += 1;
        self.0.suppressed.inc();
        (false, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_budget_are_suppressed_and_counted() {
        let (counter, start) = (Counter::default(), Instant::now());
        let budget = LogBudget::new("call denied", counter.clone());
        let allowed = |now| (0..150).filter(|_| budget.check(now).0).count();
        assert_eq!(allowed(start), 100);
        assert_eq!(counter.get(), 50);
        let later = start + PERIOD * 2;
        assert_eq!(budget.check(later), (true, Some(50)), "the next period reports them");
        assert_eq!(budget.check(later), (true, None));
        assert_eq!(allowed(later), 98);
    }
}
