//! The figures that the paper prints, to stand beside the measured ones. Nothing is tuned to them.
//!
//! They live in `data/paper_tables.csv`, which names their tables and their places.

use std::{collections::HashMap, sync::LazyLock};

use serde::Deserialize;

use cumdf_train::metrics::Metric;

const FILE: &str = include_str!("../data/paper_tables.csv");

/// One line of the file: a metric of a model under the seven conditions, as printed.
#[derive(Debug, Deserialize)]
struct Line {
    table: u8,
    dataset: String,
    model: String,
    metric: String,
    l: f64,
    a: f64,
    v: f64,
    la: f64,
    lv: f64,
    av: f64,
    lav: f64,
}

/// Where a data set's figures are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The paper's name of the data set: `MOSI`, `MOSEI` or `IEMOCAP`.
    pub dataset: String,
    /// Number of the table.
    pub table: u8,
    /// Whether the file at hand only resembles what the paper used, as `CMU-MOSI (bc-LSTM features)`
    /// does: its figures then need a footnote.
    pub other_features: bool,
}

type Key = (String, String, String, String); // data set, model, condition, metric

static FIGURES: LazyLock<HashMap<Key, f64>> = LazyLock::new(|| {
    let mut figures = HashMap::new();
    for line in lines() {
        let conditions = [
            ("l", line.l),
            ("a", line.a),
            ("v", line.v),
            ("la", line.la),
            ("lv", line.lv),
            ("av", line.av),
            ("lav", line.lav),
        ];
        for (condition, value) in conditions {
            let key = (
                line.dataset.clone(),
                line.model.clone(),
                condition.to_owned(),
                line.metric.clone(),
            );
            let twice = figures.insert(key, value);
            assert!(twice.is_none(), "paper_tables.csv has a line twice: {line:?}");
        }
    }
    figures
});

fn lines() -> impl Iterator<Item = Line> {
    csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(FILE.as_bytes())
        .into_deserialize()
        .map(|line| line.expect("data/paper_tables.csv is well-formed: a test reads all of it"))
}

/// Where the paper prints figures for a file whose `name` attribute is `dataset`, if it does.
///
/// `CMU-MOSI` and `MOSI` are the paper's MOSI; so is either with an addition in parentheses, with
/// [`Source::other_features`] set. Anything else has no figures.
pub fn source(dataset: &str) -> Option<Source> {
    let (name, addition) = match dataset.split_once('(') {
        Some((name, _)) => (name.trim(), true),
        None => (dataset.trim(), false),
    };
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CMU-").unwrap_or(&name);
    let line = lines().find(|line| line.dataset == name)?;
    Some(Source { dataset: line.dataset, table: line.table, other_features: addition })
}

/// The printed figure, in the unit in which `metric` is stored (a fraction, or units of the score).
///
/// - `model`: the key of a table's row, such as `self-mm`
/// - `condition`: the key of a condition, such as `la`
pub fn figure(source: &Source, model: &str, condition: &str, metric: &Metric) -> Option<f64> {
    let key = (source.dataset.clone(), model.to_owned(), condition.to_owned(), metric.key());
    let printed = FIGURES.get(&key)?;
    Some(if metric.is_fraction() { printed / 100.0 } else { *printed })
}

#[cfg(test)]
mod tests {
    use cumdf_data::ModalitySet;

    use super::*;

    fn printed(dataset: &str, model: &str, condition: &str, metric: &Metric) -> Option<String> {
        figure(&source(dataset)?, model, condition, metric).map(|value| metric.format(value))
    }

    /// Read off the print by eye: corners and a few inner cells.
    #[test]
    fn figures_are_those_of_the_print() {
        let happy = Metric::F1Class("happy".into());
        let neutral = Metric::F1Class("neutral".into());
        for (dataset, model, condition, metric, value) in [
            ("CMU-MOSI", "self-mm", "l", &Metric::Mae, "0.810"),
            ("CMU-MOSI", "cumdf", "lav", &Metric::F1, "84.37"),
            ("MOSI", "transm", "a", &Metric::F1, "66.83"),
            ("CMU-MOSEI", "self-mm", "l", &Metric::F1, "67.85"),
            ("CMU-MOSEI", "cumdf", "av", &Metric::Mae, "0.735"),
            ("IEMOCAP", "self-mm", "l", &happy, "68.10"),
            ("IEMOCAP", "cumdf", "lav", &neutral, "71.20"),
            ("IEMOCAP", "emt", "lv", &Metric::F1Class("sad".into()), "68.73"),
        ] {
            assert_eq!(printed(dataset, model, condition, metric).as_deref(), Some(value));
        }
        assert_eq!(printed("IEMOCAP", "cumdf", "lav", &Metric::F1), None);
        assert_eq!(printed("CMU-MOSI", "cumdf-no-distillation", "l", &Metric::F1), None);
    }

    #[test]
    fn every_printed_cell_is_there_once() {
        // Two data sets by eight models by two metrics, and eight models by four emotions.
        assert_eq!(FIGURES.len(), (2 * 8 * 2 + 8 * 4) * ModalitySet::CONDITIONS.len());
        for ((_, _, condition, metric), value) in FIGURES.iter() {
            assert!(condition.parse::<ModalitySet>().is_ok());
            let plausible = if metric == "mae" { 0.5..1.0 } else { 30.0..95.0 };
            assert!(plausible.contains(value), "{metric} {value}");
        }
    }

    #[test]
    fn only_the_papers_own_data_sets_have_figures() {
        let other_features = |name| source(name).map(|s| s.other_features);
        assert_eq!(other_features("CMU-MOSI"), Some(false));
        assert_eq!(other_features("CMU-MOSI (bc-LSTM features)"), Some(true));
        assert_eq!(other_features("IEMOCAP (partial)"), Some(true));
        assert_eq!(other_features("ICT-MMMO"), None);
        assert_eq!(other_features("CMU-MOSI-like"), None);
        assert_eq!(other_features("synthetic"), None);
    }
}
