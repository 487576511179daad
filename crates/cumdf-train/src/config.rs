//! Configuration: a recipe, what a file says otherwise, what the command line says otherwise.
//!
//! A recipe (embedded from `configs/recipes/`) names every key of one method. A file names a
//! `recipe` and gives the keys in which it differs; `--set key=value` comes last. The merged table
//! is then read strictly, and the resolved result, which names every key, lies beside every
//! checkpoint.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cumdf_data::Task;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use toml::{Table, Value};

use crate::{
    method::{Entry, Fits, Method, Recipe},
    overrides::{full_key, leaves, merge, parse_assignment, set},
    registry,
    stage::Stage,
    strict::{did_you_mean, strict},
};

/// The configuration of the embedded default, `configs/synthetic.toml`.
const DEFAULT: &str = include_str!("../../../configs/synthetic.toml");
/// The method that is meant where none is named.
const DEFAULT_METHOD: &str = "cumdf";
/// Keys that every method has.
pub(crate) const COMMON: [&str; 4] = ["recipe", "method", "seed", "data"];
/// Larger seeds are not exact in every reader of JSON.
pub const LARGEST_SEED: u64 = (1 << 53) - 1;
/// Standardised values cut closer than this to 0 would hold next to nothing.
const LEAST_CLIP: f64 = 0.1;

/// Everything that decides a run's result, but for the data's content.
#[derive(Debug, Clone)]
pub struct Config {
    /// The recipe whose values were not overridden.
    pub recipe: String,
    /// The method, as the registry lists it.
    pub entry: &'static Entry,
    /// Seed of initialisation, order, masks and dropout.
    pub seed: u64,
    /// What is read.
    pub data: DataConfig,
    /// The method with its settings.
    pub method: Arc<dyn Method>,
    tables: Table, // the method's, every key named
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

/// The keys that every method has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Common {
    recipe: String,
    method: String,
    seed: u64,
    data: DataConfig,
}

impl Config {
    /// The configuration of a file, or of the embedded default.
    ///
    /// - `method`: the method, where no file names a recipe; a file of another method is refused
    /// - `file`: a TOML file; without one, the method's default recipe for the data's labels, and
    ///   with nothing at all `configs/synthetic.toml`
    /// - `data`: what `data.file` becomes
    /// - `sets`: `key=value` in order, the value in TOML
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown, or values are out of range (all at once).
    pub fn resolve(
        method: Option<&str>,
        file: Option<&Path>,
        data: Option<&Path>,
        sets: &[String],
    ) -> Result<Self> {
        let (origin, text) = match (file, data, method) {
            (Some(path), ..) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the configuration {}", path.display()))?;
                (path.display().to_string(), text)
            }
            (None, None, None | Some(DEFAULT_METHOD)) => {
                ("configs/synthetic.toml".into(), DEFAULT.into())
            }
            (None, ..) => ("the default recipe".into(), String::new()),
        };
        let bad = || format!("bad config {origin}");
        let mut own: Table = toml::from_str(&text).with_context(bad)?;
        let (mut assignments, mut given_file) = (Vec::new(), None);
        for text in sets {
            let (key, value) = parse_assignment(text)?;
            // What other keys start from, and the file whose labels choose a recipe.
            match key {
                "recipe" | "method" => drop(own.insert(key.into(), value)),
                "data.file" => given_file = Some(value.as_str().unwrap_or_default().to_owned()),
                _ => assignments.push((text, key, value)),
            }
        }
        let data = data.map(Path::to_owned).or(given_file.map(PathBuf::from));
        let data = data.as_deref();
        let (entry, recipe) = choose_recipe(method, &own, data).with_context(bad)?;
        let mut table: Table = toml::from_str(recipe.text).expect("embedded recipes are TOML");
        own.insert("recipe".into(), Value::String(recipe.name.into()));
        own.entry("method").or_insert_with(|| Value::String(entry.name.into()));
        merge(&mut table, own);
        if let Some(path) = data {
            let path = path.to_str().context("the path given with --data is not UTF-8")?;
            set(&mut table, "data.file", Value::String(path.into()))?;
        }
        for (text, key, value) in assignments {
            let whole = table.clone();
            set(&mut table, key, value)
                .map_err(|err| anyhow!("{err}{}", full_key(&whole, key)))
                .with_context(|| format!("--set {text}"))?;
        }
        let given = table.clone();
        let config = Self::read(table).map_err(|err| match sets {
            [] => err.context(bad()),
            _ => err.context(format!("{} with --set {}", bad(), sets.join(" --set "))),
        })?;
        debug_assert_eq!(given.len(), config.tables.len() + COMMON.len());
        config.validate().with_context(bad)?;
        Ok(config)
    }

    /// Reads a complete configuration, as it lies beside a checkpoint.
    ///
    /// # Errors
    /// When a key is missing or unknown, or a value out of range.
    pub fn from_toml(text: &str) -> Result<Self> {
        let config = Self::read(toml::from_str(text)?)?;
        config.validate()?;
        Ok(config)
    }

    /// Reads a complete configuration, as it stands in a checkpoint.
    ///
    /// # Errors
    /// As [`Config::from_toml`].
    pub fn from_json(json: &serde_json::Value) -> Result<Self> {
        let table = Table::try_from(json).context("it is no table of settings")?;
        let config = Self::read(table)?;
        config.validate()?;
        Ok(config)
    }

    /// The resolved configuration as TOML, every key named.
    pub fn to_toml(&self) -> String {
        let common = Common {
            recipe: self.recipe.clone(),
            method: self.entry.name.into(),
            seed: self.seed,
            data: self.data.clone(),
        };
        let mut table = Table::try_from(&common).expect("a configuration is a TOML table");
        table.extend(self.tables.clone());
        toml::to_string_pretty(&table).expect("a configuration is a TOML table")
    }

    /// The same as JSON, for checkpoints.
    pub fn to_json(&self) -> serde_json::Value {
        let table: Table = toml::from_str(&self.to_toml()).expect("just written");
        serde_json::to_value(table).expect("TOML fits into JSON")
    }

    /// The full names of the keys, of one method or any, whose last part is `name`.
    pub fn keys_called(name: &str, method: Option<&str>) -> Vec<String> {
        let methods = registry::METHODS.iter().filter(|e| method.is_none_or(|m| m == e.name));
        let recipes = methods.flat_map(|entry| entry.recipes);
        let tables = recipes.map(|recipe| toml::from_str::<Table>(recipe.text));
        let mut keys: Vec<_> = tables
            .flat_map(|table| leaves(&table.expect("embedded recipes are TOML")))
            .filter(|key| key.rsplit('.').next() == Some(name))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The method's settings as their own type.
    ///
    /// # Errors
    /// When they are another method's.
    pub fn settings<M: DeserializeOwned>(&self) -> Result<M> {
        strict(self.tables.clone())
    }

    /// Refuses a recipe that is for other labels than the data have.
    ///
    /// # Errors
    /// Names the recipes of the method that fit.
    pub fn check_labels(&self, task: &Task) -> Result<()> {
        let recipes = self.entry.recipes;
        let Some(own) = recipes.iter().find(|recipe| recipe.name == self.recipe) else {
            return Ok(());
        };
        let fitting: Vec<_> =
            recipes.iter().filter(|recipe| recipe.fits.suits(task)).map(|r| r.name).collect();
        ensure!(
            own.fits.suits(task),
            "the recipe `{}` is for other labels than {} has ({task}): use {}",
            self.recipe,
            self.data.file.display(),
            fitting.join(" or ")
        );
        Ok(())
    }

    /// What decides the result of `stages`: the method and the version of its formulas, seed,
    /// settings, and how which data (by content, wherever they lie) are read.
    pub fn identity(&self, data_sha256: &str, stages: &[Stage]) -> serde_json::Value {
        let settings: serde_json::Map<_, _> =
            stages.iter().map(|stage| (stage.name.to_owned(), stage.settings.clone())).collect();
        let mut data = json!({ "sha256": data_sha256, "clip": self.data.clip });
        if self.method.reads_soft_labels() {
            data["soft_labels"] = json!(self.data.soft_labels);
        }
        json!({
            "method": self.entry.name,
            "formula": format!("{}.{}", crate::FORMULA, self.entry.formula),
            "seed": self.seed,
            "data": data,
            "settings": settings,
        })
    }

    fn read(mut table: Table) -> Result<Self> {
        let common: Table = COMMON
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), table.remove(*key)?)))
            .collect();
        let common: Common = strict(common)?;
        let entry = registry::find(&common.method)?;
        let (method, tables) = (entry.read)(table)?;
        Ok(Self {
            recipe: common.recipe,
            entry,
            seed: common.seed,
            data: common.data,
            method: Arc::from(method),
            tables,
        })
    }

    /// Refuses values out of range, all at once.
    fn validate(&self) -> Result<()> {
        let mut bad = Vec::new();
        if self.seed > LARGEST_SEED {
            bad.push(format!("seed = {}: must lie in 0 to {LARGEST_SEED}", self.seed));
        }
        let clip = self.data.clip;
        let cuts = clip.is_finite() && clip >= LEAST_CLIP;
        if !(cuts || clip.to_bits() == 0) {
            bad.push(format!(
                "data.clip = {clip}: must be 0 (cuts nothing), or {LEAST_CLIP} or more"
            ));
        }
        bad.extend(self.method.problems());
        ensure!(bad.is_empty(), "values out of range\n  {}", bad.join("\n  "));
        Ok(())
    }
}

/// The method and the recipe that `own` builds on.
fn choose_recipe(
    method: Option<&str>,
    own: &Table,
    data: Option<&Path>,
) -> Result<(&'static Entry, &'static Recipe)> {
    let text = |key: &str| match own.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => bail!("{key} = {other}: must be a name"),
    };
    let (named, recipe) = (text("method")?, text("recipe")?);
    let asked = method.or(named).map(registry::find).transpose()?;
    let chosen = match recipe {
        Some(name) => find_recipe(name)?,
        None => {
            let entry = asked.map_or_else(|| registry::find(DEFAULT_METHOD), Ok)?;
            let file = data.map(Path::to_owned).or_else(|| {
                let file = own.get("data")?.get("file")?.as_str()?;
                Some(PathBuf::from(file))
            });
            (entry, default_recipe(entry, file.as_deref())?)
        }
    };
    for name in [method, named].into_iter().flatten() {
        ensure!(
            chosen.0.name == name,
            "recipe `{}` is of the method {}, and {name} was asked for",
            chosen.1.name,
            chosen.0.name
        );
    }
    Ok(chosen)
}

fn find_recipe(name: &str) -> Result<(&'static Entry, &'static Recipe)> {
    let recipes = || {
        registry::METHODS
            .iter()
            .flat_map(|entry| entry.recipes.iter().map(|recipe| (*entry, recipe)))
    };
    recipes().find(|(_, recipe)| recipe.name == name).ok_or_else(|| {
        let names: Vec<_> = recipes().map(|(_, recipe)| recipe.name).collect();
        let hint = did_you_mean(name, &names);
        anyhow!("recipe = \"{name}\" is not known{hint}; there are {}", names.join(", "))
    })
}

/// The first recipe of `entry` for the labels of `file`, which is opened only where it matters.
fn default_recipe(entry: &'static Entry, file: Option<&Path>) -> Result<&'static Recipe> {
    let any = entry.recipes.iter().find(|recipe| recipe.fits == Fits::Any);
    if let Some(recipe) = any {
        return Ok(recipe);
    }
    let is_for = |fits: Fits| entry.recipes.iter().find(|recipe| recipe.fits == fits);
    let recipe = match file.and_then(Path::to_str) {
        None | Some("synthetic") => is_for(Fits::Sentiment),
        Some("synthetic-emotion") => is_for(Fits::Emotion),
        Some(path) => {
            let task = cumdf_data::task_of(Path::new(path))?;
            entry.recipes.iter().find(|recipe| recipe.fits.suits(&task))
        }
    };
    recipe.with_context(|| format!("{} has no recipe for such labels", entry.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        format!("{:#}", Config::resolve(None, None, None, &sets).expect_err("a bad value"))
    }

    #[test]
    fn the_resolved_configuration_reads_back_as_itself() {
        let config = Config::resolve(None, None, None, &["train.batch_size=7".into()]).unwrap();
        assert_eq!(config.method.stages()[0].train.batch_size, 7);
        let toml = config.to_toml();
        assert_eq!(Config::from_toml(&toml).unwrap().to_toml(), toml);
        assert_eq!(Config::from_json(&config.to_json()).unwrap().to_toml(), toml);
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
        let config = Config::resolve(None, None, None, &sets).unwrap();
        assert!(config.to_toml().contains("hidden_dim = 300"), "{}", config.to_toml());
        assert_eq!(config.recipe, "paper");
        assert_eq!(config.method.stages()[0].train.batch_size, 7);
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
    fn a_key_without_its_table_is_told_the_whole_name() {
        let error = error_of(&["batch_size=16"]);
        assert!(error.contains("did you mean `train.batch_size`"), "{error}");
        let error = error_of(&["epochs=3"]);
        assert!(
            error.contains("`student.epochs`") && error.contains("`teacher.epochs`"),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_another_type_is_refused_in_the_words_of_toml() {
        for (set, want) in [
            (
                "train.batch_size=\"many\"",
                "train.batch_size: found string \"many\", expected a whole",
            ),
            ("train.batch_size=1.5", "expected a whole number"),
            ("train.patience=-1", "expected a whole number of 0 or more"),
            ("model=3", "model: found integer `3`, expected a table"),
            ("train.learning_rate=true", "expected a number"),
            ("seed=-1", "seed: found integer `-1`, expected a whole number of 0 or more"),
            ("model.mke=1", "expected true or false"),
        ] {
            let error = error_of(&[set]);
            assert!(error.contains(want), "{set}: {error}");
            for rust in ["i64", "u64", "f64", "struct", "usize", "u32"] {
                assert!(!error.contains(rust), "{set} speaks Rust ({rust}): {error}");
            }
        }
    }

    #[test]
    fn values_that_were_accepted_and_wrong_are_refused() {
        for (set, want) in [
            ("loss.norms=[1e-4, -1.0, 0.0]", "loss.norms"),
            ("train.warmup_epochs=1e300", "train.warmup_epochs"),
            ("data.clip=1e-300", "data.clip"),
            ("data.clip=-1.0", "data.clip"),
            ("seed=9223372036854775807", "seed"),
            ("model.hidden_dim=1000000000000", "model.hidden_dim"),
            ("model.ffn_dim=1000000000000", "model.ffn_dim"),
            ("model.kernel_sizes=[1000000001, 1, 1]", "model.kernel_sizes"),
        ] {
            let error = error_of(&[set]);
            assert!(error.contains("out of range") && error.contains(want), "{set}: {error}");
        }
    }

    #[test]
    fn one_of_several_things_replaces_another_whole() {
        let sets = [
            "train.clip={ value = 0.5 }",
            "train.schedule={ step = { epochs = 3, factor = 0.1 } }",
        ];
        let sets: Vec<_> = sets.iter().map(|s| (*s).to_owned()).collect();
        let config = Config::resolve(None, None, None, &sets).unwrap();
        let train = config.method.stages().remove(0).train;
        assert_eq!(train.clip, crate::policy::Clip::Value(0.5));
        assert_eq!(train.schedule, crate::policy::Schedule::Step { epochs: 3, factor: 0.1 });
    }

    #[test]
    fn every_recipe_is_complete_and_valid() {
        for (entry, recipe) in
            registry::METHODS.iter().flat_map(|e| e.recipes.iter().map(move |r| (e, r)))
        {
            let sets = [format!("recipe={}", recipe.name)];
            let config = Config::resolve(Some(entry.name), None, None, &sets).unwrap();
            let written: Table = toml::from_str(recipe.text).unwrap();
            let resolved: Table = toml::from_str(&config.to_toml()).unwrap();
            for key in leaves(&resolved).iter().filter(|key| *key != "recipe") {
                assert!(leaves(&written).contains(key), "{} leaves out {key}", recipe.name);
            }
        }
    }

    #[test]
    fn every_file_in_configs_resolves() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let mut n_files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml") {
                Config::resolve(None, Some(&path), None, &[]).unwrap();
                n_files += 1;
            }
        }
        assert_eq!(n_files, 6);
    }
}
