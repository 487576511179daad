//! The grid of (data set, variant, seed): its cells are trained once and tested under any view.
//!
//! A table or a figure only says which [`variants`] it wants under which views ([`measure`]), and
//! lays out what comes back. What is there already is not done again, whatever table asked for it.

pub mod cell;
pub mod child;
pub mod claim;
pub mod failure;
pub mod fitted;
mod fresh;
pub mod pool;
mod settings;
pub mod source;
pub mod store;
pub mod variants;

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    path::PathBuf,
    thread,
};

use anyhow::{Result, ensure};
use cumdf_data::{Split, Task, View};
use cumdf_train::{
    answers::Answers,
    config::DataConfig,
    device,
    metrics::{Metric, Metrics, score},
    pipeline,
};

use self::{
    cell::{Cell, Cost},
    pool::{Job, Options},
    source::Source,
    variants::{Variant, Work},
};
use crate::report::{
    provenance::{Data, Provenance},
    table::Value,
};

/// The arguments that all tables have.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "grid")] // clap wants other names than that of the struct around it
pub struct Args {
    /// A data file in the native layout (docs/data.md); may be given several times.
    ///
    /// Every model takes its default recipe, unless --config says otherwise. Without --data and
    /// --config the table is made for the synthetic sentiment corpus, which is written to data/ at
    /// first use.
    #[arg(long, value_name = "FILE.h5")]
    pub data: Vec<PathBuf>,

    /// A configuration, such as configs/mosi.toml; may be given several times.
    ///
    /// A configuration sets the rows of its own method; the others take their default recipes on the
    /// same data, cut at the same data.clip. It names its own data file. With --data beside it: one
    /// configuration holds for all files, several hold for one file, equal numbers are paired in
    /// order.
    #[arg(long, value_name = "FILE.toml")]
    pub config: Vec<PathBuf>,

    /// Rows to run, separated by commas, such as cumdf,cumdf-no-distillation; or all.
    ///
    /// Default: all. Without --data, --config and --models this is a first look, in which those that
    /// take long train fewer epochs; --models all has the recipes' own. The simple answers that a
    /// model must beat to be of use (floors) are always in the table.
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    pub models: Vec<String>,

    /// Adds a row below each method that is published for complete data (Self-MM, CubeMLP, DMD): the
    /// same recipe, but trained under the missing modalities that CUMDF is trained with, and chosen
    /// on them. It answers: is it the method or the augmentation?
    ///
    /// What such a row gains on the one above it is owed to the augmentation; what CUMDF is ahead of
    /// it, to the method. Single rows by their keys: --models self-mm-mrms.
    #[arg(long)]
    pub fair: bool,

    /// Number of seeds, counted up from the configuration's seed. Default: 2, and 1 in a first look
    /// (see --models). The paper takes 5.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = settings::parse_seeds
    )]
    pub seeds: Option<usize>,

    /// Overrides a key, such as train.batch_size=16, of every row whose method has it; a key that no
    /// row has is refused. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Where to compute: auto, cpu, cuda, cuda:N or mps.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,

    /// Trainings at once, each in a process with one thread and the data in memory. Default: the
    /// number of cores, or 1 on a GPU.
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,

    /// Do everything again, even what is finished in --out. What was there is kept, its folders
    /// renamed to NAME.old-1, .old-2, ...
    #[arg(long)]
    pub fresh: bool,

    /// What a table is about.
    #[arg(skip = About::Anything)]
    pub about: About,

    /// The split that is predicted: the test split, but for experiments.
    #[arg(skip = Split::Test)]
    pub split: Split,

    /// Whether a setting that no row has is passed over: another table of the same command has it.
    #[arg(skip)]
    pub lenient: bool,

    /// Show what the trainings say; in the terminal all metrics, and what the trainings cost.
    #[arg(long, short)]
    pub verbose: bool,

    /// Whether to take what is finished and run nothing.
    #[arg(skip)]
    pub as_it_is: bool,
}

/// The data sets that a table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Scores and emotions alike; scores where nothing is named.
    Anything,
    /// Emotions alone.
    Emotions,
}

impl About {
    /// The corpus that is taken where none is named, as `data.file`.
    fn embedded(self) -> &'static str {
        match self {
            Self::Anything => "synthetic",
            Self::Emotions => "synthetic-emotion",
        }
    }

    fn takes(self, source: &Source) -> bool {
        self == Self::Anything || matches!(source.task, Task::Emotion { .. })
    }
}

impl Args {
    /// The settings of the command line, with the corpus where none is named.
    fn sets(&self) -> Vec<String> {
        let names_data = |set: &String| settings::key(set) == "data.file";
        let named =
            !self.data.is_empty() || !self.config.is_empty() || self.set.iter().any(names_data);
        let embedded = (!named).then(|| format!("data.file='{}'", self.about.embedded()));
        embedded.into_iter().chain(self.set.iter().cloned()).collect()
    }

    /// Number of seeds.
    pub fn n_seeds(&self) -> usize {
        self.seeds.unwrap_or(if self.is_first_look() { 1 } else { 2 })
    }

    /// The kind of device that trains the cells: `cpu`, `cuda` or `mps`. CUDA need not be here.
    pub fn kind(&self) -> Result<String> {
        let number = self.device.strip_prefix("cuda:");
        if self.device == "cuda" || number.is_some_and(|n| n.parse::<usize>().is_ok()) {
            return Ok("cuda".to_owned());
        }
        Ok(pipeline::kind(device::parse_device(&self.device)?))
    }

    /// Whether nothing is named that should be measured: somebody tries the program.
    pub fn is_first_look(&self) -> bool {
        let names_data = |set: &String| settings::key(set) == "data.file";
        self.data.is_empty()
            && self.config.is_empty()
            && self.models.is_empty()
            && !self.set.iter().any(names_data)
    }
}

/// What was measured for a table.
#[derive(Debug)]
pub struct Measured {
    /// The data sets.
    pub sources: Vec<Source>,
    /// Every cell that was asked for.
    pub runs: Vec<Run>,
    /// Settings of the command line in words, per data set.
    pub changed: Vec<Vec<String>>,
    /// What a first look makes of the recipes, in words, per data set.
    pub shortened: Vec<Vec<String>>,
    /// Number of seeds that were asked for.
    pub n_seeds: usize,
    /// Where it was computed: `cpu`, `cuda`.
    pub device: String,
}

/// A cell and what came of it.
#[derive(Debug)]
pub struct Run {
    /// Position of its data set.
    pub source: usize,
    /// Key of its variant.
    pub variant: &'static str,
    /// Its seed; `None` where none plays a part.
    pub seed: Option<u64>,
    /// The recipe that its settings start from; `None` for what has none.
    pub recipe: Option<String>,
    /// What it came to.
    pub outcome: Outcome,
    /// What its training cost, where it was trained to the end.
    pub cost: Option<Cost>,
    /// Its folder.
    pub dir: PathBuf,
}

/// What a cell came to under each view, or why it came to nothing.
pub type Outcome = Result<Vec<Tested>, String>;

/// A cell under one view.
#[derive(Debug, Clone)]
pub struct Tested {
    /// What it could see of the samples.
    pub view: View,
    /// Its stored predictions.
    pub answers: Answers,
    /// Their metrics.
    pub metrics: Metrics,
}

/// Trains and tests whatever is missing in `<out>/cells`, and scores the stored predictions. `None`
/// when nothing was done because the question of `--fresh` was answered by no.
///
/// - `views`: what each data set is tested under
/// - `finished`: is shown each row of a data set with its runs, as soon as the last of them is
///   finished; not those of which nothing was left to do
///
/// # Errors
/// When the arguments cannot be followed. A cell that fails is no error: its [`Run`] says why.
pub fn measure(
    args: &Args,
    out: &std::path::Path,
    variants: &[Variant],
    views: impl Fn(&Source) -> Vec<View>,
    finished: impl Fn(&Source, &Variant, &[&Run]),
) -> Result<Option<Measured>> {
    if !args.as_it_is {
        device::parse_device(&args.device)?; // a plan may be for a device that is elsewhere
    }
    let sources = sources(args)?;
    let mut plan = Plan::new(args, out, &sources, variants, views)?;
    cumdf_data::files::sweep(out);
    if args.fresh {
        let cells: Vec<_> = plan.jobs.iter().map(|job| &job.cell).collect();
        if !fresh::move_aside(&cells)? {
            return Ok(None);
        }
    }
    plan.jobs.iter().for_each(|job| job.cell.sweep());

    let is_done: Vec<_> = plan.jobs.iter().map(Job::is_done).collect();
    let mut open: Vec<_> = (0..plan.jobs.len()).filter(|i| !is_done[*i]).collect();
    for (i, job) in plan.jobs.iter().enumerate().filter(|(i, _)| is_done[*i]) {
        plan.rows.note(i, outcome(job, Ok(())));
    }
    let n_done = plan.jobs.len() - open.len();
    if n_done > 0 {
        tracing::info!("{} are finished already in {}", cells(n_done), out.display());
    }
    if args.as_it_is {
        for i in open.drain(..) {
            let failed = failure::read(&plan.jobs[i].cell.dir).map(|failure| failure.why);
            plan.rows.note(i, Err(failed.unwrap_or_else(|| "it is not finished".to_owned())));
        }
    }
    let todo: Vec<&Job> = open.iter().map(|i| &plan.jobs[*i]).collect();
    for job in &todo {
        failure::forget(&job.cell.dir)?;
    }
    let n_processes =
        args.jobs.map_or(if args.kind()? == "cpu" { cores() } else { 1 }, NonZeroUsize::get);
    if !todo.is_empty() {
        let n_to_test = todo.iter().filter(|job| job.cell.is_finished()).count();
        let only = match n_to_test {
            0 => String::new(),
            n => format!(" ({n} of them only to test)"),
        };
        let at_once = n_processes.min(todo.len());
        tracing::info!("{} to run{only}, {at_once} at once", cells(todo.len()));
    }
    let without = if args.fresh { " without --fresh" } else { "" };
    let options = Options {
        n_processes,
        devices: vec![args.device.clone()],
        threads: 1,
        dead_after: claim::DEAD_AFTER,
        verbose: args.verbose,
        after_interrupt: format!("the same command{without} goes on where they stopped"),
    };
    let rows = &mut plan.rows;
    pool::run(&todo, &options, &mut |i, result| {
        rows.note(open[i], outcome(todo[i], result));
        for (source, variant) in rows.completed_by(open[i]) {
            let variant = variants.iter().find(|v| v.key == variant).expect("it was asked for");
            finished(&sources[source], variant, &rows.runs_of(source, variant.key));
        }
    });
    let Plan { jobs, rows, changed, shortened } = plan;
    let with_cost = |(job, run): (usize, Run)| {
        let cell = &jobs[job].cell;
        let cost = cell.cost().inspect_err(|err| tracing::warn!("{}: {err:#}", cell.title()));
        Run { cost: cost.unwrap_or_default(), ..run }
    };
    let runs = rows.runs.into_iter().map(with_cost).collect();
    let (device, n_seeds) = (args.kind()?, args.n_seeds());
    Ok(Some(Measured { sources, runs, changed, shortened, n_seeds, device }))
}

/// How the corpus is read that a table about `about` takes where none is named.
///
/// # Errors
/// When the recipes do not know it, which would be a slip of ours.
pub fn embedded(about: About) -> Result<DataConfig> {
    let set = format!("data.file='{}'", about.embedded());
    Ok(settings::base(None, None, &[set])?.data)
}

/// Whether a table about emotions has anything to say of the data that `args` name.
///
/// # Errors
/// When a data set cannot be read.
pub fn has_emotions(args: &Args) -> Result<bool> {
    let args = Args { about: About::Emotions, ..args.clone() };
    let all = source::open_all(&args.config, &args.data, &args.sets(), args.split)?;
    Ok(all.iter().any(|source| About::Emotions.takes(source)))
}

/// The data sets that `args` name and the table is about.
fn sources(args: &Args) -> Result<Vec<Source>> {
    let all = source::open_all(&args.config, &args.data, &args.sets(), args.split)?;
    let (about, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|source| args.about.takes(source));
    let others: Vec<_> = others.iter().map(|source| source.dataset.as_str()).collect();
    ensure!(
        !about.is_empty(),
        "{} has scores, and this table is about emotions: give it to table1",
        others.join(", ")
    );
    if !others.is_empty() {
        tracing::info!("{}: no emotions, left out", others.join(", "));
    }
    Ok(about)
}

/// The cells that [`measure`] would train and test, with their views; nothing is written, and the
/// device need not be here.
///
/// # Errors
/// When the arguments cannot be followed.
pub fn plan(
    args: &Args,
    out: &std::path::Path,
    variants: &[Variant],
    views: impl Fn(&Source) -> Vec<View>,
) -> Result<Vec<(Cell, Vec<View>)>> {
    let sources = sources(args)?;
    let plan = Plan::new(args, out, &sources, variants, views)?;
    Ok(plan.jobs.into_iter().map(|job| (job.cell, job.views)).collect())
}

/// How many processes this machine has room for.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn cells(n: usize) -> String {
    if n == 1 { "1 cell".to_owned() } else { format!("{n} cells") }
}

/// The metrics of a job's stored predictions, or why there are none.
fn outcome(job: &Job, result: Result<()>) -> Outcome {
    let of = |view: &View| {
        let answers = job.answers(view)?;
        let metrics = score(&job.source.task, job.source.labels(), &answers);
        Ok(Tested { view: *view, answers, metrics })
    };
    let tested = || job.views.iter().map(of).collect::<Result<Vec<_>>>();
    result.and_then(|()| tested()).map_err(|err| format!("{err:#}"))
}

/// What is to be there at the end.
struct Plan<'a> {
    jobs: Vec<Job<'a>>,
    rows: Rows,
    changed: Vec<Vec<String>>,
    shortened: Vec<Vec<String>>,
}

/// The runs of all rows, with the position of the job that each waits for; a cell may be wanted
/// twice.
#[derive(Default)]
struct Rows {
    runs: Vec<(usize, Run)>,
    done: HashSet<usize>,
}

impl Rows {
    /// Notes what came of a job.
    fn note(&mut self, job: usize, outcome: Outcome) {
        self.done.insert(job);
        for (_, run) in self.runs.iter_mut().filter(|(of, _)| *of == job) {
            run.outcome.clone_from(&outcome);
        }
    }

    /// The rows that wait for `job` and no other: data set and key of each.
    fn completed_by(&self, job: usize) -> Vec<(usize, &'static str)> {
        let row = |run: &Run| (run.source, run.variant);
        let mut rows: Vec<_> =
            self.runs.iter().filter(|(of, _)| *of == job).map(|(_, run)| row(run)).collect();
        rows.dedup();
        rows.retain(|wanted| {
            let mut jobs = self.runs.iter().filter(|(_, run)| row(run) == *wanted);
            jobs.all(|(job, _)| self.done.contains(job))
        });
        rows
    }

    fn runs_of(&self, source: usize, variant: &str) -> Vec<&Run> {
        let is = |run: &&Run| run.source == source && run.variant == variant;
        self.runs.iter().map(|(_, run)| run).filter(is).collect()
    }
}

impl<'a> Plan<'a> {
    /// All cells, row by row in the order of running; of a row, data set by data set.
    fn new(
        args: &Args,
        out: &std::path::Path,
        sources: &'a [Source],
        variants: &[Variant],
        views: impl Fn(&Source) -> Vec<View>,
    ) -> Result<Self> {
        let kind = args.kind()?;
        let mut wanted = Vec::new(); // (turn of its row, source, recipe, cell)
        let (mut changed, mut shortened) = (Vec::new(), Vec::new());
        for (s, source) in sources.iter().enumerate() {
            let trained: Vec<_> = variants
                .iter()
                .filter_map(|variant| match variant.work() {
                    Work::Train(entry) => Some((*variant, entry)),
                    Work::Fit(_) | Work::Constant => None,
                })
                .collect();
            let resolved = settings::resolve(source, &trained, &args.set, args.into())?;
            for ((variant, _), config) in trained.iter().zip(resolved.configs) {
                for seed in settings::seeds(config.seed, args.n_seeds())? {
                    let mut config = config.clone();
                    config.seed = seed;
                    let recipe = Some(config.recipe.clone());
                    let cell = Cell::trained(out, source, variant.key, config, &kind);
                    wanted.push((variant.turn(), s, recipe, cell));
                }
            }
            for variant in variants {
                if let Work::Fit(fitted) = variant.work() {
                    let cell = Cell::fitted(out, source, variant.key, fitted, &source.read);
                    wanted.push((variant.turn(), s, None, cell));
                }
            }
            changed.push(resolved.changed);
            shortened.push(resolved.shortened);
        }
        wanted.sort_by_key(|(turn, ..)| *turn); // stable: data sets and seeds keep their order
        let mut plan = Self { jobs: Vec::new(), rows: Rows::default(), changed, shortened };
        let mut known = HashMap::new();
        for (_, s, recipe, cell) in wanted {
            let run = Run {
                source: s,
                variant: cell.variant,
                seed: cell.seed,
                recipe,
                outcome: Ok(Vec::new()),
                cost: None,
                dir: cell.dir.clone(),
            };
            let job = *known.entry(cell.dir.clone()).or_insert_with(|| {
                let views = views(&sources[s]);
                plan.jobs.push(Job { cell, source: &sources[s], views });
                plan.jobs.len() - 1
            });
            plan.rows.runs.push((job, run));
        }
        Ok(plan)
    }
}

impl Run {
    /// A figure under one view; `None` when it failed.
    pub fn figure(&self, view: &View, metric: &Metric) -> Option<f64> {
        self.tested(view)?.metrics.get(metric)
    }

    /// What it came to under a view; `None` when it failed.
    pub fn tested(&self, view: &View) -> Option<&Tested> {
        self.outcome.as_ref().ok()?.iter().find(|tested| tested.view == *view)
    }
}

/// Mean and spread over the seeds of a row's `runs` of what `figure` takes of each, or why there
/// are none.
pub fn value(runs: &[&Run], figure: impl Fn(&Run) -> Option<f64>) -> Value {
    let values: Vec<_> = runs.iter().filter_map(|run| figure(run)).collect();
    match values.is_empty() {
        false => Value::of(&values),
        true => {
            let errors = runs.iter().filter_map(|run| {
                let seed = run.seed.map(|seed| format!("seed {seed}: ")).unwrap_or_default();
                Some(format!("{seed}{}", run.outcome.as_ref().err()?))
            });
            Value::Failed(errors.collect::<Vec<_>>().join("; "))
        }
    }
}

impl Measured {
    /// What these figures rest on.
    pub fn provenance(&self) -> Provenance {
        let data = self.sources.iter().map(|source| Data {
            dataset: source.dataset.clone(),
            file: source.file.display().to_string(),
            sha256: source.sha256.clone(),
        });
        let mut overrides = self.changed.concat();
        overrides.dedup();
        Provenance::here(data.collect(), self.n_seeds, overrides, &self.device)
    }

    /// The runs of a variant on a data set.
    pub fn runs_of(&self, source: usize, variant: &str) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.source == source && run.variant == variant)
    }

    /// Cells that failed.
    pub fn n_failed(&self) -> usize {
        self.runs.iter().filter(|run| run.outcome.is_err()).count()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn whoever_names_data_or_rows_has_looked_before() {
        let is_first = |args: &[&str]| {
            let all = std::iter::once(&"table1").chain(args);
            Cli::try_parse_from(all).unwrap().args.is_first_look()
        };
        assert!(is_first(&[]));
        assert!(is_first(&["--seeds", "1", "--set", "data.clip=2.0", "--fair"]));
        for args in [
            ["--data", "x.h5"],
            ["--config", "x.toml"],
            ["--models", "all"],
            ["--models", "dmd"],
            ["--set", "data.file=x.h5"],
        ] {
            assert!(!is_first(&args), "{args:?}");
        }
    }
}
