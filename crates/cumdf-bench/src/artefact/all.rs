//! Every table and figure in one go.

use std::path::PathBuf;

use anyhow::Result;

use super::{datasets, efficiency, figure3, figure4, table1, table2, table3};
use crate::grid;

/// Arguments of `all`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What is run, and how. The rows of --models are those of table1, table2, figure3 and
    /// efficiency; table3 has its own, and figure4 shows CUMDF and the first other of them. A setting
    /// must be one of table1's.
    #[command(flatten)]
    pub grid: grid::Args,

    /// Where everything goes, and the cells it rests on.
    #[arg(long, value_name = "DIR", default_value = "runs/table1")]
    pub out: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench all
      the synthetic corpora: a first look, in about half an hour on two cores
  cumdf-bench all --data mosi.h5 --data iemocap.h5 --seeds 5 --out runs/paper

In this order: datasets, table1, table2 (where there are emotions), table3, figure3, figure4,
efficiency; each as its own command makes it. A training that several need is done once. What was
interrupted goes on with the same command. One that fails does not stop the others; the exit code
is 1 then.";

/// Makes everything; whether nothing failed.
///
/// # Errors
/// When the data cannot be read.
pub fn run(args: &Args) -> Result<bool> {
    let (grid, out) = (args.grid.clone(), args.out.clone());
    datasets::run(&datasets::Args { data: grid.data.clone(), out: out.clone() })?;
    // What is done anew is done once: the others take what is there.
    let again = grid::Args { fresh: false, lenient: true, ..grid.clone() };
    let own_rows = grid::Args { models: vec![], fair: false, ..again.clone() };
    let pair = grid::Args { models: figure4::pair_among(&grid.models), ..own_rows.clone() };
    let has_emotions = grid::has_emotions(&grid)?;
    let mut well = true;
    let mut make = |name: &str, made: Result<bool>| match made {
        Ok(made) => well &= made,
        Err(err) => {
            tracing::error!("{name}: {err:#}");
            well = false;
        }
    };
    make("table1", table1::run(&table1::Args { grid, out: out.clone() }));
    if has_emotions {
        make("table2", table2::run(&table2::Args { grid: again.clone(), out: out.clone() }));
    }
    make("table3", table3::run(&table3::Args { grid: own_rows.clone(), out: out.clone() }));
    let drop_ratios = figure3::usual_ratios();
    let figure3 = figure3::Args { grid: again.clone(), drop_ratios, out: out.clone() };
    make("figure3", figure3::run(&figure3));
    make("figure4", figure4::run(&figure4::Args::usual(pair, out.clone())));
    make("efficiency", efficiency::run(&efficiency::Args { grid: again, out }));
    Ok(well)
}
