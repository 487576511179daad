//! The state between two epochs: what a killed run goes on from, bit for bit on a CPU with the
//! same number of threads.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use cumdf_model::checkpoint::{self, CheckpointKind};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    fit::{Fitted, Plan},
    learner::Learner,
    optim::Optimizer,
    rate::Plateau,
    run_dir::RunDir,
};

/// Where a stage stands after an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Epochs done.
    pub(crate) epoch: u32,
    /// The best of them, 0 before the first.
    pub(crate) best_epoch: u32,
    /// Its validation score, lower is better; `None` before the first epoch.
    pub(crate) best_score: Option<f64>,
    /// Whether the stage is over.
    pub(crate) finished: bool,
    /// What the schedule remembers.
    pub(crate) plateau: Plateau,
}

impl Progress {
    /// A stage that has not begun.
    pub(crate) fn new() -> Self {
        let plateau = Plateau::default();
        Self { epoch: 0, best_epoch: 0, best_score: None, finished: false, plateau }
    }

    /// Takes note of an epoch's validation score; whether it is the best so far.
    pub(crate) fn note(&mut self, plan: &Plan, epoch: u32, score: f64) -> bool {
        let train = &plan.stage.train;
        self.epoch = epoch;
        self.plateau.note(train.schedule, score);
        let is_best = self.best_score.is_none_or(|best| score < best);
        if is_best {
            (self.best_epoch, self.best_score) = (epoch, Some(score));
        }
        self.finished = epoch >= plan.stage.epochs || epoch - self.best_epoch >= train.patience;
        is_best
    }

    /// What the stage came to.
    pub(crate) fn fitted(&self, run: &RunDir) -> Fitted {
        Fitted { best: run.best(), best_epoch: self.best_epoch, epochs: self.epoch }
    }
}

/// Writes what the next epoch starts from: network, scratch, optimizer, progress.
pub(crate) fn save(
    optimizer: &Optimizer,
    learner: &dyn Learner,
    plan: &Plan,
    progress: &Progress,
    run: &RunDir,
) -> Result<()> {
    let mut tensors = BTreeMap::new();
    let mut put = |prefix: &str, part: BTreeMap<String, Tensor>| {
        tensors.extend(part.into_iter().map(|(name, t)| (format!("{prefix}.{name}"), t)));
    };
    put("model", checkpoint::variables(learner.store()));
    if let Some(scratch) = learner.scratch() {
        put("scratch", checkpoint::variables(scratch));
    }
    put("optimizer", optimizer.state());
    let header = plan.header(CheckpointKind::Resume, serde_json::to_value(progress)?);
    crate::run_dir::write_atomic(&run.last(), &checkpoint::to_bytes(&header, &tensors)?)
}

/// Restores what [`save`] wrote; a new [`Progress`] where nothing was written yet.
pub(crate) fn restore(
    optimizer: &mut Optimizer,
    learner: &dyn Learner,
    plan: &Plan,
    run: &RunDir,
) -> Result<Progress> {
    let path = run.last();
    if !path.exists() {
        return Ok(Progress::new());
    }
    if !run.best().exists() {
        tracing::warn!("{} is gone: training begins anew", run.best().display());
        return Ok(Progress::new());
    }
    let at = || format!("cannot go on from {}: start anew with --overwrite", path.display());
    let checkpoint = checkpoint::open(&path).with_context(at)?;
    let header = &checkpoint.header;
    ensure!(
        header.identity == *plan.identity,
        "{} is of another run: {}; choose another --out",
        path.display(),
        crate::run_dir::differences(&header.identity, plan.identity)
    );
    let part = |prefix: &str| -> BTreeMap<String, Tensor> {
        let prefix = format!("{prefix}.");
        let named = checkpoint.tensors.iter();
        named
            .filter_map(|(n, t)| Some((n.strip_prefix(&prefix)?.to_owned(), t.shallow_clone())))
            .collect()
    };
    checkpoint::restore(learner.store(), &part("model")).with_context(at)?;
    if let Some(scratch) = learner.scratch() {
        checkpoint::restore(scratch, &part("scratch")).with_context(at)?;
    }
    optimizer.restore(&part("optimizer")).with_context(at)?;
    serde_json::from_value(checkpoint.header.metrics).with_context(at)
}
