//! `docs/results.md` from the raw results that are kept in `results/`: no figure in it is typed by
//! hand.
//!
//! `results/<date>/<name>.json` are files of tables, as `table1` and others write them.
//! `results/results.md.jinja` is the text around them; its functions are those of `functions`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use cumdf_data::ModalitySet;
use cumdf_train::{metrics::Metric, run_dir::write_atomic};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    grid::{store, variants},
    report::{
        kept::{Comparison, Figure},
        provenance::Provenance,
        table::Question,
    },
};

const TEMPLATE: &str = "results/results.md.jinja";
const OUTPUT: &str = "docs/results.md";

/// Arguments of `results`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Changes nothing, and fails when docs/results.md is not what would be written.
    #[arg(long)]
    pub check: bool,

    /// Keeps a table's JSON first, under the name that --as gives: its figures, its provenance, and of
    /// its comparisons those with CUMDF, or with an experiment's first arm.
    #[arg(long, value_name = "FILE.json", requires = "name")]
    pub keep: Option<PathBuf>,

    /// Day and name of what is kept, such as 2026-11-25/five-seeds.
    #[arg(long = "as", value_name = "DAY/NAME", requires = "keep")]
    pub name: Option<String>,

    /// The project's folder.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub root: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench results --keep runs/table1/table1.json --as 2026-11-25/five-seeds
      then let results/results.md.jinja name it, and
  cumdf-bench results
  cumdf-bench results --check
      what the tests do";

/// Writes `docs/results.md`, or compares it.
///
/// # Errors
/// When a kept result or the template is damaged; with `check`, when the page is another.
pub fn run(args: &Args) -> Result<bool> {
    if let (Some(file), Some(name)) = (&args.keep, &args.name) {
        keep(&args.root, file, name)?;
    }
    let text = render(&args.root)?;
    let path = args.root.join(OUTPUT);
    if args.check {
        let there = fs::read_to_string(&path).unwrap_or_default();
        ensure!(
            there == text,
            "{} is not what {TEMPLATE} and the results make of it; run `cumdf-bench results`",
            path.display()
        );
        tracing::info!("{} is true", path.display());
    } else {
        write_atomic(&path, text.as_bytes())?;
        tracing::info!("written: {}", path.display());
    }
    Ok(true)
}

/// Puts what the page needs of a table's file into `results/<name>.json`, a record a line.
fn keep(root: &Path, file: &Path, name: &str) -> Result<()> {
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    ensure!(
        name.split('/').count() == 2 && name.split('/').all(plain),
        "--as {name}: a day and a name, such as 2026-11-25/five-seeds"
    );
    let read = || -> Result<Value> { Ok(serde_json::from_str(&fs::read_to_string(file)?)?) };
    let mut table = read().with_context(|| file.display().to_string())?;
    // Where data lie is no result; their names and sums are.
    for data in table["provenance"]["data"].as_array_mut().into_iter().flatten() {
        let name = data["file"].as_str().and_then(|path| Path::new(path).file_name());
        data["file"] = name.map(|name| name.to_string_lossy().into_owned()).into();
    }
    let lines = |key: &str, is_kept: &dyn Fn(&Value) -> bool| -> Result<String> {
        let list = table[key].as_array();
        let list = list.with_context(|| format!("{}: there is no list {key}", file.display()))?;
        let lines: Vec<_> = list.iter().filter(|r| is_kept(r)).map(Value::to_string).collect();
        Ok(lines.join(",\n"))
    };
    let figures = lines("figures", &|_| true)?;
    let asks = Question::Reference.key();
    let comparisons = lines("comparisons", &|record| record["question"] == asks)?;
    let costs = lines("costs", &|_| true)?;
    let provenance = serde_json::to_string_pretty(&table["provenance"])?;
    let text = format!(
        "{{\n\"title\": {},\n\"provenance\": {provenance},\n\"figures\": [\n{figures}\n],\n\
         \"comparisons\": [\n{comparisons}\n],\n\"costs\": [\n{costs}\n]\n}}\n",
        table["title"]
    );
    let path = root.join("results").join(name).with_extension("json");
    fs::create_dir_all(path.parent().unwrap_or(root))?;
    write_atomic(&path, text.as_bytes())?;
    tracing::info!("kept: {}", path.display());
    Ok(())
}

/// The page's text.
///
/// # Errors
/// When a kept result or the template is damaged.
pub fn render(root: &Path) -> Result<String> {
    let kept = Arc::new(read(root)?);
    let template = root.join(TEMPLATE);
    let text = fs::read_to_string(&template)
        .with_context(|| format!("cannot read {}", template.display()))?;
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_keep_trailing_newline(true);
    env.set_trim_blocks(true);
    functions(&mut env, &kept);
    env.render_str(&text, ()).with_context(|| template.display().to_string())
}

/// A kept table.
#[derive(Debug, Deserialize)]
struct Kept {
    provenance: Provenance,
    figures: Vec<Figure>,
    comparisons: Vec<Comparison>,
}

/// All kept tables by `<date>/<name>`.
fn read(root: &Path) -> Result<BTreeMap<String, Kept>> {
    let mut kept = BTreeMap::new();
    let folder = root.join("results");
    let entries = |dir: &Path| -> Vec<PathBuf> {
        let all = fs::read_dir(dir).into_iter().flatten().flatten();
        all.map(|entry| entry.path()).collect()
    };
    for file in entries(&folder).iter().flat_map(|day| entries(day)) {
        if file.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let name = file.strip_prefix(&folder)?.with_extension("");
        let text = fs::read_to_string(&file).context(file.display().to_string())?;
        let table = serde_json::from_str(&text).context(file.display().to_string())?;
        kept.insert(name.display().to_string(), table);
    }
    ensure!(!kept.is_empty(), "{}: no results are kept there", folder.display());
    Ok(kept)
}

/// What the template can ask for; tables are named `<date>/<name>`, models, conditions and metrics by
/// their keys.
///
/// - `grid(table, dataset, metric)`: a table of rows by columns
/// - `figure(table, dataset, model, condition, metric)`: mean and spread
/// - `standings(table, dataset)`: how many figures of each row stand above and below the floor
/// - `differences(table, dataset, metric, condition)`: the row that others are compared with, CUMDF or
///   an experiment's first arm, less these
/// - `provenance(table)`: a list
fn functions(env: &mut Environment<'_>, kept: &Arc<BTreeMap<String, Kept>>) {
    let all = Arc::clone(kept);
    env.add_function("grid", move |name: &str, dataset: &str, metric: &str| {
        find(&all, name)?.grid(dataset, metric)
    });
    let all = Arc::clone(kept);
    env.add_function(
        "figure",
        move |name: &str, dataset: &str, model: &str, condition: &str, metric: &str| {
            let found = find(&all, name)?.figure(dataset, model, condition, metric);
            found.map(text).ok_or_else(|| {
                problem(format!("{name}: no {metric} of {model} under {condition} on {dataset}"))
            })
        },
    );
    let all = Arc::clone(kept);
    env.add_function("standings", move |name: &str, dataset: &str| {
        find(&all, name)?.standings(dataset)
    });
    let all = Arc::clone(kept);
    env.add_function(
        "differences",
        move |name: &str, dataset: &str, metric: &str, condition: &str| {
            find(&all, name)?.differences(dataset, metric, condition)
        },
    );
    let all = Arc::clone(kept);
    env.add_function("provenance", move |name: &str| {
        let lines = find(&all, name)?.provenance.lines();
        let line = |(what, value)| format!("- {what}: `{value}`\n");
        Ok::<_, Error>(lines.into_iter().map(line).collect::<String>())
    });
}

fn find<'a>(kept: &'a BTreeMap<String, Kept>, name: &str) -> Result<&'a Kept, Error> {
    kept.get(name).ok_or_else(|| {
        let known: Vec<_> = kept.keys().map(String::as_str).collect();
        problem(format!("no results are kept as {name}; there are {}", known.join(", ")))
    })
}

fn problem(text: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

/// The metric of a key, as far as its unit goes.
fn metric(key: &str) -> Metric {
    match key {
        "mae" => Metric::Mae,
        "corr" => Metric::Corr,
        _ => Metric::F1, // percent
    }
}

fn name(model: &str) -> &str {
    variants::find(model).map_or(model, |variant| variant.name)
}

fn label(condition: &str) -> String {
    match store::parse_key(condition) {
        Ok(view) if view.drop_ratio > 0.0 => format!("{} at {}", view.condition, view.drop_ratio),
        Ok(view) => view.condition.to_string(),
        Err(_) => condition.to_owned(),
    }
}

/// Mean and spread with their marks.
fn text(figure: &Figure) -> String {
    let Some(mean) = figure.mean else { return "n/a".to_owned() };
    let digits = if metric(&figure.metric).is_fraction() { 1 } else { 3 };
    let spread = figure.std.map(|std| format!(" ± {std:.digits$}")).unwrap_or_default();
    let bold = if figure.best { "**" } else { "" };
    let mark = match figure.standing.as_deref() {
        Some("above") => " \\*",
        Some("below") => " †",
        _ => "",
    };
    format!("{bold}{mean:.digits$}{bold}{spread}{mark}")
}

impl Kept {
    fn of<'a>(&'a self, dataset: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |figure| figure.dataset == dataset)
    }

    fn figure(&self, dataset: &str, model: &str, condition: &str, metric: &str) -> Option<&Figure> {
        self.figures
            .iter()
            .filter(|f| f.dataset == dataset)
            .find(|f| f.model == model && f.condition == condition && f.metric == metric)
    }

    fn models<'a>(&'a self, dataset: &'a str) -> Result<Vec<&'a str>, Error> {
        let mut models: Vec<&str> = Vec::new();
        for figure in self.of(dataset) {
            if !models.contains(&figure.model.as_str()) {
                models.push(&figure.model);
            }
        }
        match models.is_empty() {
            true => Err(problem(format!("there is no data set {dataset}"))),
            false => Ok(models),
        }
    }

    fn grid(&self, dataset: &str, metric: &str) -> Result<String, Error> {
        let models = self.models(dataset)?;
        let first = models[0];
        let columns: Vec<_> = self
            .of(dataset)
            .filter(|f| f.model == first && f.metric == metric)
            .map(|f| f.condition.as_str())
            .collect();
        if columns.is_empty() {
            return Err(problem(format!("there is no {metric} of {dataset}")));
        }
        let heads: Vec<_> = columns.iter().map(|c| label(c)).collect();
        let mut out = format!("| {metric} | seeds | {} |\n", heads.join(" | "));
        out += &format!("| --- | ---: |{}\n", " ---: |".repeat(columns.len()));
        for model in models {
            let figures: Vec<_> =
                columns.iter().filter_map(|c| self.figure(dataset, model, c, metric)).collect();
            let seeds = figures.iter().map(|f| f.seeds).max().unwrap_or(0);
            let cells: Vec<_> = figures.iter().map(|f| text(f)).collect();
            out += &format!("| {} | {seeds} | {} |\n", name(model), cells.join(" | "));
        }
        Ok(out)
    }

    /// Over MAE, F1 and correlation, or the F1 over emotions; equal columns once, sums left out.
    fn standings(&self, dataset: &str) -> Result<String, Error> {
        let mut out = "| | above | below | of |\n| --- | ---: | ---: | ---: |\n".to_owned();
        for model in self.models(dataset)? {
            let counted = self.of(dataset).filter(|f| {
                f.model == model
                    && ["mae", "f1", "corr"].contains(&f.metric.as_str())
                    && f.same_as.is_none()
                    && f.condition.parse::<ModalitySet>().is_ok()
            });
            let standings: Vec<_> = counted.filter_map(|f| f.standing.as_deref()).collect();
            let n = |which: &str| standings.iter().filter(|s| **s == which).count();
            if !standings.is_empty() {
                let (above, below, all) = (n("above"), n("below"), standings.len());
                out += &format!("| {} | {above} | {below} | {all} |\n", name(model));
            }
        }
        Ok(out)
    }

    fn differences(&self, dataset: &str, metric: &str, condition: &str) -> Result<String, Error> {
        let digits = if self::metric(metric).is_fraction() { 1 } else { 3 };
        let interval = |low: f64, high: f64| format!("{low:+.digits$} to {high:+.digits$}");
        let found = self.comparisons.iter().filter(|c| {
            c.question == Question::Reference.key()
                && c.dataset == dataset
                && c.metric == metric
                && c.condition == condition
        });
        let found: Vec<_> = found.collect();
        let Some(first) = found.first() else {
            return Err(problem(format!(
                "no row's {metric} was compared with others on {dataset}"
            )));
        };
        let mut out = format!(
            "| {} less | difference | 95 % of draws | p (Holm) | 95 % over seeds | more than chance |\n\
             | --- | ---: | ---: | ---: | ---: | --- |\n",
            name(&first.model)
        );
        for c in found {
            let seeds = c.seeds_low.zip(c.seeds_high).map(|(low, high)| interval(low, high));
            out += &format!(
                "| {} | {:+.digits$} | {} | {:.4} | {} | {} |\n",
                name(&c.other),
                c.difference,
                interval(c.low, c.high),
                c.p_holm,
                seeds.unwrap_or_else(|| "-".to_owned()),
                if c.real { "yes" } else { "no" },
            );
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page in docs is what the kept results make of the template.
    #[test]
    fn no_figure_of_the_results_page_is_typed_by_hand() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let args = Args { check: true, keep: None, name: None, root };
        run(&args).expect("docs/results.md is up to date");
    }

    #[test]
    fn what_the_template_asks_for_and_is_not_there_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let day = dir.path().join("results/2026-01-01");
        fs::create_dir_all(&day).expect("made");
        let figure = |model: &str, mean: f64| {
            serde_json::json!({
                "dataset": "toy", "model": model, "condition": "la", "same_as": null,
                "metric": "mae", "mean": mean, "std": 0.25, "seeds": 2, "standing": "above",
                "best": model == "cumdf",
            })
        };
        let table = serde_json::json!({
            "provenance": {
                "version": "1", "commit": "abc", "command": "cumdf-bench table1", "machine": "m",
                "seeds": 2, "overrides": [], "data": [],
            },
            "figures": [figure("cumdf", 0.5), figure("emt", 0.75)],
            "comparisons": [],
        });
        fs::write(day.join("two.json"), table.to_string()).expect("written");
        let of = |template: &str| {
            fs::write(dir.path().join(TEMPLATE), template).expect("written");
            render(dir.path()).map_err(|err| format!("{err:#}"))
        };
        assert_eq!(
            of("{{ grid('2026-01-01/two', 'toy', 'mae') }}").expect("there"),
            "| mae | seeds | {l,a} |\n| --- | ---: | ---: |\n\
             | CUMDF | 2 | **0.500** ± 0.250 \\* |\n| EMT | 2 | 0.750 ± 0.250 \\* |\n"
        );
        assert_eq!(
            of("{{ figure('2026-01-01/two', 'toy', 'emt', 'la', 'mae') }}").expect("there"),
            "0.750 ± 0.250 \\*"
        );
        for (template, why) in [
            ("{{ grid('two', 'toy', 'mae') }}", "there are 2026-01-01/two"),
            ("{{ grid('2026-01-01/two', 'mosi', 'mae') }}", "no data set mosi"),
            ("{{ grid('2026-01-01/two', 'toy', 'f1') }}", "no f1 of toy"),
            (
                "{{ differences('2026-01-01/two', 'toy', 'mae', 'mean') }}",
                "was compared with others",
            ),
            ("{{ nothing }}", "undefined"),
        ] {
            let problem = of(template).expect_err("refused");
            assert!(problem.contains(why), "{template}: {problem}");
        }
    }
}
