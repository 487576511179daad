//! What is made from the grid: each table says which rows it wants under which views, and lays
//! them out.

pub mod figure3;
mod notes;
pub mod table1;

use std::path::{Path, PathBuf};

use anyhow::Result;
use cumdf_data::View;

use crate::{
    grid::{self, Measured, cell::Cell},
    report::{self, table::Table},
};

/// All that can be made from the grid: each is a subcommand, and can be planned for a sweep.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Artefact {
    /// Table 1: models under the seven sets of present modalities.
    Table1(table1::Args),
    /// Figure 3: models against the share of frames that are hidden, as curves.
    Figure3(figure3::Args),
}

impl Artefact {
    /// What is run, and how.
    pub fn grid(&mut self) -> &mut grid::Args {
        match self {
            Self::Table1(args) => &mut args.grid,
            Self::Figure3(args) => &mut args.grid,
        }
    }

    /// Where it goes.
    pub fn out(&mut self) -> &mut PathBuf {
        match self {
            Self::Table1(args) => &mut args.out,
            Self::Figure3(args) => &mut args.out,
        }
    }

    /// Makes it; whether no cell failed.
    ///
    /// # Errors
    /// When the arguments cannot be followed, or a file cannot be written.
    pub fn run(&self) -> Result<bool> {
        match self {
            Self::Table1(args) => table1::run(args),
            Self::Figure3(args) => figure3::run(args),
        }
    }

    /// The cells that it rests on, in `out`, with the views that are wanted of each.
    ///
    /// # Errors
    /// When the arguments cannot be followed.
    pub fn plan(&self, out: &Path) -> Result<Vec<(Cell, Vec<View>)>> {
        match self {
            Self::Table1(args) => table1::plan(args, out),
            Self::Figure3(args) => figure3::plan(args, out),
        }
    }
}

/// Prints a table and what was written; whether no cell failed.
fn show(table: &Table, files: &[PathBuf], verbose: bool, measured: &Measured) -> Result<bool> {
    let width = report::width();
    report::print(&report::terminal(table, verbose, width))?;
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    let written = report::wrap(&files.join(", "), "written: ", width);
    report::print(&format!("\n{written}"))?;
    let n_failed = measured.n_failed();
    if n_failed > 0 {
        tracing::error!(
            "{n_failed} of {} cells failed; the same command tries them again",
            measured.runs.len()
        );
    }
    Ok(n_failed == 0)
}
