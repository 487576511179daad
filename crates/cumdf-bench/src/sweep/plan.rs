//! A plan: all cells of a table or figure as a JSON file, enough to run each of them on another
//! machine, and to make the table at the end.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use cumdf_data::Split;
use cumdf_train::config::Config;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Wanted;
use crate::{
    artefact::{self, Artefact},
    grid::{cell::Cell, store},
    report,
};

/// The version of the format that this program writes and reads.
pub const VERSION: u64 = 1;

/// Arguments of `sweep plan`.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = EXAMPLES)]
#[group(skip)] // it would have the name of the group in `table1`
pub struct Args {
    /// What is planned; without one, Table 1.
    #[command(subcommand)]
    artefact: Option<Artefact>,

    #[command(flatten)]
    table1: artefact::Args,
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench sweep plan --data mosi.h5 --models cumdf,emt --seeds 5 > plan.json
  cumdf-bench sweep plan figure3 --data mosi.h5 --drop-ratios 0,0.5,1 > figure3.json
  cumdf-bench sweep plan --device cuda --data mosi.h5 --out /shared/five > plan.json

The arguments are those of the command that makes the table: they decide which cells there are, and `sweep
tables` uses them again. --jobs, --fresh and --verbose play no part. The kind of device is part of a cell, as
figures differ in their last digits between kinds: name it where this machine has not what the cells will
get. Nothing is trained or written; --out is where the cells will be.";

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of this format.
    pub version: u64,
    /// The version of the program that planned.
    pub program: String,
    /// The folder in which it was called; relative paths in `arguments` start there.
    pub folder: PathBuf,
    /// The command that makes the table: `table1 --data mosi.h5 ..`.
    pub arguments: Vec<String>,
    /// Where the cells and the table go, as an absolute path.
    pub out: PathBuf,
    /// The kind of device: `cpu`, `cuda` or `mps`.
    pub device: String,
    /// The split that is predicted.
    #[serde(default = "test")]
    pub split: Split,
    /// All cells, in the order of running.
    pub cells: Vec<Planned>,
}

/// A cell of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// Its place in the plan, from 0.
    pub index: usize,
    /// What people call it.
    pub title: String,
    /// The data set, as tables show it.
    pub dataset: String,
    /// Key of the row.
    pub variant: String,
    /// The seed, where one plays a part.
    pub seed: Option<u64>,
    /// Its folder, from `out` on.
    pub dir: PathBuf,
    /// The data file, as an absolute path; another one of the same content will do.
    pub data: PathBuf,
    /// What decides the result; its `data.sha256` says what the data file must hold.
    pub identity: Value,
    /// The resolved configuration; `None` for what is not trained.
    pub config: Option<Value>,
    /// Keys of the views under which it is tested.
    pub views: Vec<String>,
}

/// What plans of older versions are for.
const fn test() -> Split {
    Split::Test
}

/// Prints a plan.
///
/// # Errors
/// When the arguments cannot be followed.
pub(super) fn print(args: &Args) -> Result<bool> {
    let mut artefact = args.artefact.clone().unwrap_or(Artefact::Table1(args.table1.clone()));
    let mut arguments = Vec::new();
    for argument in env::args_os().skip_while(|argument| argument != "plan").skip(1) {
        let argument = argument.into_string();
        arguments.push(argument.map_err(|bad| {
            anyhow::anyhow!("{} is not UTF-8, which a plan has to be", bad.display())
        })?);
    }
    if args.artefact.is_none() {
        arguments.insert(0, "table1".to_owned());
    }
    let plan = Plan::new(&mut artefact, arguments)?;
    tracing::info!("{} cells for {} in {}", plan.cells.len(), plan.device, plan.out.display());
    report::print(&(serde_json::to_string_pretty(&plan)? + "\n"))?;
    Ok(true)
}

impl Plan {
    /// The plan of an artefact that `arguments` ask for.
    fn new(artefact: &mut Artefact, arguments: Vec<String>) -> Result<Self> {
        let out = std::path::absolute(&*artefact.out())?;
        let device = artefact.grid().kind()?;
        let cells = artefact.plan(&out)?;
        let planned = |(index, (cell, views)): (usize, Wanted)| {
            Ok(Planned {
                index,
                title: cell.title(),
                dir: cell.dir.strip_prefix(&out)?.to_owned(),
                dataset: cell.dataset,
                variant: cell.variant.to_owned(),
                seed: cell.seed,
                data: cell.data,
                identity: cell.identity,
                config: cell.config.map(|config| config.to_json()),
                views: views.iter().map(store::key).collect(),
            })
        };
        Ok(Self {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            folder: env::current_dir()?,
            arguments,
            device,
            split: artefact.grid().split,
            cells: cells.into_iter().enumerate().map(planned).collect::<Result<_>>()?,
            out,
        })
    }

    /// The cells at `indices`, which are all when there are none.
    ///
    /// - `data`: where data files are on this machine, by the SHA-256 of their content
    ///
    /// # Errors
    /// When an index is none of the plan's, or a cell is not what this program would make of it.
    pub(super) fn cells(
        &self,
        indices: &[usize],
        data: &BTreeMap<String, PathBuf>,
    ) -> Result<Vec<Wanted>> {
        let n = self.cells.len();
        let wanted: Vec<usize> =
            if indices.is_empty() { (0..n).collect() } else { indices.to_vec() };
        let cell = |index: usize| {
            let planned = self.cells.get(index).with_context(|| {
                format!("there is no cell {index}: the plan has {n}, counted from 0")
            })?;
            let cell = planned.cell(&self.out, &self.device, data);
            cell.with_context(|| format!("cell {index} of the plan ({})", planned.title))
        };
        wanted.into_iter().map(cell).collect()
    }
}

impl Planned {
    /// SHA-256 of its data.
    pub(super) fn sha256(&self) -> &str {
        self.identity["data"]["sha256"].as_str().unwrap_or_default()
    }

    /// The cell under `out`, with its views.
    fn cell(&self, out: &Path, device: &str, data: &BTreeMap<String, PathBuf>) -> Result<Wanted> {
        let views = self.views.iter().map(|key| store::parse_key(key)).collect::<Result<_>>()?;
        let data = data.get(self.sha256()).unwrap_or(&self.data);
        let mut config = self.config.as_ref().map(Config::from_json).transpose()?;
        if let Some(config) = &mut config {
            let mut identity = config.identity(self.sha256(), &config.method.stages());
            identity["device"] = json!(device);
            ensure!(
                identity == self.identity,
                "this version of the program would train another cell: {}; plan anew",
                cumdf_train::run_dir::differences(&self.identity, &identity)
            );
            config.data.file.clone_from(data);
        }
        let cell = Cell {
            dataset: self.dataset.clone(),
            variant: self.variant.clone().leak(), // a plan is read once, and a key is short
            seed: self.seed,
            data: data.clone(),
            identity: self.identity.clone(),
            dir: out.join(&self.dir),
            config,
        };
        Ok((cell, views))
    }
}

/// Reads a plan.
///
/// # Errors
/// When it is torn, of another version, or no plan.
pub fn read(path: &Path) -> Result<Plan> {
    let at = || path.display().to_string();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", at()))?;
    parse(&text).with_context(at)
}

fn parse(text: &str) -> Result<Plan> {
    if text.trim().is_empty() {
        bail!("it is empty: `sweep plan` failed, or has not finished yet");
    }
    let value: Value = serde_json::from_str(text)
        .context("it is torn, or no plan; make it anew with `sweep plan .. > FILE`")?;
    let Some(version) = value["version"].as_u64() else {
        bail!("it is no plan: it has no `version`; `sweep plan .. > FILE` makes one");
    };
    ensure!(
        version == VERSION,
        "it is a plan of version {version}, and this program (cumdf-bench {}) reads version \
         {VERSION}; plan anew, or use the program that planned ({})",
        env!("CARGO_PKG_VERSION"),
        value["program"].as_str().unwrap_or("unknown")
    );
    let plan: Plan = serde_json::from_value(value).context("it is no plan that is whole")?;
    ensure!(!plan.cells.is_empty(), "it has no cells");
    for (i, planned) in plan.cells.iter().enumerate() {
        ensure!(planned.index == i, "its cell {i} says that it is cell {}", planned.index);
        ensure!(
            planned.dir.components().all(|part| matches!(part, Component::Normal(_))),
            "its cell {i} lies outside of the folder: {}",
            planned.dir.display()
        );
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let config = Config::resolve(Some("mlp"), None, None, &[]).unwrap();
        let mut identity = config.identity("ab", &config.method.stages());
        identity["device"] = json!("cpu");
        let planned = Planned {
            index: 0,
            title: "toy, mlp, seed 1".into(),
            dataset: "toy".into(),
            variant: "mlp".into(),
            seed: Some(1),
            dir: "cells/toy/mlp/seed-1-abc".into(),
            data: "/data/toy.h5".into(),
            identity,
            config: Some(config.to_json()),
            views: ["lav", "la-p0.3"].map(String::from).to_vec(),
        };
        Plan {
            version: VERSION,
            program: "0".into(),
            folder: "/".into(),
            arguments: vec!["table1".into()],
            out: "/out".into(),
            device: "cpu".into(),
            split: test(),
            cells: vec![planned],
        }
    }

    fn refused(change: impl FnOnce(&mut Value)) -> String {
        let mut value = serde_json::to_value(plan()).unwrap();
        change(&mut value);
        format!("{:#}", parse(&value.to_string()).unwrap_err())
    }

    #[test]
    fn a_plan_reads_back_and_its_cells_are_those_of_the_program() {
        let plan = plan();
        assert_eq!(parse(&serde_json::to_string_pretty(&plan).unwrap()).unwrap(), plan);
        let here = BTreeMap::from([("ab".to_owned(), PathBuf::from("/elsewhere/toy.h5"))]);
        let [(cell, views)] = &plan.cells(&[], &here).unwrap()[..] else { panic!("one cell") };
        assert_eq!(cell.dir, Path::new("/out/cells/toy/mlp/seed-1-abc"));
        assert_eq!(cell.data, Path::new("/elsewhere/toy.h5"));
        assert_eq!(cell.title(), plan.cells[0].title);
        assert_eq!(views.iter().map(store::key).collect::<Vec<_>>(), plan.cells[0].views);
        let err = plan.cells(&[1], &here).unwrap_err().to_string();
        assert_eq!(err, "there is no cell 1: the plan has 1, counted from 0");
    }

    #[test]
    fn a_plan_that_is_torn_or_not_understood_is_refused() {
        let text = serde_json::to_string_pretty(&plan()).unwrap();
        for length in 1..text.len() {
            let err = format!("{:#}", parse(&text[..length]).unwrap_err());
            assert!(err.starts_with("it is torn"), "{length}: {err}");
        }
        assert!(parse("\n").unwrap_err().to_string().contains("it is empty"));
        assert!(parse("{}").unwrap_err().to_string().contains("it has no `version`"));
        let err = refused(|plan| plan["version"] = json!(2));
        assert!(err.starts_with("it is a plan of version 2, and this program"), "{err}");
        let err = refused(|plan| plan["colour"] = json!("red"));
        assert!(err.contains("unknown field `colour`"), "{err}");
        let err = refused(|plan| plan["cells"][0]["index"] = json!(3));
        assert!(err.contains("its cell 0 says that it is cell 3"), "{err}");
        for dir in ["../x", "/x"] {
            let err = refused(|plan| plan["cells"][0]["dir"] = json!(dir));
            assert!(err.contains("lies outside of the folder"), "{err}");
        }
    }

    #[test]
    fn a_cell_of_other_formulas_or_settings_than_it_says_is_refused() {
        for change in [
            |cell: &mut Planned| cell.identity["formula"] = json!("0.0"),
            |cell: &mut Planned| cell.config.as_mut().unwrap()["seed"] = json!(2),
            |cell: &mut Planned| cell.identity["device"] = json!("cuda"),
        ] {
            let mut plan = plan();
            change(&mut plan.cells[0]);
            let err = format!("{:#}", plan.cells(&[], &BTreeMap::new()).unwrap_err());
            assert!(
                err.starts_with("cell 0 of the plan (toy, mlp, seed 1): this version"),
                "{err}"
            );
        }
    }
}
