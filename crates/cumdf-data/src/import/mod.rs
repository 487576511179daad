//! Data sets in the layouts that people have, turned into files in the native one.
//!
//! An importer reads a source sample by sample, hands each to a `Writer`, and notes in a [`Ledger`]
//! what it dropped, filled or thought odd. `docs/import.md` is the page for users.

mod arrays;
mod assemble;
mod kind;
pub mod known;
mod ledger;
mod manifest;
mod npy;
mod packs;
mod source;
mod summary;
mod survey;
mod table;

use std::path::Path;

use anyhow::{Result, bail};
use indicatif::ProgressBar;

use kind::Kind;
use manifest::Manifest;
use packs::Pack;
use source::Source;

pub use crate::writer::SplitCounts;
pub use assemble::{PackOptions, SharedIds};
pub use ledger::{Entry, Fate, Ledger};
pub use summary::Summary;
pub use survey::{Survey, TableSurvey};

/// What a user can say about a source.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// About packs and arrays.
    pub pack: PackOptions,
}

/// Turns the data set at `source` into the native file `out`, which appears whole or not at all.
/// `bar` is told the number of samples and moved as they are written.
///
/// # Errors
/// When the source is of no kind that can be read, breaks the rules of its layout or those of the
/// native one, or when `out` cannot be written; the message names the place.
pub fn import(source: &Path, options: &Options, out: &Path, bar: &ProgressBar) -> Result<Summary> {
    match Kind::of(source)? {
        Kind::Pickle => Pack::open(source)?.import(&options.pack, out, bar),
        Kind::Manifest => Manifest::load(source)?.import(&options.pack, out, bar),
        _ => bail!("not yet"),
    }
}

/// Tells what the file at `path` holds, without importing it; `None` for a native file.
///
/// # Errors
/// As [`import`].
pub fn survey(path: &Path, bar: &ProgressBar) -> Result<Option<Survey>> {
    match Kind::of(path)? {
        Kind::Pickle => Pack::open(path)?.survey(bar).map(Some),
        Kind::Hdf5 => Ok(None),
        _ => bail!("not yet"),
    }
}
