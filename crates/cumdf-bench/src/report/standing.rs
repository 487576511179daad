//! How the rows of a section stand to each other, by its comparisons: the floor of a column, its best
//! row, and how many figures of a model are above the floor.

use cumdf_train::metrics::Metric;

use super::table::{Comparison, Estimate, Kind, Question, Row, Section};

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

/// How a figure stands to the floor of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Better, by more than chance.
    Above,
    /// Chance may be all there is between them.
    Near,
    /// Worse, by more than chance.
    Below,
}

impl Standing {
    /// Name in JSON and CSV.
    pub fn key(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Near => "near",
            Self::Below => "below",
        }
    }
}

/// How the figures of a row stand to the floors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Figures above the floor of their column.
    pub above: usize,
    /// Figures below it.
    pub below: usize,
    /// Figures that there are.
    pub total: usize,
    /// The same for each of [`Section::counted`]: the metric, above, total.
    pub per_metric: Vec<(Metric, usize, usize)>,
}

impl Section {
    /// The floor of a column: the best figure of all floor rows, if any has one there.
    pub fn floor(&self, column: usize, metric: usize) -> Option<Floor<'_>> {
        let rows = self.rows_of(Kind::Floor);
        let row = self.best_of(rows, column, metric)?;
        Some(Floor { row, estimate: row.estimate(column, metric)? })
    }

    /// The row with the best mean of a column, the first of equals.
    pub fn best(&self, column: usize, metric: usize) -> Option<&Row> {
        self.best_of(self.rows.iter(), column, metric)
    }

    fn best_of<'a>(
        &self,
        rows: impl Iterator<Item = &'a Row>,
        column: usize,
        metric: usize,
    ) -> Option<&'a Row> {
        let m = &self.metrics[metric];
        let means = rows.filter_map(|row| Some((row, row.estimate(column, metric)?.mean)));
        let best = means.reduce(|best, next| if better(m, next.1, best.1) { next } else { best });
        best.map(|(row, _)| row)
    }

    /// How a row stands to the floor of its column; `None` where either is missing or nothing was
    /// compared, and for a floor itself.
    pub fn standing(&self, row: &Row, column: usize, metric: usize) -> Option<Standing> {
        let found =
            self.compared(Question::Floor, column, metric).find(|c| c.model == row.model)?;
        let real = found.difference.is_real();
        let better = self.metrics[metric].is_better(found.difference.mean, 0.0);
        Some(match (real, better) {
            (false, _) => Standing::Near,
            (true, true) => Standing::Above,
            (true, false) => Standing::Below,
        })
    }

    /// Whether a row is better than every other of its column, floors included, by more than chance.
    pub fn is_best(&self, row: &Row, column: usize, metric: usize) -> bool {
        let mut others = self.compared(Question::Best, column, metric).peekable();
        others.peek().is_some() && others.all(|c| c.model == row.model && c.difference.is_real())
    }

    /// The comparisons of a column, or of the one that has the same figures.
    fn compared(
        &self,
        question: Question,
        column: usize,
        metric: usize,
    ) -> impl Iterator<Item = &Comparison> {
        let same = self.columns[column].same_as.as_ref();
        let place = same.and_then(|key| self.columns.iter().position(|c| c.key == *key));
        let column = place.unwrap_or(column);
        self.comparisons
            .iter()
            .filter(move |c| c.question == question && c.column == column && c.metric == metric)
    }

    /// How the figures of `row` stand to the floors, over the metrics of [`Section::counted`].
    ///
    /// Columns that the data cannot answer and those that repeat or sum up others are left out, as is
    /// what failed or was not measured; so `total` may be 0.
    pub fn beaten(&self, row: &Row) -> Count {
        let mut count = Count::default();
        for metric in &self.counted {
            let Some(m) = self.metrics.iter().position(|other| other == metric) else { continue };
            let columns = (0..self.columns.len()).filter(|c| self.columns[*c].counts());
            let standings: Vec<_> = columns.filter_map(|c| self.standing(row, c, m)).collect();
            let n = |which: Standing| standings.iter().filter(|s| **s == which).count();
            count.above += n(Standing::Above);
            count.below += n(Standing::Below);
            count.total += standings.len();
            count.per_metric.push((metric.clone(), n(Standing::Above), standings.len()));
        }
        count
    }
}

/// The count of each trained row in words, for rows that have any figure:
/// `CUMDF is above the best floor in 12 of 21 figures (MAE 5 of 7, F1 4 of 7, Corr 3 of 7), below it
/// in 2`.
pub fn beaten_lines(section: &Section) -> Vec<String> {
    let line = |row: &Row| {
        let count = section.beaten(row);
        let parts: Vec<_> = count
            .per_metric
            .iter()
            .filter(|(_, _, total)| *total > 0)
            .map(|(metric, above, total)| format!("{} {above} of {total}", metric.label()))
            .collect();
        let parts =
            if parts.len() > 1 { format!(" ({})", parts.join(", ")) } else { String::new() };
        let Count { above, below, total, .. } = count;
        (total > 0).then(|| {
            format!(
                "{} is above the best floor in {above} of {total} figures{parts}, below it in \
                 {below}",
                row.name
            )
        })
    };
    section.rows_of(Kind::Trained).filter_map(line).collect()
}

/// Whether `a` is better than `b` by more than rounding.
fn better(metric: &Metric, a: f64, b: f64) -> bool {
    metric.is_better(a, b) && (a - b).abs() > EQUAL
}
