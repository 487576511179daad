//! The long form of a [`Table`], for programs: JSON and CSV, one record per figure, one per comparison
//! of two rows; in JSON also one per row that was trained, of what that cost, and where it all comes
//! from.

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    provenance::{Columns, Provenance},
    standing::Standing,
    table::{Table, Value},
};

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
    /// How it stands to `floor` beyond chance: `above`, `near` or `below`; `None` for a floor, and
    /// where rows were not compared.
    pub standing: Option<&'static str>,
    /// Whether it is better than every other row of the column beyond chance.
    pub best: bool,
    /// Why `mean` is missing: `n/a: ...`, `failed: ...`.
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
                            standing: section.standing(row, c, i).map(Standing::key),
                            best: section.is_best(row, c, i),
                            note: why_missing(&cell.value),
                        });
                    }
                }
            }
        }
        records
    }
}

/// What the training of a row cost; rows that are not trained have none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CostRecord<'a> {
    /// [`Section::dataset`](super::table::Section::dataset).
    pub dataset: &'a str,
    /// [`Row::model`](super::table::Row::model).
    pub model: &'a str,
    /// [`Cost::parameters`](super::table::Cost::parameters).
    pub parameters: u64,
    /// [`Cost::seeds`](super::table::Cost::seeds).
    pub seeds: usize,
    /// [`Cost::seconds`](super::table::Cost::seconds).
    pub seconds: f64,
    /// [`Cost::epochs`](super::table::Cost::epochs).
    pub epochs: f64,
    /// [`Cost::seconds_per_epoch`](super::table::Cost::seconds_per_epoch).
    pub seconds_per_epoch: f64,
}

impl Table {
    /// One record per data set and trained row, in this order.
    pub fn costs(&self) -> Vec<CostRecord<'_>> {
        let mut records = Vec::new();
        for section in &self.sections {
            for row in &section.rows {
                records.extend(row.cost.map(|cost| CostRecord {
                    dataset: &section.dataset,
                    model: &row.model,
                    parameters: cost.parameters,
                    seeds: cost.seeds,
                    seconds: cost.seconds,
                    epochs: cost.epochs,
                    seconds_per_epoch: cost.seconds_per_epoch(),
                }));
            }
        }
        records
    }
}

/// One comparison of two rows in one figure, in the units of [`Record`]: F1 and accuracies in
/// percentage points.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparisonRecord<'a> {
    /// [`Section::dataset`](super::table::Section::dataset).
    pub dataset: &'a str,
    /// [`Metric::key`](cumdf_train::metrics::Metric::key).
    pub metric: String,
    /// [`Column::key`](super::table::Column::key).
    pub condition: &'a str,
    /// [`Question::key`](super::table::Question::key).
    pub question: &'static str,
    /// The first row.
    pub model: &'a str,
    /// The row that it is compared with.
    pub other: &'a str,
    /// The first row's mean less the other's.
    pub difference: f64,
    /// Lower end of its 95 % interval over drawn test samples.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Two-sided probability of it by chance in the test samples.
    pub p: f64,
    /// The same after Holm's correction over all pairs of the question in this metric.
    pub p_holm: f64,
    /// Pairs of seeds; `None` for fewer than two.
    pub seeds: Option<usize>,
    /// Lower end of the 95 % interval over seeds.
    pub seeds_low: Option<f64>,
    /// Upper end.
    pub seeds_high: Option<f64>,
    /// Wilcoxon's signed-rank test over seeds, from six on.
    pub wilcoxon: Option<f64>,
    /// Whether it is more than chance: `p_holm` at most 0.05, and the interval over seeds, where
    /// there is one, on the same side of 0.
    pub real: bool,
}

impl Table {
    /// One record per comparison.
    pub fn comparisons(&self) -> Vec<ComparisonRecord<'_>> {
        let mut records = Vec::new();
        for section in &self.sections {
            for c in &section.comparisons {
                let metric = &section.metrics[c.metric];
                let unit = |value: f64| (metric.reported(value) * 1e6).round() / 1e6;
                let found = &c.difference;
                let seeds = found.seeds.as_ref();
                records.push(ComparisonRecord {
                    dataset: &section.dataset,
                    metric: metric.key(),
                    condition: &section.columns[c.column].key,
                    question: c.question.key(),
                    model: &c.model,
                    other: &c.other,
                    difference: unit(found.mean),
                    low: unit(found.interval[0]),
                    high: unit(found.interval[1]),
                    p: (found.p * 1e6).round() / 1e6,
                    p_holm: (found.adjusted * 1e6).round() / 1e6,
                    seeds: seeds.map(|s| s.n),
                    seeds_low: seeds.map(|s| unit(s.interval[0])),
                    seeds_high: seeds.map(|s| unit(s.interval[1])),
                    wilcoxon: seeds.and_then(|s| s.wilcoxon),
                    real: found.is_real(),
                });
            }
        }
        records
    }
}

/// An object: [`Provenance`], then three lists, [`Record`]s under `figures`, [`ComparisonRecord`]s
/// under `comparisons` and [`CostRecord`]s under `costs`, one a line.
pub fn json(table: &Table) -> Result<String> {
    let provenance: &Provenance = &table.provenance;
    let provenance = serde_json::to_string_pretty(provenance)?;
    let title = serde_json::to_string(&table.title)?;
    let figures = lines(&table.records())?;
    let (comparisons, costs) = (lines(&table.comparisons())?, lines(&table.costs())?);
    Ok(format!(
        "{{\n\"title\": {title},\n\"provenance\": {provenance},\n\"figures\": [\n{figures}\n],\n\
         \"comparisons\": [\n{comparisons}\n],\n\"costs\": [\n{costs}\n]\n}}\n"
    ))
}

fn lines(records: &[impl Serialize]) -> Result<String> {
    let lines: Vec<_> = records.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(lines.join(",\n"))
}

/// The [`Record`]s with a head, where each comes from in its last columns; what is missing is empty.
pub fn csv(table: &Table) -> Result<String> {
    with_head(&table.records(), |record| table.provenance.columns(Some(record.dataset)))
}

/// The [`ComparisonRecord`]s likewise.
pub fn comparisons_csv(table: &Table) -> Result<String> {
    with_head(&table.comparisons(), |record| table.provenance.columns(Some(record.dataset)))
}

fn with_head<'a, R: Serialize>(
    records: &[R],
    origin: impl Fn(&R) -> Columns<'a>,
) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.serialize((record, origin(record)))?;
    }
    Ok(String::from_utf8(writer.into_inner().context("a Vec takes all bytes")?)?)
}

fn why_missing(value: &Value) -> Option<String> {
    match value {
        Value::Measured(estimate) if estimate.mean.is_finite() => None,
        Value::Measured(estimate) => Some(format!("failed: the figure is {}", estimate.mean)),
        Value::NotAvailable(reason) => Some(format!("n/a: {reason}")),
        Value::Failed(reason) => Some(format!("failed: {reason}")),
    }
}
