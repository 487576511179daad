//! Configuration: a recipe, what a file says otherwise, what the command line says otherwise.
//!
//! A file names a `recipe` (embedded from `configs/recipes/`) and gives the keys in which it
//! differs; `--set key=value` comes last. The merged table is then read strictly, and the resolved
//! result, which names every key, lies beside every checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cumdf_data::MrmsConfig;
use cumdf_model::ModelConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// The recipes, by name. `configs/recipes/` documents each key.
const RECIPES: [(&str, &str); 2] = [
    ("paper", include_str!("../../../configs/recipes/paper.toml")),
    ("recommended", include_str!("../../../configs/recipes/recommended.toml")),
];

/// The configuration of the embedded default, `configs/synthetic.toml`.
const DEFAULT: &str = include_str!("../../../configs/synthetic.toml");

/// Everything that decides a run's result, but for the data's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The recipe whose values were not overridden: `paper` or `recommended`.
    pub recipe: String,
    /// Seed of initialisation, order, masks and dropout.
    pub seed: u64,
    /// What is read.
    pub data: DataConfig,
    /// Masks in training (MRMS).
    pub masks: MrmsConfig,
    /// The network.
    pub model: ModelConfig,
    /// Optimisation, alike for teacher and student.
    pub train: TrainConfig,
    /// The teacher's own settings.
    pub teacher: TeacherConfig,
    /// The student's own settings.
    pub student: StudentConfig,
    /// Weights of the loss terms.
    pub loss: LossConfig,
}

/// What is read, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A native HDF5 file; `synthetic` and `synthetic-emotion` are written under `data/` if absent.
    pub file: PathBuf,
    /// Standardised features are cut at plus and minus this; 0 cuts nothing.
    pub clip: f64,
    /// Whether a score's target is spread over its two neighbouring bins, not put on the nearest.
    pub soft_labels: bool,
}

/// Optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Samples a step. Paper: 35 for MOSI, 32 otherwise.
    pub batch_size: i64,
    /// Batches a window inside which samples are sorted by length, which saves padding; 1 sorts
    /// nothing.
    pub bucket: usize,
    /// Adam's step size. Paper: 0.001.
    pub learning_rate: f64,
    /// Course of the step size over a stage.
    pub schedule: Schedule,
    /// Epochs over which the step size rises linearly from 0, before the schedule.
    pub warmup_epochs: f64,
    /// Weight decay a step.
    pub weight_decay: f64,
    /// Whether the decay acts on the weights (AdamW) instead of the gradient (L2 in Adam).
    pub decoupled_decay: bool,
    /// Largest norm of a step's gradient; 0 leaves it alone.
    pub clip_norm: f64,
    /// Epochs without a better validation score before a stage ends. Paper: 20.
    pub patience: u32,
    /// What chooses the checkpoint, always on the validation split.
    pub selection: Selection,
}

/// Course of the step size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The same throughout.
    Constant,
    /// Half a cosine down to 0 at the last step (Loshchilov and Hutter, ICLR 2017).
    Cosine,
}

/// What chooses the checkpoint: the mean over the stage's validation conditions of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// The cross-entropy, lower is better.
    Loss,
    /// For scores `MAE - F1 - corr / 2`, so that a small validation split weighs three views of
    /// its few samples; for emotions weighted F1.
    Metric,
}

/// The teacher's own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Passes over the training split. Paper: 20.
    pub epochs: u32,
    /// Share of training samples guided by their true label, in [0, 1].
    pub oracle_rate: f64,
}

/// The student's own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentConfig {
    /// Passes over the training split. Paper: 20.
    pub epochs: u32,
    /// Whether a teacher is trained first and distilled.
    pub distillation: bool,
    /// Which side of the cosine in Eq. 10 goes through a learned projection.
    pub srd_projection: SrdProjection,
}

/// Which side of the cosine in Eq. 10 goes through a learned projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SrdProjection {
    /// `W_s h^s` and `W_t h^t`, as printed; both can agree on a constant direction.
    Both,
    /// `W_s h^s` and `h^t`.
    Student,
    /// `h^s` and `h^t`.
    None,
}

/// Weights of the loss terms (Eq. 10, 17, 19). The task's cross-entropy has weight 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// `lambda_1` of `L_reg`. Paper: 0.1.
    pub reg: f64,
    /// `lambda_2` of `L_cou`. Paper: 0.1.
    pub cou: f64,
    /// `lambda_3` of `L_SRD`. Paper: 0.1.
    pub srd: f64,
    /// Weight of the uni-modal cross-entropy (Eq. 11).
    pub uni: f64,
    /// Weight of the expected score's absolute error. As printed: 0.
    pub score: f64,
    /// `lambda_Q`, `lambda_K`, `lambda_V` of Eq. 17.
    pub norms: [f64; 3],
    /// `alpha` of the fused vector `H` in Eq. 10.
    pub srd_fused: f64,
    /// `alpha` of each pair `H_mn` in Eq. 10.
    pub srd_pairs: f64,
    /// `alpha` of the pooled modalities in Eq. 10, shared out by MACI.
    pub srd_modalities: f64,
}

impl Config {
    /// The configuration of a file, or of the embedded default.
    ///
    /// - `file`: a TOML file; without one, `data` alone takes the `recommended` recipe, and
    ///   nothing at all takes `configs/synthetic.toml`
    /// - `data`: what `data.file` becomes
    /// - `sets`: `key=value` in order, the value in TOML
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown, or values are out of range (all at once).
    pub fn resolve(file: Option<&Path>, data: Option<&Path>, sets: &[String]) -> Result<Self> {
        let (origin, text) = match (file, data) {
            (Some(path), _) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the configuration {}", path.display()))?;
                (path.display().to_string(), text)
            }
            (None, Some(_)) => ("the recommended recipe".into(), "recipe = 'recommended'".into()),
            (None, None) => ("configs/synthetic.toml".into(), DEFAULT.into()),
        };
        let mut own: Table =
            toml::from_str(&text).with_context(|| format!("bad config {origin}"))?;
        for assignment in sets {
            if let ("recipe", value) = parse_assignment(assignment)? {
                own.insert("recipe".into(), value); // it decides what all other keys start from
            }
        }
        let mut table = recipe(&own).with_context(|| format!("bad config {origin}"))?;
        merge(&mut table, own);
        if let Some(path) = data {
            let path = path.to_str().context("the path given with --data is not UTF-8")?;
            set(&mut table, "data.file", Value::String(path.into()))?;
        }
        for assignment in sets {
            let (key, value) = parse_assignment(assignment)?;
            set(&mut table, key, value).with_context(|| format!("--set {assignment}"))?;
        }
        let config = Self::read(table).map_err(|err| match sets {
            [] => err.context(format!("bad config {origin}")),
            _ => err.context(format!("bad config {origin} with --set {}", sets.join(" --set "))),
        })?;
        config.validate().with_context(|| format!("bad config {origin}"))?;
        Ok(config)
    }

    /// Reads a complete configuration, as it lies beside a checkpoint.
    ///
    /// # Errors
    /// When a key is missing or unknown.
    pub fn from_toml(text: &str) -> Result<Self> {
        Self::read(toml::from_str(text)?)
    }

    /// The resolved configuration as TOML, every key named.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is a TOML table")
    }

    fn read(table: Table) -> Result<Self> {
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|err| {
            let (path, message) = (err.path().to_string(), err.inner().to_string());
            anyhow!("{path}: {}{}", message.trim(), suggestion(&message))
        })
    }

    /// Refuses values out of range, all at once.
    fn validate(&self) -> Result<()> {
        let mut bad = Vec::new();
        let mut check = |good: bool, what: String| {
            if !good {
                bad.push(what);
            }
        };
        let t = &self.train;
        check(
            t.batch_size >= 2,
            format!("train.batch_size = {}: must be at least 2", t.batch_size),
        );
        check(t.bucket >= 1, format!("train.bucket = {}: must be at least 1", t.bucket));
        check(
            t.learning_rate > 0.0 && t.learning_rate <= 1.0,
            format!("train.learning_rate = {}: must lie in (0, 1]", t.learning_rate),
        );
        check(t.patience >= 1, "train.patience = 0: would stop before the first epoch".into());
        check(
            (0.0..=1.0).contains(&self.teacher.oracle_rate),
            format!("teacher.oracle_rate = {}: must lie in [0, 1]", self.teacher.oracle_rate),
        );
        check(self.teacher.epochs >= 1, "teacher.epochs = 0: nothing would be trained".into());
        check(self.student.epochs >= 1, "student.epochs = 0: nothing would be trained".into());
        let m = &self.masks;
        if let Err(err) = m.check() {
            check(false, format!("masks.{err}"));
        }
        let l = &self.loss;
        let weights = [
            ("train.warmup_epochs", t.warmup_epochs),
            ("train.weight_decay", t.weight_decay),
            ("train.clip_norm", t.clip_norm),
            ("data.clip", self.data.clip),
            ("loss.reg", l.reg),
            ("loss.cou", l.cou),
            ("loss.srd", l.srd),
            ("loss.uni", l.uni),
            ("loss.score", l.score),
            ("loss.srd_fused", l.srd_fused),
            ("loss.srd_pairs", l.srd_pairs),
            ("loss.srd_modalities", l.srd_modalities),
        ];
        for (key, value) in weights {
            let good = value.is_finite() && value >= 0.0;
            check(good, format!("{key} = {value}: must be 0 or more"));
        }
        if let Err(err) = self.model.validate() {
            bad.push(err.to_string());
        }
        ensure!(bad.is_empty(), "values out of range\n  {}", bad.join("\n  "));
        Ok(())
    }
}

/// The table of the recipe that `own` names.
fn recipe(own: &Table) -> Result<Table> {
    let names = RECIPES.map(|(name, _)| name).join(" or ");
    let Some(Value::String(wanted)) = own.get("recipe") else {
        bail!("no `recipe` is named: write recipe = \"recommended\", one of {names}");
    };
    let Some((_, text)) = RECIPES.iter().find(|(name, _)| name == wanted) else {
        bail!("recipe = \"{wanted}\" is not known: use {names}");
    };
    let mut table: Table = toml::from_str(text).expect("embedded recipes are TOML");
    table.insert("recipe".into(), Value::String(wanted.clone()));
    Ok(table)
}

/// Puts every leaf of `over` into `base`.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => merge(inner, value),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Splits `a.b=value`; a value that is no TOML is a string.
fn parse_assignment(text: &str) -> Result<(&str, Value)> {
    let Some((key, value)) = text.split_once('=') else {
        bail!("--set {text} has no `=`: write --set train.batch_size=16");
    };
    let parsed = toml::from_str::<Table>(&format!("value = {value}"));
    let value = match parsed {
        Ok(mut table) => table.remove("value").expect("just written"),
        Err(_) => Value::String(value.into()),
    };
    Ok((key.trim(), value))
}

fn set(table: &mut Table, key: &str, value: Value) -> Result<()> {
    let Some((head, rest)) = key.split_once('.') else {
        // A float's key takes an integer too: `--set train.clip_norm=1`.
        let value = match (table.get(key), value) {
            (Some(Value::Float(_)), Value::Integer(n)) => Value::Float(n as f64),
            (_, value) => value,
        };
        table.insert(key.into(), value);
        return Ok(());
    };
    match table.get_mut(head) {
        Some(Value::Table(inner)) => set(inner, rest, value),
        _ => {
            let tables: Vec<_> = table.keys().map(String::as_str).collect();
            bail!("there is no table `{head}`{}", did_you_mean(head, &tables))
        }
    }
}

/// From serde's "unknown field `x`, expected one of `a`, `b`": the nearest known key.
fn suggestion(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(unknown) if message.starts_with("unknown ") => {
            did_you_mean(unknown, &quoted.collect::<Vec<_>>())
        }
        _ => String::new(),
    }
}

fn did_you_mean(unknown: &str, known: &[&str]) -> String {
    known
        .iter()
        .map(|k| (strsim::jaro_winkler(unknown, k), k))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, k)| format!("; did you mean `{k}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        format!("{:#}", Config::resolve(None, None, &sets).expect_err("a bad value"))
    }

    #[test]
    fn the_resolved_configuration_reads_back_as_itself() {
        let config = Config::resolve(None, None, &["train.batch_size=7".into()]).unwrap();
        assert_eq!(config.train.batch_size, 7);
        assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn a_typo_is_refused_by_its_path_with_the_likely_key() {
        let error = error_of(&["train.learnin_rate=0.1"]);
        assert!(
            error.contains("train") && error.contains("did you mean `learning_rate`"),
            "{error}"
        );
        let error = error_of(&["trian.batch_size=3"]);
        assert!(error.contains("did you mean `train`"), "{error}");
    }

    #[test]
    fn another_recipe_changes_every_key_that_is_not_given() {
        let sets = ["recipe=paper".to_owned(), "train.batch_size=7".to_owned()];
        let config = Config::resolve(None, None, &sets).unwrap();
        assert_eq!((config.recipe.as_str(), config.model.hidden_dim), ("paper", 300));
        assert_eq!(config.train.batch_size, 7);
        assert!(error_of(&["recipe=nonsense"]).contains("recommended"));
    }

    #[test]
    fn all_bad_values_are_reported_at_once() {
        let error = error_of(&["train.learning_rate=3", "student.epochs=0", "model.n_heads=7"]);
        for key in ["train.learning_rate", "student.epochs", "model.hidden_dim"] {
            assert!(error.contains(key), "{key} is not in: {error}");
        }
    }

    #[test]
    fn every_file_in_configs_resolves() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let mut n_files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                Config::resolve(Some(&path), None, &[]).unwrap();
                n_files += 1;
            }
        }
        assert_eq!(n_files, 6);
    }
}
