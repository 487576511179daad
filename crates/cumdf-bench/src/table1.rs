//! Table 1: every model under the seven sets of present modalities, on any number of data sets.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Result, ensure};
use cumdf_data::{Dataset, Modality, ModalitySet, Task};
use cumdf_train::{
    config::Config,
    device,
    metrics::{Metric, Metrics, constant_floor},
    pipeline,
};

use crate::{
    cell::{self, CellResult},
    models::{self, Kind, Model},
    paper,
    schedule::{self, Job, Options},
    table::{Cell, Column, Estimate, Row, Section, Table, Value},
    write,
};

/// The paper's number of seeds.
const PAPER_SEEDS: usize = 5;

/// Arguments of `table1`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// A data file in the native layout (docs/data.md); may be given several times.
    ///
    /// Takes the `recommended` recipe, unless --config says otherwise. Without --data and --config
    /// the table is made for the synthetic sentiment corpus, which is written to data/ at first
    /// use.
    #[arg(long, value_name = "FILE.h5")]
    pub data: Vec<PathBuf>,

    /// A configuration, such as configs/mosi.toml; may be given several times.
    ///
    /// Names its own data file. With --data beside it, one configuration is used for all files,
    /// and as many configurations as files are paired with them in order.
    #[arg(long, value_name = "FILE.toml")]
    pub config: Vec<PathBuf>,

    /// Models to run, separated by commas: cumdf, cumdf-no-distillation. Default: all.
    ///
    /// The constant answer, the floor, is always in the table.
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    pub models: Vec<String>,

    /// Number of seeds, counted up from the configuration's. The paper takes 5.
    #[arg(long, value_name = "N", default_value = "2")]
    pub seeds: NonZeroUsize,

    /// Where the table goes, and the trainings it rests on.
    #[arg(long, value_name = "DIR", default_value = "runs/table1")]
    pub out: PathBuf,

    /// Overrides a key of every configuration, such as train.batch_size=16; may be given several
    /// times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Where to compute: auto, cpu, cuda, cuda:N or mps.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,

    /// Trainings at once, each in a process with one thread and the data in memory. Default: the
    /// number of cores, or 1 on a GPU.
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,

    /// Run everything again, even what is finished in --out.
    #[arg(long)]
    pub fresh: bool,

    /// Show what the trainings say, and all metrics in the terminal.
    #[arg(long, short)]
    pub verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench table1
      the synthetic sentiment corpus: a few minutes on a laptop
  cumdf-bench table1 --data mosi.h5 --data iemocap.h5 --seeds 5
      two files of yours, with as many seeds as the paper
  cumdf-bench table1 --config configs/mosi.toml --data mosi.h5 --models cumdf --out runs/paper
      the paper's own settings, one model
  cumdf-bench table1 --set teacher.epochs=2 --set student.epochs=2 --seeds 1 --out runs/try
      a quick look

What it writes to --out:
  table1.json, table1.csv    one line per data set, model, condition and metric: mean, std, seeds,
                             paper, floor; F1 and accuracies in percent, as in the paper
  table1.md, table1.tex      the table, for people
  cells/                     the trainings, with their checkpoints and logs

A table that was interrupted continues where it stopped: give the same command again. Cells whose
configuration and data are unchanged are taken from --out, everything else runs anew.
The exit code is 1 when a training failed; the table of the others is written all the same.";

/// One data set of the table.
struct Source {
    dataset: String, // as the table shows it
    name: String,    // as the file says it
    slug: String,
    config: Config,
    sha256: String,
    task: Task,
    sizes: [usize; 3],
    floor: Metrics,
    in_train: ModalitySet,
    in_test: ModalitySet,
}

/// Makes the table; whether no training failed.
pub fn run(args: &Args) -> Result<bool> {
    let models = models::select(&args.models)?;
    let on_gpu = device::parse_device(&args.device)? != tch::Device::Cpu;
    let mut sources = Vec::new();
    for config in configs(args)? {
        sources.push(Source::open(config, &sources)?);
    }

    let jobs = plan(args, &sources, &models)?;
    let (mut results, mut open) = (Vec::new(), Vec::new());
    for job in jobs {
        match job.cell.finished() {
            Some(result) => results.push((job, Ok(result))),
            None => open.push(job),
        }
    }
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let n_processes = args.jobs.map_or(if on_gpu { 1 } else { cores }, NonZeroUsize::get);
    if !results.is_empty() {
        tracing::info!("{} cells are finished already in {}", results.len(), args.out.display());
    }
    if !open.is_empty() {
        let at_once = n_processes.min(open.len());
        tracing::info!("{} cells to run, {at_once} at once", open.len());
    }
    let options = Options { n_processes, device: args.device.clone(), verbose: args.verbose };
    let new = schedule::run(&open, &options);
    results.extend(open.into_iter().zip(new));

    let table = assemble(args, &sources, &models, &results);
    let files = write::save(&table, &args.out)?;
    write::print(&write::terminal(&table, args.verbose))?;
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    write::print(&format!("\nwritten: {}\n", files.join(", ")))?;

    let n_failed = results.iter().filter(|(_, result)| result.is_err()).count();
    if n_failed > 0 {
        tracing::error!(
            "{n_failed} of {} trainings failed; the same command tries them again",
            results.len()
        );
    }
    Ok(n_failed == 0)
}

/// One configuration per data set.
fn configs(args: &Args) -> Result<Vec<Config>> {
    let resolve =
        |config: Option<&Path>, data: Option<&Path>| Config::resolve(config, data, &args.set);
    let (configs, data) = (&args.config, &args.data);
    match (configs.len(), data.len()) {
        (0, 0) => Ok(vec![resolve(None, None)?]),
        (0, _) => data.iter().map(|file| resolve(None, Some(file))).collect(),
        (_, 0) => configs.iter().map(|config| resolve(Some(config), None)).collect(),
        (1, _) => data.iter().map(|file| resolve(Some(&configs[0]), Some(file))).collect(),
        (n, m) => {
            ensure!(
                n == m,
                "{n} --config and {m} --data cannot be paired: give one --config for all files, or \
                 one for each"
            );
            let pairs = configs.iter().zip(data);
            pairs.map(|(config, file)| resolve(Some(config), Some(file))).collect()
        }
    }
}

impl Source {
    fn open(mut config: Config, before: &[Self]) -> Result<Self> {
        config.data.file = pipeline::data_file(&config.data)?;
        let data = Dataset::open(&config.data.file)?;
        // Two files, or two recipes for one file, may bear the same name.
        let n_same = before.iter().filter(|other| other.name == data.name).count();
        let dataset = match n_same {
            0 => data.name.clone(),
            n => format!("{} #{}", data.name, n + 1),
        };
        Ok(Self {
            slug: slug(&dataset),
            dataset,
            config,
            sha256: data.sha256.clone(),
            task: data.task.clone(),
            sizes: [data.train.len(), data.valid.len(), data.test.len()],
            floor: constant_floor(&data.task, &data.train.labels, &data.test.labels),
            in_train: data.train.available(),
            in_test: data.test.available(),
            name: data.name,
        })
    }

    /// Why the test under `condition` would not show what its name says; `None` when it does.
    fn not_available(&self, condition: ModalitySet) -> Option<String> {
        let lacking = names(|m| !self.in_test.contains(m));
        (!self.in_test.contains_all(condition)).then(|| format!("the test split has no {lacking}"))
    }

    /// What to know about modalities that only the test split has; `None` where there are none.
    fn untrained(&self) -> Option<String> {
        let untrained = |m| self.in_test.contains(m) && !self.in_train.contains(m);
        Modality::ALL.into_iter().any(untrained).then(|| {
            let names = names(untrained);
            format!(
                "the training split has no {names}, so {names} is hidden at test too: alone it \
                 shows the model's answer to nothing, beside others theirs"
            )
        })
    }

    fn summary(&self) -> String {
        let [train, valid, test] = self.sizes;
        let task = match &self.task {
            Task::Sentiment { lo, hi } => format!("scores from {lo} to {hi}"),
            Task::Emotion { classes } => classes.join(", "),
        };
        format!("{train} / {valid} / {test} samples, {task}")
    }
}

/// The modalities that `are`, in words.
fn names(are: impl Fn(Modality) -> bool) -> String {
    let names = Modality::ALL.into_iter().filter(|m| are(*m)).map(Modality::name);
    names.collect::<Vec<_>>().join(" and ")
}

/// All cells: a first seed of everything, then a second, so that a table is soon complete.
fn plan(args: &Args, sources: &[Source], models: &[Model]) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for seed in 0..args.seeds.get() as u64 {
        for source in sources {
            for model in models.iter().filter(|m| m.kind == Kind::Trained) {
                let mut config = source.config.clone();
                config.seed += seed;
                let names = (source.dataset.as_str(), source.slug.as_str());
                config.student.distillation = model.key == "cumdf";
                let n_epochs = config.student.epochs
                    + if config.student.distillation { config.teacher.epochs } else { 0 };
                let cell = cell::Cell::new(&args.out, names, model.key, config, &source.sha256);
                if args.fresh {
                    cell.forget()?;
                }
                jobs.push(Job { cell, n_epochs: u64::from(n_epochs) });
            }
        }
    }
    Ok(jobs)
}

fn assemble(
    args: &Args,
    sources: &[Source],
    models: &[Model],
    results: &[(Job, Result<CellResult>)],
) -> Table {
    let sections = sources.iter().map(|source| section(args, source, models, results)).collect();
    Table {
        name: "table1".to_owned(),
        title: "Table 1: models under missing modalities (test split)".to_owned(),
        sections,
    }
}

fn section(
    args: &Args,
    source: &Source,
    models: &[Model],
    results: &[(Job, Result<CellResult>)],
) -> Section {
    let metrics = Metric::of(&source.task);
    let printed = paper::source(&source.name);
    let row = |model: &Model| {
        let runs: Vec<_> = results
            .iter()
            .filter(|(job, _)| {
                let id = &job.cell.identity;
                id.dataset == source.dataset && id.model == model.key
            })
            .collect();
        let cells = ModalitySet::CONDITIONS.map(|condition| {
            let cell = |metric: &Metric| {
                let figure = |paper| paper::figure(paper, model.key, &condition.key(), metric);
                let value = match (source.not_available(condition), model.kind) {
                    (Some(reason), _) => Value::NotAvailable(reason),
                    (None, Kind::Reserved) => Value::NotYet,
                    (None, Kind::Constant) => constant(&source.floor, metric),
                    (None, Kind::Trained) => measured(&runs, &condition.key(), &metric.key()),
                };
                Cell { value, paper: printed.as_ref().and_then(figure) }
            };
            metrics.iter().map(cell).collect()
        });
        Row { model: model.key.to_owned(), name: model.name.to_owned(), cells: cells.into() }
    };
    let rows: Vec<_> = models.iter().map(row).collect();
    let floor: Vec<_> = metrics.iter().map(|m| source.floor.get(m).unwrap_or(f64::NAN)).collect();
    let file = source.config.data.file.display();
    let mut notes = vec![
        format!("data: {file}; recipe: {}", source.config.recipe),
        seeds_note(args.seeds.get()),
        FLOOR_NOTE.to_owned(),
    ];
    notes.extend(source.untrained());
    if let Some(printed) = &printed {
        notes.extend(paper_notes(printed, &metrics, &floor));
    }
    notes.extend(partly_failed(source, results));
    Section {
        dataset: source.dataset.clone(),
        summary: source.summary(),
        columns: ModalitySet::CONDITIONS
            .map(|condition| Column { key: condition.key(), label: condition.to_string() })
            .into(),
        metrics,
        n_headline: 2,
        rows,
        floor,
        notes,
    }
}

const FLOOR_NOTE: &str = "floor: one answer for every sample, chosen on train for each metric \
                          (median score, commoner sign, commonest class)";

fn seeds_note(n_seeds: usize) -> String {
    match n_seeds {
        1 => format!("1 seed (the paper: {PAPER_SEEDS}): no spread can be told"),
        PAPER_SEEDS => format!("mean and sample standard deviation over {n_seeds} seeds"),
        n => {
            format!("mean and sample standard deviation over {n} seeds (the paper: {PAPER_SEEDS})")
        }
    }
}

fn constant(floor: &Metrics, metric: &Metric) -> Value {
    let mean = floor.get(metric).unwrap_or(f64::NAN);
    Value::Measured(Estimate { mean, std: None, seeds: 1 })
}

fn measured(runs: &[&(Job, Result<CellResult>)], condition: &str, metric: &str) -> Value {
    let results = runs.iter().filter_map(|(_, result)| result.as_ref().ok());
    let values: Vec<_> =
        results.filter_map(|r| r.conditions.get(condition)?.get(metric).copied()).collect();
    match Estimate::of(&values) {
        Some(estimate) => Value::Measured(estimate),
        None => {
            let errors = runs.iter().filter_map(|(job, result)| {
                Some(format!("seed {}: {:#}", job.cell.identity.seed, result.as_ref().err()?))
            });
            Value::Failed(errors.collect::<Vec<_>>().join("; "))
        }
    }
}

/// A note for each model of which some seeds failed and others did not.
fn partly_failed(source: &Source, results: &[(Job, Result<CellResult>)]) -> Vec<String> {
    let mut seeds: BTreeMap<&str, (usize, BTreeSet<u64>)> = BTreeMap::new();
    for (job, result) in results {
        let id = &job.cell.identity;
        if id.dataset == source.dataset {
            let (n_good, failed) = seeds.entry(&id.model).or_default();
            match result {
                Ok(_) => *n_good += 1,
                Err(_) => drop(failed.insert(id.seed)),
            }
        }
    }
    seeds
        .into_iter()
        .filter(|(_, (n_good, failed))| *n_good > 0 && !failed.is_empty())
        .map(|(model, (n_good, failed))| {
            let failed: Vec<_> = failed.iter().map(u64::to_string).collect();
            format!("{model}: {n_good} seeds only, as seed {} failed", failed.join(", "))
        })
        .collect()
}

/// Where the paper's figures are from, and what to think of when reading them.
fn paper_notes(printed: &paper::Source, metrics: &[Metric], floor: &[f64]) -> Vec<String> {
    let mut note = format!("paper: its Table {}, {}, 5 seeds", printed.table, printed.dataset);
    if printed.other_features {
        note += "; this file has other features than the paper's";
    }
    let mut notes = vec![note];
    for (metric, floor) in metrics.iter().zip(floor) {
        let figures: Vec<_> = models::MODELS
            .iter()
            .flat_map(|m| ModalitySet::CONDITIONS.map(|c| (c, m.key)))
            .filter_map(|(c, m)| Some((c, paper::figure(printed, m, &c.key(), metric)?)))
            .collect();
        let below = figures.iter().filter(|(_, figure)| metric.is_better(*floor, *figure)).count();
        if below > 0 {
            notes.push(format!(
                "{below} of the {} printed figures of {} are below this file's floor",
                figures.len(),
                metric.label()
            ));
        }
        let alone = figures.iter().filter(|(condition, _)| condition.len() == 1);
        let worst = alone.map(|(_, figure)| *figure).fold(f64::NAN, f64::max);
        if *metric == Metric::Mae && worst < 0.7 * floor {
            notes.push(format!(
                "the printed MAEs of a single modality are {} or better where a constant reaches {}: \
                 sound or sight alone do not tell that much about these scores, read them with care",
                metric.format(worst),
                metric.format(*floor)
            ));
        }
    }
    notes
}

/// A name as a folder: lower case, what is no letter or digit becomes a hyphen.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        match c.is_alphanumeric() {
            true => slug.push(c),
            false if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            false => {}
        }
    }
    match slug.trim_end_matches('-') {
        "" => "unnamed".to_owned(),
        slug => slug.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_folders() {
        assert_eq!(slug("CMU-MOSI (bc-LSTM features)"), "cmu-mosi-bc-lstm-features");
        assert_eq!(slug("../x"), "x");
        assert_eq!(slug("?!"), "unnamed");
    }

    #[test]
    fn the_papers_oddities_are_told() {
        let mosi = paper::source("CMU-MOSI (bc-LSTM features)").unwrap();
        let notes = paper_notes(&mosi, &[Metric::Mae, Metric::F1], &[1.377, 0.218]);
        assert_eq!(
            notes[0],
            "paper: its Table 1, MOSI, 5 seeds; this file has other features than the paper's"
        );
        assert!(notes[1].starts_with("the printed MAEs of a single modality are 0.857 or better"));
        let iemocap = paper::source("IEMOCAP").unwrap();
        let happy = Metric::F1Class("happy".into());
        let notes = paper_notes(&iemocap, &[happy], &[0.79]);
        assert_eq!(
            notes[1],
            "36 of the 56 printed figures of F1 happy are below this file's floor"
        );
    }
}
