//! What the data decide: a network's sizes, and what a checkpoint must know to read other data.

use cumdf_data::{FeatureStats, Task};
use serde::{Deserialize, Serialize};

use crate::answer::Prior;

/// What the data decide about a network's sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Meaning of the labels, which decides the output head.
    pub task: Task,
    /// Longest sequence `T`, in steps.
    pub steps: i64,
    /// Features per step `d_m`, in the order of [`cumdf_data::Modality::ALL`].
    pub dims: [i64; 3],
}

impl Shape {
    /// Number of classes `C`: integer bins of a score, or emotions.
    pub fn n_classes(&self) -> i64 {
        self.task.n_classes() as i64
    }
}

/// A data set as a trained model knows it: all that a checkpoint says of its training data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// Name of the data set.
    pub name: String,
    /// SHA-256 of its file, in hexadecimal.
    pub sha256: String,
    /// Sizes and labels.
    pub shape: Shape,
    /// Standardisation of the features.
    pub stats: FeatureStats,
    /// The answer to nothing.
    pub prior: Prior,
}
