//! The training loop, the only one: any [`Learner`], one stage at a time.
//!
//! An epoch ends with validation, then the best checkpoint (if it is one), then the state from
//! which the next epoch starts. Randomness is drawn anew each epoch from (seed, stage, epoch), so a
//! run that was killed goes on from its last epoch as if nothing had happened, bit for bit on a CPU
//! with the same number of threads.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use cumdf_data::{EpochOrder, EvalSet, Labels, ModalitySet, Task, TrainSet};
use cumdf_model::checkpoint::{self, DataCard, Header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tch::Tensor;

use crate::{
    config::{Config, Schedule, Selection},
    evaluate,
    learner::{Learner, LossTerms},
    metrics::{self, Metric, Metrics},
    optim::Optimizer,
    run_dir::{RunDir, write_atomic},
    telemetry,
    tensorboard::EventWriter,
};

/// Steps between two looks at the losses, each of which waits for the device.
const LOOK_EVERY: usize = 20;

/// What a stage is trained and chosen on. There is no test split in it.
#[derive(Debug, Clone, Copy)]
pub struct TrainingData<'a> {
    /// The training split.
    pub train: &'a TrainSet,
    /// The validation split's features,
    pub valid: &'a EvalSet,
    /// and its labels, for choosing.
    pub valid_labels: &'a Labels,
    /// What labels mean.
    pub task: &'a Task,
    /// What goes into checkpoints about the data.
    pub card: &'a DataCard,
}

/// How a stage is trained and chosen.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The run's configuration.
    pub config: &'a Config,
    /// The network's name in checkpoints.
    pub model: &'a str,
    /// Passes over the training split.
    pub epochs: u32,
    /// The validation conditions whose mean chooses the checkpoint.
    pub conditions: Vec<ModalitySet>,
}

/// What a stage came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The chosen checkpoint.
    pub best: PathBuf,
    /// Its epoch, from 1.
    pub best_epoch: u32,
    /// Epochs trained.
    pub epochs: u32,
}

/// Where a stage stands after an epoch; lies in the resume state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Progress {
    epoch: u32,
    best_epoch: u32,
    best_score: f64, // lower is better
    finished: bool,
}

/// Trains `learner` as planned in `run`, from wherever `run` stands.
///
/// # Errors
/// When a loss is not finite (the last good checkpoint stays), or a file cannot be written or is
/// of another run.
pub fn fit(
    learner: &mut dyn Learner,
    plan: &Plan,
    data: &TrainingData,
    run: &mut RunDir,
) -> Result<Fitted> {
    let settings = &plan.config.train;
    let n_batches = data.train.n_batches(settings.batch_size);
    let mut optimizer = Optimizer::new(learner.groups(settings));
    let mut progress = match run.last().exists() {
        true => restore_state(&mut optimizer, learner, plan, data, &run.last())?,
        false => Progress { epoch: 0, best_epoch: 0, best_score: f64::INFINITY, finished: false },
    };
    run.truncate_metrics_after(progress.epoch as usize)?;
    if progress.finished {
        tracing::info!(stage = learner.stage(), "already trained in {}", run.path().display());
        return Ok(progress.fitted(run));
    }
    let mut events = EventWriter::create(run.path())?;
    if progress.epoch > 0 {
        tracing::info!("{} goes on after epoch {}", learner.stage(), progress.epoch);
        events.purge_from(progress.epoch as usize + 1)?;
    } else {
        learner.end_epoch(data.train);
    }
    let bar = telemetry::bar(u64::from(plan.epochs) * n_batches as u64, learner.stage());
    bar.set_position(u64::from(progress.epoch) * n_batches as u64);
    while !progress.finished {
        let epoch = progress.epoch + 1;
        let started = Instant::now();
        tch::manual_seed(derived_seed(plan.config.seed, learner.stage(), epoch));
        let order = EpochOrder {
            seed: plan.config.seed,
            epoch: u64::from(epoch),
            batch_size: settings.batch_size,
            bucket: settings.bucket,
        };
        let mut losses = LossLog::default();
        for (step, batch) in data.train.epoch(&plan.config.masks, order).enumerate() {
            let terms = learner.loss(&batch);
            optimizer.zero_grad();
            terms.total().backward();
            if settings.clip_norm > 0.0 {
                optimizer.clip_norm(settings.clip_norm);
            }
            let done = (epoch - 1) as usize * n_batches + step;
            optimizer.step(learning_rate(plan, done, n_batches));
            learner.end_batch(&batch);
            losses.add(&terms);
            if losses.pending.len() >= LOOK_EVERY {
                losses.look(epoch).with_context(|| kept(&progress, run))?;
            }
            bar.inc(1);
        }
        losses.look(epoch).with_context(|| kept(&progress, run))?;

        learner.end_epoch(data.train);
        let valid = validate(learner, &plan.conditions, data)
            .with_context(|| format!("after epoch {epoch}"))
            .with_context(|| kept(&progress, run))?;
        let score = selection_score(&valid, settings.selection, data.task);
        progress.epoch = epoch;
        let is_best = score < progress.best_score;
        let record = json!({
            "stage": learner.stage(),
            "epoch": epoch,
            "learning_rate": learning_rate(plan, epoch as usize * n_batches - 1, n_batches),
            "loss": losses.means(),
            "valid": valid,
            "score": score,
            "best": is_best,
            "seconds": started.elapsed().as_secs_f64(),
        });
        if is_best {
            (progress.best_epoch, progress.best_score) = (epoch, score);
            let card = data.card.clone();
            let config = serde_json::to_value(plan.config)?;
            let metrics = json!({ "epoch": epoch, "score": score, "valid": valid });
            let header = Header::new(plan.model, learner.stage(), config, card, metrics);
            learner.complete(data.train);
            let bytes = checkpoint::to_bytes(&header, &checkpoint::variables(learner.store()))?;
            write_atomic(&run.best(), &bytes)?;
        }
        progress.finished =
            epoch >= plan.epochs || epoch - progress.best_epoch >= settings.patience;
        run.append_metrics(&record)?;
        log_events(&mut events, &losses, &valid, score, epoch as usize)?;
        save_state(&optimizer, learner, plan, data, &progress, run)?;
        let shown = headline(&losses, &valid, data.task);
        bar.set_message(format!("epoch {epoch}/{} {shown}", plan.epochs));
        tracing::debug!(
            "{} epoch {epoch}: {shown}{}",
            learner.stage(),
            if is_best { ", best so far" } else { "" }
        );
    }
    bar.finish_and_clear();
    tracing::info!(
        "{}: epoch {} of {} chosen, validation score {:.4}",
        learner.stage(),
        progress.best_epoch,
        progress.epoch,
        progress.best_score
    );
    Ok(progress.fitted(run))
}

impl Progress {
    fn fitted(&self, run: &RunDir) -> Fitted {
        Fitted { best: run.best(), best_epoch: self.best_epoch, epochs: self.epoch }
    }
}

/// Writes what the next epoch starts from: network, auxiliary variables, optimizer, progress.
fn save_state(
    optimizer: &Optimizer,
    learner: &dyn Learner,
    plan: &Plan,
    data: &TrainingData,
    progress: &Progress,
    run: &RunDir,
) -> Result<()> {
    let mut tensors = BTreeMap::new();
    let mut put = |prefix: &str, part: BTreeMap<String, Tensor>| {
        tensors.extend(part.into_iter().map(|(name, t)| (format!("{prefix}.{name}"), t)));
    };
    put("model", checkpoint::variables(learner.store()));
    if let Some(auxiliary) = learner.auxiliary() {
        put("auxiliary", checkpoint::variables(auxiliary));
    }
    put("optimizer", optimizer.state());
    let config = serde_json::to_value(plan.config)?;
    let progress = serde_json::to_value(progress)?;
    let header = Header::new(plan.model, learner.stage(), config, data.card.clone(), progress);
    write_atomic(&run.last(), &checkpoint::to_bytes(&header, &tensors)?)
}

/// Restores what [`save_state`] wrote.
fn restore_state(
    optimizer: &mut Optimizer,
    learner: &dyn Learner,
    plan: &Plan,
    data: &TrainingData,
    path: &Path,
) -> Result<Progress> {
    let at = || format!("cannot go on from {}: start anew with --overwrite", path.display());
    let checkpoint = checkpoint::open(path).with_context(at)?;
    let header = &checkpoint.header;
    ensure!(
        (header.model.as_str(), header.stage.as_str()) == (plan.model, learner.stage())
            && header.data == *data.card,
        "{} is of the {} of {} on {}, this run is of the {} of {} on {}: choose another --out",
        path.display(),
        header.stage,
        header.model,
        header.data.name,
        learner.stage(),
        plan.model,
        data.card.name
    );
    let part = |prefix: &str| -> BTreeMap<String, Tensor> {
        let prefix = format!("{prefix}.");
        let named = checkpoint.tensors.iter();
        named
            .filter_map(|(n, t)| Some((n.strip_prefix(&prefix)?.to_owned(), t.shallow_clone())))
            .collect()
    };
    checkpoint::restore(learner.store(), &part("model")).with_context(at)?;
    if let Some(auxiliary) = learner.auxiliary() {
        checkpoint::restore(auxiliary, &part("auxiliary")).with_context(at)?;
    }
    optimizer.restore(&part("optimizer")).with_context(at)?;
    serde_json::from_value(checkpoint.header.metrics).with_context(at)
}

/// Loss values of an epoch, read from the device once in a while.
#[derive(Default)]
struct LossLog {
    names: Vec<&'static str>,
    pending: Vec<Tensor>, // [terms] each
    sums: Vec<f64>,
    n_steps: usize,
}

impl LossLog {
    fn add(&mut self, terms: &LossTerms) {
        if self.names.is_empty() {
            self.names = terms.names();
            self.sums = vec![0.0; self.names.len()];
        }
        self.pending.push(terms.values());
    }

    /// Reads what is pending; an error names the first step and term that is not finite.
    fn look(&mut self, epoch: u32) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let values: Vec<Vec<f32>> = Vec::try_from(Tensor::stack(&self.pending, 0))?;
        self.pending.clear();
        for step in values {
            self.n_steps += 1;
            for ((name, value), sum) in self.names.iter().zip(step).zip(&mut self.sums) {
                if !value.is_finite() {
                    bail!(
                        "the loss term `{name}` became {value} at step {} of epoch {epoch}; lower train.learning_rate, or set train.clip_norm",
                        self.n_steps
                    );
                }
                *sum += f64::from(value);
            }
        }
        Ok(())
    }

    /// Mean of each term over the epoch's steps.
    fn means(&self) -> BTreeMap<&'static str, f64> {
        let n = self.n_steps.max(1) as f64;
        self.names.iter().copied().zip(self.sums.iter().map(|sum| sum / n)).collect()
    }
}

/// What is left after a loss failed.
fn kept(progress: &Progress, run: &RunDir) -> String {
    match progress.best_epoch {
        0 => "training stopped, no checkpoint was written yet".into(),
        epoch => format!(
            "training stopped; the best checkpoint so far, of epoch {epoch}, is kept in {}",
            run.best().display()
        ),
    }
}

/// Metrics on the validation split, by condition, cross-entropy first.
fn validate(
    learner: &dyn Learner,
    conditions: &[ModalitySet],
    data: &TrainingData,
) -> Result<BTreeMap<String, BTreeMap<String, f64>>> {
    let mut by_condition = BTreeMap::new();
    for condition in conditions {
        let view = evaluate::view(*condition, 0.0);
        let predictions = evaluate::predict(learner.predictor(), data.valid, &view)?;
        ensure!(
            predictions.probs.iter().flatten().all(|p| p.is_finite()),
            "the network predicts values that are not finite under {condition}; lower train.learning_rate, or set train.clip_norm"
        );
        let Metrics(metrics) = metrics::score(data.task, data.valid_labels, &predictions.probs);
        let loss = metrics::cross_entropy(data.task, data.valid_labels, &predictions.probs);
        let mut named: BTreeMap<_, _> = metrics.iter().map(|(m, v)| (m.key(), *v)).collect();
        named.insert("loss".into(), loss);
        by_condition.insert(condition.key(), named);
    }
    Ok(by_condition)
}

/// The total of the loss terms and the validation metric that readers know, in a few words.
fn headline(
    losses: &LossLog,
    valid: &BTreeMap<String, BTreeMap<String, f64>>,
    task: &Task,
) -> String {
    let metric = match task {
        Task::Sentiment { .. } => Metric::Mae,
        Task::Emotion { .. } => Metric::F1,
    };
    let mean = valid.values().map(|m| m[&metric.key()]).sum::<f64>() / valid.len() as f64;
    let task_loss = losses.means().get("task").copied();
    let loss = task_loss.map_or_else(String::new, |loss| format!("loss {loss:.3}, "));
    format!("{loss}valid {} {}", metric.label(), metric.format(mean))
}

/// The mean over conditions of what chooses, turned so that lower is better.
fn selection_score(
    valid: &BTreeMap<String, BTreeMap<String, f64>>,
    selection: Selection,
    task: &Task,
) -> f64 {
    let each = valid.values().map(|metrics| {
        let of = |metric: Metric| metrics[&metric.key()];
        match (selection, task) {
            (Selection::Loss, _) => metrics["loss"],
            (Selection::Metric, Task::Sentiment { .. }) => {
                of(Metric::Mae) - of(Metric::F1) - 0.5 * of(Metric::Corr)
            }
            (Selection::Metric, Task::Emotion { .. }) => -of(Metric::F1),
        }
    });
    each.sum::<f64>() / valid.len() as f64
}

/// Step size of step `done`, counted from 0 over the whole stage.
fn learning_rate(plan: &Plan, done: usize, n_batches: usize) -> f64 {
    let settings = &plan.config.train;
    let warmup = settings.warmup_epochs * n_batches as f64;
    let total = f64::from(plan.epochs) * n_batches as f64;
    let done = done as f64;
    if done < warmup {
        return settings.learning_rate * (done + 1.0) / (warmup + 1.0);
    }
    match settings.schedule {
        Schedule::Constant => settings.learning_rate,
        Schedule::Cosine => {
            let share = (done - warmup) / (total - warmup).max(1.0);
            settings.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
        }
    }
}

/// A seed for libtorch's generator that depends on all three alike.
pub(crate) fn derived_seed(seed: u64, purpose: &str, epoch: u32) -> i64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(purpose);
    hash.update(epoch.to_le_bytes());
    let bytes: [u8; 8] = hash.finalize()[..8].try_into().expect("a digest has 32 bytes");
    i64::from_le_bytes(bytes)
}

fn log_events(
    events: &mut EventWriter,
    losses: &LossLog,
    valid: &BTreeMap<String, BTreeMap<String, f64>>,
    score: f64,
    epoch: usize,
) -> Result<()> {
    for (name, value) in losses.means() {
        events.scalar(&format!("loss/{name}"), epoch, value)?;
    }
    for (condition, metrics) in valid {
        for (name, value) in metrics {
            events.scalar(&format!("valid_{name}/{condition}"), epoch, *value)?;
        }
    }
    events.scalar("valid/score", epoch, score)?;
    events.flush()
}
