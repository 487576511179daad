//! What importers of packs and arrays hand over.

use std::fmt::Debug;
use std::ops::Range;

use anyhow::Result;

/// Numbers of a foreign file, read by rows of the first axis: a source of any size is never held
/// whole.
pub(crate) trait Table: Debug {
    /// `float32`, as numpy names it.
    fn dtype(&self) -> String;
    /// Sizes of the axes, at least one.
    fn shape(&self) -> &[usize];
    /// These rows in C order. Fails where they are not there.
    fn rows(&mut self, rows: Range<usize>) -> Result<Vec<f32>>;
    /// As [`Table::rows`], for labels and times.
    fn rows_f64(&mut self, rows: Range<usize>) -> Result<Vec<f64>>;
}

/// Labels as a foreign file holds them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RawLabels {
    Scores(Vec<f64>),
    Classes(Vec<Vec<bool>>),
}

impl RawLabels {
    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Scores(scores) => scores.len(),
            Self::Classes(rows) => rows.len(),
        }
    }
}

/// One split of a foreign data set, as its file describes it.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) features: [Option<Box<dyn Table + 'a>>; 3],
    pub(crate) labels: RawLabels,
    pub(crate) ids: Option<Vec<String>>,
    pub(crate) lengths: [Option<Vec<usize>>; 3],
}

/// Numbers in memory.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(crate) struct InMemory {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

#[cfg(test)]
impl Table for InMemory {
    fn dtype(&self) -> String {
        "float32".to_owned()
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn rows(&mut self, rows: Range<usize>) -> Result<Vec<f32>> {
        let row: usize = self.shape[1..].iter().product();
        Ok(self.values[rows.start * row..rows.end * row].to_vec())
    }
    fn rows_f64(&mut self, rows: Range<usize>) -> Result<Vec<f64>> {
        Ok(self.rows(rows)?.into_iter().map(f64::from).collect())
    }
}
