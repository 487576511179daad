//! What is made from the grid: each table says which rows it wants under which views, and lays
//! them out.

pub mod all;
pub mod datasets;
pub mod efficiency;
pub mod figure3;
pub mod figure4;
mod layout;
mod notes;
pub mod table1;
pub mod table2;
pub mod table3;

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    grid::Measured,
    report::{self, table::Table},
};

/// Prints a table and what was written; whether no cell failed.
fn show(table: &Table, files: &[PathBuf], verbose: bool, measured: &Measured) -> Result<bool> {
    let width = report::width();
    report::print(&report::terminal(table, verbose, width))?;
    report::print(&report::written(files))?;
    let n_failed = measured.n_failed();
    if n_failed > 0 {
        tracing::error!(
            "{n_failed} of {} cells failed; the same command tries them again",
            measured.runs.len()
        );
    }
    Ok(n_failed == 0)
}
