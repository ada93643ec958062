//! Parses metrics in the Prometheus text format.

use std::collections::BTreeMap;

/// The values of all series at one time.
#[derive(Debug)]
pub struct MetricsSnapshot(Vec<Series>);

#[derive(Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl MetricsSnapshot {
    /// Parses the text format.
    ///
    /// # Panics
    /// If a line is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| parse(line).unwrap_or_else(|| panic!("malformed line of metrics: {line}"))).collect())
    }

    /// The sum of all series with this name and these labels; 0 if there are none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|series| series.value).sum()
    }

    /// Whether there is a series with this name and these labels.
    #[must_use]
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// The names of all series.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|series| series.name.as_str())
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Series> {
        let has =
            |series: &Series| labels.iter().all(|(key, value)| series.labels.get(*key).is_some_and(|is| is == value));
        self.0.iter().filter(move |series| series.name == name && has(series))
    }
}

fn parse(line: &str) -> Option<Series> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let labels = labels.split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once("=\"")?;
        Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some(Series { name: name.to_owned(), labels: labels.collect::<Option<_>>()?, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let text = "# TYPE a counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"\"} 4\na_total 1\nb 0.5\n# EOF\n";
        let metrics = MetricsSnapshot::parse(text);
        assert!((metrics.sum("a_total", &[("x", "1")]) - 7.0).abs() < f64::EPSILON);
        assert!((metrics.sum("a_total", &[("x", "1"), ("y", "2")]) - 3.0).abs() < f64::EPSILON);
        assert!(metrics.has("b", &[]) && !metrics.has("b", &[("x", "1")]));
    }
}
