//! How the rows of a section stand to each other: the floor of a column, its best rows, and how
//! many figures of a model beat the floor.

use cumdf_train::metrics::Metric;

use super::table::{Estimate, Kind, Row, Section};

/// Means closer than this are equal: a mean over seeds that all have one value may be a last digit
/// off that value.
const EQUAL: f64 = 1e-9;

/// The floor of one column and metric: the best of all floor rows.
#[derive(Debug, Clone, Copy)]
pub struct Floor<'a> {
    /// The row that reaches it, the first of equals.
    pub row: &'a Row,
    /// Its figure.
    pub estimate: &'a Estimate,
}

/// How many figures of a row beat the floor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Figures that beat the floor of their column.
    pub beaten: usize,
    /// Figures that there are.
    pub total: usize,
    /// The same for each of [`Section::counted`]: the metric, beaten, total.
    pub per_metric: Vec<(Metric, usize, usize)>,
}

impl Section {
    /// The floor of a column: the best figure of all floor rows, if any has one there.
    pub fn floor(&self, column: usize, metric: usize) -> Option<Floor<'_>> {
        self.rows_of(Kind::Floor)
            .filter_map(|row| Some(Floor { row, estimate: row.estimate(column, metric)? }))
            .reduce(|best, next| {
                let better = better(&self.metrics[metric], next.estimate.mean, best.estimate.mean);
                if better { next } else { best }
            })
    }

    /// Whether a row's mean is better than the floor of its column; `None` where either is missing,
    /// and for a floor itself.
    pub fn beats_floor(&self, row: &Row, column: usize, metric: usize) -> Option<bool> {
        if row.kind == Kind::Floor {
            return None;
        }
        let own = row.estimate(column, metric)?;
        let floor = self.floor(column, metric)?;
        Some(better(&self.metrics[metric], own.mean, floor.estimate.mean))
    }

    /// Whether a row has the best figure of its column, or one that cannot be told from it.
    ///
    /// Trained rows and floors compete. A row cannot be told from the best when their means differ by
    /// no more than its own or the best one's standard deviation over seeds, whichever is larger, or
    /// when both print alike.
    pub fn is_best(&self, row: &Row, column: usize, metric: usize) -> bool {
        let m = &self.metrics[metric];
        let best = self
            .rows
            .iter()
            .filter_map(|row| row.estimate(column, metric))
            .reduce(|best, next| if m.is_better(next.mean, best.mean) { next } else { best });
        let (Some(own), Some(best)) = (row.estimate(column, metric), best) else { return false };
        let spread = own.std.unwrap_or(0.0).max(best.std.unwrap_or(0.0));
        (own.mean - best.mean).abs() <= spread + EQUAL || m.format(own.mean) == m.format(best.mean)
    }

    /// How many figures of `row` beat the floor, over the metrics of [`Section::counted`].
    ///
    /// Columns that the data cannot answer and those that repeat or sum up others are left out, as is
    /// what failed or was not measured; so `total` may be 0.
    pub fn beaten(&self, row: &Row) -> Count {
        let mut count = Count::default();
        for metric in &self.counted {
            let Some(m) = self.metrics.iter().position(|other| other == metric) else { continue };
            let columns = (0..self.columns.len()).filter(|c| self.columns[*c].counts());
            let verdicts: Vec<_> = columns.filter_map(|c| self.beats_floor(row, c, m)).collect();
            let beaten = verdicts.iter().filter(|beats| **beats).count();
            count.beaten += beaten;
            count.total += verdicts.len();
            count.per_metric.push((metric.clone(), beaten, verdicts.len()));
        }
        count
    }
}

/// The count of each trained row in words, for rows that have any figure:
/// `CUMDF beats the best floor in 12 of 21 figures (MAE 5 of 7, F1 4 of 7, Corr 3 of 7)`.
pub fn beaten_lines(section: &Section) -> Vec<String> {
    let line = |row: &Row| {
        let count = section.beaten(row);
        let parts: Vec<_> = count
            .per_metric
            .iter()
            .filter(|(_, _, total)| *total > 0)
            .map(|(metric, beaten, total)| format!("{} {beaten} of {total}", metric.label()))
            .collect();
        let parts =
            if parts.len() > 1 { format!(" ({})", parts.join(", ")) } else { String::new() };
        let Count { beaten, total, .. } = count;
        (total > 0).then(|| {
            format!("{} beats the best floor in {beaten} of {total} figures{parts}", row.name)
        })
    };
    section.rows_of(Kind::Trained).filter_map(line).collect()
}

/// Whether `a` is better than `b` by more than rounding.
fn better(metric: &Metric, a: f64, b: f64) -> bool {
    metric.is_better(a, b) && (a - b).abs() > EQUAL
}
