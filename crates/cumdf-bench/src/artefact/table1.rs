//! Table 1: every model under the seven sets of present modalities, on any number of data sets.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cumdf_data::{ModalitySet, Task, View};
use cumdf_train::{
    evaluate,
    metrics::{Metric, Metrics},
};

use super::notes;
use crate::{
    grid::{
        self, Measured, Run,
        source::Source,
        variants::{self, Variant, Work},
    },
    paper,
    report::{
        self,
        summary::Summary,
        table::{Cell, Column, Cost, Estimate, Row, Section, Table, Value},
    },
};

/// Arguments of `table1`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What is run, and how.
    #[command(flatten)]
    pub grid: grid::Args,

    /// Where the table goes, and the cells it rests on.
    #[arg(long, value_name = "DIR", default_value = "runs/table1")]
    pub out: PathBuf,
}

const EXAMPLES: &str = "\
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
    let rows = rows(args)?;
    let finished = |source: &Source, variant: &Variant, runs: &[&Run]| {
        if let Some(line) = at_once(source, variant, runs) {
            tracing::info!("{line}");
        }
    };
    let Some(measured) = grid::measure(&args.grid, &args.out, &rows, views, finished)? else {
        tracing::info!("nothing was done");
        return Ok(false);
    };
    let table = Table {
        name: "table1".to_owned(),
        title: "Table 1: models under missing modalities (test split)".to_owned(),
        sections: (0..measured.sources.len())
            .map(|source| section(&measured, source, &rows, args.grid.n_seeds()))
            .collect(),
    };
    let files = report::save(&table, &args.out)?;
    super::show(&table, &files, args.grid.verbose, &measured)
}

/// The cells that it rests on, with their views: see [`grid::plan`].
pub(super) fn plan(args: &Args, out: &Path) -> Result<Vec<(grid::cell::Cell, Vec<View>)>> {
    grid::plan(&args.grid, out, &rows(args)?, views)
}

fn rows(args: &Args) -> Result<Vec<Variant>> {
    variants::select(&variants::COMPARISON, &args.grid.models, args.grid.fair)
}

/// The view of a column.
fn view(condition: ModalitySet) -> View {
    evaluate::view(condition, 0.0)
}

/// The seven conditions, as far as the test split can answer them.
fn views(source: &Source) -> Vec<View> {
    let answerable = |c: &ModalitySet| source.not_available(*c).is_none();
    ModalitySet::CONDITIONS.into_iter().filter(answerable).map(view).collect()
}

fn section(measured: &Measured, s: usize, rows: &[Variant], n_seeds: usize) -> Section {
    let source = &measured.sources[s];
    let metrics = Metric::of(&source.task);
    let printed = paper::source(&source.name, source.sizes, source.dims);
    let row = |variant: &Variant| {
        let runs: Vec<_> = measured.runs_of(s, variant.key).collect();
        Row {
            model: variant.key.to_owned(),
            name: variant.name.to_owned(),
            kind: variant.kind,
            cells: cells(variant, source, printed.as_ref(), &runs, &metrics),
            cost: cost(&runs),
        }
    };
    let mut section = Section {
        dataset: source.dataset.clone(),
        summary: source.summary(),
        columns: columns(source),
        counted: counted(&source.task),
        n_headline: 2,
        rows: rows.iter().map(row).collect(),
        metrics: metrics.clone(),
        notes: vec![notes::data(measured, s, rows), notes::seeds(n_seeds)],
    };
    section.notes.extend(notes::first_look(&measured.shortened[s]));
    section.notes.push(notes::summaries(source, printed.is_some()));
    section.notes.extend(notes::floors(rows));
    section.notes.extend(notes::fair(rows));
    let printed = printed.map(|printed| notes::paper(&printed, &section, &source.constant));
    section.notes.extend(source.untrained());
    section.notes.extend(printed.unwrap_or_default());
    section.notes.extend(rows.iter().filter_map(|v| notes::partly_failed(measured, s, v)));
    section
}

/// A row in one line, to be shown before the table is: its first metric over the columns that
/// differ. `None` when all of it failed, which was told already.
fn at_once(source: &Source, variant: &Variant, runs: &[&Run]) -> Option<String> {
    let metric = Metric::of(&source.task).into_iter().next()?;
    let cells = cells(variant, source, None, runs, std::slice::from_ref(&metric));
    let figures = columns(source).into_iter().zip(&cells).filter_map(|(column, cells)| {
        let estimate = cells[0].value.estimate().filter(|_| column.same_as.is_none())?;
        Some(format!("{} {}", column.label, report::figure(&metric, estimate)))
    });
    let figures: Vec<_> = figures.collect();
    (!figures.is_empty()).then(|| {
        let (dataset, name, label) = (&source.dataset, variant.name, metric.label());
        format!("{dataset}, {name}: {label} {}", figures.join(", "))
    })
}

/// The seven conditions, then what sums them up.
fn columns(source: &Source) -> Vec<Column> {
    let condition = |condition: ModalitySet| Column {
        key: condition.key(),
        label: condition.to_string(),
        same_as: source.same_as(condition).map(ModalitySet::key),
        sums_up: false,
    };
    let summary = |summary: Summary| Column {
        key: summary.key().to_owned(),
        label: summary.key().to_owned(),
        same_as: None,
        sums_up: true,
    };
    ModalitySet::CONDITIONS.map(condition).into_iter().chain(Summary::ALL.map(summary)).collect()
}

/// The cells of a row, as [`columns`] has them.
///
/// What sums up is taken of each run by itself, over the conditions that differ; and over all seven
/// of the paper's figures, where it prints them all.
fn cells(
    variant: &Variant,
    source: &Source,
    printed: Option<&paper::Source>,
    runs: &[&Run],
    metrics: &[Metric],
) -> Vec<Vec<Cell>> {
    let value =
        |metric: &Metric, lacking: Option<String>, figure: &dyn Fn(&Run) -> Option<f64>| match (
            lacking,
            variant.work(),
        ) {
            (Some(reason), _) => Value::NotAvailable(reason),
            (None, Work::Constant) => constant(&source.constant, metric),
            (None, Work::Train(_) | Work::Fit(_)) => grid::value(runs, figure),
        };
    let paper = |condition: ModalitySet, metric: &Metric| {
        paper::figure(printed?, variant.key, &condition.key(), metric)
    };
    let of_condition = |condition: ModalitySet| {
        let cell = |metric: &Metric| Cell {
            value: value(metric, source.not_available(condition), &|run| {
                run.figure(&view(condition), metric)
            }),
            paper: paper(condition, metric),
        };
        metrics.iter().map(cell).collect()
    };
    let distinct = source.distinct();
    let of_summary = |summary: Summary| {
        let cell = |metric: &Metric| {
            let lacking = source.not_available(ModalitySet::ALL).filter(|_| distinct.is_empty());
            let figure = |run: &Run| {
                let figures = distinct.iter().map(|c| run.figure(&view(*c), metric));
                summary.of(metric, &figures.collect::<Option<Vec<_>>>()?)
            };
            let printed = ModalitySet::CONDITIONS.into_iter().map(|c| paper(c, metric));
            let printed: Option<Vec<_>> = printed.collect();
            Cell {
                value: value(metric, lacking, &figure),
                paper: printed.and_then(|figures| summary.of(metric, &figures)),
            }
        };
        metrics.iter().map(cell).collect()
    };
    let conditions = ModalitySet::CONDITIONS.into_iter().map(of_condition);
    conditions.chain(Summary::ALL.into_iter().map(of_summary)).collect()
}

/// What the training of a row cost, from its `runs`.
pub(super) fn cost(runs: &[&Run]) -> Option<Cost> {
    let costs: Vec<_> = runs.iter().filter_map(|run| run.cost).collect();
    let n = costs.len() as f64;
    Some(Cost {
        parameters: costs.first()?.parameters,
        seeds: costs.len(),
        seconds: costs.iter().map(|cost| cost.seconds).sum::<f64>() / n,
        epochs: costs.iter().map(|cost| cost.epochs as f64).sum::<f64>() / n,
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

pub(super) fn constant(constant: &Metrics, metric: &Metric) -> Value {
    let mean = constant.get(metric).unwrap_or(f64::NAN);
    Value::Measured(Estimate { mean, std: None, seeds: 1 })
}
