//! Data sets in the layouts that people have, turned into files in the native one.
//!
//! An importer reads a source sample by sample, hands each to a `Writer`, and notes in a [`Ledger`]
//! what it dropped, filled or thought odd.

mod assemble;
pub mod known;
mod ledger;
mod table;

use serde::Serialize;

use crate::Task;

pub use crate::writer::SplitCounts;
pub use assemble::{PackOptions, SharedIds};
pub use ledger::{Entry, Fate, Ledger};

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
