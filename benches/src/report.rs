//! The results with their baselines and targets, as a table on standard output and as a JSON file.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use serde::Serialize;

/// One measured value.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    /// What was measured.
    pub(crate) name: String,
    /// The value.
    pub(crate) value: f64,
    /// The unit.
    pub(crate) unit: &'static str,
    /// The name of the baseline, measured in the same run.
    #[serde(rename = "beside")]
    pub(crate) baseline: Option<String>,
    /// The ratio of the value to the baseline.
    pub(crate) ratio: Option<f64>,
    /// The target.
    pub(crate) aim: Option<String>,
    /// Whether the target is met.
    pub(crate) met: Option<bool>,
}

impl Measurement {
    /// A value without a baseline.
    pub(crate) fn plain(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, baseline: None, ratio: None, aim: None, met: None }
    }

    /// Compares with a baseline that is an upper bound; the target is a ratio of at least `aim`.
    pub(crate) fn compared_with(mut self, baseline: &Measurement, aim: Option<f64>) -> Self {
        let ratio = self.value / baseline.value;
        self.baseline = Some(baseline.name.clone());
        self.ratio = Some(ratio);
        self.aim = aim.map(|aim| format!("ratio >= {aim}"));
        self.met = aim.map(|aim| ratio >= aim);
        self
    }

    /// Compares with a baseline; the target is a ratio of at most `aim`.
    pub(crate) fn within(mut self, baseline: &Measurement, aim: f64) -> Self {
        let ratio = self.value / baseline.value;
        self.baseline = Some(baseline.name.clone());
        self.ratio = Some(ratio);
        self.aim = Some(format!("ratio <= {aim}"));
        self.met = Some(ratio <= aim);
        self
    }

    /// Sets the target: a value of `aim` or more.
    pub(crate) fn at_least(mut self, aim: f64) -> Self {
        self.aim = Some(format!(">= {aim} {}", self.unit));
        self.met = Some(self.value >= aim);
        self
    }

    /// Sets the target: a value below `aim`.
    pub(crate) fn under(mut self, aim: f64) -> Self {
        self.aim = Some(format!("< {aim} {}", self.unit));
        self.met = Some(self.value < aim);
        self
    }
}

/// A duration in microseconds.
pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Prints the table and writes the JSON file `path`.
pub(crate) fn publish(rows: &[Measurement], path: &Path) -> Result<()> {
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
