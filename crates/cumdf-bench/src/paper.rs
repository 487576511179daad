//! The figures that the paper prints, to stand beside the measured ones. Nothing is tuned to them.
//!
//! They live in `data/paper_tables.csv` and `data/paper_ablation.csv`, which name their tables and
//! their places; what they were measured on is in `data/paper_data.csv`.

use std::{collections::HashMap, sync::LazyLock};

use cumdf_data::{Modality, ModalitySet, Split};
use cumdf_train::metrics::Metric;
use serde::{Deserialize, de::DeserializeOwned};

use crate::report::summary::Summary;

const FIGURES_FILE: &str = include_str!("../data/paper_tables.csv");
const ABLATION_FILE: &str = include_str!("../data/paper_ablation.csv");
const DATA_FILE: &str = include_str!("../data/paper_data.csv");

/// One line of `paper_tables.csv`: a metric of a model under the seven conditions, as printed.
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

/// One line of `paper_ablation.csv`.
#[derive(Debug, Deserialize)]
struct Ablation {
    model: String,
    mae: f64,
    f1: f64,
}

/// One line of `paper_data.csv`: the paper's own copy of a data set.
#[derive(Debug, Deserialize)]
struct Data {
    dataset: String,
    train: usize,
    valid: usize,
    test: usize,
    language: i64,
    audio: i64,
    vision: i64,
}

/// Where a data set's figures are printed, and how the file at hand differs from what the paper had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The paper's name of the data set: `MOSI`, `MOSEI` or `IEMOCAP`.
    pub dataset: String,
    /// Number of the table.
    pub table: u8,
    /// Each difference in words: `language has 100 features per step, the paper's 300`. Empty when
    /// all sizes agree, which does not prove that the features are the same.
    pub differences: Vec<String>,
}

type Key = (String, String, String, String); // data set, model, condition, metric

static FIGURES: LazyLock<HashMap<Key, f64>> = LazyLock::new(|| {
    let mut figures = HashMap::new();
    for line in lines::<Line>(FIGURES_FILE) {
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

/// The lines of one of the two files, without its comments.
fn lines<T: DeserializeOwned>(file: &'static str) -> impl Iterator<Item = T> {
    csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(file.as_bytes())
        .into_deserialize()
        .map(|line| line.expect("the files in data/ are well-formed: tests read all of them"))
}

/// Where the paper prints figures for a file whose `name` attribute is `name`, if it does.
///
/// `CMU-MOSI` and `MOSI` are the paper's MOSI; so is either with an addition in parentheses. How far
/// the file is the paper's data is told by its sizes. Any other name has no figures.
///
/// - `sizes`: samples in `train`, `valid` and `test`
/// - `dims`: features per step of language, audio and vision; 0 for a modality that the file lacks
pub fn source(name: &str, sizes: [usize; 3], dims: [i64; 3]) -> Option<Source> {
    let base = base(name);
    let table = lines::<Line>(FIGURES_FILE).find(|line| line.dataset == base)?.table;
    let paper = lines::<Data>(DATA_FILE)
        .find(|data| data.dataset == base)
        .expect("paper_data.csv has every data set of paper_tables.csv: a test compares them");
    let differences = differences(&paper, sizes, dims);
    Some(Source { dataset: paper.dataset, table, differences })
}

/// How many samples the paper has of a data set in `train`, `valid` and `test`; as [`source`].
pub fn sizes(name: &str) -> Option<[usize; 3]> {
    let base = base(name);
    let data = lines::<Data>(DATA_FILE).find(|data| data.dataset == base)?;
    Some([data.train, data.valid, data.test])
}

/// The paper's name of a data set.
fn base(name: &str) -> &str {
    let base = name.split_once('(').map_or(name, |(base, _)| base).trim();
    base.strip_prefix("CMU-").unwrap_or(base)
}

/// What a file with these sizes has otherwise than the paper.
fn differences(paper: &Data, sizes: [usize; 3], dims: [i64; 3]) -> Vec<String> {
    let mut differences = Vec::new();
    let per_step = [paper.language, paper.audio, paper.vision];
    for ((modality, own), paper) in Modality::ALL.into_iter().zip(dims).zip(per_step) {
        match own {
            _ if own == paper => {}
            0 => differences.push(format!("{modality} is missing, the paper has {paper} features")),
            1 => {
                differences.push(format!("{modality} has 1 feature per step, the paper's {paper}"))
            }
            _ => differences
                .push(format!("{modality} has {own} features per step, the paper's {paper}")),
        }
    }
    let in_paper = [paper.train, paper.valid, paper.test];
    for ((split, own), paper) in Split::ALL.into_iter().zip(sizes).zip(in_paper) {
        if own != paper {
            differences.push(format!("{} has {own} samples, the paper's {paper}", split.name()));
        }
    }
    differences
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

/// The same for a column: a condition, or what sums up all seven where the paper prints them all.
pub fn cell(source: &Source, model: &str, column: &str, metric: &Metric) -> Option<f64> {
    let Some(summary) = Summary::ALL.into_iter().find(|summary| summary.key() == column) else {
        return figure(source, model, column, metric);
    };
    let all = ModalitySet::CONDITIONS.map(|c| figure(source, model, &c.key(), metric));
    summary.of(metric, &all.into_iter().collect::<Option<Vec<_>>>()?)
}

/// The data set of the printed ablation.
const ABLATION_DATASET: &str = "MOSI";

/// The printed figure of the ablation, with all modalities and a drop ratio of 0.2, in the unit in
/// which `metric` is stored.
///
/// - `model`: the key of a table's row, such as `cumdf-no-mke`
pub fn ablation(source: &Source, model: &str, metric: &Metric) -> Option<f64> {
    let printed = lines::<Ablation>(ABLATION_FILE)
        .find(|line| source.dataset == ABLATION_DATASET && line.model == model)?;
    match metric {
        Metric::Mae => Some(printed.mae),
        Metric::F1 => Some(printed.f1 / 100.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DIMS: [i64; 3] = [300, 74, 1024];

    fn printed(dataset: &str, model: &str, condition: &str, metric: &Metric) -> Option<String> {
        let source = source(dataset, [0; 3], DIMS)?;
        figure(&source, model, condition, metric).map(|value| metric.format(value))
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
    fn a_file_is_told_from_the_papers_by_its_sizes_not_by_its_name() {
        let same = source("CMU-MOSI (my copy)", [1284, 229, 686], DIMS).unwrap();
        assert_eq!((same.dataset.as_str(), same.table), ("MOSI", 1));
        assert!(same.differences.is_empty(), "{:?}", same.differences);
        let other = source("CMU-MOSI", [1284, 228, 686], [100, 74, 0]).unwrap();
        assert_eq!(
            other.differences,
            [
                "language has 100 features per step, the paper's 300",
                "vision is missing, the paper has 1024 features",
                "valid has 228 samples, the paper's 229",
            ]
        );
        let iemocap = source("IEMOCAP (partial)", [2717, 798, 938], [300, 1, 1024]).unwrap();
        assert_eq!(iemocap.table, 2);
        assert_eq!(iemocap.differences, ["audio has 1 feature per step, the paper's 74"]);
        assert!(source("MOSEI", [16326, 1871, 4659], DIMS).unwrap().differences.is_empty());
    }

    #[test]
    fn only_the_papers_own_data_sets_have_figures() {
        for name in ["ICT-MMMO", "CMU-MOSI-like", "synthetic", "(CMU-MOSI)", ""] {
            assert_eq!(source(name, [1284, 229, 686], DIMS), None, "{name:?}");
        }
    }

    #[test]
    fn every_data_set_with_figures_has_sizes() {
        let with_sizes: BTreeSet<_> = lines::<Data>(DATA_FILE).map(|data| data.dataset).collect();
        let printed = lines::<Line>(FIGURES_FILE).map(|line| line.dataset);
        assert_eq!(printed.collect::<BTreeSet<_>>(), with_sizes);
    }
}
