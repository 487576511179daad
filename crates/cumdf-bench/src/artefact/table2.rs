//! Table 2: every model under the seven sets of present modalities on emotions, one emotion against
//! the rest.

use anyhow::Result;
use cumdf_train::{evaluate, metrics::Metric};

use super::{
    Args, Wanted,
    layout::{self, Layout, Shown},
    notes, table1,
};
use crate::{
    grid::{self, About, Measured, source::Source, variants},
    paper,
    report::{
        self,
        table::{Section, Table},
    },
};

/// Shown by `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cumdf-bench table2
      a first look: all models on the synthetic corpus of four emotions
  cumdf-bench table2 --data iemocap.h5 --seeds 5

What it writes to --out: table2.json, .csv, .md, .tex and table2-comparisons.csv, as table1 does. The
first metrics are the F1 of each emotion against the rest, as the paper has them; the weighted F1
over the emotions and the accuracy follow. Data sets of scores are left out.";

/// Makes the table; whether no cell failed.
///
/// # Errors
/// When the arguments cannot be followed, no data set has emotions, or the table cannot be written.
pub(super) fn run(args: &Args) -> Result<bool> {
    let wanted = wanted(args)?;
    let rows = &wanted.rows;
    let Some(measured) = wanted.measure(&args.out, |_, _, _| {})? else { return Ok(false) };
    let sections = (0..measured.sources.len()).map(|s| section(&measured, s, rows));
    let table = Table {
        name: "table2".to_owned(),
        title: "Table 2: one emotion against the rest under missing modalities (test split)"
            .to_owned(),
        sections: sections.collect::<Result<_>>()?,
        provenance: measured.provenance(),
    };
    let files = report::save(&table, &args.out)?;
    super::show(&table, &files, args.grid.verbose, &measured)
}

pub(super) fn wanted(args: &Args) -> Result<Wanted> {
    Ok(Wanted {
        grid: grid::Args { about: About::Emotions, ..args.grid.clone() },
        rows: variants::select(&variants::COMPARISON, &args.grid.models, args.grid.fair)?,
        views: Box::new(|source| layout::views(&columns(source))),
    })
}

fn columns(source: &Source) -> Vec<Shown> {
    layout::conditions(source, |condition| evaluate::view(condition, 0.0))
}

fn section(measured: &Measured, s: usize, rows: &[variants::Variant]) -> Result<Section> {
    let source = &measured.sources[s];
    let printed = paper::source(&source.name, source.sizes, source.dims);
    let is_one = |metric: &Metric| matches!(metric, Metric::F1Class(_));
    let (mut metrics, over_all): (Vec<_>, Vec<_>) =
        Metric::of(&source.task).into_iter().partition(is_one);
    let n_headline = metrics.len();
    metrics.extend(over_all);
    let layout = Layout {
        summary: source.summary(),
        columns: columns(source),
        metrics,
        n_headline,
        counted: table1::counted(&source.task),
        reference: "cumdf",
        paper: &|variant, column, metric| {
            paper::cell(printed.as_ref()?, variant.key, &column.key, metric)
        },
    };
    let mut section = layout::section(measured, s, rows, &layout)?;
    section.notes.extend(notes::of_conditions(source, rows, printed.is_some()));
    let printed = printed.map(|printed| notes::paper(&printed, &section, &source.constant));
    section.notes.extend(printed.unwrap_or_default());
    Ok(section)
}
