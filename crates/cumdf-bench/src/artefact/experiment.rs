//! An experiment: arms that differ in settings, side by side on the validation split. What is chosen
//! there is read on the test split once, with `--test`, and the table says so.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use cumdf_data::Split;
use cumdf_train::{metrics::Metric, registry};
use serde::Deserialize;

use super::{
    Wanted,
    layout::{self, Layout},
    notes, table1,
};
use crate::{
    grid::{
        self, Measured,
        variants::{self, COMPARISON, Variant},
    },
    report::{
        self,
        table::{Kind, Section, Table},
    },
};

/// Shown by `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  cumdf-bench experiment configs/experiments/cross-fitting.toml
      every arm, as many seeds and on such data as the file says, by validation figures
  cumdf-bench experiment configs/experiments/cross-fitting.toml --data mosi.h5 --models alone,cross-fitted
      two of the arms, on a file of yours
  cumdf-bench experiment configs/experiments/cross-fitting.toml --test
      the same trainings on the test split: once, when the choice is made

An experiment is a file:
  title = \"Does a cross-fitted teacher help?\"
  base = [\"loss.srd=0.0\"]                     settings of all arms; may be left out
  seeds = 10                                  default: 2; --seeds overrides it
  data = [\"data/mosi.h5\"]                     as --data; default: the synthetic sentiment corpus
  config = [\"configs/mosi.toml\"]              as --config
  [[arm]]
  key = \"alone\"                               in files and folders
  name = \"without a teacher\"                  in tables
  set = [\"student.distillation=false\"]        settings, as after --set
  method = \"cumdf\"                            default: cumdf

The first arm is the one that the others are compared with, over test samples and over seeds, as rows of a
table are. --test trains nothing that the same command trained without it. Choose by validation figures:
whoever looks at test figures of many arms finds one that is good by chance.

What it writes to --out: experiment-NAME.json, .csv, .md, .tex and -comparisons.csv, as table1 does, NAME being
that of the file, with -test behind it under --test.";

/// Arguments of `experiment`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The experiment.
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,

    /// Read the test split instead: once, when the choice is made.
    #[arg(long)]
    pub test: bool,

    /// What is run, and how.
    #[command(flatten)]
    pub grid: grid::Args,

    /// Where it goes, and the cells it rests on.
    #[arg(long, value_name = "DIR", default_value = "runs/experiments")]
    pub out: PathBuf,
}

/// An experiment, as its file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Experiment {
    title: String,
    #[serde(default)]
    base: Vec<String>,
    seeds: Option<usize>,
    #[serde(default)]
    data: Vec<PathBuf>,
    #[serde(default)]
    config: Vec<PathBuf>,
    arm: Vec<Arm>,
}

/// Settings that are tried.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arm {
    key: String,
    name: String,
    #[serde(default)]
    set: Vec<String>,
    #[serde(default = "cumdf")]
    method: String,
}

fn cumdf() -> String {
    "cumdf".to_owned()
}

impl Experiment {
    fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let experiment: Self = toml::from_str(text)?;
        ensure!(!experiment.arm.is_empty(), "it has no [[arm]]");
        let mut keys = HashSet::new();
        for arm in &experiment.arm {
            let key = &arm.key;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            ensure!(
                !key.is_empty() && key.chars().all(plain),
                "the arm `{key}`: a key is made of lower-case letters, digits and hyphens"
            );
            ensure!(keys.insert(key), "two arms have the key `{key}`");
            registry::find(&arm.method).with_context(|| format!("the arm `{key}`"))?;
        }
        Ok(experiment)
    }

    /// A row for each arm, then the floors.
    fn rows(&self) -> Vec<Variant> {
        let arms = self.arm.iter().map(|arm| {
            let sets = self.base.iter().chain(&arm.set).map(|set| leaked(set));
            Variant {
                key: leaked(&arm.key),
                name: leaked(&arm.name),
                method: leaked(&arm.method),
                recipe: None,
                set: sets.collect::<Vec<_>>().leak(),
                kind: Kind::Trained,
                extra: false,
                quick: &[],
            }
        });
        let floors = COMPARISON.into_iter().filter(|v| v.kind == Kind::Floor);
        let own = |v: &Variant| self.arm.iter().all(|arm| arm.key != v.key);
        arms.chain(floors.filter(own)).collect()
    }
}

/// Rows live as long as the program; an experiment is read once, and is short.
fn leaked(text: &str) -> &'static str {
    text.to_owned().leak()
}

/// Makes the table; whether no cell failed.
///
/// # Errors
/// When the file is no experiment, the arguments cannot be followed, or the table cannot be written.
pub(super) fn run(args: &Args) -> Result<bool> {
    let (experiment, wanted) = (Experiment::read(&args.file)?, wanted(args)?);
    let rows = &wanted.rows;
    let Some(measured) = wanted.measure(&args.out, |_, _, _| {})? else { return Ok(false) };
    let sections = (0..measured.sources.len()).map(|s| section(&measured, s, rows));
    let stem = args.file.file_stem().unwrap_or_default().to_string_lossy();
    let (split, ending) = match args.test {
        true => ("test split, read once the choice was made", "-test"),
        false => ("validation split", ""),
    };
    let table = Table {
        name: format!("experiment-{}{ending}", grid::source::slug(&stem)),
        title: format!("{} ({split})", experiment.title),
        sections: sections.collect::<Result<_>>()?,
        provenance: measured.provenance(),
    };
    let files = report::save(&table, &args.out)?;
    super::show(&table, &files, args.grid.verbose, &measured)
}

pub(super) fn wanted(args: &Args) -> Result<Wanted> {
    let experiment = Experiment::read(&args.file)?;
    let grid = &args.grid;
    ensure!(!grid.fair, "--fair: the rows of an experiment are its arms");
    let mut grid = grid.clone();
    grid.split = if args.test { Split::Test } else { Split::Valid };
    grid.seeds = grid.seeds.or(experiment.seeds).or(Some(2));
    if grid.data.is_empty() && grid.config.is_empty() {
        grid.data.clone_from(&experiment.data);
        grid.config.clone_from(&experiment.config);
    }
    let rows = variants::select(&experiment.rows(), &grid.models, false)?;
    // Which is no first look, whatever else is said.
    grid.models = rows.iter().map(|v| v.key.to_owned()).collect();
    Ok(Wanted { grid, rows, views: Box::new(|source| layout::views(&table1::columns(source))) })
}

fn section(measured: &Measured, s: usize, rows: &[Variant]) -> Result<Section> {
    let source = &measured.sources[s];
    let layout = Layout {
        summary: source.summary(),
        columns: table1::columns(source),
        metrics: Metric::of(&source.task),
        n_headline: 2,
        counted: table1::counted(&source.task),
        reference: rows[0].key,
        paper: &|_, _, _| None,
    };
    let mut section = layout::section(measured, s, rows, &layout)?;
    section.notes.extend(notes::of_conditions(source, rows, false));
    let arms = rows.iter().filter(|v| v.kind == Kind::Trained);
    section.notes.extend(arms.map(|v| match v.set {
        [] => format!("{}: the recipe as it is", v.name),
        set => format!("{}: {}", v.name, set.join(", ")),
    }));
    Ok(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_that_is_not_understood_is_refused_with_what_is_wrong() {
        let good = "title = 'x'\n[[arm]]\nkey = 'a'\nname = 'A'\n";
        assert!(Experiment::parse(good).is_ok());
        for (text, why) in [
            ("title = 'x'\n", "missing field `arm`"),
            ("title = 'x'\narm = []\n", "it has no [[arm]]"),
            (&good.replace("'a'", "'A b'"), "lower-case letters"),
            (&format!("{good}[[arm]]\nkey = 'a'\nname = 'B'\n"), "two arms have the key `a`"),
            (&format!("{good}method = 'cumdff'\n"), "did you mean `cumdf`"),
            (&format!("{good}colour = 'red'\n"), "unknown field `colour`"),
        ] {
            let err = format!("{:#}", Experiment::parse(text).unwrap_err());
            assert!(err.contains(why), "{text}: {err}");
        }
    }

    #[test]
    fn arms_have_the_settings_of_all_and_their_own_and_the_floors_come_along() {
        let text = "title = 'x'\nbase = ['loss.srd=0.0']\n[[arm]]\nkey = 'a'\nname = 'A'\n\
                    set = ['seed=2']\n[[arm]]\nkey = 'mlp'\nname = 'M'\nmethod = 'mlp'\n";
        let rows = Experiment::parse(text).unwrap().rows();
        assert_eq!(rows[0].set, ["loss.srd=0.0", "seed=2"]);
        let keys: Vec<_> = rows.iter().map(|row| (row.key, row.kind)).collect();
        let (trained, floor) = (Kind::Trained, Kind::Floor);
        assert_eq!(
            keys,
            [("a", trained), ("mlp", trained), ("constant", floor), ("linear", floor)]
        );
    }

    #[test]
    fn the_experiments_of_this_project_are_understood() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/experiments");
        let files: Vec<_> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            for row in Experiment::read(&file).unwrap().rows() {
                let sets: Vec<_> = row.set.iter().map(ToString::to_string).collect();
                if row.kind == Kind::Trained {
                    cumdf_train::config::Config::resolve(Some(row.method), None, None, &sets)
                        .unwrap_or_else(|err| panic!("{}: {err:#}", file.display()));
                }
            }
        }
    }
}
