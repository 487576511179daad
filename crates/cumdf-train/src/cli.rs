//! The command line: arguments into plain structs, one function a subcommand.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args as ClapArgs, Parser, Subcommand};
use cumdf_data::{Corpus, Dataset, EvalSet, Labels, ModalitySet, Split, Task};
use cumdf_train::{
    config::Config,
    device, doctor,
    evaluate::{self, Loaded, Predictions},
    fit::Fitted,
    metrics,
    pipeline::{self, Existing},
    run_dir::{self, RunDir, write_atomic},
};
use serde_json::{Value, json};
use tch::Device;

/// Train and evaluate CUMDF, multimodal emotion recognition that copes with missing modalities.
///
/// Without arguments, teacher and student run on a synthetic corpus written to data/.
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
  cumdf-train evaluate --checkpoint runs/synthetic/student/best.safetensors --condition la
  cumdf-train doctor                                     what is installed, what is missing"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Say more.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a teacher on complete data.
    Teacher(TrainArgs),
    /// Train a student on incomplete data, guided by a teacher (trained first if there is none).
    Student(StudentArgs),
    /// Score a checkpoint on a split, under a condition and a drop ratio; prints JSON (F1 and
    /// accuracies in percent).
    Evaluate(EvaluateArgs),
    /// Report what was found (libtorch, CUDA, HDF5, data) and what to do about what is missing.
    Doctor,
}

#[derive(Debug, ClapArgs)]
struct TrainArgs {
    /// A TOML configuration, such as configs/mosi.toml; default: configs/synthetic.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A native HDF5 file; alone it takes the recommended recipe.
    #[arg(long, value_name = "FILE.h5")]
    data: Option<PathBuf>,
    /// Folder of the run; default: runs/<data>/<stage>.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seed of initialisation, order, masks and dropout.
    #[arg(long)]
    seed: Option<u64>,
    /// auto, cpu, cuda, cuda:N or mps.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of one tensor operation; default: 1 for networks narrower than 128, where more only
    /// wait for each other, else all cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Override any key of the configuration, the value in TOML; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Go on with the interrupted run in the folder.
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Replace the run in the folder.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, ClapArgs)]
struct StudentArgs {
    #[command(flatten)]
    train: TrainArgs,
    /// The teacher's checkpoint; default: the one in runs/<data>/teacher, trained if need be.
    #[arg(long, value_name = "FILE.safetensors")]
    teacher: Option<PathBuf>,
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
    /// The modalities that are present: letters of l, a, v.
    #[arg(long, default_value = "lav")]
    condition: ModalitySet,
    /// Share of frames dropped, in [0, 1).
    #[arg(long, default_value_t = 0.0)]
    drop_ratio: f64,
    /// Also write one row per sample: id, label, prediction, probabilities, entropy, attributions.
    #[arg(long, value_name = "FILE.csv")]
    predictions: Option<PathBuf>,
    /// auto, cpu, cuda, cuda:N or mps.
    #[arg(long, default_value = "auto")]
    device: String,
}

impl TrainArgs {
    /// A default folder is one's own to go on with; a given one takes a word of permission.
    fn existing(&self) -> Existing {
        match (self.resume, self.overwrite) {
            (true, _) => Existing::Resume,
            (_, true) => Existing::Overwrite,
            _ if self.out.is_some() => Existing::Refuse,
            _ => Existing::Resume,
        }
    }
}

/// Runs the subcommand; `false` when it found a problem that it has reported itself.
pub(crate) fn run(args: Args) -> Result<bool> {
    match args.command {
        Command::Teacher(args) => teacher(&args).map(|()| true),
        Command::Student(args) => student(&args).map(|()| true),
        Command::Evaluate(args) => evaluate_checkpoint(&args).map(|()| true),
        Command::Doctor => doctor::run(&mut io::stdout().lock()),
    }
}

fn teacher(args: &TrainArgs) -> Result<()> {
    let setup = Setup::new(args)?;
    let out = setup.out(args, "teacher");
    let existing = args.existing();
    let fitted =
        pipeline::train_teacher(&setup.config, &setup.corpus, setup.device, &out, existing)?;
    let conditions = [setup.corpus.available(Split::Test)];
    setup.report(&fitted, &conditions, &out)
}

fn student(args: &StudentArgs) -> Result<()> {
    let setup = Setup::new(&args.train)?;
    let Setup { config, corpus, device, .. } = &setup;
    let out = setup.out(&args.train, "student");
    let existing = args.train.existing();
    if existing != Existing::Overwrite {
        // Before hours go into a teacher: may the student work there?
        RunDir::create(&out, &config.to_toml(), existing == Existing::Resume)?;
    }
    let teacher = match (&args.teacher, config.student.distillation) {
        (Some(_), false) => bail!("--teacher is given, but student.distillation = false"),
        (None, false) => None,
        (Some(path), true) => Some(path.clone()),
        (None, true) => {
            let teacher_out = match &args.train.out {
                Some(out) => out.join("teacher"),
                None => setup.default_out("teacher"),
            };
            if !teacher_out.join("best.safetensors").exists() {
                tracing::info!("there is no teacher yet: training one first");
            }
            let existing = match args.train.existing() {
                Existing::Refuse => Existing::Resume, // a finished teacher is what is wanted
                other => other,
            };
            Some(pipeline::train_teacher(config, corpus, *device, &teacher_out, existing)?.best)
        }
    };
    let fitted =
        pipeline::train_student(config, corpus, *device, &out, teacher.as_deref(), existing)?;
    setup.report(&fitted, &pipeline::conditions(corpus.present(Split::Test)), &out)
}

/// What teacher and student start from.
struct Setup {
    config: Config,
    corpus: Corpus,
    device: Device,
    data_stem: String,
}

impl Setup {
    fn new(args: &TrainArgs) -> Result<Self> {
        let mut sets = args.sets.clone();
        sets.extend(args.seed.map(|seed| format!("seed={seed}")));
        let config = Config::resolve(args.config.as_deref(), args.data.as_deref(), &sets)?;
        let narrow = config.model.hidden_dim < 128;
        device::set_threads(args.threads.unwrap_or(usize::from(narrow)));
        let device = device::parse_device(&args.device)?;
        let corpus = pipeline::open_corpus(&config, device)?;
        let stem = config.data.file.file_stem().unwrap_or_default();
        let data_stem = stem.to_string_lossy().into_owned();
        Ok(Self { config, corpus, device, data_stem })
    }

    /// The folder asked for, or the default one.
    fn out(&self, args: &TrainArgs, stage: &str) -> PathBuf {
        args.out.clone().unwrap_or_else(|| self.default_out(stage))
    }

    /// `runs/<data>/<stage>`, or the first `-2`, `-3`, ... that is free or of this configuration.
    fn default_out(&self, stage: &str) -> PathBuf {
        let base = Path::new("runs").join(&self.data_stem);
        let names = std::iter::once(stage.to_owned()).chain((2..).map(|n| format!("{stage}-{n}")));
        let mut folders = names.map(|name| base.join(name));
        folders
            .find(|folder| run_dir::is_free_for(folder, &self.config.to_toml()))
            .expect("the numbers do not end")
    }

    /// Scores the chosen checkpoint on the test split: `result.json` in the folder, and a table.
    fn report(&self, fitted: &Fitted, conditions: &[ModalitySet], out: &Path) -> Result<()> {
        let loaded = evaluate::load(&fitted.best, self.device)?;
        let (task, labels) = (&self.corpus.task, self.corpus.labels(Split::Test));
        let mut by_condition = serde_json::Map::new();
        let mut lines = Vec::new();
        for condition in conditions {
            let view = evaluate::view(*condition, 0.0);
            let predictions = evaluate::predict(&loaded.net, &self.corpus.test, &view)?;
            let scored = metrics::score(task, labels, &predictions.probs);
            let shown: Vec<_> =
                scored.iter().map(|(m, v)| format!("{} {}", m.label(), m.format(*v))).collect();
            lines.push(format!("  {:<8} {}", condition.to_string(), shown.join("  ")));
            by_condition.insert(condition.key(), to_json(&scored));
        }
        let result = json!({
            "dataset": self.corpus.name, "split": "test", "epoch": fitted.best_epoch,
            "epochs": fitted.epochs, "metrics": by_condition,
        });
        let text = serde_json::to_string_pretty(&result)? + "\n";
        write_atomic(&out.join("result.json"), text.as_bytes())?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{} test split, checkpoint {}", self.corpus.name, fitted.best.display())?;
        for line in lines {
            writeln!(stdout, "{line}")?;
        }
        Ok(())
    }
}

fn evaluate_checkpoint(args: &EvaluateArgs) -> Result<()> {
    ensure!(
        (0.0..1.0).contains(&args.drop_ratio),
        "--drop-ratio {}: must lie in [0, 1)",
        args.drop_ratio
    );
    let device = device::parse_device(&args.device)?;
    device::set_threads(1); // more only pays for wide networks on many samples
    let Loaded { header, mut config, net } = evaluate::load(&args.checkpoint, device)?;
    if let Some(path) = &args.data {
        config.data.file.clone_from(path);
    }
    let file = pipeline::data_file(&config.data)?;
    let dataset = Dataset::open(&file)?;
    ensure!(
        dataset.task == header.data.task,
        "{} is labelled {:?}, the checkpoint was trained for {:?}",
        file.display(),
        dataset.task,
        header.data.task
    );
    let samples = dataset.split(args.split);
    let set = EvalSet::prepare(samples, args.split, dataset.steps, &header.data.stats, device)
        .with_context(|| file.display().to_string())?;
    let view = evaluate::view(args.condition, args.drop_ratio);
    let there = samples.available();
    if !there.contains_all(args.condition) {
        tracing::warn!(
            "{} has {there} in its {} split: what {} names beyond that is not there to be seen",
            file.display(),
            args.split,
            args.condition
        );
    }
    let predictions = evaluate::explain(&net, &set, &view)?;
    let scored = metrics::score(&dataset.task, &samples.labels, &predictions.probs);
    if let Some(path) = &args.predictions {
        write_predictions(path, &set, &dataset.task, &samples.labels, &predictions)?;
    }
    let report = json!({
        "checkpoint": args.checkpoint, "data": file, "dataset": dataset.name,
        "split": args.split.name(), "condition": args.condition.key(),
        "drop_ratio": args.drop_ratio, "samples": set.len(), "metrics": to_json(&scored),
    });
    writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&report)?)?;
    Ok(())
}

/// In the units of the paper: F1 and accuracies in percent.
fn to_json(scored: &metrics::Metrics) -> Value {
    scored.iter().map(|(metric, value)| (metric.key(), json!(metric.reported(*value)))).collect()
}

fn write_predictions(
    path: &Path,
    set: &EvalSet,
    task: &Task,
    labels: &Labels,
    predictions: &Predictions,
) -> Result<()> {
    let classes = task.class_names();
    let mut csv = csv::Writer::from_writer(Vec::new());
    let fixed = ["id", "label", "prediction"].map(str::to_owned).into_iter();
    let probs = classes.iter().map(|class| format!("p_{class}"));
    let last = ["entropy", "language", "audio", "vision"].map(str::to_owned);
    csv.write_record(fixed.chain(probs).chain(last))?;
    for (i, (id, probs)) in set.ids().iter().zip(&predictions.probs).enumerate() {
        let label = match labels {
            Labels::Scores(scores) => scores[i].to_string(),
            Labels::Classes(rows) => {
                let named = classes.iter().zip(&rows[i]).filter(|(_, set)| **set);
                named.map(|(class, _)| class.as_str()).collect::<Vec<_>>().join("+")
            }
        };
        let prediction = match task {
            Task::Sentiment { .. } => metrics::expected_score(task, probs).to_string(),
            Task::Emotion { .. } => classes[metrics::argmax(probs)].clone(),
        };
        let mut row = vec![id.clone(), label, prediction];
        row.extend(probs.iter().map(f32::to_string));
        row.push(metrics::entropy(probs).to_string());
        match &predictions.attributions {
            Some(shares) => row.extend(shares[i].iter().map(f32::to_string)),
            None => row.extend(["", "", ""].map(str::to_owned)),
        }
        csv.write_record(row)?;
    }
    write_atomic(path, &csv.into_inner()?)
}
