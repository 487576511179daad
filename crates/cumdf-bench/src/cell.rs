//! One model, one data set, one seed: trained, tested under every condition, written down.
//!
//! A cell runs in a process of its own with one thread. libtorch's random generator is global to a
//! process, so two trainings cannot share one; and models this small gain more from two processes
//! than from two threads.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use cumdf_data::{Corpus, Dataset, Split};
use cumdf_train::{
    config::Config,
    device, evaluate,
    metrics::{Metric, score},
    pipeline,
    run_dir::write_atomic,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const IDENTITY: &str = "cell.json";
const CONFIG: &str = "config.toml";
const RESULT: &str = "result.json";
const RUN: &str = "run";

/// Which model was trained on what: two cells of equal identity have equal results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the data set, as the table shows it.
    pub dataset: String,
    /// Key of the model.
    pub model: String,
    /// Seed of the run.
    pub seed: u64,
    /// SHA-256 of the resolved configuration, seed included.
    pub config_sha256: String,
    /// SHA-256 of the data file.
    pub data_sha256: String,
}

/// A cell to run.
#[derive(Debug, Clone)]
pub struct Cell {
    /// What it is.
    pub identity: Identity,
    /// The resolved configuration, seed included.
    pub config: Config,
    /// Its folder, `<out>/cells/<data set>/<model>/seed-<n>`.
    pub dir: PathBuf,
}

/// What a finished cell leaves behind as `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// What was run.
    #[serde(flatten)]
    pub identity: Identity,
    /// Version of this program.
    pub version: String,
    /// The device it ran on.
    pub device: String,
    /// Wall time of the session that finished it.
    pub seconds: f64,
    /// Condition to metric to figure on the test split, F1 and accuracies in percent; conditions the
    /// data cannot answer are left out.
    pub figures: BTreeMap<String, BTreeMap<String, f64>>,
}

impl CellResult {
    /// A figure as [`Metric`] stores it: F1 and accuracies as fractions.
    pub fn value(&self, condition: &str, metric: &Metric) -> Option<f64> {
        let figure = *self.figures.get(condition)?.get(&metric.key())?;
        Some(if metric.is_fraction() { figure / 100.0 } else { figure })
    }
}

impl Cell {
    /// The cell of one model, data set and seed under `out`.
    ///
    /// - `dataset`, `slug`: the name in tables and the one of the folder
    pub fn new(
        out: &Path,
        (dataset, slug): (&str, &str),
        model: &str,
        config: Config,
        data_sha256: &str,
    ) -> Self {
        let identity = Identity {
            dataset: dataset.to_owned(),
            model: model.to_owned(),
            seed: config.seed,
            config_sha256: sha256(&config.to_toml()),
            data_sha256: data_sha256.to_owned(),
        };
        let dir = out.join("cells").join(slug).join(model).join(format!("seed-{}", config.seed));
        Self { identity, config, dir }
    }

    /// The result of an earlier run of this very cell, if it was finished.
    pub fn finished(&self) -> Option<CellResult> {
        let text = fs::read_to_string(self.dir.join(RESULT)).ok()?;
        let result: CellResult = serde_json::from_str(&text).ok()?;
        let same = result.identity == self.identity && result.version == env!("CARGO_PKG_VERSION");
        same.then_some(result)
    }

    /// Makes the folder ready: a training of this very cell stays to be continued, anything else
    /// that lay there goes.
    pub fn prepare(&self) -> Result<()> {
        let dir = &self.dir;
        let prepare = || -> Result<()> {
            fs::create_dir_all(dir)?;
            let here = fs::read_to_string(dir.join(IDENTITY)).ok();
            let here = here.and_then(|text| serde_json::from_str::<Identity>(&text).ok());
            if here.as_ref() != Some(&self.identity) {
                remove(dir.join(RESULT), |path| fs::remove_file(path))?;
                remove(self.run_dir(), |path| fs::remove_dir_all(path))?;
                write_atomic(&dir.join(CONFIG), self.config.to_toml().as_bytes())?;
                // Last, so that a folder with this file is one with nothing older in it.
                let identity = serde_json::to_string_pretty(&self.identity)?;
                write_atomic(&dir.join(IDENTITY), identity.as_bytes())?;
            }
            Ok(())
        };
        prepare().with_context(|| format!("cannot prepare {}", dir.display()))
    }

    /// Makes [`Cell::prepare`] begin anew.
    pub fn forget(&self) -> Result<()> {
        [IDENTITY, RESULT]
            .iter()
            .try_for_each(|name| remove(self.dir.join(name), |path| fs::remove_file(path)))
            .with_context(|| format!("cannot clear {}", self.dir.display()))
    }

    /// The folder of the training.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join(RUN)
    }
}

/// Runs the cell that [`Cell::prepare`] laid out in `dir`; what the hidden subcommand `cell` does.
pub fn run(dir: &Path, device_name: &str) -> Result<CellResult> {
    let start = Instant::now();
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let identity: Identity = serde_json::from_str(&read(IDENTITY)?)
        .with_context(|| format!("{}/{IDENTITY} was not written by this program", dir.display()))?;
    let config = Config::from_toml(&read(CONFIG)?)?;
    let device = device::parse_device(device_name)?;

    let dataset = Dataset::open(&config.data.file)?;
    ensure!(
        dataset.sha256 == identity.data_sha256,
        "{} changed while the table was being made; run the same command again",
        config.data.file.display()
    );
    let corpus = Corpus::prepare(&dataset, config.data.clip, config.data.soft_labels, device)?;
    drop(dataset);

    let checkpoint = pipeline::train(&config, &corpus, device, &dir.join(RUN))?;

    let model = evaluate::load(&checkpoint, device)?;
    let mut figures = BTreeMap::new();
    for condition in pipeline::conditions(corpus.present(Split::Test)) {
        let view = evaluate::view(condition, 0.0);
        let predictions = evaluate::predict(&model.net, &corpus.test, &view)?;
        let metrics = score(&corpus.task, corpus.labels(Split::Test), &predictions.probs);
        let values = metrics.iter().map(|(metric, value)| (metric.key(), metric.reported(*value)));
        figures.insert(condition.key(), values.collect());
    }
    let result = CellResult {
        identity,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: format!("{device:?}"),
        seconds: start.elapsed().as_secs_f64(),
        figures,
    };
    write_atomic(&dir.join(RESULT), serde_json::to_string_pretty(&result)?.as_bytes())?;
    Ok(result)
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Removes what may not be there.
fn remove(path: PathBuf, how: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match how(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}
