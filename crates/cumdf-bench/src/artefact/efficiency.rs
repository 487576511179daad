//! What the methods cost: parameters, arithmetic, memory and time, from the trainings of the tables.

use std::time::Instant;

use anyhow::Result;
use cumdf_autograd::work::Counter;
use cumdf_data::{Corpus, Dataset, EvalSet, View};
use cumdf_model::Predictor;
use cumdf_train::{device, evaluate, registry};
use serde::Serialize;
use tch::Device;

use super::{Args, Wanted};
use crate::{
    grid::{
        Measured, Run, cell,
        source::Source,
        variants::{self, Variant, Work},
    },
    report::{
        self, grouped,
        plain::{self, Plain},
    },
};

/// Samples that are predicted alone, one after the other.
const SINGLES: usize = 50;

/// Shown by `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cumdf-bench efficiency
  cumdf-bench efficiency --data mosi.h5 --jobs 1
      times are those of the trainings themselves: with --jobs 1 nothing else runs beside them

What it writes to --out: efficiency.json, .csv, .md, .tex. docs/costs.md compares a training step with
torch.nn, turn by turn.";

/// A row of the table.
#[derive(Debug, Clone, Serialize)]
struct Efficiency {
    dataset: String,
    model: &'static str,
    /// Trained to the end.
    seeds: usize,
    /// Of the network that answers.
    parameters: u64,
    /// Matrix products and convolutions of a whole training, billions of operations.
    training_gflop: Option<f64>,
    /// Of a whole training, validation included.
    training_seconds: f64,
    epochs: f64,
    /// The most that a training process held.
    peak_megabytes: Option<f64>,
    /// Of a prediction, millions of operations.
    prediction_mflop: f64,
    /// Median time of a prediction of a single sample, one thread.
    prediction_milliseconds: f64,
}

/// Makes the table; whether no cell failed.
///
/// # Errors
/// When the arguments cannot be followed, or the table cannot be written.
pub(super) fn run(args: &Args) -> Result<bool> {
    let wanted = wanted(args)?;
    let rows = &wanted.rows;
    let Some(measured) = wanted.measure(&args.out, |_, _, _| {})? else { return Ok(false) };
    device::set_threads(1);
    let mut records = Vec::new();
    for (s, source) in measured.sources.iter().enumerate() {
        let dataset = Dataset::open(&source.file)?;
        let corpus = Corpus::prepare(&dataset, source.read.clip, false, Device::Cpu)?;
        for variant in rows {
            let runs: Vec<_> = measured.runs_of(s, variant.key).collect();
            records.extend(efficiency(source, variant, &runs, &corpus)?);
        }
    }
    let table = table(&measured, rows, &records);
    let files = plain::save(&table, &records, &args.out)?;
    report::print(&plain::text(&table, report::width()))?;
    report::print(&report::written(&files))?;
    Ok(measured.n_failed() == 0)
}

pub(super) fn wanted(args: &Args) -> Result<Wanted> {
    let rows = variants::select(&variants::COMPARISON, &args.grid.models, args.grid.fair)?;
    Ok(Wanted {
        grid: args.grid.clone(),
        rows: rows.into_iter().filter(|v| matches!(v.work(), Work::Train(_))).collect(),
        views: Box::new(|source| vec![whole(source)]),
    })
}

/// All that the test split can show a model.
fn whole(source: &Source) -> View {
    evaluate::view(source.available(), 0.0)
}

/// `None` when nothing of the row was trained to the end.
fn efficiency(
    source: &Source,
    variant: &Variant,
    runs: &[&Run],
    corpus: &Corpus,
) -> Result<Option<Efficiency>> {
    let done: Vec<_> = runs.iter().filter_map(|run| Some((run, run.cost?))).collect();
    let Some((first, cost)) = done.first() else { return Ok(None) };
    let Some(trained) = cell::trained(&first.dir) else { return Ok(None) };
    let loaded = registry::load(&first.dir.join(trained.checkpoint), Device::Cpu)?;
    let (operations, seconds) = predict(loaded.predictor.as_ref(), &corpus.test, &whole(source));
    let n = done.len() as f64;
    let mean = |of: &dyn Fn(&cell::Cost) -> Option<f64>| {
        let sum: Option<f64> = done.iter().map(|(_, cost)| of(cost)).sum();
        sum.map(|sum| sum / n)
    };
    let peaks = done.iter().map(|(_, cost)| cost.peak_bytes).collect::<Option<Vec<_>>>();
    Ok(Some(Efficiency {
        dataset: source.dataset.clone(),
        model: variant.key,
        seeds: done.len(),
        parameters: cost.parameters,
        training_gflop: mean(&|cost| cost.gflop),
        training_seconds: mean(&|cost| Some(cost.seconds)).unwrap_or(f64::NAN),
        epochs: mean(&|cost| Some(cost.epochs as f64)).unwrap_or(f64::NAN),
        peak_megabytes: peaks.and_then(|all| all.into_iter().max()).map(|b| b as f64 / 1e6),
        prediction_mflop: operations / 1e6,
        prediction_milliseconds: 1e3 * seconds,
    }))
}

/// Operations of a prediction, mean, and its seconds, median, over single samples.
fn predict(predictor: &dyn Predictor, split: &EvalSet, view: &View) -> (f64, f64) {
    let singles: Vec<_> = split.batches(view, 1).take(SINGLES).map(|(_, inputs)| inputs).collect();
    let counter = Counter::begin();
    singles.iter().for_each(|inputs| drop(predictor.predict(inputs)));
    let operations = counter.operations() as f64 / singles.len() as f64;
    drop(counter);
    let mut seconds: Vec<_> = singles
        .iter()
        .map(|inputs| {
            let started = Instant::now();
            drop(predictor.predict(inputs));
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (operations, seconds[seconds.len() / 2])
}

fn table(measured: &Measured, rows: &[Variant], records: &[Efficiency]) -> Plain {
    let head = [
        "model",
        "data set",
        "seeds",
        "parameters",
        "GFLOP to train",
        "s to train",
        "epochs",
        "GFLOP/s",
        "peak MB",
        "MFLOP to predict",
        "ms to predict",
    ];
    let name = |key: &str| rows.iter().find(|v| v.key == key).map_or(key, |v| v.name).to_owned();
    let known = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let line = |r: &Efficiency| {
        vec![
            name(r.model),
            r.dataset.clone(),
            r.seeds.to_string(),
            grouped(r.parameters),
            known(r.training_gflop, 0),
            format!("{:.1}", r.training_seconds),
            format!("{:.1}", r.epochs),
            known(r.training_gflop.map(|gflop| gflop / r.training_seconds), 1),
            known(r.peak_megabytes, 0),
            format!("{:.2}", r.prediction_mflop),
            format!("{:.2}", r.prediction_milliseconds),
        ]
    };
    let mut notes = vec![
        "GFLOP: floating-point operations of matrix products and convolutions as they are called, \
         counted in the first epoch of every stage and taken for all; validation is not in it. s: \
         all stages, validation included, mean over seeds, each in a process of one thread while \
         others may have run beside it"
            .to_owned(),
        "peak MB: the most memory that a training's process held, libtorch and the data included"
            .to_owned(),
        format!(
            "to predict: a single sample of the test split, all that it has seen, one thread; mean \
             of the operations and median of the times of {SINGLES} samples"
        ),
    ];
    if records.iter().any(|r| r.training_gflop.is_none() || r.peak_megabytes.is_none()) {
        notes.push("-: trained by a version of this program that did not note it".to_owned());
    }
    for s in 0..measured.sources.len() {
        notes.extend(super::notes::first_look(&measured.shortened[s]));
    }
    Plain {
        name: "efficiency".to_owned(),
        title: "What the methods cost".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        lines: records.iter().map(line).collect(),
        notes,
        provenance: measured.provenance(),
    }
}
