//! A cell of the grid: one data set, one variant, one seed. It is trained once; testing it under a
//! view is a second step that only adds to what is there.
//!
//! A cell is known by what decides its result: the content of its data, its settings without paths,
//! the method and the version of its formulas. Other settings make another cell with a folder of
//! its own, so nothing that is finished is ever in the way of anything else.
//!
//! - `cell.json`: its identity
//! - `config.toml`: the resolved configuration of the newest session
//! - a folder per stage of the training, as `cumdf-train` leaves it
//! - `trained.json`: which checkpoint came out; it is there once the training is finished
//! - `views/`: the predictions ([`super::store`])
//! - `log.txt`: what all sessions said
//! - `failed.json`: why it failed, if it did ([`super::failure`])
//! - `claim/`: who works here ([`super::claim`]); `cell.lock`: held meanwhile, a second guard

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use cumdf_data::{Split, files};
use cumdf_train::{
    config::{Config, DataConfig},
    registry,
    run_dir::{read_metrics, write_atomic},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tch::{Device, nn::VarStore};

use super::{
    claim::{self, State, Watch},
    fitted::Fitted,
    source::Source,
    store,
};

const CARD: &str = "cell.json";
const CONFIG: &str = "config.toml";
const TRAINED: &str = "trained.json";
const LOCK: &str = "cell.lock";
/// What the child processes say on standard error.
pub const LOG: &str = "log.txt";

/// A cell.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The data set, as tables show it.
    pub dataset: String,
    /// Key of the variant.
    pub variant: &'static str,
    /// Seed of the training; `None` where none plays a part.
    pub seed: Option<u64>,
    /// The data file; it may have moved since.
    pub data: PathBuf,
    /// What decides the result.
    pub identity: Value,
    /// Its folder.
    pub dir: PathBuf,
    /// The resolved configuration, seed included; `None` for what is not trained.
    pub config: Option<Config>,
}

/// `trained.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trained {
    /// The chosen checkpoint, from the cell's folder on.
    pub checkpoint: PathBuf,
    /// Its epoch.
    pub best_epoch: u32,
    /// Epochs of the last stage.
    pub epochs: u32,
    /// The device it was trained on.
    pub device: String,
    /// Version of the program.
    pub version: String,
    /// The most bytes that the process held which finished the training; older cells do not say.
    #[serde(default)]
    pub peak_bytes: Option<u64>,
}

/// What the training of a cell cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Trained parameters of the network that answers: that of the last stage.
    pub parameters: u64,
    /// Seconds of all stages together, validation included.
    pub seconds: f64,
    /// Epochs of all stages together.
    pub epochs: u64,
    /// Billions of floating-point operations in matrix products and convolutions, of all epochs and
    /// stages, from a count of the first epoch of each; older cells do not say.
    pub gflop: Option<f64>,
    /// The most bytes that its process held.
    pub peak_bytes: Option<u64>,
}

/// What came of a try to hold a cell.
#[derive(Debug)]
pub enum Lock {
    /// Held until the file is dropped; `None` on a file system without locks.
    Mine(Option<File>),
    /// Another process works there.
    Held,
}

impl Cell {
    /// The cell of a trained variant under `out`.
    ///
    /// - `device`: the kind of device that trains it, as its figures differ in their last digits
    pub fn trained(
        out: &Path,
        source: &Source,
        variant: &'static str,
        config: Config,
        device: &str,
    ) -> Self {
        let mut identity = config.identity(&source.sha256, &config.method.stages());
        identity["device"] = json!(device);
        let folder = format!("seed-{}-{}", config.seed, id(&identity));
        let seed = Some(config.seed);
        Self::new(out, source, variant, seed, identity, Some(config), &folder)
    }

    /// The cell of a floor that needs no seed under `out`.
    pub fn fitted(
        out: &Path,
        source: &Source,
        variant: &'static str,
        fitted: &Fitted,
        data: &DataConfig,
    ) -> Self {
        let identity = json!({
            "method": fitted.name,
            "formula": format!("{}.{}", cumdf_train::FORMULA, fitted.formula),
            "data": { "sha256": source.sha256, "clip": data.clip },
        });
        let folder = id(&identity);
        Self::new(out, source, variant, None, identity, None, &folder)
    }

    fn new(
        out: &Path,
        source: &Source,
        variant: &'static str,
        seed: Option<u64>,
        identity: Value,
        config: Option<Config>,
        folder: &str,
    ) -> Self {
        Self {
            dataset: source.dataset.clone(),
            variant,
            seed,
            data: source.file.clone(),
            identity,
            dir: out.join("cells").join(&source.slug).join(variant).join(folder),
            config,
        }
    }

    /// `CMU-MOSI, cumdf, seed 1`.
    pub fn title(&self) -> String {
        let seed = self.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
        format!("{}, {}{seed}", self.dataset, self.variant)
    }

    /// Makes the folder ready for a child process.
    ///
    /// # Errors
    /// When it cannot be written to, or holds another cell.
    pub fn prepare(&self) -> Result<()> {
        let dir = &self.dir;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        match identity(dir) {
            Some(there) => ensure!(
                there == self.identity,
                "{} says that it is another cell; remove that folder",
                dir.join(CARD).display()
            ),
            None => {
                let text = serde_json::to_string_pretty(&self.identity)? + "\n";
                write_atomic(&dir.join(CARD), text.as_bytes())?;
            }
        }
        match &self.config {
            Some(config) => write_atomic(&dir.join(CONFIG), config.to_toml().as_bytes()),
            None => Ok(()),
        }
    }

    /// Whether nothing is left to train.
    pub fn is_finished(&self) -> bool {
        self.config.is_none() || trained(&self.dir).is_some()
    }

    /// Seconds of training that lie in the folder.
    pub fn seconds(&self) -> f64 {
        let seconds = |line: &Value| line["seconds"].as_f64().unwrap_or(0.0);
        logs(&self.dir)
            .iter()
            .filter_map(|log| read_metrics(log).ok())
            .flat_map(|lines| lines.iter().map(seconds).collect::<Vec<_>>())
            .sum()
    }

    /// Epochs that lie in the folder.
    pub fn epochs(&self) -> u64 {
        let lines = |log: &PathBuf| {
            let text = fs::read(log).unwrap_or_default();
            text.iter().filter(|byte| **byte == b'\n').count() as u64
        };
        logs(&self.dir).iter().map(lines).sum()
    }

    /// What its training cost; `None` for what is not trained, or not to the end.
    ///
    /// # Errors
    /// When its checkpoint cannot be read.
    pub fn cost(&self) -> Result<Option<Cost>> {
        let Some(trained) = self.config.as_ref().and(trained(&self.dir)) else { return Ok(None) };
        let parameters = n_parameters(&self.dir.join(&trained.checkpoint))?;
        Ok(Some(Cost {
            parameters,
            seconds: self.seconds(),
            epochs: self.epochs(),
            gflop: self.gflop(),
            peak_bytes: trained.peak_bytes,
        }))
    }

    /// The work of all stages, each as many times that of its first epoch as it has epochs; `None`
    /// when one was not counted.
    fn gflop(&self) -> Option<f64> {
        let of_stage = |log: &PathBuf| {
            let lines = read_metrics(log).ok()?;
            Some(lines.first()?["gflop"].as_f64()? * lines.len() as f64)
        };
        logs(&self.dir).iter().map(of_stage).sum()
    }

    /// Removes what killed processes left half written.
    pub fn sweep(&self) {
        files::sweep(&self.dir);
        for split in Split::ALL {
            files::sweep(&store::folder(&self.dir, split));
        }
    }

    /// Refuses a folder in which another process works.
    ///
    /// # Errors
    /// Names the folder.
    pub fn check_free(&self) -> Result<()> {
        let dir = &self.dir;
        ensure!(
            !dir.exists()
                || Watch::new(claim::DEAD_AFTER).look(dir) == State::Free
                    && matches!(lock(dir)?, Lock::Mine(_)),
            "another process is working in {}: wait for it, or leave out --fresh to share its work",
            dir.display()
        );
        Ok(())
    }

    /// Renames the folder to `<name>.old-1`, or the first number that is free, and returns that
    /// path; `None` when there is none.
    ///
    /// # Errors
    /// When another process works there, or it cannot be renamed.
    pub fn move_aside(&self) -> Result<Option<PathBuf>> {
        let dir = &self.dir;
        if !dir.exists() {
            return Ok(None);
        }
        self.check_free()?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let mut beside = (1..).map(|n| dir.with_file_name(format!("{name}.old-{n}")));
        let aside = beside.find(|path| !path.exists()).expect("the numbers do not end");
        fs::rename(dir, &aside)
            .with_context(|| format!("cannot rename {} to {}", dir.display(), aside.display()))?;
        Ok(Some(aside))
    }
}

/// The `metrics.jsonl` of each stage in a cell's folder.
fn logs(dir: &Path) -> Vec<PathBuf> {
    let stages = fs::read_dir(dir).into_iter().flatten().flatten();
    stages.map(|entry| entry.path().join("metrics.jsonl")).filter(|log| log.is_file()).collect()
}

/// How many numbers of a checkpoint's network were trained. Running means of a normalisation are
/// none.
fn n_parameters(checkpoint: &Path) -> Result<u64> {
    let (checkpoint, config) = registry::open(checkpoint)?;
    let header = &checkpoint.header;
    let vs = VarStore::new(Device::Cpu);
    let _ = config.method.network(&header.stage, &vs.root(), &header.data.shape)?;
    Ok(vs.trainable_variables().iter().map(|variable| variable.numel() as u64).sum())
}

/// The first 12 digits of the SHA-256 of an identity, whatever the order of its keys.
fn id(identity: &Value) -> String {
    let mut sorted = identity.clone();
    sorted.sort_all_objects();
    let digest = Sha256::digest(sorted.to_string().as_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The identity that a folder says it has.
pub fn identity(dir: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(dir.join(CARD)).ok()?).ok()
}

/// The configuration that a folder was prepared with.
///
/// # Errors
/// When it was not.
pub fn config(dir: &Path) -> Result<Config> {
    let path = dir.join(CONFIG);
    let text = fs::read_to_string(&path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    Config::from_toml(&text).with_context(|| path.display().to_string())
}

/// What the training in a folder came to, if it is finished and its checkpoint is still there.
pub fn trained(dir: &Path) -> Option<Trained> {
    let text = fs::read_to_string(dir.join(TRAINED)).ok()?;
    let trained: Trained = serde_json::from_str(&text).ok()?;
    dir.join(&trained.checkpoint).is_file().then_some(trained)
}

/// Notes in a folder that its training is finished.
///
/// # Errors
/// When it cannot be written.
pub fn note_trained(dir: &Path, trained: &Trained) -> Result<()> {
    let text = serde_json::to_string_pretty(trained)? + "\n";
    write_atomic(&dir.join(TRAINED), text.as_bytes())
}

/// Takes the lock of a cell's folder, without waiting for it.
///
/// # Errors
/// When the folder cannot be written to.
pub fn lock(dir: &Path) -> Result<Lock> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock::Mine(Some(file))),
        Err(TryLockError::WouldBlock) => Ok(Lock::Held),
        Err(TryLockError::Error(err)) => {
            tracing::warn!("{}: this file system has no locks ({err})", path.display());
            Ok(Lock::Mine(None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_one_id_whatever_the_order_of_its_keys() {
        let [a, b, c] = [r#"{"a":1,"b":{"c":2,"d":3}}"#, r#"{"b":{"d":3,"c":2},"a":1}"#, "{}"]
            .map(|text| id(&serde_json::from_str(text).unwrap()));
        assert_eq!(a, b);
        assert_eq!(a.len(), 12);
        assert_ne!(a, c);
    }

    fn cell(dir: PathBuf) -> Cell {
        Cell {
            dataset: "toy".into(),
            variant: "cumdf",
            seed: Some(1),
            data: PathBuf::new(),
            identity: json!({ "seed": 1 }),
            dir,
            config: None,
        }
    }

    #[test]
    fn epochs_and_seconds_are_those_of_all_stages() {
        let dir = tempfile::tempdir().unwrap();
        let cell = cell(dir.path().join("cell"));
        assert_eq!(cell.epochs(), 0);
        for (stage, text) in [
            ("teacher", "{\"epoch\":1,\"seconds\":1.5}\n{\"epoch\":2,\"seconds\":2.0}\n"),
            ("student", "{\"epoch\":1,\"seconds\":3.0}\n{\"torn"),
        ] {
            fs::create_dir_all(cell.dir.join(stage)).unwrap();
            fs::write(cell.dir.join(stage).join("metrics.jsonl"), text).unwrap();
        }
        assert_eq!(cell.epochs(), 3);
        assert!((cell.seconds() - 6.5).abs() < 1e-9, "{}", cell.seconds());
    }

    #[test]
    fn what_is_moved_aside_stays_whole_and_what_is_in_use_is_not_moved() {
        let dir = tempfile::tempdir().unwrap();
        let cell = cell(dir.path().join("seed-1-abc"));
        assert_eq!(cell.move_aside().unwrap(), None);
        for n in 1..3 {
            cell.prepare().unwrap();
            fs::write(cell.dir.join("mark"), n.to_string()).unwrap();
            let held = lock(&cell.dir).unwrap();
            let err = cell.move_aside().unwrap_err().to_string();
            assert!(err.contains("another process"), "{err}");
            drop(held);
            let aside = cell.move_aside().unwrap().unwrap();
            assert_eq!(aside, dir.path().join(format!("seed-1-abc.old-{n}")));
            assert_eq!(fs::read_to_string(aside.join("mark")).unwrap(), n.to_string());
            assert!(!cell.dir.exists());
        }
    }
}
