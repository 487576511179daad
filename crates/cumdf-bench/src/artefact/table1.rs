//! Table 1: every model under the seven sets of present modalities, on any number of data sets.

use anyhow::Result;
use cumdf_data::Task;
use cumdf_train::{evaluate, metrics::Metric};

use super::{
    Args, Wanted,
    layout::{self, Layout, Shown},
    notes,
};
use crate::{
    grid::{
        Measured, Run,
        source::Source,
        variants::{self, Variant},
    },
    paper,
    report::{
        self,
        table::{Section, Table},
    },
};

/// Shown by `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cumdf-bench table1
      a first look: all models on the synthetic sentiment corpus, in at most ten minutes on two
      cores; those that take long train fewer epochs (--models all has the recipes' own)
  cumdf-bench table1 --data mosi.h5 --data iemocap.h5 --seeds 5
      two files of yours, with as many seeds as the paper
  cumdf-bench table1 --data mosi.h5 --fair
      with Self-MM, CubeMLP and DMD also trained under missing modalities, as CUMDF is
  cumdf-bench table1 --config configs/mosi.toml --data mosi.h5 --models cumdf --out runs/paper
      the paper's own settings, one model beside the floors
  cumdf-bench table1 --models cumdf --set teacher.epochs=2 --set student.epochs=2 --seeds 1
      a quick look

What it writes to --out:
  table1.json, table1.csv    one line per data set, model, condition and metric: mean and standard
                             deviation over seeds, the paper's figure, the best floor's figure and
                             whose it is; F1 and accuracies in percent, as in the paper. The
                             conditions mean and worst sum up the seven. The .json also has the
                             parameters and the seconds of training of each row, as --verbose shows
  table1.md, table1.tex      the table, for people
  cells/                     a folder per data set, model and seed: the training with its
                             checkpoints and logs, and every test sample's prediction (views/*.csv),
                             from which the figures are computed

A table that was interrupted goes on where it stopped: give the same command again. What is finished
is never done again or deleted. A cell is one training: a data set, a row and a seed. It is known by
the content of its data and by its settings, not by paths; other settings make cells of their own beside it. Several table1 in one folder share the
work. --fresh does everything anew and keeps what was there as NAME.old-1, .old-2, ...
The exit code is 1 when a cell failed; the table of the others is written all the same.";

/// Makes the table; whether no cell failed.
///
/// # Errors
/// When the arguments cannot be followed, or the table cannot be written.
pub fn run(args: &Args) -> Result<bool> {
    let wanted = wanted(args)?;
    let rows = &wanted.rows;
    let finished = |source: &Source, variant: &Variant, runs: &[&Run]| {
        if let Some(line) = at_once(source, variant, runs) {
            tracing::info!("{line}");
        }
    };
    let Some(measured) = wanted.measure(&args.out, finished)? else { return Ok(false) };
    let table = table(&measured, rows)?;
    let files = report::save(&table, &args.out)?;
    super::show(&table, &files, args.grid.verbose, &measured)
}

pub(super) fn wanted(args: &Args) -> Result<Wanted> {
    Ok(Wanted {
        grid: args.grid.clone(),
        rows: variants::select(&variants::COMPARISON, &args.grid.models, args.grid.fair)?,
        views: Box::new(|source| layout::views(&columns(source))),
    })
}

/// What was measured under the seven conditions, laid out.
///
/// # Errors
/// When memory runs out.
pub(crate) fn table(measured: &Measured, rows: &[Variant]) -> Result<Table> {
    let sections = (0..measured.sources.len()).map(|s| section(measured, s, rows));
    Ok(Table {
        name: "table1".to_owned(),
        title: "Table 1: models under missing modalities (test split)".to_owned(),
        sections: sections.collect::<Result<_>>()?,
        provenance: measured.provenance(),
    })
}

/// The seven conditions with all frames, and what sums them up.
pub(super) fn columns(source: &Source) -> Vec<Shown> {
    layout::conditions(source, |condition| evaluate::view(condition, 0.0))
}

fn section(measured: &Measured, s: usize, rows: &[Variant]) -> Result<Section> {
    let source = &measured.sources[s];
    let printed = paper::source(&source.name, source.sizes, source.dims);
    let layout = Layout {
        summary: source.summary(),
        columns: columns(source),
        metrics: Metric::of(&source.task),
        n_headline: 2,
        counted: counted(&source.task),
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

/// A row in one line, to be shown before the table is: its first metric over the columns that
/// differ. `None` when all of it failed, which was told already.
fn at_once(source: &Source, variant: &Variant, runs: &[&Run]) -> Option<String> {
    let metric = Metric::of(&source.task).into_iter().next()?;
    let figures: Vec<_> = columns(source)
        .iter()
        .filter(|shown| shown.column.same_as.is_none())
        .filter_map(|shown| {
            let value = layout::value(source, variant, runs, shown, &metric);
            let estimate = report::figure(&metric, value.estimate()?);
            Some(format!("{} {estimate}", shown.column.label))
        })
        .collect();
    (!figures.is_empty()).then(|| {
        let (dataset, name, label) = (&source.dataset, variant.name, metric.label());
        format!("{dataset}, {name}: {label} {}", figures.join(", "))
    })
}

/// The metrics in which beaten floors are counted: one for the size of the error, one for the sign,
/// one for the order; for emotions the F1 over all of them.
pub(super) fn counted(task: &Task) -> Vec<Metric> {
    match task {
        Task::Sentiment { .. } => vec![Metric::Mae, Metric::F1, Metric::Corr],
        Task::Emotion { .. } => vec![Metric::F1],
    }
}
