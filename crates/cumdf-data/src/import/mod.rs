//! Data sets in the layouts that people have, turned into files in the native one.
//!
//! An importer reads a source sample by sample, hands each to a `Writer`, and notes in a [`Ledger`]
//! what it dropped, filled or thought odd.

mod assemble;
mod kind;
pub mod known;
mod ledger;
mod source;
mod summary;
mod table;

pub use crate::writer::SplitCounts;
pub use assemble::{PackOptions, SharedIds};
pub use ledger::{Entry, Fate, Ledger};
pub(crate) use source::Source;
pub use summary::Summary;
