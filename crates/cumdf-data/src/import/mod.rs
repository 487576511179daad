//! Data sets in the layouts that people have, turned into files in the native one.
//!
//! An importer reads a source sample by sample, hands each to a `Writer`, and notes in a [`Ledger`]
//! what it dropped, filled or thought odd.

mod align;
mod chunks;
mod csd;
mod folds;
mod heaps;
mod labels;
mod ledger;
mod roles;
mod sequences;
mod words;

use serde::Serialize;

use crate::Task;

pub use crate::writer::SplitCounts;
pub use csd::{Kind, Sequence, Track, Values};
pub use folds::Folds;
pub use ledger::{Entry, Fate, Ledger};
pub use roles::Given;
pub use sequences::{Incomplete, Keep, Sequences, Target};

/// What one import did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The new data set's name.
    pub name: String,
    /// What its labels mean.
    pub task: Task,
    /// Steps `T_m` of each modality.
    pub steps: [usize; 3],
    /// Features per step `d_m` of each modality.
    pub dims: [usize; 3],
    /// What was written into train, valid and test.
    pub splits: [SplitCounts; 3],
    /// What was found, dropped, filled and noted on the way.
    pub ledger: Ledger,
}
