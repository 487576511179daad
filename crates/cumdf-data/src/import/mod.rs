//! Data sets in the layouts that people have, turned into files in the native one.
//!
//! An importer reads a source sample by sample, hands each to a `Writer`, and notes in a [`Ledger`]
//! what it dropped, filled or thought odd. `docs/import.md` is the page for users.

mod arrays;
mod assemble;
mod csd;
mod kind;
pub mod known;
mod ledger;
mod packs;
mod range;
mod source;
mod summary;
mod survey;
mod table;

use std::path::Path;

use anyhow::{Result, bail};
use indicatif::ProgressBar;

use arrays::Manifest;
use kind::Kind;
use packs::Pack;
use source::Source;

use crate::hdf;

pub use crate::writer::SplitCounts;
pub use assemble::{PackOptions, SharedIds};
pub use csd::{
    Folds, Given, Incomplete, Keep, Kind as FeatureKind, Sequence, Sequences, Target, Track, Values,
};
pub use ledger::{Entry, Fate, Ledger};
pub use summary::Summary;
pub use survey::{Survey, TableSurvey};

/// What a user can say about a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Name of the new data set; the source's own when absent.
    pub name: Option<String>,
    /// Lowest and highest score; the narrowest range in use that holds all when absent.
    pub range: Option<[i64; 2]>,
    /// About pickles and arrays.
    pub pack: PackOptions,
    /// About `.csd` files.
    pub csd: CsdOptions,
}

/// What a user can say about `.csd` files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CsdOptions {
    /// Files to take rather than those that the folder would give.
    pub given: Given,
    /// Words per sample, `T`; what is usual for the data set when absent.
    pub steps: Option<usize>,
    /// What stays of a segment of more words.
    pub keep: Keep,
    /// Whether silence stays.
    pub silence: bool,
    /// What becomes of samples that lack a modality.
    pub incomplete: Incomplete,
    /// What the labels are to be.
    pub target: Target,
}

/// Turns the data set at `source` into the native file `out`, which appears whole or not at all.
/// `bar` is told the number of samples and moved as they are written.
///
/// # Errors
/// When the source is of no kind that can be read, breaks the rules of its layout or those of the
/// native one, or when `out` cannot be written; the message names the place.
pub fn import(source: &Path, options: &Options, out: &Path, bar: &ProgressBar) -> Result<Summary> {
    let kind = Kind::of(source)?;
    source::refuse_to_replace(out, [source])?;
    let of_no_use = match kind {
        Kind::Folder if options.pack != PackOptions::default() => Some("pickles and arrays"),
        Kind::Pickle | Kind::Manifest if options.csd != CsdOptions::default() => {
            Some("CMU-MultimodalSDK's files")
        }
        _ => None,
    };
    if let Some(what) = of_no_use {
        let source = source.display();
        bail!("{source}: an option for {what} was given (--help), which is of no use here");
    }
    match kind {
        Kind::Folder => {
            let CsdOptions { given, steps, keep, silence, incomplete, target } = &options.csd;
            Sequences {
                name: options.name.clone(),
                range: options.range,
                steps: *steps,
                keep: *keep,
                silence: *silence,
                incomplete: *incomplete,
                target: *target,
                ..Sequences::in_folder(source, given)?
            }
            .import(out, bar)
        }
        Kind::Pickle => Pack::open(source)?.import(options, out, bar),
        Kind::Manifest => Manifest::load(source)?.import(options, out, bar),
        Kind::Npy | Kind::Npz | Kind::Hdf5 => {
            let what = match content(source) {
                Content::Sequence => "is one sequence; give the folder of the set's .csd files",
                Content::Native => "is a native file already; nothing needs to be imported",
                Content::Arrays => "holds arrays; name them in a manifest, see docs/import.md",
            };
            bail!("{}: {what}", source.display())
        }
    }
}

/// Tells what the file at `path` holds, without importing it; `None` for a native file.
///
/// # Errors
/// As [`import`].
pub fn survey(path: &Path, bar: &ProgressBar) -> Result<Option<Survey>> {
    let kind = Kind::of(path)?;
    let told = match (kind, content(path)) {
        (Kind::Pickle, _) => Pack::open(path)?.survey(bar),
        (Kind::Manifest, _) => Manifest::load(path)?.survey(bar),
        (Kind::Folder, _) => {
            bail!("{0}: is a folder; name the files in it, as in inspect {0}/*.csd", path.display())
        }
        (_, Content::Sequence) => csd::survey::survey(path, bar),
        (_, Content::Arrays) => arrays::survey(path, kind, bar),
        (_, Content::Native) => return Ok(None),
    };
    told.map(Some)
}

/// What a file that may be HDF5 is.
enum Content {
    /// Of the native layout, or too damaged to say; its reader will.
    Native,
    /// A `.csd` file.
    Sequence,
    /// Anything else.
    Arrays,
}

fn content(path: &Path) -> Content {
    match hdf::open(path) {
        Err(_) if matches!(Kind::of(path), Ok(Kind::Hdf5)) => Content::Native,
        Err(_) => Content::Arrays,
        Ok(file) if file.attr("task").is_ok() || file.attr("name").is_ok() => Content::Native,
        Ok(_) if Sequence::open(path).is_ok() => Content::Sequence,
        Ok(_) => Content::Arrays,
    }
}
