//! From a configuration and a corpus to a trained model: which stages a model has, and what each
//! hands to the next.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cumdf_data::{Corpus, Dataset, ModalitySet, Split, synthetic};
use cumdf_model::{DataShape, checkpoint::DataCard};
use tch::Device;

use crate::{
    config::{Config, DataConfig},
    evaluate,
    fit::{Fitted, Plan, TrainingData, derived_seed, fit},
    learner::Learner,
    run_dir::RunDir,
    student::{Student, TeacherTargets},
    teacher::Teacher,
    telemetry,
};

/// Name of the CUMDF network in checkpoints.
pub const NETWORK: &str = "cumdf";

/// What may happen to a folder that already holds results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Go on with the run in it, or begin one.
    Resume,
    /// Remove the run in it.
    Overwrite,
}

/// The native file that `config` names; the synthetic corpora are written under `data/` if absent.
///
/// # Errors
/// When a synthetic corpus cannot be written.
pub fn data_file(config: &DataConfig) -> Result<PathBuf> {
    match config.file.to_str() {
        Some("synthetic") => synthetic::ensure(synthetic::Kind::Sentiment, "data"),
        Some("synthetic-emotion") => synthetic::ensure(synthetic::Kind::Emotion, "data"),
        _ => Ok(config.file.clone()),
    }
}

/// Opens and prepares the data of `config` on `device`.
///
/// # Errors
/// When the file is missing or broken.
pub fn open_corpus(config: &Config, device: Device) -> Result<Corpus> {
    let dataset = Dataset::open(data_file(&config.data)?)?;
    Corpus::prepare(&dataset, config.data.clip, config.data.soft_labels, device)
}

/// The seven conditions, less those that name a modality outside `modalities`.
pub fn conditions(modalities: ModalitySet) -> Vec<ModalitySet> {
    let all = ModalitySet::CONDITIONS.into_iter();
    all.filter(|condition| modalities.contains_all(*condition)).collect()
}

/// What checkpoints say about a corpus.
fn data_card(corpus: &Corpus) -> DataCard {
    DataCard {
        name: corpus.name.clone(),
        task: corpus.task.clone(),
        steps: corpus.steps,
        shape: DataShape { dims: corpus.dims, n_classes: corpus.task.n_classes() as i64 },
        stats: corpus.stats.clone(),
    }
}

/// Trains a teacher in the folder `out`.
///
/// # Errors
/// As [`fit`], and when `out` holds something that `existing` does not allow to touch.
pub fn train_teacher(
    config: &Config,
    corpus: &Corpus,
    device: Device,
    out: &Path,
    existing: Existing,
) -> Result<Fitted> {
    let card = data_card(corpus);
    tch::manual_seed(derived_seed(config.seed, "teacher weights", 0));
    let bins = corpus.task.bin_scores();
    let mut teacher = Teacher::new(config, &card.shape, bins.as_deref(), device)?;
    // The teacher sees complete data, so complete data choose it.
    let conditions = vec![corpus.available(Split::Valid)];
    train_stage(
        &mut teacher,
        config,
        config.teacher.epochs,
        conditions,
        corpus,
        &card,
        out,
        existing,
    )
}

/// Trains a student in the folder `out`, distilled from the checkpoint `teacher` if there is one.
///
/// # Errors
/// As [`train_teacher`], and when the teacher is of another data set or network.
pub fn train_student(
    config: &Config,
    corpus: &Corpus,
    device: Device,
    out: &Path,
    teacher: Option<&Path>,
    existing: Existing,
) -> Result<Fitted> {
    let card = data_card(corpus);
    let targets = teacher
        .map(|path| -> Result<TeacherTargets> {
            let loaded = evaluate::load(path, device)?;
            let (theirs, ours) = (&loaded.config.model, &config.model);
            ensure!(
                loaded.header.data == card,
                "{} was trained on {}, or on it with other standardisation (data.clip); the student learns from {}: train a teacher on the same data",
                path.display(),
                loaded.header.data.name,
                card.name
            );
            ensure!(
                (theirs.hidden_dim, theirs.lg_mmt) == (ours.hidden_dim, ours.lg_mmt),
                "{} has model.hidden_dim = {} and model.lg_mmt = {}, the student {} and {}: they must agree",
                path.display(),
                theirs.hidden_dim,
                theirs.lg_mmt,
                ours.hidden_dim,
                ours.lg_mmt
            );
            Ok(TeacherTargets::of(&loaded.net, &corpus.train))
        })
        .transpose()
        .context("cannot use the teacher")?;
    tch::manual_seed(derived_seed(config.seed, "student weights", 0));
    let bins = corpus.task.bin_scores();
    let mut student = Student::new(config, &card.shape, bins.as_deref(), device, targets)?;
    let conditions = conditions(corpus.available(Split::Valid));
    train_stage(
        &mut student,
        config,
        config.student.epochs,
        conditions,
        corpus,
        &card,
        out,
        existing,
    )
}

/// Teacher, if the student is to be distilled, and student, in subfolders of `dir`; goes on from
/// whatever is there. Returns the student's chosen checkpoint.
///
/// # Errors
/// As [`train_teacher`] and [`train_student`].
pub fn train(config: &Config, corpus: &Corpus, device: Device, dir: &Path) -> Result<PathBuf> {
    let teacher = match config.student.distillation {
        true => {
            let out = dir.join("teacher");
            Some(train_teacher(config, corpus, device, &out, Existing::Resume)?.best)
        }
        false => None,
    };
    let out = dir.join("student");
    let teacher = teacher.as_deref();
    Ok(train_student(config, corpus, device, &out, teacher, Existing::Resume)?.best)
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call site a stage; a struct would only rename them"
)]
fn train_stage(
    learner: &mut dyn Learner,
    config: &Config,
    epochs: u32,
    conditions: Vec<ModalitySet>,
    corpus: &Corpus,
    card: &DataCard,
    out: &Path,
    existing: Existing,
) -> Result<Fitted> {
    ensure!(!conditions.is_empty(), "the validation split has no modality that training has seen");
    if existing == Existing::Overwrite {
        RunDir::clear(out)?;
    }
    let mut run = RunDir::create(out, &config.to_toml(), existing == Existing::Resume)?;
    let _log = telemetry::log_to(run.log_file()?);
    tracing::info!(
        "{} on {}: {} train, {} valid samples, in {}",
        learner.stage(),
        corpus.name,
        corpus.train.len(),
        corpus.valid.len(),
        out.display()
    );
    let plan = Plan { config, model: NETWORK, epochs, conditions };
    let data = TrainingData {
        train: &corpus.train,
        valid: &corpus.valid,
        valid_labels: corpus.labels(Split::Valid),
        task: &corpus.task,
        card,
    };
    fit(learner, &plan, &data, &mut run)
}
