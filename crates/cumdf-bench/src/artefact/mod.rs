//! What is made from the grid: each table says which rows it wants under which views, and lays
//! them out.

mod all;
pub mod datasets;
mod efficiency;
mod experiment;
pub mod figure3;
pub mod figure4;
mod layout;
mod notes;
pub mod table1;
mod table2;
mod table3;

use std::path::{Path, PathBuf};

use anyhow::Result;
use cumdf_data::View;

use crate::{
    grid::{self, Measured, Run, cell::Cell, source::Source, variants::Variant},
    report::{self, table::Table},
};

/// Arguments of most artefacts.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What is run, and how.
    #[command(flatten)]
    pub grid: grid::Args,

    /// Where it goes, and the cells it rests on. Tables and figures in one folder share trainings.
    #[arg(long, value_name = "DIR", default_value = "runs/table1")]
    pub out: PathBuf,
}

/// All that can be made from the grid: each is a subcommand, and can be planned for a sweep.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Artefact {
    /// Table 1: models under the seven sets of present modalities.
    #[command(after_long_help = table1::EXAMPLES)]
    Table1(Args),
    /// Table 2: models under the seven sets of present modalities, one emotion against the rest.
    #[command(after_long_help = table2::EXAMPLES)]
    Table2(Args),
    /// Table 3: CUMDF without its parts, and with the paper's settings one at a time.
    #[command(after_long_help = table3::EXAMPLES)]
    Table3(Args),
    /// Figure 3: models against the share of frames that are hidden, as curves.
    Figure3(figure3::Args),
    /// Figure 4: cases. What was seen of a sample, and what two models made of it.
    Figure4(figure4::Args),
    /// An experiment: arms that differ in settings, compared on the validation split.
    #[command(after_long_help = experiment::EXAMPLES)]
    Experiment(experiment::Args),
    /// What the methods cost: parameters, arithmetic, memory, time.
    #[command(after_long_help = efficiency::EXAMPLES)]
    Efficiency(Args),
    /// All of these and the statistics of the data, in one go.
    #[command(after_long_help = all::EXAMPLES)]
    All(Args),
}

impl Artefact {
    /// What is run, and how.
    pub fn grid(&mut self) -> &mut grid::Args {
        match self {
            Self::Figure3(args) => &mut args.grid,
            Self::Figure4(args) => &mut args.grid,
            Self::Experiment(args) => &mut args.grid,
            Self::Table1(args)
            | Self::Table2(args)
            | Self::Table3(args)
            | Self::Efficiency(args)
            | Self::All(args) => &mut args.grid,
        }
    }

    /// Where it goes.
    pub fn out(&mut self) -> &mut PathBuf {
        match self {
            Self::Figure3(args) => &mut args.out,
            Self::Figure4(args) => &mut args.out,
            Self::Experiment(args) => &mut args.out,
            Self::Table1(args)
            | Self::Table2(args)
            | Self::Table3(args)
            | Self::Efficiency(args)
            | Self::All(args) => &mut args.out,
        }
    }

    /// Makes it; whether no cell failed.
    ///
    /// # Errors
    /// When the arguments cannot be followed, or a file cannot be written.
    pub fn run(&self) -> Result<bool> {
        match self {
            Self::Table1(args) => table1::run(args),
            Self::Table2(args) => table2::run(args),
            Self::Table3(args) => table3::run(args),
            Self::Figure3(args) => figure3::run(args),
            Self::Figure4(args) => figure4::run(args),
            Self::Experiment(args) => experiment::run(args),
            Self::Efficiency(args) => efficiency::run(args),
            Self::All(args) => all::run(args),
        }
    }

    /// The cells that it rests on, in `out`, with the views that are wanted of each.
    ///
    /// # Errors
    /// When the arguments cannot be followed.
    pub fn plan(&self, out: &Path) -> Result<Vec<(Cell, Vec<View>)>> {
        match self {
            Self::Table1(args) => table1::wanted(args)?.plan(out),
            Self::Table2(args) => table2::wanted(args)?.plan(out),
            Self::Table3(args) => table3::wanted(args)?.plan(out),
            Self::Figure3(args) => figure3::wanted(args)?.plan(out),
            Self::Figure4(args) => figure4::wanted(args)?.plan(out),
            Self::Experiment(args) => experiment::wanted(args)?.plan(out),
            Self::Efficiency(args) => efficiency::wanted(args)?.plan(out),
            Self::All(args) => all::plan(args, out),
        }
    }
}

/// What an artefact wants of the grid.
struct Wanted {
    grid: grid::Args,
    rows: Vec<Variant>,
    views: Views,
}

/// What each data set is tested under.
type Views = Box<dyn Fn(&Source) -> Vec<View>>;

impl Wanted {
    /// As [`grid::measure`].
    fn measure(
        &self,
        out: &Path,
        finished: impl Fn(&Source, &Variant, &[&Run]),
    ) -> Result<Option<Measured>> {
        let measured = grid::measure(&self.grid, out, &self.rows, &self.views, finished)?;
        if measured.is_none() {
            tracing::info!("nothing was done");
        }
        Ok(measured)
    }

    /// As [`grid::plan`].
    fn plan(&self, out: &Path) -> Result<Vec<(Cell, Vec<View>)>> {
        grid::plan(&self.grid, out, &self.rows, &self.views)
    }
}

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
