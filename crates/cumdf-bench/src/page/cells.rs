//! The cells that lie in a folder, whoever asked for them.
//!
//! Cells that differ in their seeds alone are a [`Group`]: together they are a row of a table.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use cumdf_data::{ModalitySet, Split, View};
use cumdf_train::{evaluate, run_dir::read_metrics};
use serde_json::Value;

use super::data::{CellCard, StageCard, rounded};
use crate::grid::{
    Tested,
    cell::{self, Trained},
    store, variants,
};

/// The folder of the cells in a table's folder.
pub(super) const FOLDER: &str = "cells";

/// A cell on disk.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The data set, as a folder.
    pub(super) slug: String,
    /// Key of the variant.
    pub(super) variant: String,
    /// Its folder.
    pub(super) dir: PathBuf,
    /// What decides its result.
    pub(super) identity: Value,
    /// The settings that it was prepared with; empty for what has none.
    pub(super) settings: toml::Table,
    /// What came of the training.
    pub(super) trained: Option<Trained>,
    /// The conditions that it was tested under with no frame hidden.
    pub(super) tested: Vec<ModalitySet>,
    /// How many views it was tested under in all.
    pub(super) n_views: usize,
    /// The metrics of its predictions under each condition, where its labels are at hand.
    pub(super) scored: Vec<Tested>,
    /// When it was prepared last.
    touched: SystemTime,
}

/// Cells of the same settings, by their seeds.
#[derive(Debug, Clone)]
pub(super) struct Group<'a>(pub(super) Vec<&'a Found>);

/// All cells below `out`, in the order of their paths. What was moved aside by `--fresh` is left
/// out, and so is a folder that says nothing about itself.
pub(super) fn find(out: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for dataset in folders(&out.join(FOLDER)) {
        for variant in folders(&dataset) {
            found.extend(folders(&variant).iter().filter_map(|dir| Found::read(dir)));
        }
    }
    found
}

/// The folders in a folder, sorted.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|e| e.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// What came of the training, whether or not its checkpoint was kept.
fn trained(dir: &Path) -> Option<Trained> {
    serde_json::from_str(&fs::read_to_string(dir.join("trained.json")).ok()?).ok()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Found {
    fn read(dir: &Path) -> Option<Self> {
        let aside = name(dir).contains(".old-");
        let identity = cell::identity(dir).filter(|_| !aside)?;
        let variant = dir.parent()?;
        let settings = fs::read_to_string(dir.join("config.toml")).unwrap_or_default();
        let tested = store::folder(dir, Split::Test);
        let is_tested = |view: &View| store::path(&tested, view).is_file();
        let conditions = ModalitySet::CONDITIONS.into_iter();
        let views = fs::read_dir(&tested).into_iter().flatten().flatten();
        let is_view = |file: &str| file.strip_suffix(".csv").map(store::parse_key);
        let stamps = ["config.toml", "cell.json"].map(|file| fs::metadata(dir.join(file)));
        Some(Self {
            slug: name(variant.parent()?),
            variant: name(variant),
            dir: dir.to_owned(),
            settings: settings.parse().unwrap_or_default(),
            trained: trained(dir),
            tested: conditions.filter(|c| is_tested(&evaluate::view(*c, 0.0))).collect(),
            n_views: views.filter(|e| is_view(&name(&e.path())).is_some_and(|v| v.is_ok())).count(),
            scored: vec![],
            touched: stamps
                .into_iter()
                .flatten()
                .filter_map(|stamp| stamp.modified().ok())
                .max()
                .unwrap_or(SystemTime::UNIX_EPOCH),
            identity,
        })
    }

    /// The seed, where one plays a part.
    pub(super) fn seed(&self) -> Option<u64> {
        self.identity["seed"].as_u64()
    }

    /// SHA-256 of its data.
    pub(super) fn sha256(&self) -> &str {
        self.identity["data"]["sha256"].as_str().unwrap_or_default()
    }

    /// Where its data was, if it was prepared with settings.
    pub(super) fn data_file(&self) -> Option<PathBuf> {
        let file = self.settings.get("data")?.get("file")?.as_str()?;
        (!file.is_empty()).then(|| PathBuf::from(file))
    }

    /// A setting at the top, such as `recipe`; empty where there is none.
    pub(super) fn text(&self, key: &str) -> String {
        self.settings.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
    }

    /// Whether nothing is left to train.
    pub(super) fn is_finished(&self) -> bool {
        self.trained.is_some() || self.settings.is_empty()
    }

    /// The identity without the seed.
    fn settings_key(&self) -> String {
        let mut identity = self.identity.clone();
        if let Some(map) = identity.as_object_mut() {
            map.remove("seed");
        }
        identity.sort_all_objects();
        identity.to_string()
    }

    /// What the page says about it.
    pub(super) fn card(&self, out: &Path, dataset: &str) -> CellCard {
        let text = |key: &str| self.identity[key].as_str().unwrap_or_default();
        let (stages, seconds) = self.stages();
        let trained_by = self.trained.as_ref().map(|trained| {
            format!("{}, version {}", trained.device.to_lowercase(), trained.version)
        });
        CellCard {
            dataset: dataset.to_owned(),
            name: model_name(&self.variant),
            model: self.variant.clone(),
            seed: self.seed(),
            folder: self.dir.strip_prefix(out).unwrap_or(&self.dir).display().to_string(),
            method: format!("{} {}", text("method"), text("formula")),
            recipe: self.text("recipe"),
            sha256: self.sha256().chars().take(12).collect(),
            is_finished: self.is_finished(),
            views: self.n_views,
            trained_by: trained_by.unwrap_or_default(),
            seconds: rounded(seconds, 1),
            stages,
        }
    }

    /// The stages in the order of the method, and their seconds together.
    fn stages(&self) -> (Vec<StageCard>, f64) {
        let order: Vec<_> = cell::config(&self.dir)
            .map(|config| config.method.stages().iter().map(|stage| stage.name).collect())
            .unwrap_or_default();
        let (mut stages, mut seconds) = (Vec::new(), 0.0);
        for folder in folders(&self.dir) {
            let log = folder.join("metrics.jsonl");
            let Ok(lines) = read_metrics(&log) else { continue };
            seconds += lines.iter().filter_map(|line| line["seconds"].as_f64()).sum::<f64>();
            let column = |pointer: &str| {
                let value = |line: &Value| line.pointer(pointer)?.as_f64();
                lines.iter().map(|line| value(line).map(|v| rounded(v, 4))).collect()
            };
            let epochs = lines.iter().filter_map(|line| line["epoch"].as_u64());
            let chosen = lines.iter().rev().find(|line| line["best"] == true);
            stages.push(StageCard {
                name: name(&folder),
                epochs: epochs.collect(),
                score: column("/score"),
                loss: column("/loss/task"),
                chosen: chosen.and_then(|line| line["epoch"].as_u64()),
            });
        }
        stages.sort_by_key(|stage| order.iter().position(|name| *name == stage.name));
        (stages, seconds)
    }
}

impl<'a> Group<'a> {
    /// The groups of one row, that which was prepared last first.
    pub(super) fn of_row(cells: &'a [Found], slug: &str, variant: &str) -> Vec<Self> {
        let mut groups: BTreeMap<String, Vec<&Found>> = BTreeMap::new();
        for cell in cells.iter().filter(|c| c.slug == slug && c.variant == variant) {
            groups.entry(cell.settings_key()).or_default().push(cell);
        }
        let mut groups: Vec<_> = groups.into_values().map(Self).collect();
        for Group(cells) in &mut groups {
            cells.sort_by_key(|cell| cell.seed());
        }
        groups.sort_by_key(|group| group.0.iter().map(|cell| cell.touched).max());
        groups.reverse();
        groups
    }
}

/// A model's name in a table; its key where it is none of ours.
pub(super) fn model_name(key: &str) -> String {
    variants::find(key).map_or(key, |v| v.name).to_owned()
}

/// Keys of all rows on a data set, in the order of the tables; those that are none of ours last.
pub(super) fn rows_of(cells: &[Found], slug: &str) -> Vec<String> {
    let mut keys: Vec<_> =
        cells.iter().filter(|cell| cell.slug == slug).map(|cell| cell.variant.clone()).collect();
    keys.sort_by_key(|key| {
        let place = variants::COMPARISON.iter().position(|v| v.key == key);
        (place.unwrap_or(usize::MAX), key.clone())
    });
    keys.dedup();
    keys
}
