//! A table's JSON read back: what [`super::json`] wrote, by this version or an earlier one.

use serde::Deserialize;

/// [`super::Record`].
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the fields of the record")]
pub struct Figure {
    pub dataset: String,
    pub model: String,
    pub condition: String,
    #[serde(default)]
    pub same_as: Option<String>,
    pub metric: String,
    pub mean: Option<f64>,
    #[serde(default)]
    pub std: Option<f64>,
    #[serde(default)]
    pub seeds: usize,
    #[serde(default)]
    pub paper: Option<f64>,
    #[serde(default)]
    pub floor: Option<f64>,
    #[serde(default)]
    pub floor_of: Option<String>,
    #[serde(default)]
    pub standing: Option<String>,
    #[serde(default)]
    pub best: bool,
    #[serde(default)]
    pub note: Option<String>,
}

/// [`super::ComparisonRecord`].
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the fields of the record")]
pub struct Comparison {
    pub dataset: String,
    pub metric: String,
    pub condition: String,
    pub question: String,
    pub model: String,
    pub other: String,
    pub difference: f64,
    pub low: f64,
    pub high: f64,
    pub p_holm: f64,
    pub seeds: Option<usize>,
    pub seeds_low: Option<f64>,
    pub seeds_high: Option<f64>,
    pub real: bool,
}
