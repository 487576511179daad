//! The training loop, the only one: any [`Learner`], one stage at a time.
//!
//! An epoch ends with validation, then the best checkpoint (if it is one), then the state from
//! which the next epoch starts. Randomness is drawn anew each epoch from (seed, stage, epoch), so a
//! run that was killed goes on from its last epoch as if nothing had happened, bit for bit on a CPU
//! with the same number of threads.

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, bail};
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
    optim::{Adam, WeightDecay},
    run_dir::RunDir,
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
    let mut state = State::new(learner, settings.ema_decay, plan.config);
    let mut progress = match run.last().exists() {
        true => state.restore(learner, &run.last())?,
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
        learner.refresh(data.train);
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
            state.adam.zero_grad();
            terms.total().backward();
            if settings.clip_norm > 0.0 {
                state.adam.clip_norm(settings.clip_norm);
            }
            let done = (epoch - 1) as usize * n_batches + step;
            state.adam.step(learning_rate(plan, done, n_batches));
            state.average(settings.ema_decay);
            learner.end_batch(&batch);
            losses.add(&terms);
            if losses.pending.len() >= LOOK_EVERY {
                losses.look(epoch).with_context(|| kept(&progress, run))?;
            }
            bar.inc(1);
        }
        losses.look(epoch).with_context(|| kept(&progress, run))?;

        state.swap_in_average();
        learner.refresh(data.train);
        let valid = validate(learner, &plan.conditions, data)?;
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
            checkpoint::save(&run.best(), &header, &checkpoint::variables(learner.store()))?;
        }
        state.swap_out_average();
        progress.finished =
            epoch >= plan.epochs || epoch - progress.best_epoch >= settings.patience;
        run.append_metrics(&record)?;
        log_events(&mut events, &losses, &valid, score, epoch as usize)?;
        state.save(learner, plan, data, &progress, run)?;
        bar.set_message(format!("epoch {epoch} valid {score:.4} best {:.4}", progress.best_score));
        tracing::debug!(
            "{} epoch {epoch}: score {score:.4}{}",
            learner.stage(),
            if is_best { " (best)" } else { "" }
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

/// What an epoch starts from beside the learner's variables.
struct State {
    adam: Adam,
    average: Option<Tensor>, // running average of all weights, flat
    n_averaged: u32,
}

impl State {
    fn new(learner: &dyn Learner, ema_decay: f64, config: &Config) -> Self {
        let decay = WeightDecay {
            strength: config.train.weight_decay,
            decoupled: config.train.decoupled_decay,
        };
        let stores = [Some(learner.store()), learner.auxiliary()];
        let adam = Adam::new(stores.into_iter().flatten(), decay);
        let average = (ema_decay > 0.0).then(|| adam.weights());
        Self { adam, average, n_averaged: 0 }
    }

    fn average(&mut self, decay: f64) {
        if let Some(average) = &mut self.average {
            // Early on the average follows closely, or it would be of the initial weights.
            let n = f64::from(self.n_averaged);
            self.adam.average_into(average, decay.min((1.0 + n) / (10.0 + n)));
            self.n_averaged += 1;
        }
    }

    fn swap_in_average(&mut self) {
        if let Some(average) = &mut self.average {
            self.adam.swap_weights(average);
        }
    }

    fn swap_out_average(&mut self) {
        self.swap_in_average();
    }

    fn save(
        &self,
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
        put("optimizer", self.adam.state());
        if let Some(average) = &self.average {
            let n_averaged = Tensor::from(i64::from(self.n_averaged));
            put(
                "average",
                BTreeMap::from([("weights".into(), average.copy()), ("n".into(), n_averaged)]),
            );
        }
        let config = serde_json::to_value(plan.config)?;
        let progress = serde_json::to_value(progress)?;
        let header = Header::new(plan.model, learner.stage(), config, data.card.clone(), progress);
        checkpoint::save(&run.last(), &header, &tensors)
    }

    fn restore(&mut self, learner: &dyn Learner, path: &std::path::Path) -> Result<Progress> {
        let at =
            || format!("cannot go on from {}: delete the folder to start anew", path.display());
        let checkpoint = checkpoint::open(path).with_context(at)?;
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
        self.adam.restore(&part("optimizer")).with_context(at)?;
        if let Some(average) = &mut self.average {
            let saved = part("average");
            let found = saved.get("weights").zip(saved.get("n"));
            let (weights, n) = found.context("it has no running average").with_context(at)?;
            average.f_copy_(weights).with_context(at)?;
            self.n_averaged = i64::try_from(n)? as u32;
        }
        serde_json::from_value(checkpoint.header.metrics).with_context(at)
    }
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
        let Metrics(metrics) = metrics::score(data.task, data.valid_labels, &predictions.probs);
        let loss = metrics::cross_entropy(data.task, data.valid_labels, &predictions.probs);
        let mut named: BTreeMap<_, _> = metrics.iter().map(|(m, v)| (m.key(), *v)).collect();
        named.insert("loss".into(), loss);
        by_condition.insert(condition.key(), named);
    }
    Ok(by_condition)
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
