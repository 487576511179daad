//! What a method is to the trainer: a list of stages, a learner for each, and a network to restore.

use std::{fmt, path::PathBuf};

use anyhow::{Result, ensure};
use cumdf_data::{Task, TrainSet};
use cumdf_model::{Predictor, Problem, Shape, checkpoint::Checkpoint};
use serde::{Serialize, de::DeserializeOwned};
use tch::{Device, nn::Path};
use toml::Table;

use crate::{config::Config, fit::derived_seed, learner::Learner, registry, stage::Stage};

/// A method with its settings. Implemented by the method's own strict configuration, whose tables
/// stand in the file beside `recipe`, `seed` and `[data]`.
pub trait Method: fmt::Debug + Send + Sync {
    /// Its stages, in the order of training. The last one's checkpoint is the method's.
    fn stages(&self) -> Vec<Stage>;

    /// What is wrong with the settings, each with its key; empty when they can be trained.
    fn problems(&self) -> Vec<String>;

    /// Whether its tensors are wide enough for more than one thread; in narrow ones threads only
    /// wait for each other.
    fn is_wide(&self) -> bool {
        false
    }

    /// Whether its training reads the distributions that `data.soft_labels` makes of scores.
    fn reads_soft_labels(&self) -> bool {
        false
    }

    /// A fresh learner of `stage`.
    ///
    /// # Errors
    /// When the data do not suit the method, or a checkpoint that it starts from does not.
    fn learner(&self, stage: &str, cx: &Context) -> Result<Box<dyn Learner>>;

    /// The network of a checkpoint of `stage`, its variables registered under `vs`.
    ///
    /// # Errors
    /// When a size is impossible.
    fn network(&self, stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>>;
}

/// What a learner starts from.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The data set, as its checkpoints will know it.
    pub problem: &'a Problem,
    /// The training split.
    pub train: &'a TrainSet,
    /// Where to compute.
    pub device: Device,
    /// Seed of the run.
    pub seed: u64,
    /// Name of the stage.
    pub stage: &'a str,
    /// The checkpoints of the stages before.
    pub earlier: &'a [Trained],
}

impl Context<'_> {
    /// Starts the random numbers of the initial weights. Called right before the network is made,
    /// after whatever else draws from libtorch's generator.
    pub fn seed_weights(&self) {
        let purpose = format!("{} weights", self.stage);
        tch::manual_seed(derived_seed(self.seed, &purpose, 0));
    }

    /// The checkpoint of an earlier stage; `None` where the method trains without it.
    pub fn trained(&self, stage: &str) -> Option<&Trained> {
        self.earlier.iter().find(|trained| trained.stage == stage)
    }
}

/// A finished stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trained {
    /// Its name.
    pub stage: &'static str,
    /// Its chosen checkpoint,
    pub path: PathBuf,
    /// and that file's SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Trained {
    /// Reads the checkpoint for a later stage of the same method.
    ///
    /// # Errors
    /// When it is of another method or stage, or was trained on other data, or on the same data
    /// standardised otherwise.
    pub fn open(&self, method: &str, cx: &Context) -> Result<(Checkpoint, Config)> {
        let (checkpoint, config) = registry::open(&self.path)?;
        let (header, at) = (&checkpoint.header, self.path.display());
        ensure!(
            header.method == method && header.stage == self.stage,
            "{at} is the {} of {}, not the {} of {method}",
            header.stage,
            header.method,
            self.stage
        );
        let (theirs, ours) = (&header.data, cx.problem);
        let start = |sha256: &str| sha256.get(..12).unwrap_or(sha256).to_owned();
        ensure!(
            theirs.sha256 == ours.sha256,
            "{at} was trained on {} (SHA-256 {}..), the {} learns from {} ({}..): train a {} on \
             the same file",
            theirs.name,
            start(&theirs.sha256),
            cx.stage,
            ours.name,
            start(&ours.sha256),
            self.stage
        );
        ensure!(
            theirs == ours,
            "{at} was trained with data.clip = {}, the {} has {}: they must agree",
            theirs.stats.clip,
            cx.stage,
            ours.stats.clip
        );
        Ok((checkpoint, config))
    }
}

/// A method as the registry lists it.
pub struct Entry {
    /// Name on the command line, in files and tables.
    pub name: &'static str,
    /// Name as its authors write it.
    pub title: &'static str,
    /// What it is, in a line, with its source.
    pub about: &'static str,
    /// Counts the changes of what it computes: raised whenever the same settings, seed and data
    /// would give other figures than before, so that no old result passes for a new one.
    pub formula: u32,
    /// Its recipes; the first that fits a task is the default.
    pub recipes: &'static [Recipe],
    /// Reads its tables; returns them complete, every key named.
    pub read: ReadTables,
}

/// From a method's tables to its settings, and to the tables with every key named.
pub type ReadTables = fn(Table) -> Result<(Box<dyn Method>, Table)>;

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A complete set of values for a method, embedded from `configs/recipes/`.
#[derive(Debug)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// Which labels it is for.
    pub fits: Fits,
    /// The file's text.
    pub text: &'static str,
}

/// The recipe of a name: `recipe!("self-mm", Sentiment)`, with the text of
/// `configs/recipes/self-mm.toml`.
macro_rules! recipe {
    ($name:literal, $fits:ident) => {
        $crate::method::Recipe {
            name: $name,
            fits: $crate::method::Fits::$fits,
            text: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../configs/recipes/",
                $name,
                ".toml"
            )),
        }
    };
}
pub(crate) use recipe;

impl Fits {
    /// Whether a recipe of this kind is for the labels of `task`.
    pub fn suits(self, task: &Task) -> bool {
        match self {
            Self::Any => true,
            Self::Sentiment => matches!(task, Task::Sentiment { .. }),
            Self::Emotion => matches!(task, Task::Emotion { .. }),
        }
    }
}

/// Which labels a recipe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    /// Any.
    Any,
    /// Scores.
    Sentiment,
    /// Emotions.
    Emotion,
}

/// [`Entry::read`] of a configuration type.
///
/// # Errors
/// When a key is missing, unknown or of another type, by its path.
pub fn read<M: Method + Serialize + DeserializeOwned + 'static>(
    table: Table,
) -> Result<(Box<dyn Method>, Table)> {
    let method: M = crate::strict::strict(table)?;
    let complete = Table::try_from(&method).expect("a configuration is a TOML table");
    Ok((Box::new(method), complete))
}
