//! The training loop, the only one: any [`Learner`], one stage at a time.
//!
//! An epoch ends with validation, then the best checkpoint (if it is one), then the state from
//! which the next epoch starts. Randomness is drawn anew each epoch from (seed, stage, epoch), so a
//! run that was killed goes on from its last epoch as if nothing had happened.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use cumdf_autograd::work::Counter;
use cumdf_data::{Corpus, EpochOrder, EvalSet, Labels, Split, Task};
use cumdf_model::{
    Problem,
    checkpoint::{self, CheckpointKind, Header},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    epoch_log::{LossLog, log_events},
    interrupt,
    learner::{Learner, groups},
    optim::Optimizer,
    rate::learning_rate,
    resume::{self, Progress},
    run_dir::{RunDir, write_atomic},
    select::{errors, validate},
    stage::Stage,
    telemetry,
    tensorboard::EventWriter,
};

/// What a stage is trained and chosen on. It hands out no test split.
#[derive(Debug, Clone, Copy)]
pub struct TrainingData<'a> {
    pub(crate) corpus: &'a Corpus,
    pub(crate) problem: &'a Problem,
}

/// How a stage is trained and chosen, and what its checkpoints say of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// The run's seed.
    pub seed: u64,
    /// Name of the method.
    pub method: &'a str,
    /// The resolved configuration.
    pub config: &'a Value,
    /// What decides the stage's result.
    pub identity: &'a Value,
    /// The data, as checkpoints know them.
    pub problem: &'a Problem,
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

impl<'a> TrainingData<'a> {
    /// The training and validation splits of a corpus.
    pub fn new(corpus: &'a Corpus, problem: &'a Problem) -> Self {
        Self { corpus, problem }
    }

    pub(crate) fn valid(&self) -> &'a EvalSet {
        &self.corpus.valid
    }

    pub(crate) fn valid_labels(&self) -> &'a Labels {
        self.corpus.labels(Split::Valid)
    }

    pub(crate) fn task(&self) -> &'a Task {
        &self.corpus.task
    }
}

impl Plan<'_> {
    /// The header of a checkpoint of this stage.
    pub(crate) fn header(&self, kind: CheckpointKind, metrics: Value) -> Header {
        Header {
            version: checkpoint::version(),
            method: self.method.into(),
            stage: self.stage.name.into(),
            kind,
            config: self.config.clone(),
            identity: self.identity.clone(),
            data: self.problem.clone(),
            metrics,
        }
    }
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
    let (stage, train) = (plan.stage, &data.corpus.train);
    let n_batches = train.n_batches(stage.train.batch_size);
    let mut optimizer = Optimizer::new(groups(learner, &stage.train)?, stage.train.betas);
    let mut progress = resume::restore(&mut optimizer, learner, plan, run)?;
    run.truncate_metrics_after(progress.epoch as usize)?;
    if progress.finished {
        tracing::info!("{}: already trained in {}", stage.name, run.path().display());
        return Ok(progress.fitted(run));
    }
    let mut events = EventWriter::create(run.path())?;
    if progress.epoch > 0 {
        run.check_session()?;
        tracing::info!("{} goes on after epoch {}", stage.name, progress.epoch);
        events.purge_from(progress.epoch as usize + 1)?;
    }
    let n_steps = u64::from(stage.epochs) * n_batches as u64;
    let bar = telemetry::progress(n_steps, stage.name, "batches");
    bar.set_position(u64::from(progress.epoch) * n_batches as u64);
    let interrupted = interrupt::watch(go_on(&progress))?;
    while !progress.finished {
        let (epoch, started) = (progress.epoch + 1, Instant::now());
        let kept = kept(&progress, run);
        let counter = (epoch == 1).then(Counter::begin); // all epochs are much alike
        let losses = train_epoch(learner, plan, data, &mut optimizer, &progress, &bar)
            .with_context(|| format!("epoch {epoch}"))
            .with_context(|| kept.clone())?;
        let gflop = counter.map(|counter| counter.operations() as f64 / 1e9);
        bar.message(format!("epoch {epoch}/{}, validating", stage.epochs));
        weigh(learner, data)
            .with_context(|| format!("after epoch {epoch}"))
            .with_context(|| kept.clone())?;
        let valid = validate(learner.predictor(), &stage.judged, data)
            .with_context(|| format!("after epoch {epoch}"))
            .with_context(|| kept.clone())?;
        let score = valid.score(stage.train.selection, data.task());
        let last_step = epoch as usize * n_batches - 1;
        let rate =
            learning_rate(&stage.train, stage.epochs, n_batches, &progress.plateau, last_step);
        let is_best = progress.note(plan, epoch, score);
        if is_best {
            learner.seal(train);
            let metrics = json!({ "epoch": epoch, "score": score, "valid": valid.to_json() });
            let header = plan.header(CheckpointKind::Chosen, metrics);
            let bytes = checkpoint::to_bytes(&header, &checkpoint::variables(learner.store()))?;
            write_atomic(&run.best(), &bytes)?;
        }
        let mut line = json!({
            "stage": stage.name,
            "epoch": epoch,
            "learning_rate": rate,
            "loss": losses.means(),
            "valid": valid.to_json(),
            "score": score,
            "best": is_best,
            "seconds": started.elapsed().as_secs_f64(),
        });
        if let Some(gflop) = gflop {
            line["gflop"] = json!(gflop);
        }
        run.append_metrics(&line)?;
        log_events(&mut events, &losses, &valid.to_json(), score, epoch as usize)?;
        resume::save(&optimizer, learner, plan, &progress, run)?;
        interrupted.say(go_on(&progress));
        let shown = shown(&losses, &valid.headline(data.task()));
        bar.message(format!("epoch {epoch}/{}, {shown}", stage.epochs));
        let note = if is_best { ", best so far" } else { "" };
        tracing::debug!("{} epoch {epoch}: {shown}{note}", stage.name);
    }
    bar.finish();
    tracing::info!(
        "{}: epoch {} of {} chosen, validation score {:.4} (lower is better)",
        stage.name,
        progress.best_epoch,
        progress.epoch,
        progress.best_score.unwrap_or(f64::NAN)
    );
    Ok(progress.fitted(run))
}

/// One pass over the training split.
fn train_epoch(
    learner: &mut dyn Learner,
    plan: &Plan,
    data: &TrainingData,
    optimizer: &mut Optimizer,
    progress: &Progress,
    bar: &telemetry::Progress,
) -> Result<LossLog> {
    let (stage, set) = (plan.stage, &data.corpus.train);
    let train = &stage.train;
    let n_batches = set.n_batches(train.batch_size);
    let epoch = progress.epoch + 1;
    learner.begin_epoch(epoch, set);
    tch::manual_seed(derived_seed(plan.seed, stage.name, epoch));
    let order = EpochOrder {
        seed: plan.seed,
        epoch: u64::from(epoch),
        batch_size: train.batch_size,
        bucket: train.bucket,
    };
    let mut losses = LossLog::default();
    for (i, batch) in set.epoch(stage.sees.masks(), order).enumerate() {
        let terms = learner.loss(&batch);
        if i % train.accumulate == 0 {
            optimizer.zero_grad();
        }
        terms.total().backward(); // adds to the gradients of the batches before
        if (i + 1) % train.accumulate == 0 || i + 1 == n_batches {
            optimizer.clip(train.clip);
            let done = (epoch - 1) as usize * n_batches + i;
            optimizer.step(learning_rate(train, stage.epochs, n_batches, &progress.plateau, done));
        }
        losses.add(&terms)?;
        bar.inc(1);
    }
    losses.look()?;
    Ok(losses)
}

/// Lets a learner that weighs its parts by their errors do so, on validation data.
fn weigh(learner: &mut dyn Learner, data: &TrainingData) -> Result<()> {
    let views = learner.weighed_by();
    if !views.is_empty() {
        let errors = errors(learner.predictor(), &views, data)?;
        learner.weigh(&errors);
    }
    Ok(())
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

/// What Ctrl-C says.
fn go_on(progress: &Progress) -> String {
    match progress.epoch {
        0 => "interrupted in the first epoch; the same command begins anew".into(),
        epoch => format!(
            "interrupted; the same command (with --resume where --out is given) goes on after epoch \
             {epoch}"
        ),
    }
}

/// The task's loss and the validation figure that readers know, in a few words.
fn shown(losses: &LossLog, headline: &str) -> String {
    let task_loss = losses.means().get("task").copied();
    let loss = task_loss.map_or_else(String::new, |loss| format!("loss {loss:.3}, "));
    format!("{loss}valid {headline}")
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
