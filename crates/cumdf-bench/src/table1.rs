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
    models::{self, Model},
    paper,
    report::{
        self,
        table::{Cell, Column, Estimate, Kind, Row, Section, Table, Value},
    },
    schedule::{self, Job, Options},
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
    /// The constant answer, which a model must beat to be of use (a floor), is always in the table.
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
  table1.json, table1.csv    one line per data set, model, condition and metric: mean and standard
                             deviation over seeds, the paper's figure, the best floor's figure and
                             whose it is; F1 and accuracies in percent, as in the paper
  table1.md, table1.tex      the table, for people
  cells/                     the trainings, with their checkpoints and logs

A table that was interrupted continues where it stopped: give the same command again. Trainings
whose configuration and data are unchanged are taken from --out, everything else runs anew.
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
    dims: [i64; 3],    // 0 for a modality that no split has
    constant: Metrics, // what a constant answer reaches
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
        tracing::info!(
            "{} trainings are finished already in {}",
            results.len(),
            args.out.display()
        );
    }
    if !open.is_empty() {
        let at_once = n_processes.min(open.len());
        tracing::info!("{} trainings to run, {at_once} at once", open.len());
    }
    let options = Options { n_processes, device: args.device.clone(), verbose: args.verbose };
    let new = schedule::run(&open, &options);
    results.extend(open.into_iter().zip(new));

    let table = assemble(args, &sources, &models, &results);
    let files = report::save(&table, &args.out)?;
    let width = report::width();
    report::print(&report::terminal(&table, args.verbose, width))?;
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    let written = report::wrap(&files.join(", "), "written: ", width);
    report::print(&format!("\n{written}"))?;

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
        let splits = [&data.train, &data.valid, &data.test];
        let anywhere = splits.map(|s| s.available()).into_iter().reduce(ModalitySet::union);
        let anywhere = anywhere.expect("there are three splits");
        Ok(Self {
            slug: slug(&dataset),
            dataset,
            config,
            sha256: data.sha256.clone(),
            task: data.task.clone(),
            sizes: [data.train.len(), data.valid.len(), data.test.len()],
            dims: Modality::ALL.map(|m| match anywhere.contains(m) {
                true => data.dims[m.index()],
                false => 0,
            }),
            constant: constant_floor(&data.task, &data.train.labels, &data.test.labels),
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

    /// An earlier condition whose figures are the same, because the two differ only in modalities
    /// that are never trained and therefore hidden at test.
    fn same_as(&self, condition: ModalitySet) -> Option<ModalitySet> {
        let seen = |condition: ModalitySet| condition.intersection(self.in_train);
        let available = |condition: &ModalitySet| self.in_test.contains_all(*condition);
        ModalitySet::CONDITIONS
            .into_iter()
            .take_while(|earlier| *earlier != condition && available(&condition))
            .filter(available)
            .find(|earlier| seen(*earlier) == seen(condition))
    }

    /// What to know about modalities that only the test split has; `None` where there are none.
    fn untrained(&self) -> Option<String> {
        let untrained = |m| self.in_test.contains(m) && !self.in_train.contains(m);
        Modality::ALL.into_iter().any(untrained).then(|| {
            let names = names(untrained);
            let blind: Vec<_> = ModalitySet::CONDITIONS
                .into_iter()
                .filter(|c| c.iter().all(untrained))
                .map(|c| c.to_string())
                .collect();
            format!(
                "the training split has no {names}, so {names} is hidden at test too: under {} \
                 alone the model sees nothing, so its figures are its prior",
                blind.join(" or ")
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
    let printed = paper::source(&source.name, source.sizes, source.dims);
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
                    (None, Kind::Floor) => constant(&source.constant, metric),
                    (None, Kind::Trained) => measured(&runs, &condition.key(), metric),
                };
                Cell { value, paper: printed.as_ref().and_then(figure) }
            };
            metrics.iter().map(cell).collect()
        });
        Row {
            model: model.key.to_owned(),
            name: model.name.to_owned(),
            kind: model.kind,
            cells: cells.into(),
        }
    };
    let column = |condition: ModalitySet| Column {
        key: condition.key(),
        label: condition.to_string(),
        same_as: source.same_as(condition).map(ModalitySet::key),
    };
    let mut section = Section {
        dataset: source.dataset.clone(),
        summary: source.summary(),
        columns: ModalitySet::CONDITIONS.map(column).into(),
        counted: counted(&source.task),
        n_headline: 2,
        rows: models.iter().map(row).collect(),
        metrics,
        notes: vec![
            format!(
                "data: {}; recipe: {}",
                source.config.data.file.display(),
                source.config.recipe
            ),
            seeds_note(args.seeds.get()),
            CONSTANT_NOTE.to_owned(),
        ],
    };
    let paper_notes = printed.map(|printed| paper_notes(&printed, &section, &source.constant));
    section.notes.extend(source.untrained());
    section.notes.extend(paper_notes.unwrap_or_default());
    section.notes.extend(partly_failed(source, results));
    section
}

/// The metrics in which beaten floors are counted: one for the size of the error, one for the sign,
/// one for the order; for emotions the F1 over all of them.
fn counted(task: &Task) -> Vec<Metric> {
    match task {
        Task::Sentiment { .. } => vec![Metric::Mae, Metric::F1, Metric::Corr],
        Task::Emotion { .. } => vec![Metric::F1],
    }
}

const CONSTANT_NOTE: &str = "constant: the same answer for every sample, chosen on the training \
                             split for each metric (median score, commoner sign, commonest class)";

fn seeds_note(n_seeds: usize) -> String {
    match n_seeds {
        1 => format!("a single seed (the paper: {PAPER_SEEDS}), so there is no standard deviation"),
        PAPER_SEEDS => format!("mean ± sample standard deviation over {n_seeds} seeds"),
        n => format!("mean ± sample standard deviation over {n} seeds (the paper: {PAPER_SEEDS})"),
    }
}

fn constant(constant: &Metrics, metric: &Metric) -> Value {
    let mean = constant.get(metric).unwrap_or(f64::NAN);
    Value::Measured(Estimate { mean, std: None, seeds: 1 })
}

fn measured(runs: &[&(Job, Result<CellResult>)], condition: &str, metric: &Metric) -> Value {
    let results = runs.iter().filter_map(|(_, result)| result.as_ref().ok());
    let values: Vec<_> = results.filter_map(|r| r.value(condition, metric)).collect();
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
            format!(
                "{model}: mean of {n_good} seeds only, because seed {} failed",
                failed.join(", ")
            )
        })
        .collect()
}

/// Where the paper's figures are from, and what to think of when reading them.
fn paper_notes(printed: &paper::Source, section: &Section, constant: &Metrics) -> Vec<String> {
    let mut note = format!("paper: its Table {}, {}, 5 seeds", printed.table, printed.dataset);
    if !printed.differences.is_empty() {
        note += "; this file is not the paper's data: ";
        note += &printed.differences.join("; ");
    }
    let mut notes = vec![note];
    for (i, metric) in section.metrics.iter().enumerate() {
        let figures: Vec<_> = models::MODELS
            .iter()
            .flat_map(|m| ModalitySet::CONDITIONS.into_iter().enumerate().map(|c| (c, m.key)))
            .filter_map(|((c, set), model)| {
                Some((c, set, paper::figure(printed, model, &set.key(), metric)?))
            })
            .collect();
        let verdicts: Vec<_> = figures
            .iter()
            .filter_map(|(c, _, figure)| Some((section.floor(*c, i)?.estimate.mean, *figure)))
            .map(|(floor, figure)| metric.is_better(floor, figure))
            .collect();
        let worse = verdicts.iter().filter(|worse| **worse).count();
        if worse > 0 {
            notes.push(format!(
                "{worse} of the paper's {} figures of {} are worse than the best floor on this file",
                verdicts.len(),
                metric.label()
            ));
        }
        let alone = figures.iter().filter(|(_, set, _)| set.len() == 1);
        let worst = alone.map(|(_, _, figure)| *figure).fold(f64::NAN, f64::max);
        let constant = constant.get(metric).unwrap_or(f64::NAN);
        if *metric == Metric::Mae && worst < 0.7 * constant {
            notes.push(format!(
                "with a single modality the paper's MAE is never worse than {}, while a constant \
                 answer has {} on this file: audio or vision alone rarely says that much about a \
                 score, so read these figures with care",
                metric.format(worst),
                metric.format(constant)
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

    /// A section with one floor row that has `floor` in every column.
    fn section(metric: Metric, floor: f64) -> Section {
        let value = || Value::Measured(Estimate { mean: floor, std: None, seeds: 1 });
        let cell = || vec![Cell { value: value(), paper: None }];
        let columns = ModalitySet::CONDITIONS.map(|c| Column {
            key: c.key(),
            label: c.to_string(),
            same_as: None,
        });
        Section {
            dataset: String::new(),
            summary: String::new(),
            columns: columns.into(),
            metrics: vec![metric],
            n_headline: 1,
            counted: vec![],
            rows: vec![Row {
                model: "constant".into(),
                name: "constant (floor)".into(),
                kind: Kind::Floor,
                cells: ModalitySet::CONDITIONS.map(|_| cell()).into(),
            }],
            notes: vec![],
        }
    }

    #[test]
    fn the_papers_oddities_are_told() {
        let mosi = paper::source("CMU-MOSI (bc-LSTM features)", [1284, 229, 686], [100, 73, 100]);
        let constant = Metrics(vec![(Metric::Mae, 1.377)]);
        let notes = paper_notes(&mosi.unwrap(), &section(Metric::Mae, 1.377), &constant);
        assert_eq!(
            notes[0],
            "paper: its Table 1, MOSI, 5 seeds; this file is not the paper's data: language has 100 \
             features per step, the paper's 300; audio has 73 features per step, the paper's 74; \
             vision has 100 features per step, the paper's 1024"
        );
        let start = "with a single modality the paper's MAE is never worse than 0.857";
        assert!(notes[1].starts_with(start), "{notes:?}");
        assert_eq!(notes.len(), 2);

        let iemocap = paper::source("IEMOCAP", [2717, 798, 938], [300, 74, 1024]).unwrap();
        let happy = Metric::F1Class("happy".into());
        let notes = paper_notes(&iemocap, &section(happy, 0.79), &Metrics::default());
        let claim =
            "36 of the paper's 56 figures of F1 happy are worse than the best floor on this file";
        assert_eq!(notes, ["paper: its Table 2, IEMOCAP, 5 seeds", claim]);
    }

    /// As ICT-MMMO: language in the test split alone.
    #[test]
    fn what_is_never_trained_makes_equal_columns() {
        let [language, audio, vision] = Modality::ALL;
        let source = |in_train: &[Modality], in_test: &[Modality]| Source {
            dataset: String::new(),
            name: String::new(),
            slug: String::new(),
            config: Config::resolve(None, None, &[]).unwrap(),
            sha256: String::new(),
            task: Task::Sentiment { lo: -3, hi: 3 },
            sizes: [0; 3],
            dims: [0; 3],
            constant: Metrics::default(),
            in_train: ModalitySet::of(in_train.iter().copied()),
            in_test: ModalitySet::of(in_test.iter().copied()),
        };
        let pairs = |source: &Source| {
            let same = |c: ModalitySet| Some(format!("{}={}", c.key(), source.same_as(c)?.key()));
            ModalitySet::CONDITIONS.into_iter().filter_map(same).collect::<Vec<_>>()
        };
        let mmmo = source(&[audio, vision], &[language, audio, vision]);
        assert_eq!(pairs(&mmmo), ["la=a", "lv=v", "lav=av"]);
        assert_eq!(
            mmmo.untrained().unwrap(),
            "the training split has no language, so language is hidden at test too: under {l} alone \
             the model sees nothing, so its figures are its prior"
        );
        let blind = source(&[audio], &[language, audio, vision]);
        assert_eq!(pairs(&blind), ["v=l", "la=a", "lv=l", "av=a", "lav=a"]);
        assert!(blind.untrained().unwrap().contains("under {l} or {v} or {l,v} alone"));
        // Without vision in the test split, its conditions are not available and equal nothing.
        assert!(pairs(&source(&[language, audio], &[language, audio])).is_empty());
    }
}
