//! Table 1: every model under the seven sets of present modalities, on any number of data sets.

use std::path::PathBuf;

use anyhow::Result;
use cumdf_data::{ModalitySet, Task, View};
use cumdf_train::{
    evaluate,
    metrics::{Metric, Metrics},
};

use crate::{
    grid::{
        self, Measured, Run,
        source::Source,
        variants::{self, Variant, Work},
    },
    paper,
    report::{
        self,
        table::{Cell, Column, Estimate, Row, Section, Table, Value},
    },
};

/// The paper's number of seeds.
const PAPER_SEEDS: usize = 5;

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
      the synthetic sentiment corpus: a few minutes on a laptop; IF-MMIN is left out, which takes
      as long again (--models all has it too)
  cumdf-bench table1 --data mosi.h5 --data iemocap.h5 --seeds 5
      two files of yours, with as many seeds as the paper
  cumdf-bench table1 --config configs/mosi.toml --data mosi.h5 --models cumdf --out runs/paper
      the paper's own settings, one model beside the floors
  cumdf-bench table1 --models cumdf --set teacher.epochs=2 --set student.epochs=2 --seeds 1
      a quick look

What it writes to --out:
  table1.json, table1.csv    one line per data set, model, condition and metric: mean and standard
                             deviation over seeds, the paper's figure, the best floor's figure and
                             whose it is; F1 and accuracies in percent, as in the paper
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
    let rows =
        variants::select(&variants::COMPARISON, &args.grid.models, args.grid.is_first_look())?;
    let Some(measured) = grid::measure(&args.grid, &args.out, &rows, views)? else {
        tracing::info!("nothing was done");
        return Ok(false);
    };
    let mut table = Table {
        name: "table1".to_owned(),
        title: "Table 1: models under missing modalities (test split)".to_owned(),
        sections: (0..measured.sources.len())
            .map(|source| section(&measured, source, &rows, args.grid.seeds))
            .collect(),
    };
    if let Some(note) = left_out(&rows) {
        table.sections.iter_mut().for_each(|section| section.notes.push(note.clone()));
    }
    let files = report::save(&table, &args.out)?;
    let width = report::width();
    report::print(&report::terminal(&table, args.grid.verbose, width))?;
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
        let cells = ModalitySet::CONDITIONS.map(|condition| {
            let cell = |metric: &Metric| {
                let figure = |paper| paper::figure(paper, variant.key, &condition.key(), metric);
                let value = match (source.not_available(condition), variant.work()) {
                    (Some(reason), _) => Value::NotAvailable(reason),
                    (None, None) => Value::NotYet,
                    (None, Some(Work::Constant)) => constant(&source.constant, metric),
                    (None, Some(Work::Train(_) | Work::Fit(_))) => {
                        measured.value(s, variant.key, &view(condition), metric)
                    }
                };
                Cell { value, paper: printed.as_ref().and_then(figure) }
            };
            metrics.iter().map(cell).collect()
        });
        Row {
            model: variant.key.to_owned(),
            name: variant.name.to_owned(),
            kind: variant.row_kind(),
            cells: cells.into(),
        }
    };
    let column = |condition: ModalitySet| Column {
        key: condition.key(),
        label: condition.to_string(),
        same_as: source.same_as(condition).map(ModalitySet::key),
    };
    let mut section = Section {
        dataset: source.dataset.clone(),
        summary: source.summary(),
        columns: ModalitySet::CONDITIONS.map(column).into(),
        counted: counted(&source.task),
        n_headline: 2,
        rows: rows.iter().map(row).collect(),
        metrics,
        notes: vec![data_note(measured, s, rows), seeds_note(n_seeds)],
    };
    let live = |key: &&(&str, &str)| rows.iter().any(|v| v.key == key.0 && v.work().is_some());
    section.notes.extend(FLOOR_NOTES.iter().filter(live).map(|(_, note)| (*note).to_owned()));
    let paper_notes = printed.map(|printed| paper_notes(&printed, &section, &source.constant));
    section.notes.extend(source.untrained());
    section.notes.extend(paper_notes.unwrap_or_default());
    section.notes.extend(rows.iter().filter_map(|v| partly_failed(measured, s, v)));
    section
}

/// Which rows are missing because nobody asked for them, in a table of all rows.
fn left_out(rows: &[Variant]) -> Option<String> {
    let is_missing = |v: &&Variant| rows.iter().all(|row| row.key != v.key);
    let missing: Vec<_> = variants::COMPARISON.iter().filter(is_missing).collect();
    let whole = !missing.is_empty() && missing.iter().all(|v| variants::is_costly(v));
    whole.then(|| {
        let names: Vec<_> = missing.iter().map(|v| v.name).collect();
        format!("left out because it takes long: {} (--models all has it)", names.join(", "))
    })
}

/// The metrics in which beaten floors are counted: one for the size of the error, one for the sign,
/// one for the order; for emotions the F1 over all of them.
fn counted(task: &Task) -> Vec<Metric> {
    match task {
        Task::Sentiment { .. } => vec![Metric::Mae, Metric::F1, Metric::Corr],
        Task::Emotion { .. } => vec![Metric::F1],
    }
}

/// What the floors are, by the keys of their rows.
const FLOOR_NOTES: [(&str, &str); 3] = [
    (
        "constant",
        "constant: the same answer for every sample, chosen on the training split for each metric \
         (median score, commoner sign, commonest class)",
    ),
    (
        "linear",
        "linear: a linear model of mean features, one per condition (ridge regression for scores, \
         multinomial logistic regression for emotions); it depends on no seed",
    ),
    (
        "mlp",
        "MLP: one hidden layer on mean features, trained with missing modalities, one for all \
         conditions",
    ),
];

/// The file, the recipes of the rows, and what the command line changed in them.
fn data_note(measured: &Measured, s: usize, rows: &[Variant]) -> String {
    let recipe = |v: &Variant| {
        let recipe = measured.runs_of(s, v.key).find_map(|run| run.recipe.clone())?;
        Some((v.key, recipe))
    };
    let recipes: Vec<_> = rows.iter().filter_map(recipe).collect();
    let mut note = format!("data: {}", measured.sources[s].file.display());
    match recipes.as_slice() {
        [] => {}
        [(_, first), others @ ..] if others.iter().all(|(_, other)| other == first) => {
            note += &format!("; recipe: {first}");
        }
        all => {
            let all: Vec<_> = all.iter().map(|(key, recipe)| format!("{key}: {recipe}")).collect();
            note += &format!("; recipes: {}", all.join(", "));
        }
    }
    if !measured.changed[s].is_empty() {
        note += &format!("; changed: {}", measured.changed[s].join(", "));
    }
    note
}

fn seeds_note(n_seeds: usize) -> String {
    match n_seeds {
        1 => format!("a single seed (the paper: {PAPER_SEEDS}), so there is no standard deviation"),
        PAPER_SEEDS => format!("mean ± sample standard deviation over {n_seeds} seeds"),
        n => format!("mean ± sample standard deviation over {n} seeds (the paper: {PAPER_SEEDS})"),
    }
}

fn constant(constant: &Metrics, metric: &Metric) -> Value {
    let mean = constant.get(metric).unwrap_or(f64::NAN);
    Value::Measured(Estimate { mean, std: None, seeds: 1 })
}

/// What to know of a row of which some seeds failed and others did not.
fn partly_failed(measured: &Measured, s: usize, variant: &Variant) -> Option<String> {
    let (good, failed): (Vec<&Run>, Vec<&Run>) =
        measured.runs_of(s, variant.key).partition(|run| run.outcome.is_ok());
    let seeds: Vec<_> = failed.iter().filter_map(|run| Some(run.seed?.to_string())).collect();
    (!good.is_empty() && !seeds.is_empty()).then(|| {
        format!(
            "{}: mean of {} seeds only, because seed {} failed",
            variant.key,
            good.len(),
            seeds.join(", ")
        )
    })
}

/// Where the paper's figures are from, and what to think of when reading them.
fn paper_notes(printed: &paper::Source, section: &Section, constant: &Metrics) -> Vec<String> {
    let mut note = format!("paper: its Table {}, {}, 5 seeds", printed.table, printed.dataset);
    if !printed.differences.is_empty() {
        note += "; this file is not the paper's data: ";
        note += &printed.differences.join("; ");
    }
    let mut notes = vec![note];
    for (i, metric) in section.metrics.iter().enumerate() {
        let figures: Vec<_> = variants::COMPARISON
            .iter()
            .flat_map(|m| ModalitySet::CONDITIONS.into_iter().enumerate().map(|c| (c, m.key)))
            .filter_map(|((c, set), model)| {
                Some((c, set, paper::figure(printed, model, &set.key(), metric)?))
            })
            .collect();
        let verdicts: Vec<_> = figures
            .iter()
            .filter_map(|(c, _, figure)| Some((section.floor(*c, i)?.estimate.mean, *figure)))
            .map(|(floor, figure)| metric.is_better(floor, figure))
            .collect();
        let worse = verdicts.iter().filter(|worse| **worse).count();
        if worse > 0 {
            notes.push(format!(
                "{worse} of the paper's {} figures of {} are worse than the best floor on this file",
                verdicts.len(),
                metric.label()
            ));
        }
        let alone = figures.iter().filter(|(_, set, _)| set.len() == 1);
        let worst = alone.map(|(_, _, figure)| *figure).fold(f64::NAN, f64::max);
        let constant = constant.get(metric).unwrap_or(f64::NAN);
        if *metric == Metric::Mae && worst < 0.7 * constant {
            notes.push(format!(
                "with a single modality the paper's MAE is never worse than {}, while a constant \
                 answer has {} on this file: audio or vision alone rarely says that much about a \
                 score, so read these figures with care",
                metric.format(worst),
                metric.format(constant)
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::Kind;

    /// A section with one floor row that has `floor` in every column.
    fn section(metric: Metric, floor: f64) -> Section {
        let value = || Value::Measured(Estimate { mean: floor, std: None, seeds: 1 });
        let cell = || vec![Cell { value: value(), paper: None }];
        let columns = ModalitySet::CONDITIONS.map(|c| Column {
            key: c.key(),
            label: c.to_string(),
            same_as: None,
        });
        Section {
            dataset: String::new(),
            summary: String::new(),
            columns: columns.into(),
            metrics: vec![metric],
            n_headline: 1,
            counted: vec![],
            rows: vec![Row {
                model: "constant".into(),
                name: "constant (floor)".into(),
                kind: Kind::Floor,
                cells: ModalitySet::CONDITIONS.map(|_| cell()).into(),
            }],
            notes: vec![],
        }
    }

    #[test]
    fn the_papers_oddities_are_told() {
        let mosi = paper::source("CMU-MOSI (bc-LSTM features)", [1284, 229, 686], [100, 73, 100]);
        let constant = Metrics(vec![(Metric::Mae, 1.377)]);
        let notes = paper_notes(&mosi.unwrap(), &section(Metric::Mae, 1.377), &constant);
        assert_eq!(
            notes[0],
            "paper: its Table 1, MOSI, 5 seeds; this file is not the paper's data: language has 100 \
             features per step, the paper's 300; audio has 73 features per step, the paper's 74; \
             vision has 100 features per step, the paper's 1024"
        );
        let start = "with a single modality the paper's MAE is never worse than 0.857";
        assert!(notes[1].starts_with(start), "{notes:?}");
        assert_eq!(notes.len(), 2);

        let iemocap = paper::source("IEMOCAP", [2717, 798, 938], [300, 74, 1024]).unwrap();
        let happy = Metric::F1Class("happy".into());
        let notes = paper_notes(&iemocap, &section(happy, 0.79), &Metrics::default());
        let claim =
            "36 of the paper's 56 figures of F1 happy are worse than the best floor on this file";
        assert_eq!(notes, ["paper: its Table 2, IEMOCAP, 5 seeds", claim]);
    }
}
