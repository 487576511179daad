//! Every table and figure in one go.

use std::path::Path;

use anyhow::Result;
use cumdf_data::View;

use super::{Args, Artefact, datasets, figure3, figure4};
use crate::grid::{self, cell::Cell, variants};

/// Shown by `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cumdf-bench all
      the synthetic corpora: a first look, with few epochs of what takes long
  cumdf-bench all --data mosi.h5 --data iemocap.h5 --seeds 5 --out runs/paper

The rows of --models are those of table1, table2, figure3 and efficiency; table3 has its own, and figure4
shows CUMDF and the first other of them. A setting must be one of table1's.

In this order: datasets, table1, table2 (where there are emotions), table3, figure3, figure4,
efficiency; each as its own command makes it. A training that several need is done once. What was
interrupted goes on with the same command. One that fails does not stop the others; the exit code
is 1 then.";

/// Makes everything; whether nothing failed.
///
/// # Errors
/// When the data cannot be read.
pub(super) fn run(args: &Args) -> Result<bool> {
    let data = args.grid.data.clone();
    let mut well = datasets::run(&datasets::Args { data, out: args.out.clone() })?;
    for (name, part) in parts(args)? {
        match part.run() {
            Ok(made) => well &= made,
            Err(err) => {
                tracing::error!("{name}: {err:#}");
                well = false;
            }
        }
    }
    Ok(well)
}

/// The cells of all parts, each once, with all views that are wanted of it.
pub(super) fn plan(args: &Args, out: &Path) -> Result<Vec<(Cell, Vec<View>)>> {
    let mut all: Vec<(Cell, Vec<View>)> = Vec::new();
    for (_, part) in parts(args)? {
        for (cell, views) in part.plan(out)? {
            match all.iter_mut().find(|(known, _)| known.dir == cell.dir) {
                Some((_, known)) => {
                    let new: Vec<_> = views.into_iter().filter(|v| !known.contains(v)).collect();
                    known.extend(new);
                }
                None => all.push((cell, views)),
            }
        }
    }
    Ok(all)
}

/// What is made, with names, in order.
fn parts(args: &Args) -> Result<Vec<(&'static str, Artefact)>> {
    let (grid, out) = (args.grid.clone(), args.out.clone());
    // What is done anew is done once: the others take what is there.
    let again = grid::Args { fresh: false, lenient: true, ..grid.clone() };
    // Whoever names rows wants no first look, of the tables with rows of their own either.
    let all_rows = if grid.models.is_empty() { vec![] } else { vec![variants::ALL.to_owned()] };
    let own_rows = grid::Args { models: all_rows, fair: false, ..again.clone() };
    let pair = grid::Args { models: figure4::pair_among(&grid.models), ..own_rows.clone() };
    let has_emotions = grid::has_emotions(&grid)?;
    let table2 = Args { grid: again.clone(), out: out.clone() };
    let figure3 = figure3::Args {
        grid: again.clone(),
        drop_ratios: figure3::usual_ratios(),
        out: out.clone(),
    };
    let mut parts = vec![
        ("table1", Artefact::Table1(Args { grid, out: out.clone() })),
        ("table2", Artefact::Table2(table2)),
        ("table3", Artefact::Table3(Args { grid: own_rows, out: out.clone() })),
        ("figure3", Artefact::Figure3(figure3)),
        ("figure4", Artefact::Figure4(figure4::Args::usual(pair, out.clone()))),
        ("efficiency", Artefact::Efficiency(Args { grid: again, out })),
    ];
    parts.retain(|(name, _)| has_emotions || *name != "table2");
    Ok(parts)
}
