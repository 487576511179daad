//! What the page shows, as data: the template reads it for tables, the script for charts.
//!
//! Units are those of the tables' files: F1 and accuracies in percent. Numbers are rounded to what a
//! chart can show, for the size of the page.

use serde::Serialize;

/// The whole page.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// The folder it is about, as it was given.
    pub(super) folder: String,
    /// Version of the program.
    pub(super) program: &'static str,
    /// When the page was made, as HTTP writes a date.
    pub(super) made: String,
    /// What the page asks the server of `--watch` for when it looks for news; `None` for a file.
    pub(super) state: Option<String>,
    /// Names of all data sets.
    pub(super) datasets: Vec<String>,
    /// Every metric of any table, the tables' first one first.
    pub(super) metrics: Vec<MetricInfo>,
    /// The tables that lie in the folder, and the one that its cells make.
    pub(super) tables: Vec<Table>,
    /// What needs true labels, one per data set.
    pub(super) judged: Vec<Judged>,
    /// What each answer is owed to.
    pub(super) attributions: Vec<Attribution>,
    /// All cells.
    pub(super) cells: Vec<CellCard>,
    /// The files that it was made from.
    pub(super) files: Vec<FileCard>,
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct MetricInfo {
    /// Key in the files.
    pub(super) key: String,
    /// Name in a head.
    pub(super) label: String,
    /// Whether a smaller value is better.
    pub(super) lower: bool,
    /// Decimals in print.
    pub(super) digits: usize,
    /// Unit, or nothing.
    pub(super) unit: &'static str,
}

/// A table or figure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Table {
    /// File name without ending; `so-far` for the one that is made of the cells.
    pub(super) name: String,
    /// What it is called, such as `Table 1`.
    pub(super) short: String,
    /// What it shows.
    pub(super) title: String,
    /// What to know when reading it.
    pub(super) note: String,
    /// Whether its columns are shares of hidden frames.
    pub(super) is_curves: bool,
    /// One per data set, or per data set and what loses frames.
    pub(super) parts: Vec<Part>,
    /// What the trainings cost.
    pub(super) costs: Vec<Cost>,
    /// What the row that the table is about has more than the others.
    pub(super) differences: Vec<Difference>,
    /// Whatever else the file says about itself, as JSON.
    pub(super) more: Vec<(String, String)>,
}

/// Two rows in one figure.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Difference {
    /// The data set.
    pub(super) dataset: String,
    /// The metric's name.
    pub(super) metric: String,
    /// The column.
    pub(super) column: String,
    /// The first row.
    pub(super) name: String,
    /// The row that it is compared with.
    pub(super) other: String,
    /// What the first has more, in the unit of the files.
    pub(super) difference: f64,
    /// Its 95 % interval over drawn test samples.
    pub(super) interval: [f64; 2],
    /// Probability by chance after Holm's correction.
    pub(super) p_holm: f64,
    /// Pairs of seeds.
    pub(super) seeds: Option<usize>,
    /// The 95 % interval over seeds.
    pub(super) over_seeds: Option<(f64, f64)>,
    /// Whether it is more than chance.
    pub(super) is_real: bool,
}

/// The part of a table that has its own columns.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Part {
    /// The data set.
    pub(super) dataset: String,
    /// What is special about it, such as which frames are hidden; may be empty.
    pub(super) title: String,
    /// What differs from column to column.
    pub(super) columns: Vec<Column>,
    /// Keys of its metrics.
    pub(super) metrics: Vec<String>,
    /// The models.
    pub(super) rows: Vec<Row>,
    /// `[metric][row][column]`.
    pub(super) cells: Vec<Vec<Vec<Cell>>>,
    /// The best floor, `[metric][column]`.
    pub(super) floors: Vec<Vec<Option<Floor>>>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Column {
    /// Key in the files.
    pub(super) key: String,
    /// Name in a head.
    pub(super) label: String,
    /// The share of hidden frames, in a figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) x: Option<f64>,
    /// The column that must have the same figures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) same_as: Option<String>,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    /// Key of the model.
    pub(super) model: String,
    /// Its name.
    pub(super) name: String,
    /// Whether it is a floor.
    pub(super) floor: bool,
}

/// A figure of one row, column and metric; what is missing is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Cell {
    /// Mean over seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mean: Option<f64>,
    /// Sample standard deviation over seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) std: Option<f64>,
    /// The figure that the paper prints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) paper: Option<f64>,
    /// How it stands to the best floor beyond chance: `above`, `near`, `below`; only of models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) standing: Option<String>,
    /// Whether it is better than every other row of the column by more than chance.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) best: bool,
    /// Why there is no mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The best floor of a column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Floor {
    /// Its figure.
    pub(super) mean: f64,
    /// Name of the row.
    pub(super) of: String,
}

/// What the training of a row cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Cost {
    /// The data set.
    pub(super) dataset: String,
    /// The model's name.
    pub(super) name: String,
    /// Trained parameters.
    pub(super) parameters: u64,
    /// Seeds that were trained to the end.
    pub(super) seeds: usize,
    /// Seconds, mean over seeds.
    pub(super) seconds: f64,
    /// Epochs of all stages, mean over seeds.
    pub(super) epochs: f64,
}

/// What is known about a data set's answers when its true labels are.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Judged {
    /// The data set.
    pub(super) dataset: String,
    /// Sizes and labels, in words.
    pub(super) summary: String,
    /// Why there is nothing; the rest is empty then.
    pub(super) problem: Option<String>,
    /// The classes: emotions, or integer scores.
    pub(super) classes: Vec<String>,
    /// The conditions that the test split can answer: keys and labels.
    pub(super) conditions: Vec<(String, String)>,
    /// The models with stored predictions.
    pub(super) models: Vec<JudgedModel>,
    /// Samples to look at.
    pub(super) cases: Cases,
}

/// A model's answers against the truth.
#[derive(Debug, Clone, Serialize)]
pub(super) struct JudgedModel {
    /// Key of the model.
    pub(super) model: String,
    /// Its name.
    pub(super) name: String,
    /// The seeds whose answers are counted together.
    pub(super) seeds: usize,
    /// Whether these are the predictions of the table's figures; `None` where no table says.
    pub(super) is_of_table: Option<bool>,
    /// What the probabilities are; empty where the model gives scores alone.
    pub(super) probabilities: &'static str,
    /// As [`Judged::conditions`]; `None` where the predictions are missing.
    pub(super) conditions: Vec<Option<Verdict>>,
}

/// The answers under one condition against the truth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Verdict {
    /// Samples by true class and by said class, `[C][C]`.
    pub(super) confusion: Vec<Vec<u32>>,
    /// Probabilities against how often they were right; `None` for scores.
    pub(super) reliability: Option<Reliability>,
    /// Predicted scores against true ones; `None` for emotions.
    pub(super) scores: Option<Vec<Bin>>,
}

/// Probabilities against how often they were right.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Reliability {
    /// Ten bins of equal width, without the empty ones.
    pub(super) bins: Vec<Bin>,
    /// Expected calibration error: the mean gap of the bins, weighted by their counts.
    pub(super) ece: f64,
}

/// Answers that say about the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Bin {
    /// How many.
    pub(super) n: u32,
    /// The mean of what they say.
    pub(super) said: f64,
    /// The mean of what is true.
    pub(super) was: f64,
}

/// Samples to look at, and how they were chosen.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Cases {
    /// How, or why there are none.
    pub(super) rule: String,
    /// The samples.
    pub(super) list: Vec<Case>,
}

/// One sample.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Case {
    /// Key of the condition under which it was chosen; empty for the spread over all of them.
    pub(super) condition: String,
    /// `gain`, `loss` or `spread`.
    pub(super) kind: &'static str,
    /// The difference by which it was chosen, in words.
    pub(super) why: String,
    /// Name of the sample.
    pub(super) id: String,
    /// The true score or emotions.
    pub(super) truth: String,
    /// The true score, for emotions none.
    pub(super) score: Option<f64>,
    /// Positions of the true classes.
    pub(super) classes: Vec<usize>,
    /// What was said about it.
    pub(super) answers: Vec<CaseAnswer>,
}

/// An answer to one sample.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CaseAnswer {
    /// The model's name.
    pub(super) name: String,
    /// The condition.
    pub(super) condition: String,
    /// The predicted score or emotion.
    pub(super) said: String,
    /// The predicted score, for emotions none.
    pub(super) score: Option<f64>,
    /// Probability of each class, where there are any.
    pub(super) probabilities: Option<Vec<f64>>,
    /// Shares of language, audio, vision, where there are any.
    pub(super) shares: Option<[f64; 3]>,
}

/// What a model's answers are owed to under one condition, over the samples of the test split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Attribution {
    /// The data set.
    pub(super) dataset: String,
    /// The model's name.
    pub(super) name: String,
    /// Label of the condition.
    pub(super) condition: String,
    /// Samples times seeds.
    pub(super) n: usize,
    /// Mean shares of language, audio, vision.
    pub(super) mean: [f64; 3],
    /// Their standard deviation over samples.
    pub(super) std: [f64; 3],
}

/// A cell: what it is, and how its training went.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CellCard {
    /// The data set.
    pub(super) dataset: String,
    /// Key of the model.
    pub(super) model: String,
    /// Its name.
    pub(super) name: String,
    /// The seed, where one plays a part.
    pub(super) seed: Option<u64>,
    /// Its folder, from `cells` on.
    pub(super) folder: String,
    /// The method and the version of its formulas.
    pub(super) method: String,
    /// The recipe that its settings start from.
    pub(super) recipe: String,
    /// Start of the SHA-256 of its data.
    pub sha256: String,
    /// Whether its training is over.
    pub(super) is_finished: bool,
    /// How many views it was tested under.
    pub(super) views: usize,
    /// The device, and the version of the program that trained it.
    pub(super) trained_by: String,
    /// Seconds of training.
    pub(super) seconds: f64,
    /// The stages of its training, in their order.
    pub(super) stages: Vec<StageCard>,
}

/// A stage of a training, epoch by epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct StageCard {
    /// Its name.
    pub(super) name: String,
    /// The epochs.
    pub(super) epochs: Vec<u64>,
    /// The validation score that chooses the epoch, lower is better.
    pub(super) score: Vec<Option<f64>>,
    /// The training loss of the task.
    pub(super) loss: Vec<Option<f64>>,
    /// The epoch that validation chose.
    pub(super) chosen: Option<u64>,
}

/// A file that the page was made from.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FileCard {
    /// Its path.
    pub(super) path: String,
    /// What it is.
    pub(super) what: String,
    /// Its SHA-256, where it decides results.
    pub sha256: String,
}

/// `value` with so many decimals.
pub(super) fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}
