//! Table 3: what each part of CUMDF is worth, and each departure of our recipe from the print, where a
//! fifth of all frames is hidden.

use anyhow::{Result, ensure};
use cumdf_data::ModalitySet;
use cumdf_train::{evaluate, metrics::Metric};

use super::{
    Args, Wanted,
    layout::{self, Layout, Shown},
    notes, table1,
};
use crate::{
    grid::{Measured, source::Source, store, variants},
    paper,
    report::{
        self,
        table::{Section, Table},
    },
};

/// The paper's drop ratio.
const DROP_RATIO: f64 = 0.2;

/// Shown by `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cumdf-bench table3
      a first look: all rows on the synthetic sentiment corpus, with half the epochs (--models all has
      the recipe's own)
  cumdf-bench table3 --data mosi.h5 --seeds 5 --models cumdf,cumdf-no-mke,cumdf-no-maci
      some rows, as many seeds as the paper
  cumdf-bench table3 --models cumdf,cumdf-wide --data mosi.h5
      the paper's width, which takes many times as long and is a row only when asked for

Rows `w/o ..` lack a part of CUMDF, teacher and student alike. Rows `paper: ..` have the print's
value of one setting and ours of all others (docs/experiments.md says what these are): what such a
row is worse than CUMDF, the departure is worth. With --config and a recipe that departs in nothing,
these rows change nothing.

What it writes to --out: table3.json, .csv, .md, .tex and table3-comparisons.csv, as table1 does.
Its columns are the seven conditions with a fifth of all frames hidden, and what sums them up.";

/// Makes the table; whether no cell failed.
///
/// # Errors
/// When the arguments cannot be followed, or the table cannot be written.
pub(super) fn run(args: &Args) -> Result<bool> {
    let wanted = wanted(args)?;
    let rows = &wanted.rows;
    let Some(measured) = wanted.measure(&args.out, |_, _, _| {})? else { return Ok(false) };
    let sections = (0..measured.sources.len()).map(|s| section(&measured, s, rows));
    let table = Table {
        name: "table3".to_owned(),
        title: format!(
            "Table 3: what the parts of CUMDF are worth at a drop ratio of {DROP_RATIO} (test split)"
        ),
        sections: sections.collect::<Result<_>>()?,
        provenance: measured.provenance(),
    };
    let files = report::save(&table, &args.out)?;
    super::show(&table, &files, args.grid.verbose, &measured)
}

pub(super) fn wanted(args: &Args) -> Result<Wanted> {
    ensure!(!args.grid.fair, "--fair: table3 has rows of CUMDF alone, which is trained under MRMS");
    Ok(Wanted {
        grid: args.grid.clone(),
        rows: variants::select(&variants::ABLATION, &args.grid.models, false)?,
        views: Box::new(|source| layout::views(&columns(source))),
    })
}

fn columns(source: &Source) -> Vec<Shown> {
    layout::conditions(source, |condition| evaluate::view(condition, DROP_RATIO))
}

fn section(measured: &Measured, s: usize, rows: &[variants::Variant]) -> Result<Section> {
    let source = &measured.sources[s];
    let printed = paper::source(&source.name, source.sizes, source.dims);
    let whole = store::key(&evaluate::view(ModalitySet::ALL, DROP_RATIO));
    let layout = Layout {
        summary: source.summary(),
        columns: columns(source),
        metrics: Metric::of(&source.task),
        n_headline: 2,
        counted: table1::counted(&source.task),
        reference: "cumdf",
        paper: &|variant, column, metric| {
            let printed = printed.as_ref().filter(|_| column.key == whole)?;
            paper::ablation(printed, variant.key, metric)
        },
    };
    let mut section = layout::section(measured, s, rows, &layout)?;
    section.notes.extend(notes::of_conditions(source, rows, false));
    if section.rows.iter().any(|row| row.paper(0).is_some()) {
        section.notes.push("paper: its Table 3, CMU-MOSI, 5 seeds".to_owned());
    }
    Ok(section)
}
