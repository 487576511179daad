//! A table of results, whatever it is a table of: what every writer of [`crate::report`] takes.
//!
//! A [`Table`] has one [`Section`] per data set; a section has rows (models), columns (what the test
//! lets through) and metrics, and a [`Cell`] where the three meet. It holds values as measured; only
//! writers round, and only for print.

use cumdf_train::metrics::{Metric, mean_and_spread};

use super::provenance::Provenance;
use crate::difference::Difference;

/// One table, written to `<name>.{json,csv,md,tex}`.
#[derive(Debug, Clone)]
pub struct Table {
    /// File name without ending, for example `table1`.
    pub name: String,
    /// What it shows, one line.
    pub title: String,
    /// One per data set, in the order given.
    pub sections: Vec<Section>,
    /// What it rests on.
    pub provenance: Provenance,
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
    /// The metrics over which [`Section::beaten`] counts, in every writer alike. One for each
    /// question: F1, Acc-2 and Acc-7 of the same answers would count one success three times.
    pub counted: Vec<Metric>,
    /// One per model or floor.
    pub rows: Vec<Row>,
    /// Pairs of rows, in the metrics that are shown first or counted.
    pub comparisons: Vec<Comparison>,
    /// Footnotes.
    pub notes: Vec<String>,
}

/// One column of a section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    /// Name in JSON and CSV, for example `la` or `mean`.
    pub key: String,
    /// Name in a head, for example `{l,a}`.
    pub label: String,
    /// Key of an earlier column with the same figures for a reason that lies in the data, such as a
    /// modality that is never trained. Counts leave this column out.
    pub same_as: Option<String>,
    /// Whether it sums up other columns. Counts leave it out.
    pub sums_up: bool,
}

impl Column {
    /// Whether counts go over it: it neither repeats nor sums up others.
    pub fn counts(&self) -> bool {
        self.same_as.is_none() && !self.sums_up
    }
}

/// Two rows in one figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What a reader wants to know.
    pub question: Question,
    /// Position of the column.
    pub column: usize,
    /// Position of the metric.
    pub metric: usize,
    /// [`Row::model`] of the first.
    pub model: String,
    /// [`Row::model`] of the other.
    pub other: String,
    /// By how much the first has more.
    pub difference: Difference,
}

/// Why two rows are compared. Holm's correction is over the pairs of one question in one metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The best row of a column with every other: is it the best?
    Best,
    /// A trained row with the best floor of a column: is it worth its cost?
    Floor,
    /// The row that a table is about with every other that is trained.
    Reference,
}

impl Question {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Best, Self::Floor, Self::Reference];

    /// Name in JSON and CSV.
    pub fn key(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Floor => "floor",
            Self::Reference => "reference",
        }
    }
}

/// One row of a section.
#[derive(Debug, Clone)]
pub struct Row {
    /// Name in JSON and CSV, for example `cumdf`.
    pub model: String,
    /// Name in a table, for example `CUMDF`.
    pub name: String,
    /// What it is there for.
    pub kind: Kind,
    /// `[column][metric]`.
    pub cells: Vec<Vec<Cell>>,
    /// What its training cost; `None` for what is not trained.
    pub cost: Option<Cost>,
}

/// What the training of a row cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Trained parameters of the network that answers.
    pub parameters: u64,
    /// Number of seeds that were trained to the end.
    pub seeds: usize,
    /// Seconds of training, all stages together: mean over seeds.
    pub seconds: f64,
    /// Epochs, all stages together: mean over seeds.
    pub epochs: f64,
}

impl Cost {
    /// Seconds of an epoch, whatever its stage.
    pub fn seconds_per_epoch(&self) -> f64 {
        self.seconds / self.epochs
    }
}

/// What a row is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A simple answer that a model must beat to be of use: a constant, a linear model, an MLP.
    Floor,
    /// A model that is trained and compared.
    Trained,
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
    /// Every run of it failed, for the reason given.
    Failed(String),
}

impl Value {
    /// A measurement of one or more values, one per seed.
    pub fn of(values: &[f64]) -> Self {
        Estimate::of(values).map_or_else(|| Self::Failed(String::new()), Self::Measured)
    }

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
        let (mean, std) = mean_and_spread(values);
        (!values.is_empty()).then_some(Self { mean, std, seeds: values.len() })
    }
}

impl Section {
    /// The metrics that the terminal and the LaTeX table show.
    pub fn headline(&self) -> &[Metric] {
        &self.metrics[..self.n_headline.min(self.metrics.len())]
    }

    /// The rows of one kind, in order.
    pub fn rows_of(&self, kind: Kind) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }
}

impl Row {
    /// The printed figures of `metric`, one per column; `None` when there are none at all.
    pub fn paper(&self, metric: usize) -> Option<Vec<Option<f64>>> {
        let figures: Vec<_> = self.cells.iter().map(|cells| cells[metric].paper).collect();
        figures.iter().any(Option::is_some).then_some(figures)
    }

    /// The measurement in one column, if there is one and it is a number.
    pub fn estimate(&self, column: usize, metric: usize) -> Option<&Estimate> {
        self.cells[column][metric].value.estimate().filter(|e| e.mean.is_finite())
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
