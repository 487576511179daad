//! The long form of a [`Table`], for programs: JSON and CSV, one record per figure.

use anyhow::{Context, Result};
use serde::Serialize;

use super::table::{Table, Value};

/// One line of the long form.
///
/// Units are the paper's: F1 and accuracies in percent, MAE and correlation as they are; in `mean`,
/// `std`, `paper` and `floor` alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record<'a> {
    /// [`Section::dataset`](super::table::Section::dataset).
    pub dataset: &'a str,
    /// [`Row::model`](super::table::Row::model).
    pub model: &'a str,
    /// [`Column::key`](super::table::Column::key).
    pub condition: &'a str,
    /// [`Column::same_as`](super::table::Column::same_as): the condition that has the same figures.
    pub same_as: Option<&'a str>,
    /// [`Metric::key`](cumdf_train::metrics::Metric::key).
    pub metric: String,
    /// Mean over seeds; `None` where nothing was measured, and `note` says why.
    pub mean: Option<f64>,
    /// Sample standard deviation over seeds; `None` for fewer than two.
    pub std: Option<f64>,
    /// Number of seeds in `mean`.
    pub seeds: usize,
    /// The paper's figure.
    pub paper: Option<f64>,
    /// The figure of the best floor under this condition.
    pub floor: Option<f64>,
    /// The `model` that reaches `floor`.
    pub floor_of: Option<&'a str>,
    /// Why `mean` is missing: `n/a: ...`, `not yet`, `failed: ...`.
    pub note: Option<String>,
}

impl Table {
    /// The long form: one record per data set, model, column and metric, in this order.
    pub fn records(&self) -> Vec<Record<'_>> {
        let mut records = Vec::new();
        for section in &self.sections {
            for row in &section.rows {
                for (c, (column, cells)) in section.columns.iter().zip(&row.cells).enumerate() {
                    for (i, cell) in cells.iter().enumerate() {
                        let estimate = cell.value.estimate().filter(|e| e.mean.is_finite());
                        let floor = section.floor(c, i);
                        let in_unit = |value: f64| section.metrics[i].reported(value);
                        records.push(Record {
                            dataset: &section.dataset,
                            model: &row.model,
                            condition: &column.key,
                            same_as: column.same_as.as_deref(),
                            metric: section.metrics[i].key(),
                            mean: estimate.map(|e| in_unit(e.mean)),
                            std: estimate.and_then(|e| e.std).map(in_unit),
                            seeds: estimate.map_or(0, |e| e.seeds),
                            paper: cell.paper.map(in_unit),
                            floor: floor.map(|f| in_unit(f.estimate.mean)),
                            floor_of: floor.map(|f| f.row.model.as_str()),
                            note: why_missing(&cell.value),
                        });
                    }
                }
            }
        }
        records
    }
}

/// A list of [`Record`]s, one a line.
pub fn json(table: &Table) -> Result<String> {
    let lines: Vec<_> =
        table.records().iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

/// The same records with a head; what is missing is empty.
pub fn csv(table: &Table) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in table.records() {
        writer.serialize(record)?;
    }
    Ok(String::from_utf8(writer.into_inner().context("a Vec takes all bytes")?)?)
}

fn why_missing(value: &Value) -> Option<String> {
    match value {
        Value::Measured(estimate) if estimate.mean.is_finite() => None,
        Value::Measured(estimate) => Some(format!("failed: the figure is {}", estimate.mean)),
        Value::NotAvailable(reason) => Some(format!("n/a: {reason}")),
        Value::NotYet => Some("not yet".to_owned()),
        Value::Failed(reason) => Some(format!("failed: {reason}")),
    }
}
