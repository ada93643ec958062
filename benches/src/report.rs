//! Every figure beside its limit: as a table for people, as JSON for programs.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// The figure.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What stands beside it: the limit that it is compared with, measured in the same run.
    pub(crate) beside: Option<String>,
    /// The figure over its limit.
    pub(crate) ratio: Option<f64>,
    /// What we want of it.
    pub(crate) aim: Option<String>,
    /// Whether it is so.
    pub(crate) met: Option<bool>,
}

impl Row {
    /// A figure that stands alone.
    pub(crate) fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, beside: None, ratio: None, aim: None, met: None }
    }

    /// A figure beside the one that limits it; the ratio should reach `aim`.
    pub(crate) fn beside(mut self, limit: &Row, aim: Option<f64>) -> Self {
        let ratio = self.value / limit.value;
        self.beside = Some(limit.name.clone());
        self.ratio = Some(ratio);
        self.aim = aim.map(|aim| format!("ratio >= {aim}"));
        self.met = aim.map(|aim| ratio >= aim);
        self
    }

    /// A figure that should not be more than `aim` times the one beside it.
    pub(crate) fn within(mut self, base: &Row, aim: f64) -> Self {
        let ratio = self.value / base.value;
        self.beside = Some(base.name.clone());
        self.ratio = Some(ratio);
        self.aim = Some(format!("ratio <= {aim}"));
        self.met = Some(ratio <= aim);
        self
    }

    /// A figure that should stay under `aim`.
    pub(crate) fn under(mut self, aim: f64) -> Self {
        self.aim = Some(format!("< {aim} {}", self.unit));
        self.met = Some(self.value < aim);
        self
    }
}

/// Microseconds.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Prints the rows and writes them to `path`.
pub(crate) fn publish(rows: &[Row], path: &Path) -> Result<()> {
    println!("\n{:<58} {:>12} {:<10} {:>7}  aim", "figure", "value", "unit", "ratio");
    for row in rows {
        let ratio = row.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let aim = match (&row.aim, row.met) {
            (Some(aim), Some(true)) => format!("{aim}: met"),
            (Some(aim), _) => format!("{aim}: NOT MET"),
            (None, _) => String::new(),
        };
        println!("{:<58} {:>12.1} {:<10} {:>7}  {}", row.name, row.value, row.unit, ratio, aim);
    }
    fs::write(path, serde_json::to_vec_pretty(rows)?)?;
    println!("\nwritten to {}", path.display());
    Ok(())
}
