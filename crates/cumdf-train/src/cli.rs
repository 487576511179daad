//! The command line: arguments into plain structs, one function per subcommand.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args as ClapArgs, Parser, Subcommand};
use cumdf_data::{Corpus, Dataset, EvalSet, Labels, Modality, ModalitySet, Split, Task, View};
use cumdf_train::{
    answers::{Answers, entropy},
    chart::{self, Panels},
    config::Config,
    device, doctor,
    evaluate::{self, Predictions},
    fit::Fitted,
    learners::cumdf,
    metrics::{self, Metric},
    pipeline::{self, Place},
    registry::{self, Loaded},
    robustness::{self, Grid, Measured},
    run_dir::{Existing, RESULT, write_atomic},
    select::reported,
    shapley,
    stage::conditions,
};
use serde_json::{Value, json};
use tch::Device;

/// Train and evaluate CUMDF and its baselines: multimodal emotion recognition that copes with
/// missing modalities.
///
/// `cumdf-train student` alone trains teacher and student on a synthetic corpus written to data/.
///
/// A run lies in runs/<data>/<method>/<stage>, or in <DIR>/<stage> with --out <DIR>. A command
/// without --out goes on with the run that is there when nothing that decides its result was
/// changed; otherwise the old run is kept beside it as <stage>-1, -2, ..., and the newest one has
/// the plain name. With --out, a folder that holds a run is refused: --resume goes on with the same
/// run, --overwrite replaces any.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "\
Examples:
  cumdf-train student                                    teacher and student on the synthetic corpus
  cumdf-train student --data mosi.h5                     your own file, recommended recipe
  cumdf-train teacher --config configs/mosi.toml         the paper's settings
  cumdf-train student --set train.batch_size=16          any key of the configuration
  cumdf-train train --list                               the methods there are
  cumdf-train train --method cumdf --data mosi.h5        any of them
  cumdf-train evaluate --checkpoint runs/synthetic/cumdf/student/best.safetensors --condition la
  cumdf-train evaluate --checkpoint runs/synthetic/cumdf/student/best.safetensors --conditions all \\
      --drop-ratios 0,0.2,0.4,0.6,0.8,1 --mask-seeds 5 --csv views.csv --plot views.svg
  cumdf-train doctor                                     what is installed, what is missing"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Show debug lines as well.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train CUMDF's teacher, on complete data.
    Teacher(TrainArgs),
    /// Train CUMDF's student on incomplete data, guided by a teacher (trained first if there is
    /// none).
    Student(StudentArgs),
    /// Train a method (see --list), all its stages.
    Train(MethodArgs),
    /// Score a checkpoint on a split, under a condition and a drop ratio; prints JSON (F1 and
    /// accuracies in percent).
    Evaluate(EvaluateArgs),
    /// Report what was found (libtorch, CUDA, HDF5, data) and what to do about what is missing.
    Doctor,
}

#[derive(Debug, ClapArgs)]
struct TrainArgs {
    /// A TOML configuration, such as configs/mosi.toml; default: the method's default recipe on the
    /// synthetic corpus.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A native HDF5 file. Without --config the method's default recipe for its labels is used.
    #[arg(long, value_name = "FILE.h5")]
    data: Option<PathBuf>,
    /// Folder to train in; each stage gets a folder of its own in it. Default:
    /// runs/<data>/<method>.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seed of initialisation, order, masks and dropout: a whole number of 0 or more.
    #[arg(long, allow_negative_numbers = true, value_parser = parse_seed)]
    seed: Option<u64>,
    /// auto, cpu, cuda, cuda:N or mps.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads per tensor operation. Default: libtorch's choice for wide networks (CUMDF from
    /// model.hidden_dim = 128), 1 for others. An unfinished run goes on only with the threads it
    /// began with, as the last digits of a result depend on them.
    #[arg(long)]
    threads: Option<usize>,
    /// Override any key of the configuration, the value in TOML, for example train.batch_size=16 or
    /// train.clip='{ norm = 1.0 }'; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Go on with the run in the folder, or begin it there; another run is refused.
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Replace the last stage's run. Earlier stages are used again; those of other settings are kept
    /// as <stage>-1, -2, ...
    #[arg(long)]
    overwrite: bool,
    /// Do not predict the test split: use this while you search for settings.
    #[arg(long)]
    no_test: bool,
}

#[derive(Debug, ClapArgs)]
struct StudentArgs {
    #[command(flatten)]
    train: TrainArgs,
    /// The teacher's checkpoint; default: the one in the folder `teacher` beside the student's,
    /// trained if need be. It must have been trained on the same data.
    #[arg(long, value_name = "FILE.safetensors")]
    teacher: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
struct MethodArgs {
    #[command(flatten)]
    train: TrainArgs,
    /// Which method (see --list); needed unless --config names it.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["list", "config"])]
    method: Option<String>,
    /// List the methods and their recipes.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, ClapArgs)]
struct EvaluateArgs {
    /// The checkpoint to score.
    #[arg(long, value_name = "FILE.safetensors")]
    checkpoint: PathBuf,
    /// A native HDF5 file; default: the one it was trained on.
    #[arg(long, value_name = "FILE.h5")]
    data: Option<PathBuf>,
    /// train, valid or test.
    #[arg(long, default_value = "test")]
    split: Split,
    /// The modalities that may be seen (l = language, a = audio, v = vision): l, a, v, la, lv, av or
    /// lav.
    #[arg(long, default_value = "lav")]
    condition: ModalitySet,
    /// Probability that a frame is hidden, in [0, 1]. Below 1 something of every sample stays; at 1
    /// nothing does, and the answer is what the training labels alone say.
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    drop_ratio: f64,
    #[command(flatten)]
    sweep: SweepArgs,
    /// Also write one row per sample: id, label, prediction, probabilities, entropy, attributions.
    /// Columns of which the method says nothing are empty.
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = SWEEP)]
    predictions: Option<PathBuf>,
    /// Also tell what each modality moved each answer by, exactly and for any method: the Shapley
    /// values over all eight sets of modalities (eight predictions instead of one). Three more columns
    /// of --predictions, and their mean sizes in what is printed.
    #[arg(long, conflicts_with_all = SWEEP)]
    shapley: bool,
    /// auto, cpu, cuda, cuda:N or mps.
    #[arg(long, default_value = "auto")]
    device: String,
}

/// What asks for many views.
const SWEEP: [&str; 5] = ["conditions", "drop_ratios", "mask_seeds", "csv", "plot"];

/// Many views at once, over one loaded file.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Many views at once")]
struct SweepArgs {
    /// Several sets of modalities, separated by commas; or all, the seven of the paper (of which
    /// those that the file cannot show are left out). Default: that of --condition.
    #[arg(long, value_name = "SETS", value_delimiter = ',', conflicts_with = "condition")]
    conditions: Vec<String>,
    /// Several probabilities, such as 0,0.1,0.2,1. Default: that of --drop-ratio.
    #[arg(long, value_name = "PS", value_delimiter = ',', conflicts_with = "drop_ratio")]
    drop_ratios: Vec<f64>,
    /// How often the holes are drawn; figures are then means, with sample standard deviations.
    #[arg(long, value_name = "N")]
    mask_seeds: Option<u64>,
    /// Also write a row per view.
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// Also draw the task's first two metrics against the drop ratio, a curve per condition; SVG, or PNG
    /// by its ending.
    #[arg(long, value_name = "FILE.{svg,png}")]
    plot: Option<PathBuf>,
}

impl SweepArgs {
    fn is_wanted(&self) -> bool {
        !self.conditions.is_empty()
            || !self.drop_ratios.is_empty()
            || self.mask_seeds.is_some()
            || self.csv.is_some()
            || self.plot.is_some()
    }
}

fn parse_seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a seed is a whole number of 0 or more".into())
}

impl TrainArgs {
    /// A default folder is one's own to go on with; a given one takes a word of permission.
    fn existing(&self) -> Existing {
        match (self.resume, self.overwrite) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Overwrite,
            _ if self.out.is_some() => Existing::Refuse,
            _ => Existing::MoveAside,
        }
    }
}

/// A hint to what clap says of an argument it does not know: keys of the configuration are given
/// with `--set`.
pub(crate) fn hint(err: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let ContextValue::String(argument) = err.get(ContextKind::InvalidArg)? else { return None };
    let name = argument.strip_prefix("--").filter(|_| err.kind() == ErrorKind::UnknownArgument)?;
    let is_cumdf =
        std::env::args().skip(1).any(|a| [cumdf::TEACHER, cumdf::STUDENT].contains(&&*a));
    let method = is_cumdf.then_some(cumdf::ENTRY.name);
    let keys = Config::keys_called(&name.split('=').next()?.replace('-', "_"), method);
    let keys: Vec<_> = keys.iter().map(|key| format!("--set {key}=..")).collect();
    (!keys.is_empty())
        .then(|| format!("a key of the configuration is given as {}", keys.join(" or ")))
}

/// Runs the subcommand; `false` when it found a problem that it has reported itself.
pub(crate) fn run(args: Args) -> Result<bool> {
    match args.command {
        Command::Teacher(args) => train(&args, Some(cumdf::ENTRY.name), None, Some(cumdf::TEACHER)),
        Command::Student(args) => {
            let teacher = args.teacher.map(|path| (cumdf::TEACHER.to_owned(), path));
            train(&args.train, Some(cumdf::ENTRY.name), teacher, None)
        }
        Command::Train(args) if args.list => list(),
        Command::Train(args) => train(&args.train, args.method.as_deref(), None, None),
        Command::Evaluate(args) => evaluate_checkpoint(&args),
        Command::Doctor => return doctor::run(&mut io::stdout().lock()),
    }
    .map(|()| true)
}

fn list() -> Result<()> {
    let mut out = io::stdout().lock();
    for entry in registry::METHODS {
        let recipes: Vec<_> = entry.recipes.iter().map(|recipe| recipe.name).collect();
        writeln!(out, "{:<10} {}: {}", entry.name, entry.title, entry.about)?;
        writeln!(out, "{:<10} recipes: {}", "", recipes.join(", "))?;
    }
    Ok(())
}

/// Trains the stages of a method and reports what the last one is worth.
///
/// - `given`: the name of a stage and the checkpoint that takes its place
/// - `until`: the last stage to train
fn train(
    args: &TrainArgs,
    method: Option<&str>,
    given: Option<(String, PathBuf)>,
    until: Option<&str>,
) -> Result<()> {
    let mut sets = args.sets.clone();
    sets.extend(args.seed.map(|seed| format!("seed={seed}")));
    let mut config = Config::resolve(method, args.config.as_deref(), args.data.as_deref(), &sets)?;
    device::set_threads(args.threads.unwrap_or(usize::from(!config.method.is_wide())));
    let device = device::parse_device(&args.device)?;
    let stem = config.data.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let corpus = pipeline::open_corpus(&mut config, device)?;
    let default = || Path::new("runs").join(stem).join(config.entry.name);
    let place = Place {
        dir: args.out.clone().unwrap_or_else(default),
        existing: args.existing(),
        given,
        until: until.map(str::to_owned),
    };
    let fitted = pipeline::train(&config, &corpus, device, &place)?;
    if args.no_test {
        writeln!(io::stdout().lock(), "checkpoint {}", fitted.best.display())?;
        return Ok(());
    }
    let views = match until {
        Some(cumdf::TEACHER) => vec![corpus.available(Split::Test)], // it knows complete data alone
        _ => conditions(corpus.present(Split::Test)),
    };
    report(&config, &corpus, &fitted, &views, device)
}

/// Scores the chosen checkpoint on the test split: `result.json` in its folder, and a table.
fn report(
    config: &Config,
    corpus: &Corpus,
    fitted: &Fitted,
    views: &[ModalitySet],
    device: Device,
) -> Result<()> {
    let Loaded { predictor, header, .. } = registry::load(&fitted.best, device)?;
    let (task, labels) = (&corpus.task, corpus.labels(Split::Test));
    let mut by_condition = serde_json::Map::new();
    let mut lines = Vec::new();
    for condition in views {
        let view = evaluate::view(*condition, 0.0);
        let predicted =
            evaluate::predict(predictor.as_ref(), &header.data.prior, &corpus.test, &view)?;
        let scored = metrics::score(task, labels, &predicted.answers);
        let shown: Vec<_> =
            scored.iter().map(|(m, v)| format!("{} {}", m.label(), m.format(*v))).collect();
        lines.push(format!("  {:<8} {}", condition.to_string(), shown.join("  ")));
        by_condition.insert(condition.key(), Value::Object(reported(&scored)));
    }
    let result = json!({
        "method": config.entry.name, "dataset": corpus.name, "data_sha256": corpus.sha256,
        "split": "test", "epoch": fitted.best_epoch, "epochs": fitted.epochs,
        "metrics": by_condition,
    });
    let text = serde_json::to_string_pretty(&result)? + "\n";
    let file = fitted.best.with_file_name(RESULT);
    write_atomic(&file, text.as_bytes())?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{} on the test split of {}:", config.entry.title, corpus.name)?;
    for line in lines {
        writeln!(stdout, "{line}")?;
    }
    writeln!(stdout, "checkpoint {}", fitted.best.display())?;
    writeln!(stdout, "figures    {}", file.display())?;
    Ok(())
}

fn evaluate_checkpoint(args: &EvaluateArgs) -> Result<()> {
    ensure!(
        (0.0..=1.0).contains(&args.drop_ratio),
        "--drop-ratio {}: must lie in [0, 1]",
        args.drop_ratio
    );
    let device = device::parse_device(&args.device)?;
    device::set_threads(1); // more only pays for wide networks on many samples
    let Loaded { header, config, predictor } = registry::load(&args.checkpoint, device)?;
    let trained_on = &header.data;
    let file = match &args.data {
        Some(file) => file.clone(),
        None => {
            ensure!(
                config.data.file.exists(),
                "{} was trained on {}, which is not there any more: name the file with --data",
                args.checkpoint.display(),
                config.data.file.display()
            );
            config.data.file.clone()
        }
    };
    let dataset = Dataset::open(&file)?;
    ensure!(
        dataset.task == trained_on.shape.task,
        "{} is labelled {}, the checkpoint was trained for {}",
        file.display(),
        dataset.task,
        trained_on.shape.task
    );
    let same_data = dataset.sha256 == trained_on.sha256;
    if !same_data {
        tracing::warn!(
            "{} ({}) is not the file that the checkpoint was trained on ({}): its SHA-256 differs",
            file.display(),
            dataset.name,
            trained_on.name
        );
    }
    let samples = dataset.split(args.split);
    let set = EvalSet::prepare(samples, args.split, dataset.steps, &trained_on.stats, device)
        .with_context(|| file.display().to_string())?;
    let there = samples.available();
    let mut report = json!({
        "checkpoint": args.checkpoint, "method": header.method, "stage": header.stage,
        "data": file, "dataset": dataset.name, "trained_on": trained_on.name,
        "same_data": same_data, "split": args.split.name(), "samples": set.len(),
    });
    let outputs = [&args.predictions, &args.sweep.csv, &args.sweep.plot];
    for path in outputs.into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        ensure!(
            folder.is_none_or(Path::is_dir),
            "{}: its folder does not exist: create it first",
            path.display()
        );
    }
    if args.sweep.is_wanted() {
        let views = views(args, there)?;
        let (predictor, prior) = (predictor.as_ref(), &trained_on.prior);
        let split = (&set, &samples.labels);
        let measured = robustness::measure(predictor, prior, &dataset.task, split, &views)?;
        write_sweep(&args.sweep, &dataset, &measured, &header.method)?;
        report["views"] = json!(summaries(&dataset.task, &measured));
        return Ok(writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&report)?)?);
    }
    let view = evaluate::view(args.condition, args.drop_ratio);
    warn_of_lacking(args, there, args.condition);
    let predictions = evaluate::explain(predictor.as_ref(), &trained_on.prior, &set, &view)?;
    let scored = metrics::score(&dataset.task, &samples.labels, &predictions.answers);
    let moved = args
        .shapley
        .then(|| {
            let (predictor, prior) = (predictor.as_ref(), &trained_on.prior);
            shapley::values(predictor, prior, &dataset.task, &set, &view)
        })
        .transpose()?;
    if let Some(path) = &args.predictions {
        let (labels, moved) = (&samples.labels, moved.as_deref());
        write_predictions(path, &set, &dataset.task, labels, &predictions, moved)?;
    }
    if let Some(moved) = &moved {
        report["shapley"] = json!(mean_sizes(moved));
    }
    report["condition"] = json!(args.condition.key());
    report["drop_ratio"] = json!(args.drop_ratio);
    report["metrics"] = json!(reported(&scored));
    writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

/// Says what of `condition` cannot be seen where the split has `there`.
fn warn_of_lacking(args: &EvaluateArgs, there: ModalitySet, condition: ModalitySet) {
    if !there.contains_all(condition) {
        let (split, lacking) = (args.split, condition.without(there));
        tracing::warn!(
            "the {split} split has only {there}: {lacking} of {condition} cannot be seen"
        );
    }
}

/// The views that the arguments ask for, of a file that has `there`.
fn views(args: &EvaluateArgs, there: ModalitySet) -> Result<Vec<View>> {
    let sweep = &args.sweep;
    let mut conditions: Vec<ModalitySet> = match &sweep.conditions[..] {
        [] => vec![args.condition],
        [all] if all == "all" => ModalitySet::CONDITIONS.to_vec(),
        keys => keys.iter().map(|key| key.parse()).collect::<Result<_>>()?,
    };
    if sweep.conditions == ["all"] {
        conditions.retain(|condition| there.contains_all(*condition));
    }
    let drop_ratios = match &sweep.drop_ratios[..] {
        [] => vec![args.drop_ratio],
        ratios => ratios.to_vec(),
    };
    conditions.iter().for_each(|condition| warn_of_lacking(args, there, *condition));
    Grid { conditions, drop_ratios, mask_seeds: sweep.mask_seeds.unwrap_or(1) }.views()
}

/// The files that a sweep was asked for.
fn write_sweep(
    args: &SweepArgs,
    dataset: &Dataset,
    measured: &[Measured],
    method: &str,
) -> Result<()> {
    if let Some(path) = &args.csv {
        write_atomic(path, &robustness::csv(measured)?)?;
    }
    if let Some(path) = &args.plot {
        let title = format!("{method} on {}", dataset.name);
        let shown = Metric::of(&dataset.task).into_iter().take(2);
        let panels: Vec<_> = shown
            .map(|metric| robustness::by_condition(measured, &metric, title.clone()))
            .collect();
        let drawing = Panels { panels: &panels, across: 2 };
        let png = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
        let about = format!("{title}, test data SHA-256 {}", dataset.sha256);
        let picture = match png {
            true => chart::png(&drawing, &about)?,
            false => chart::svg(&drawing, &about)?.into_bytes(),
        };
        write_atomic(path, &picture)?;
    }
    Ok(())
}

/// Of every condition and metric: the figures by drop ratio, and the area under them.
fn summaries(task: &Task, measured: &[Measured]) -> Vec<Value> {
    let metrics = Metric::of(task);
    let of_metric = |metric: &Metric| robustness::curves(measured, metric).into_iter();
    let all = metrics.iter().flat_map(|metric| of_metric(metric).map(move |c| (metric, c)));
    all.map(|(metric, curve)| {
        json!({
            "condition": curve.condition.key(), "metric": metric.key(), "area": curve.area(),
            "drop_ratio": curve.places.iter().map(|p| p.x).collect::<Vec<_>>(),
            "mean": curve.places.iter().map(|p| p.mean).collect::<Vec<_>>(),
            "sd": curve.places.iter().map(|p| p.spread).collect::<Vec<_>>(),
        })
    })
    .collect()
}

/// By how much each modality moved an answer in the mean, up or down.
fn mean_sizes(moved: &[[f64; 3]]) -> serde_json::Map<String, Value> {
    let mean = |m: Modality| {
        moved.iter().map(|row| row[m.index()].abs()).sum::<f64>() / moved.len().max(1) as f64
    };
    Modality::ALL.into_iter().map(|m| (m.name().to_owned(), json!(mean(m)))).collect()
}

/// One row per sample, in file order; a column is empty where the method does not say.
///
/// - `moved`: the Shapley values, where they were asked for
fn write_predictions(
    path: &Path,
    set: &EvalSet,
    task: &Task,
    labels: &Labels,
    predictions: &Predictions,
    moved: Option<&[[f64; 3]]>,
) -> Result<()> {
    let classes = task.class_names();
    let mut csv = csv::Writer::from_writer(Vec::new());
    let fixed = ["id", "label", "prediction"].map(str::to_owned).into_iter();
    let probs = classes.iter().map(|class| format!("p_{class}"));
    let last = ["entropy", "language", "audio", "vision"].map(str::to_owned);
    let shapley = moved.map(|_| Modality::ALL.map(|m| format!("shapley_{m}")));
    csv.write_record(fixed.chain(probs).chain(last).chain(shapley.into_iter().flatten()))?;
    let said: Vec<String> = match task {
        Task::Sentiment { .. } => {
            predictions.answers.scores(task).iter().map(f64::to_string).collect()
        }
        Task::Emotion { .. } => {
            predictions.answers.classes().into_iter().map(|c| classes[c].clone()).collect()
        }
    };
    for (i, (id, said)) in set.ids().iter().zip(said).enumerate() {
        let label = match labels {
            Labels::Scores(scores) => scores[i].to_string(),
            Labels::Classes(rows) => {
                let named = classes.iter().zip(&rows[i]).filter(|(_, set)| **set);
                named.map(|(class, _)| class.as_str()).collect::<Vec<_>>().join("+")
            }
        };
        let mut row = vec![id.clone(), label, said];
        match &predictions.answers {
            Answers::Classes(rows) => {
                row.extend(rows[i].iter().map(f32::to_string));
                row.push(entropy(&rows[i]).to_string());
            }
            Answers::Flags(rows) => {
                row.extend(rows[i].iter().map(f32::to_string));
                row.push(String::new()); // no distribution over classes
            }
            Answers::Scores(_) => row.extend(vec![String::new(); classes.len() + 1]),
        }
        match &predictions.attributions {
            Some(shares) => row.extend(shares[i].iter().map(f32::to_string)),
            None => row.extend(["", "", ""].map(str::to_owned)),
        }
        row.extend(moved.into_iter().flat_map(|moved| moved[i]).map(|by| by.to_string()));
        csv.write_record(row)?;
    }
    write_atomic(path, &csv.into_inner()?)
}
