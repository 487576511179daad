//! What the hidden subcommand `cell` does: it trains one cell, if that is still to be done, and
//! predicts the test split, or for an experiment the validation split, under the views that are still missing.
//!
//! A cell runs in a process of its own, by default with one thread. libtorch's random generator is global to a
//! process, so two trainings cannot share one; and models this small gain more from two processes
//! than from two threads.

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use cumdf_data::{Corpus, Dataset, EvalSet, Split, View, border, interrupt};
use cumdf_model::Prior;
use cumdf_train::{
    device, evaluate, memory,
    pipeline::{self, Place},
    registry, telemetry,
};
use serde_json::Value;
use tch::Device;

use super::{
    cell::{self, Lock, Trained},
    claim::{self, Claim},
    failure, fitted, store,
};

/// The exit code when another process works on the cell, or somebody wants this one to stop.
pub const HELD: u8 = interrupt::AGAIN;

/// Somebody may only be looking whether the folder is in use, so the lock is tried so often.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Arguments of `cell`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder that the parent has prepared.
    #[arg(long)]
    dir: PathBuf,
    /// The data file.
    #[arg(long)]
    data: PathBuf,
    /// Device to compute on.
    #[arg(long)]
    device: String,
    /// The split to predict.
    #[arg(long)]
    split: Split,
    /// Views to predict under, by their keys.
    #[arg(long = "view", value_parser = |key: &str| store::parse_key(key))]
    views: Vec<View>,
    /// Threads of one tensor operation.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Who has the cell and is dead, as the parent has found out by waiting.
    #[arg(long)]
    instead_of: Option<String>,
}

/// The whole process, but for its `main`.
pub fn main(args: &Args) -> ExitCode {
    end_with_parent();
    telemetry::init(true);
    device::set_threads(args.threads);
    // A training says more of itself; here the signals only have the claim given up.
    if let Err(err) = interrupt::watch(|| {}) {
        tracing::warn!("signals will end this process at once ({err})");
    }
    let held = match hold(args) {
        Ok(Some(held)) => held,
        Ok(None) => return ExitCode::from(HELD),
        Err(err) => return border::guard("cumdf-bench", || Err(err)),
    };
    let code = border::guard("cumdf-bench", || match failure::read(&args.dir) {
        Some(failure) => bail!("{failure}"), // it failed elsewhere since the parent looked
        None => run(args).map(|()| true).inspect_err(|err| note(args, err)),
    });
    drop(held);
    code
}

/// Before the claim is given up, so that nobody tries what failed.
fn note(args: &Args, err: &anyhow::Error) {
    if let Err(err) = failure::note(&args.dir, format!("{err:#}")) {
        tracing::warn!("{err:#}");
    }
}

/// Takes the cell, by claim and by lock; `None` where another process has it.
fn hold(args: &Args) -> Result<Option<(Lock, Claim)>> {
    let Some(claim) = claim::take(&args.dir, args.instead_of.as_deref())? else { return Ok(None) };
    for _ in 0..TRIES {
        match cell::lock(&args.dir)? {
            Lock::Held => thread::sleep(BETWEEN_TRIES),
            mine => return Ok(Some((mine, claim))), // dropped in this order
        }
    }
    Ok(None)
}

/// Ends this process when standard input closes: a child without its parent would go on for hours
/// unseen, and hold its folder.
fn end_with_parent() {
    thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        interrupt::end(1);
    });
}

fn run(args: &Args) -> Result<()> {
    let dir = &args.dir;
    let identity = cell::identity(dir).with_context(|| {
        format!("{} was not prepared: start this through table1", dir.display())
    })?;
    let device = device::parse_device(&args.device)?;
    let dataset = Dataset::open(&args.data)?;
    ensure!(
        identity["data"]["sha256"] == dataset.sha256.as_str(),
        "{} changed while the table was being made; run the same command again",
        args.data.display()
    );
    let views = &store::folder(dir, args.split);
    let missing = |corpus: &Corpus, set: &EvalSet| {
        let read = |view: &View| store::read(views, view, &corpus.task, set.ids());
        args.views.iter().copied().filter(|view| read(view).is_err()).collect::<Vec<_>>()
    };
    let answered = |corpus| Corpus::eval(corpus, args.split).context("no split to predict");
    let method = identity["method"].as_str().unwrap_or_default();
    if let Some(fitted) = fitted::find(method) {
        let clip = identity["data"]["clip"].as_f64().unwrap_or_default();
        let corpus = Corpus::prepare(&dataset, clip, false, device)?;
        drop(dataset);
        let set = answered(&corpus)?;
        let missing = missing(&corpus, set);
        let answers = (fitted.answers)(&corpus, set, &missing)?;
        for (view, answers) in missing.iter().zip(answers) {
            store::write(views, view, &corpus.task, set.ids(), &answers)?;
        }
        return Ok(());
    }
    let mut config = cell::config(dir)?;
    config.data.file.clone_from(&args.data);
    let corpus = Corpus::prepare(&dataset, config.data.clip, config.data.soft_labels, device)?;
    drop(dataset);
    let trained = match cell::trained(dir) {
        Some(trained) => trained,
        None => {
            let fitted = pipeline::train(&config, &corpus, device, &Place::resuming(dir))?;
            let checkpoint = fitted.best.strip_prefix(dir).unwrap_or(&fitted.best).to_owned();
            let trained = Trained {
                checkpoint,
                best_epoch: fitted.best_epoch,
                epochs: fitted.epochs,
                device: format!("{device:?}"),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                peak_bytes: memory::peak(),
            };
            cell::note_trained(dir, &trained)?;
            trained
        }
    };
    let set = answered(&corpus)?;
    predict(args, &trained, &identity, (&corpus, set), &missing(&corpus, set), device)
}

fn predict(
    args: &Args,
    trained: &Trained,
    identity: &Value,
    (corpus, set): (&Corpus, &EvalSet),
    views: &[View],
    device: Device,
) -> Result<()> {
    let path = args.dir.join(&trained.checkpoint);
    let loaded = registry::load(&path, device)?;
    ensure!(
        loaded.header.identity["seed"] == identity["seed"]
            && loaded.header.data.sha256 == corpus.sha256,
        "{} is the checkpoint of another training; --fresh trains anew",
        path.display()
    );
    let prior: &Prior = &loaded.header.data.prior;
    let folder = store::folder(&args.dir, args.split);
    for view in views {
        let predicted = evaluate::explain(loaded.predictor.as_ref(), prior, set, view)?;
        let ids = set.ids();
        // The answers last: a view that has them is not tested again.
        if let Some(shares) = &predicted.attributions {
            store::write_attributions(&folder, view, ids, shares)?;
        }
        store::write(&folder, view, &corpus.task, ids, &predicted.answers)?;
        tracing::debug!("the {} split predicted under {}", args.split, store::key(view));
    }
    Ok(())
}
