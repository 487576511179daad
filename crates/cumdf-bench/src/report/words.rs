//! The words and cells that Markdown, LaTeX and the terminal share.

use cumdf_train::metrics::Metric;

use super::{
    standing::{Standing, beaten_lines},
    table::{Comparison, Question, Row, Section, Value},
};

/// What bold print means.
pub(super) const BOLD_NOTE: &str =
    "bold: better than every other row of the column, floors included, by more than chance";

/// The mark beside a figure that stands above or below its floor by more than chance.
pub(super) fn mark(section: &Section, row: &Row, column: usize, metric: usize) -> Option<char> {
    match section.standing(row, column, metric)? {
        Standing::Above => Some('*'),
        Standing::Below => Some('†'),
        Standing::Near => None,
    }
}

/// A metric with its unit or direction: `F1, %`, `MAE (lower is better)`.
pub(super) fn caption(metric: &Metric) -> String {
    let direction = if metric.lower_is_better() { "lower is better" } else { "higher is better" };
    match metric.is_fraction() {
        true => format!("{}, %", metric.label()),
        false => format!("{} ({direction})", metric.label()),
    }
}

/// The word in the place of a figure that was not measured.
pub(super) fn word(value: &Value) -> Option<&'static str> {
    match value {
        Value::Measured(_) => None,
        Value::NotAvailable(_) => Some("n/a"),
        Value::Failed(_) => Some("failed"),
    }
}

/// The paper's figures of a row as printed, empty where there is none; `None` when there are none at
/// all.
pub(super) fn paper_cells(row: &Row, i: usize, metric: &Metric) -> Option<Vec<String>> {
    let text = |figure: Option<f64>| figure.map_or_else(String::new, |v| metric.format(v));
    Some(row.paper(i)?.into_iter().map(text).collect())
}

/// What the row that a table is about has more than each other trained row, in one metric, in the
/// column that sums up the others, or the last.
pub(super) struct Differences {
    /// What is compared where: `CUMDF less the others, mean: MAE (lower is better)`.
    pub title: String,
    /// Other row, difference, its interval, probability after Holm's correction, interval over seeds,
    /// verdict.
    pub lines: Vec<Vec<String>>,
}

/// The heads of [`Differences::lines`].
pub(super) const DIFFERENCE_HEADS: [&str; 6] =
    ["other", "difference", "95 % of draws", "p (Holm)", "95 % over seeds", "more than chance"];

/// The differences of each headline metric, where there are any.
pub(super) fn differences(section: &Section) -> Vec<Differences> {
    let sums_up = section.columns.iter().position(|column| column.sums_up);
    let Some(column) = sums_up.or(section.columns.len().checked_sub(1)) else { return vec![] };
    let of_metric = |m: usize| {
        let metric = &section.metrics[m];
        let name = |model: &str| {
            let row = section.rows.iter().find(|row| row.model == model);
            row.map_or_else(|| model.to_owned(), |row| row.name.clone())
        };
        let number = |value: f64| match metric.is_fraction() {
            true => format!("{:+.2}", metric.reported(value)),
            false => format!("{value:+.3}"),
        };
        let interval = |ends: [f64; 2]| format!("{} to {}", number(ends[0]), number(ends[1]));
        let found: Vec<_> = section
            .comparisons
            .iter()
            .filter(|c| c.question == Question::Reference && (c.column, c.metric) == (column, m))
            .collect();
        let first = name(&found.first()?.model);
        let line = |c: &&Comparison| {
            let d = &c.difference;
            let verdict = match (d.is_real(), metric.is_better(d.mean, 0.0)) {
                (false, _) => "no",
                (true, true) => "better",
                (true, false) => "worse",
            };
            let seeds = d.seeds.as_ref().map_or_else(|| "-".to_owned(), |s| interval(s.interval));
            vec![
                name(&c.other),
                number(d.mean),
                interval(d.interval),
                format!("{:.4}", d.adjusted),
                seeds,
                verdict.to_owned(),
            ]
        };
        Some(Differences {
            title: format!(
                "{first} less the others, {}: {}",
                section.columns[column].label,
                caption(metric)
            ),
            lines: found.iter().map(line).collect(),
        })
    };
    (0..section.headline().len()).filter_map(of_metric).collect()
}

/// All notes of a section but those that only one format needs: the counts of figures above the floors,
/// what the marks mean, the section's own, and one for each reason why something was not measured.
pub(super) fn notes(section: &Section) -> Vec<String> {
    let mut notes = beaten_lines(section);
    if !notes.is_empty() {
        notes.push(
            "*: better than the best floor (the best of the rows marked (floor) in the same \
             column) by more than chance; †: worse than it by more than chance"
                .to_owned(),
        );
    }
    notes.extend(repeated(section));
    notes.extend(section.notes.iter().cloned());
    for row in &section.rows {
        for cell in row.cells.iter().flatten() {
            let note = match &cell.value {
                Value::NotAvailable(reason) => format!("n/a: {reason}"),
                Value::Failed(reason) => format!("{} failed: {reason}", row.name),
                Value::Measured(_) => continue,
            };
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}

/// Which columns repeat others.
fn repeated(section: &Section) -> Option<String> {
    let label = |key: &str| {
        let column = section.columns.iter().find(|column| column.key == key);
        column.map_or_else(|| key.to_owned(), |column| column.label.clone())
    };
    let pairs: Vec<_> = section
        .columns
        .iter()
        .filter_map(|c| Some(format!("{} equals {}", c.label, label(c.same_as.as_deref()?))))
        .collect();
    (!pairs.is_empty())
        .then(|| format!("columns with the same figures, counted once: {}", pairs.join(", ")))
}
