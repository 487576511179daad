//! A corpus that trains in seconds, and what tests do with it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cumdf_data::{Corpus, Dataset, EvalSet, Labels, ModalitySet, Samples, Split, Task, View};
use cumdf_train::{
    config::Config,
    evaluate::{self, Predictions},
    pipeline::{self, Place},
    registry::{self, Loaded},
};
use tch::{Device, Kind, Tensor};
use toml::{Table, Value};

/// Steps of the tiny corpora.
pub(crate) const STEPS: i64 = 8;

/// Held by a test from start to end: data and training draw from libtorch's generator, of which a
/// process has only one.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    tch::set_num_threads(1);
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Scores that the first language feature gives away, 5 to 8 steps, each modality sometimes absent.
pub(crate) fn sentiment() -> Dataset {
    dataset(tasks()[0].clone(), [70, 20, 30])
}

/// Both kinds of labels.
pub(crate) fn tasks() -> [Task; 2] {
    let classes = ["sad", "calm", "glad"].map(String::from).to_vec();
    [Task::Sentiment { lo: -3, hi: 3 }, Task::Emotion { classes }]
}

/// A corpus of `task` with so many training, validation and test samples.
pub(crate) fn dataset(task: Task, sizes: [i64; 3]) -> Dataset {
    tch::manual_seed(3);
    let samples = |split: Split| {
        let n = sizes[split.index()];
        let features = [4, 3, 2].map(|d| Tensor::randn([n, STEPS, d], (Kind::Float, Device::Cpu)));
        let lengths: Vec<i64> = (0..n).map(|i| 5 + i % 4).collect();
        let used = Tensor::arange(STEPS, (Kind::Int64, Device::Cpu))
            .lt_tensor(&Tensor::from_slice(&lengths).unsqueeze(1))
            .to_kind(Kind::Float); // [N, T]
        let signal = (features[0].select(2, 0) * &used).sum_dim_intlist(1i64, false, Kind::Float)
            / used.sum_dim_intlist(1i64, false, Kind::Float); // the mean of the used steps
        let scores: Vec<f32> = Vec::try_from((signal * 4.0).clamp(-3.0, 3.0)).expect("scores");
        let labels = match &task {
            Task::Sentiment { .. } => Labels::Scores(scores),
            Task::Emotion { .. } => {
                let row = |s: &f32| vec![*s < -0.5, (-0.6..0.6).contains(s), *s > 0.5];
                Labels::Classes(scores.iter().map(row).collect())
            }
        };
        Samples {
            features,
            labels,
            lengths,
            ids: (0..n).map(|i| format!("{split} {i}")).collect(),
            present: (0..n)
                .map(|i| match i % 15 {
                    0 | 5 | 10 => "la".parse().expect("a set"),
                    7 => "av".parse().expect("a set"),
                    8 => "lv".parse().expect("a set"),
                    _ => ModalitySet::ALL,
                })
                .collect(),
            truth: None,
        }
    };
    Dataset::new("tiny", task.clone(), Split::ALL.map(samples)).expect("a data set")
}

/// The same samples, in tensors of their own.
pub(crate) fn copy(samples: &Samples) -> Samples {
    Samples {
        features: samples.features.each_ref().map(Tensor::copy),
        labels: samples.labels.clone(),
        lengths: samples.lengths.clone(),
        ids: samples.ids.clone(),
        present: samples.present.clone(),
        truth: None,
    }
}

/// A corpus on the CPU.
pub(crate) fn corpus(dataset: &Dataset) -> Corpus {
    Corpus::prepare(dataset, 0.0, true, Device::Cpu).expect("a corpus")
}

/// The keys of a recipe that make any method small and quick: widths of at most 8, `epochs` each.
pub(crate) fn small(recipe: &str, epochs: u32) -> Vec<String> {
    edited(recipe, |key, last, value| match value {
        Value::Integer(_) if last == "epochs" => Some(epochs.to_string()),
        Value::Integer(n) if last == "folds" => Some(n.min(&2).to_string()),
        Value::Integer(n) if key.starts_with("model.") && *n > 8 => Some("8".into()),
        Value::Integer(n) if last == "n_heads" && 8 % n != 0 => Some("4".into()),
        Value::Float(_) if last == "warmup_epochs" => Some("0.0".into()), // few epochs
        Value::Array(sizes)
            if key.starts_with("model.") && sizes.len() == 3 && last.ends_with("dims") =>
        {
            Some("[8, 6, 4]".into())
        }
        Value::Array(_) if key == "model.blocks" => Some("[[6, 3, 8], [4, 3, 6]]".into()),
        Value::Table(_) if last == "schedule" => Some("'constant'".into()),
        _ => None,
    })
}

/// The same with widths of at most 48, made to fit a few samples exactly: no dropout, nothing
/// hidden, no decay, a brisk step.
pub(crate) fn memorising(recipe: &str, epochs: u32) -> Vec<String> {
    edited(recipe, |key, last, value| match (last, value) {
        ("epochs" | "patience", Value::Integer(_)) => Some(epochs.to_string()),
        ("batch_size", _) => Some("16".into()),
        ("learning_rate", _) => Some("0.003".into()),
        ("accumulate", _) => Some("1".into()),
        ("schedule", _) => Some("'constant'".into()),
        ("weight_decay" | "inter" | "teacher_share" | "cou", _) => Some("0.0".into()),
        ("folds", _) => Some("1".into()),
        ("drop_ratios", _) => Some("[0.0]".into()),
        (name, Value::Float(_)) if name.ends_with("dropout") => Some("0.0".into()),
        (_, Value::Integer(n)) if key.starts_with("model.") && *n > 48 => Some("48".into()),
        ("n_heads", Value::Integer(_)) => Some("4".into()), // divides every width here
        _ => None,
    })
}

/// `key=value` for every key of a recipe for which `edit` has a value; it is handed the whole key
/// and its last part.
fn edited(recipe: &str, edit: impl Fn(&str, &str, &Value) -> Option<String>) -> Vec<String> {
    let mut sets = vec![format!("recipe={recipe}")];
    let table: Table = toml::from_str(&resolve(&sets).to_toml()).expect("TOML");
    walk(&table, "", &mut |key, value| {
        let last = key.rsplit('.').next().unwrap_or_default();
        sets.extend(edit(key, last, value).map(|value| format!("{key}={value}")));
    });
    sets
}

fn walk(table: &Table, at: &str, see: &mut impl FnMut(&str, &Value)) {
    for (key, value) in table {
        let key = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        see(&key, value);
        if let Value::Table(inner) = value
            && !key.ends_with("schedule")
            && !key.ends_with("clip")
        {
            walk(inner, &key, see);
        }
    }
}

/// CUMDF, small and quick.
pub(crate) const SETS: [&str; 6] = [
    "model.hidden_dim=8",
    "model.n_heads=2",
    "model.ffn_dim=8",
    "teacher.epochs=2",
    "teacher.folds=2",
    "student.epochs=3",
];

/// A configuration with [`SETS`].
pub(crate) fn config() -> Config {
    resolve(&SETS.map(str::to_owned))
}

pub(crate) fn resolve(sets: &[String]) -> Config {
    Config::resolve(None, None, None, sets).expect("a configuration")
}

/// Trains all stages in `folder` and loads what came of it.
pub(crate) fn trained(config: &Config, corpus: &Corpus, folder: &Path) -> Loaded {
    let place = Place::resuming(folder);
    let fitted = pipeline::train(config, corpus, Device::Cpu, &place).expect("trained");
    registry::load(&fitted.best, Device::Cpu).expect("loaded")
}

pub(crate) fn predict(model: &Loaded, set: &EvalSet, view: &View) -> Predictions {
    let prior = &model.header.data.prior;
    evaluate::predict(model.predictor.as_ref(), prior, set, view).expect("predicted")
}

/// The tiny sentiment corpus as a file in `folder`.
pub(crate) fn written(folder: &Path) -> PathBuf {
    let path = folder.join("tiny.h5");
    sentiment().write(&path).expect("a file");
    path
}

/// The program with the arguments of a training on `data` in `out`.
pub(crate) fn program(command: &[&str], data: &Path, out: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_cumdf-train"));
    program.args(command).args(["--device", "cpu", "--threads", "1"]);
    program.arg("--data").arg(data).arg("--out").arg(out);
    program
}

/// The command for a small student on `data` in `out`.
pub(crate) fn student(data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = program(&["student"], data, out);
    command.args(SETS.iter().flat_map(|set| ["--set", set])).args(more);
    command
}

pub(crate) fn run(mut command: Command) -> Output {
    command.output().expect("the program starts")
}

/// What a failing command said.
pub(crate) fn refusal(command: Command) -> String {
    let output = run(command);
    assert!(!output.status.success(), "it went well");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fails with what the command said, unless it went well.
pub(crate) fn succeeds(command: Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
