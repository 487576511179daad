//! From a configuration and a corpus to a trained method: its stages, one after the other, each in
//! a folder of its own, each handed the checkpoints of those before.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cumdf_data::{Corpus, Dataset, Split, synthetic};
use cumdf_model::{Prior, Problem, Shape, checkpoint};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tch::Device;

use crate::{
    config::{Config, DataConfig},
    fit::{Fitted, Plan, TrainingData, fit},
    learner::{self, Learner},
    memory,
    method::{Context, Trained},
    run_dir::{Card, Existing, RunDir},
    stage::Stage,
    telemetry,
};

/// The native file that `config` names, as an absolute path; the synthetic corpora are written
/// under `data/` if absent.
///
/// # Errors
/// When a synthetic corpus cannot be written.
pub fn data_file(config: &DataConfig) -> Result<PathBuf> {
    let file = match config.file.to_str() {
        Some("synthetic") => synthetic::ensure(synthetic::Kind::Sentiment, "data")?,
        Some("synthetic-emotion") => synthetic::ensure(synthetic::Kind::Emotion, "data")?,
        _ => config.file.clone(),
    };
    std::path::absolute(&file).with_context(|| format!("{}: no such path", file.display()))
}

/// Opens and prepares the data of `config` on `device`; `config` then names their file by its
/// absolute path, so that checkpoints find it from anywhere.
///
/// # Errors
/// When the file is missing or broken.
pub fn open_corpus(config: &mut Config, device: Device) -> Result<Corpus> {
    config.data.file = data_file(&config.data)?;
    let dataset = Dataset::open(&config.data.file)?;
    config.check_labels(&dataset.task)?;
    Corpus::prepare(&dataset, config.data.clip, config.data.soft_labels, device)
}

/// What checkpoints know of a corpus.
pub fn problem(corpus: &Corpus) -> Problem {
    Problem {
        name: corpus.name.clone(),
        sha256: corpus.sha256.clone(),
        shape: Shape { task: corpus.task.clone(), steps: corpus.steps, dims: corpus.dims },
        stats: corpus.stats.clone(),
        prior: Prior::of(&corpus.task, corpus.labels(Split::Train)),
    }
}

/// Where a method is trained, and what may happen to what is there.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder; each stage has one of its own name in it.
    pub dir: PathBuf,
    /// What may happen to the last stage's folder.
    pub existing: Existing,
    /// A checkpoint that takes the place of a stage, with the stage's name.
    pub given: Option<(String, PathBuf)>,
    /// The last stage to train; `None` trains all.
    pub until: Option<String>,
}

impl Place {
    /// All stages in `dir`, going on from whatever is there.
    pub fn resuming(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), existing: Existing::Resume, given: None, until: None }
    }

    /// What may happen to the folder of a stage before the last: a finished one is what is wanted,
    /// and one of other settings is kept beside it where the last one may be replaced.
    fn before(&self) -> Existing {
        match self.existing {
            Existing::MoveAside | Existing::Overwrite => Existing::MoveAside,
            Existing::Refuse | Existing::Resume => Existing::Resume,
        }
    }
}

/// Trains the stages of `config`'s method; returns what the last of them came to.
///
/// # Errors
/// As [`fit`], and when a folder holds something that `place` does not allow to touch.
pub fn train(config: &Config, corpus: &Corpus, device: Device, place: &Place) -> Result<Fitted> {
    let mut stages = config.method.stages();
    if let Some(until) = &place.until {
        let last = stages.iter().position(|stage| stage.name == until);
        let last = last.with_context(|| format!("the method has no stage `{until}`"))?;
        stages.truncate(last + 1);
    }
    let (last, before) = stages.split_last().context("the method has no stage")?;
    if let Some((name, path)) = &place.given {
        let names: Vec<_> = before.iter().map(|stage| stage.name).collect();
        ensure!(
            names.contains(&name.as_str()),
            "{} is given as {name}, but these settings train without one (student.distillation = false)",
            path.display()
        );
    }
    RunDir::refuse_early(&place.dir.join(last.name), place.existing)?;
    let problem = problem(corpus);
    let run = Stages { config, corpus, device, problem: &problem };
    let mut earlier = Vec::new();
    for stage in before {
        let path = match &place.given {
            Some((name, path)) if name == stage.name => path.clone(),
            _ => run.train(stage, &earlier, &place.dir.join(stage.name), place.before())?.best,
        };
        let sha256 = sha256_of(&path)?;
        earlier.push(Trained { stage: stage.name, path, sha256 });
    }
    run.train(last, &earlier, &place.dir.join(last.name), place.existing)
}

/// What all stages of a method share.
struct Stages<'a> {
    config: &'a Config,
    corpus: &'a Corpus,
    device: Device,
    problem: &'a Problem,
}

impl Stages<'_> {
    fn train(
        &self,
        stage: &Stage,
        earlier: &[Trained],
        out: &Path,
        existing: Existing,
    ) -> Result<Fitted> {
        let Self { config, corpus, device, problem } = *self;
        let cx = Context {
            problem,
            train: &corpus.train,
            device,
            seed: config.seed,
            stage: stage.name,
            earlier,
        };
        // Before a folder is made: what the stage starts from may not suit it, nor its groups.
        let mut learner = config.method.learner(stage.name, &cx)?;
        learner::groups(learner.as_ref(), &stage.train)?;
        let identity = self.identity(stage, earlier);
        let threads = i64::from(tch::get_num_threads());
        let toml = config.to_toml();
        let card = Card { identity: &identity, config: &toml, threads, device: kind(device) };
        let mut run = RunDir::open(out, &card, existing)?;
        let _log = telemetry::log_to(run.log_file()?);
        tracing::info!(
            "{} {} on {}: {} train, {} valid samples, in {}",
            config.entry.title,
            stage.name,
            corpus.name,
            corpus.train.len(),
            corpus.valid.len(),
            out.display()
        );
        tell_memory(learner.as_ref(), stage, corpus);
        let plan = Plan {
            stage,
            seed: config.seed,
            method: config.entry.name,
            config: &config.to_json(),
            identity: &identity,
            problem,
        };
        fit(learner.as_mut(), &plan, &TrainingData::new(corpus, problem), &mut run)
    }

    /// What decides a stage's result, the checkpoints it starts from included.
    fn identity(&self, stage: &Stage, earlier: &[Trained]) -> Value {
        let mut identity = self.config.identity(&self.problem.sha256, std::slice::from_ref(stage));
        let hashes: serde_json::Map<_, _> =
            earlier.iter().map(|t| (t.stage.to_owned(), json!(t.sha256))).collect();
        identity["stage"] = json!(stage.name);
        identity["earlier"] = Value::Object(hashes);
        identity
    }
}

/// Says what training will need, where that is much: weights with their gradients and two running
/// averages, and what a batch keeps for the backward pass.
fn tell_memory(learner: &dyn Learner, stage: &Stage, corpus: &Corpus) {
    let (steps, set) = (corpus.steps, &corpus.train);
    let batch_size = stage.train.batch_size.min(set.len() as i64);
    let stores = [Some(learner.store()), learner.scratch()].into_iter().flatten();
    let weights = stores.flat_map(checkpoint::variables).map(|(_, t)| t.numel()).sum::<usize>();
    let inputs = memory::input_floats(steps, corpus.dims);
    let per_sample = learner.floats_per_sample(steps) + inputs;
    let bytes = 4.0 * (4.0 * weights as f64 + per_sample * batch_size as f64);
    let needs = || {
        format!(
            "training with batches of {batch_size} samples of {steps} steps needs about {}",
            memory::in_words(bytes)
        )
    };
    match memory::free() {
        Some(free) if bytes > free => tracing::warn!(
            "{}, and {} are free: lower train.batch_size, or shorten the sequences",
            needs(),
            memory::in_words(free)
        ),
        _ if bytes > 1e9 => tracing::info!("{}", needs()),
        _ => {}
    }
}

/// `cpu`, `cuda` or `mps`.
pub fn kind(device: Device) -> String {
    match device {
        Device::Cuda(_) => "cuda".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
