//! What the data decide about a network's sizes.

use cumdf_data::Task;
use serde::{Deserialize, Serialize};

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
