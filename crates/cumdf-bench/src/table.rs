//! A table of results, whatever it is a table of: what every writer of [`crate::write`] takes.
//!
//! A [`Table`] has one [`Section`] per data set; a section has rows (models), columns (what the test
//! lets through) and metrics, and a [`Cell`] where the three meet. It holds values as measured; only
//! writers round, and only for print.

use cumdf_train::metrics::Metric;
use serde::Serialize;

/// One table, written to `<name>.{json,csv,md,tex}`.
#[derive(Debug, Clone)]
pub struct Table {
    /// File name without ending, for example `table1`.
    pub name: String,
    /// What it shows, one line.
    pub title: String,
    /// One per data set, in the order given.
    pub sections: Vec<Section>,
}

/// The part of a table that one data set fills.
#[derive(Debug, Clone)]
pub struct Section {
    /// The `name` of the data file.
    pub dataset: String,
    /// Sizes and label of the data set, for readers.
    pub summary: String,
    /// What differs from column to column.
    pub columns: Vec<Column>,
    /// All metrics.
    pub metrics: Vec<Metric>,
    /// How many of `metrics`, from the first, the terminal and the LaTeX table show.
    pub n_headline: usize,
    /// One per model.
    pub rows: Vec<Row>,
    /// Per metric, what the best constant answer reaches; the same in every column.
    pub floor: Vec<f64>,
    /// Footnotes.
    pub notes: Vec<String>,
}

/// One column of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name in JSON and CSV, for example `la`.
    pub key: String,
    /// Name in a head, for example `{l,a}`.
    pub label: String,
}

/// One model of a section.
#[derive(Debug, Clone)]
pub struct Row {
    /// Name in JSON and CSV, for example `cumdf`.
    pub model: String,
    /// Name in a table, for example `CUMDF`.
    pub name: String,
    /// `[column][metric]`.
    pub cells: Vec<Vec<Cell>>,
}

/// What was measured, and what the paper prints there.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The measurement, or why there is none.
    pub value: Value,
    /// The printed figure, in the unit of the metric as stored.
    pub paper: Option<f64>,
}

/// A measurement, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// It was measured.
    Measured(Estimate),
    /// The data cannot answer this, for the reason given.
    NotAvailable(String),
    /// The model is not built yet.
    NotYet,
    /// Every run of it failed, for the reason given.
    Failed(String),
}

impl Value {
    /// The measurement, if there is one.
    pub fn estimate(&self) -> Option<&Estimate> {
        match self {
            Self::Measured(estimate) => Some(estimate),
            _ => None,
        }
    }
}

/// Mean and spread over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Mean over seeds.
    pub mean: f64,
    /// Sample standard deviation over seeds (divided by n - 1); `None` for a single seed, or where
    /// seeds play no part.
    pub std: Option<f64>,
    /// Number of seeds.
    pub seeds: usize,
}

impl Estimate {
    /// Mean and sample standard deviation of one value per seed; `None` when there is none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        let std = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        (!values.is_empty()).then_some(Self { mean, std, seeds: values.len() })
    }
}

/// One line of the long form that JSON and CSV hold.
///
/// Units are the paper's: F1 and accuracies in percent, MAE and correlation as they are; in `mean`,
/// `std`, `paper` and `floor` alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record<'a> {
    /// [`Section::dataset`].
    pub dataset: &'a str,
    /// [`Row::model`].
    pub model: &'a str,
    /// [`Column::key`].
    pub condition: &'a str,
    /// [`Metric::key`].
    pub metric: String,
    /// Mean over seeds; `None` where nothing was measured, and `note` says why.
    pub mean: Option<f64>,
    /// Sample standard deviation over seeds; `None` for fewer than two.
    pub std: Option<f64>,
    /// Number of seeds in `mean`.
    pub seeds: usize,
    /// The paper's figure.
    pub paper: Option<f64>,
    /// The constant answer's figure.
    pub floor: Option<f64>,
    /// Why `mean` is missing: `n/a: ...`, `not yet`, `failed: ...`.
    pub note: Option<String>,
}

impl Table {
    /// The long form: one record per data set, model, column and metric, in this order.
    pub fn records(&self) -> Vec<Record<'_>> {
        let mut records = Vec::new();
        for section in &self.sections {
            for row in &section.rows {
                for (column, cells) in section.columns.iter().zip(&row.cells) {
                    for (i, cell) in cells.iter().enumerate() {
                        let estimate = cell.value.estimate();
                        let in_unit = |value: f64| section.metrics[i].reported(value);
                        records.push(Record {
                            dataset: &section.dataset,
                            model: &row.model,
                            condition: &column.key,
                            metric: section.metrics[i].key(),
                            mean: estimate.map(|e| in_unit(e.mean)),
                            std: estimate.and_then(|e| e.std).map(in_unit),
                            seeds: estimate.map_or(0, |e| e.seeds),
                            paper: cell.paper.map(in_unit),
                            floor: Some(in_unit(section.floor[i])).filter(|v| v.is_finite()),
                            note: match &cell.value {
                                Value::Measured(_) => None,
                                Value::NotAvailable(reason) => Some(format!("n/a: {reason}")),
                                Value::NotYet => Some("not yet".to_owned()),
                                Value::Failed(reason) => Some(format!("failed: {reason}")),
                            },
                        });
                    }
                }
            }
        }
        records
    }
}

impl Section {
    /// The metrics that the terminal and the LaTeX table show.
    pub fn headline(&self) -> &[Metric] {
        &self.metrics[..self.n_headline.min(self.metrics.len())]
    }

    /// Whether `estimate` prints like the best of its column. Equal prints are equally best.
    pub fn is_best(&self, column: usize, metric: usize, estimate: &Estimate) -> bool {
        let m = &self.metrics[metric];
        let best = self
            .rows
            .iter()
            .filter_map(|row| row.cells[column][metric].value.estimate())
            .map(|e| e.mean)
            .filter(|mean| mean.is_finite())
            .reduce(|best, mean| if m.is_better(mean, best) { mean } else { best });
        best.is_some_and(|best| m.format(best) == m.format(estimate.mean))
    }
}

impl Row {
    /// Whether the model is not built yet, in every column that could be measured.
    pub fn is_reserved(&self) -> bool {
        self.cells.iter().flatten().any(|cell| cell.value == Value::NotYet)
    }

    /// The printed figures of `metric`, one per column; `None` when there are none at all.
    pub fn paper(&self, metric: usize) -> Option<Vec<Option<f64>>> {
        let figures: Vec<_> = self.cells.iter().map(|cells| cells[metric].paper).collect();
        figures.iter().any(Option::is_some).then_some(figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `np.std([1, 2, 4], ddof=1)` is 1.5275252316519465.
    #[test]
    fn the_spread_is_that_of_a_sample() {
        let three = Estimate::of(&[1.0, 2.0, 4.0]).unwrap();
        assert!((three.mean - 7.0 / 3.0).abs() < 1e-12);
        assert!((three.std.unwrap() - 1.527_525_231_651_946_5).abs() < 1e-12);
        assert_eq!(Estimate::of(&[2.0]), Some(Estimate { mean: 2.0, std: None, seeds: 1 }));
        assert_eq!(Estimate::of(&[]), None);
    }
}
