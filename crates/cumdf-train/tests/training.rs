//! Training end to end on a corpus small enough for seconds: what survives a kill, what stops a
//! run, and what no prediction may depend on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cumdf_data::{
    Corpus, Dataset, EvalSet, Labels, ModalitySet, Samples, Split, Task, TrainBatch, View,
    synthetic,
};
use cumdf_model::{Answer, Predictor};
use cumdf_train::{
    answers::Answers,
    config::Config,
    evaluate::{self, Predictions},
    fit::{Plan, TrainingData, fit},
    learner::{Learner, LossTerms},
    pipeline::{self, Place},
    registry::{self, Loaded},
    run_dir::{Card, Existing, RunDir, read_metrics},
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, nn::VarStore};

/// Held by a test from start to end: data and training draw from libtorch's generator, of which a
/// process has only one.
fn alone() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

const TINY: [&str; 5] = [
    "model.hidden_dim=8",
    "model.n_heads=2",
    "model.ffn_dim=8",
    "teacher.epochs=2",
    "student.epochs=3",
];

/// Scores that the first language feature gives away, 5 to 8 steps, vision sometimes absent.
fn tiny_dataset() -> Dataset {
    tch::manual_seed(3);
    let samples = |split: Split, n: i64| {
        let features = [4, 3, 2].map(|d| Tensor::randn([n, 8, d], (Kind::Float, Device::Cpu)));
        let signal = features[0].select(2, 0).mean_dim([1i64].as_slice(), false, Kind::Float);
        let scores = Vec::try_from((signal * 4.0).clamp(-3.0, 3.0)).expect("scores");
        Samples {
            features,
            labels: Labels::Scores(scores),
            lengths: (0..n).map(|i| 5 + i % 4).collect(),
            ids: (0..n).map(|i| format!("{split} {i}")).collect(),
            present: (0..n)
                .map(|i| if i % 5 == 0 { "la".parse().expect("a set") } else { ModalitySet::ALL })
                .collect(),
            truth: None,
        }
    };
    let splits = [samples(Split::Train, 70), samples(Split::Valid, 20), samples(Split::Test, 30)];
    Dataset::new("tiny", Task::Sentiment { lo: -3, hi: 3 }, splits).expect("a data set")
}

fn tiny_config() -> Config {
    let sets: Vec<_> = TINY.iter().map(|s| (*s).to_owned()).collect();
    Config::resolve(None, None, None, &sets).expect("a configuration")
}

fn trained(config: &Config, corpus: &Corpus, folder: &Path) -> Loaded {
    let place = Place::resuming(folder);
    let fitted = pipeline::train(config, corpus, Device::Cpu, &place).expect("trained");
    registry::load(&fitted.best, Device::Cpu).expect("loaded")
}

fn predict(model: &Loaded, set: &EvalSet, view: &View) -> anyhow::Result<Predictions> {
    evaluate::predict(model.predictor.as_ref(), &model.header.data.prior, set, view)
}

fn probs(predictions: &Predictions) -> &[Vec<f32>] {
    match &predictions.answers {
        Answers::Classes(rows) => rows,
        _ => panic!("CUMDF answers with classes"),
    }
}

fn tiny_corpus() -> Corpus {
    Corpus::prepare(&tiny_dataset(), 0.0, true, Device::Cpu).expect("a corpus")
}

/// The command for a student on `data` in `out`.
fn student(data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cumdf-train"));
    command.args(["student", "--device", "cpu", "--threads", "1"]);
    command.arg("--data").arg(data).arg("--out").arg(out);
    command.args(TINY.iter().flat_map(|set| ["--set", set])).args(more);
    command
}

fn run(mut command: Command) -> Output {
    command.output().expect("the program starts")
}

fn written(folder: &Path) -> PathBuf {
    let path = folder.join("tiny.h5");
    tiny_dataset().write(&path).expect("a file");
    path
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes_and_the_teacher_stays_as_it_was() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let data = written(folder.path());
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let output = run(student(&data, &whole, &[]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let teacher = fs::read(whole.join("teacher/best.safetensors")).expect("a teacher");

    // Kill it wherever it is once the student has begun, then go on until it is through.
    let mut kills = 0;
    for after in [1, 2] {
        let mut child = student(&data, &killed, &["--resume"]).spawn().expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let lines =
                fs::read_to_string(killed.join("student/metrics.jsonl")).unwrap_or_default();
            if lines.lines().count() >= after {
                child.kill().expect("kill -9");
                kills += 1;
                break;
            }
            if child.try_wait().expect("a status").is_some() || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        child.wait().expect("it ends");
    }
    assert!(kills > 0, "the run was never interrupted");
    let output = run(student(&data, &killed, &["--resume"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in ["student/best.safetensors", "student/last.safetensors", "teacher/best.safetensors"]
    {
        let [a, b] = [&whole, &killed].map(|run| fs::read(run.join(file)).expect("a checkpoint"));
        assert!(a == b, "{file} differs after {kills} kills");
    }
    let epochs: Vec<_> = read_metrics(&killed.join("student/metrics.jsonl")).expect("metrics");
    let epochs: Vec<_> = epochs.iter().map(|line| line["epoch"].as_u64()).collect();
    assert_eq!(epochs, [Some(1), Some(2), Some(3)]);
    let after = fs::read(whole.join("teacher/best.safetensors")).expect("a teacher");
    assert!(teacher == after, "the frozen teacher changed");
}

#[test]
fn a_folder_with_results_is_not_overwritten_without_a_word() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    assert!(run(student(&data, &out, &[])).status.success());
    let again = run(student(&data, &out, &[]));
    let message = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && message.contains("--resume"), "{message}");
    let other = run(student(&data, &out, &["--resume", "--set", "student.epochs=4"]));
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(!other.status.success() && message.contains("holds another run"), "{message}");
}

#[test]
fn evaluate_prints_json_and_writes_a_row_per_sample() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    assert!(run(student(&data, &out, &[])).status.success());
    let csv = folder.path().join("predictions.csv");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cumdf-train"));
    command.arg("evaluate").arg("--checkpoint").arg(out.join("student/best.safetensors"));
    command.args(["--condition", "la", "--drop-ratio", "0.3", "--predictions"]).arg(&csv);
    let output = run(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["condition"], &report["samples"]), (&"la".into(), &30.into()));
    assert!(report["metrics"]["mae"].as_f64().is_some_and(|mae| mae > 0.0), "{report}");
    let mut reader = csv::Reader::from_path(&csv).expect("a CSV file");
    let columns: Vec<_> = reader.headers().expect("a header").iter().map(str::to_owned).collect();
    assert_eq!(columns[..4], ["id", "label", "prediction", "p_-3"]);
    assert_eq!(columns[columns.len() - 4..], ["entropy", "language", "audio", "vision"]);
    let rows: Vec<_> = reader.records().map(|row| row.expect("a row")).collect();
    assert_eq!((rows.len(), &rows[7][0]), (30, "test 7"));
    for row in &rows {
        let shares: Vec<f64> =
            row.iter().skip(columns.len() - 3).map(|s| s.parse().expect("a share")).collect();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{shares:?}");
        assert!(shares[2].abs() < 1e-9, "vision is hidden, and yet has a share: {shares:?}");
    }

    // Broken checkpoints are errors that say so.
    let whole = fs::read(out.join("student/best.safetensors")).expect("bytes");
    for cut in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        let path = folder.path().join("cut.safetensors");
        fs::write(&path, &whole[..cut]).expect("written");
        let error = registry::load(&path, Device::Cpu).expect_err("it is cut short");
        assert!(format!("{error:#}").contains("cut.safetensors"), "cut at {cut}: {error:#}");
    }
}

#[test]
fn predictions_do_not_depend_on_labels_batch_mates_or_padding() {
    let _alone = alone();
    let config = tiny_config();
    let corpus = tiny_corpus();
    let folder = tempfile::tempdir().expect("a folder");
    let model = trained(&config, &corpus, folder.path());
    let view = evaluate::view(ModalitySet::ALL, 0.4);
    let predicted = predict(&model, &corpus.test, &view).expect("predicted");

    // Labels: the same file with its test labels reversed.
    let mut permuted = tiny_dataset();
    let Labels::Scores(scores) = &mut permuted.test.labels else { panic!("scores") };
    scores.reverse();
    let other = Corpus::prepare(&permuted, 0.0, true, Device::Cpu).expect("a corpus");
    let same = predict(&model, &other.test, &view).expect("predicted");
    assert_eq!(predicted, same, "labels reached the prediction");

    // Batch mates and padding: every sample alone, trimmed to its own length.
    for (rows, inputs) in corpus.test.batches(&view, 1) {
        let answer = model.predictor.predict(&inputs);
        let alone: Vec<Vec<f32>> = Vec::try_from(answer.tensor()).expect("rows");
        for (a, b) in alone[0].iter().zip(&probs(&predicted)[rows[0]]) {
            assert!((a - b).abs() < 1e-5, "sample {}: {a} alone, {b} in a batch", rows[0]);
        }
    }

    // A wider file: the same samples padded to 12 steps with garbage.
    let mut padded = tiny_dataset();
    let noise = |x: &Tensor| {
        let extra = Tensor::full([x.size()[0], 4, x.size()[2]], 99.0, (Kind::Float, Device::Cpu));
        Tensor::cat(&[x, &extra], 1)
    };
    padded.test.features = padded.test.features.each_ref().map(noise);
    let set = EvalSet::prepare(&padded.test, Split::Test, 12, &corpus.stats, Device::Cpu)
        .expect("an evaluation set");
    let complete = evaluate::view(ModalitySet::ALL, 0.0);
    let wide = predict(&model, &set, &complete).expect("predicted");
    let narrow = predict(&model, &corpus.test, &complete).expect("predicted");
    for (a, b) in probs(&wide).iter().flatten().zip(probs(&narrow).iter().flatten()) {
        assert!((a - b).abs() < 1e-5, "padding reached the prediction: {a} for {b}");
    }
}

#[test]
fn attributions_rank_the_modalities_of_the_synthetic_corpus_as_its_truth_does() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let file = synthetic::ensure(synthetic::Kind::Sentiment, folder.path()).expect("a corpus");
    let dataset = Dataset::open(&file).expect("a data set");
    let truth = dataset.test.truth.as_ref().expect("the corpus knows its truth");
    let n = dataset.test.len() as f64;
    let strength: [f64; 3] =
        std::array::from_fn(|m| truth.strength.iter().map(|s| f64::from(s[m])).sum::<f64>() / n);
    let sets = ["student.epochs=6".to_owned(), "student.distillation=false".to_owned()];
    let config = Config::resolve(None, None, None, &sets).expect("a configuration");
    let corpus = Corpus::prepare(&dataset, 0.0, true, Device::Cpu).expect("a corpus");
    tch::set_num_threads(1);
    let model = trained(&config, &corpus, folder.path());
    let view = evaluate::view(ModalitySet::ALL, 0.0);
    let predicted =
        evaluate::explain(model.predictor.as_ref(), &model.header.data.prior, &corpus.test, &view)
            .expect("predicted");
    let shares = predicted.attributions.expect("CUMDF attributes");
    let share: [f64; 3] =
        std::array::from_fn(|m| shares.iter().map(|s| f64::from(s[m])).sum::<f64>() / n);
    assert!(strength[0] > strength[1] && strength[1] > strength[2], "truth {strength:?}");
    assert!(share[0] > share[1] && share[1] > share[2], "shares {share:?}, truth {strength:?}");
}

/// A learner that fails on purpose, and the smallest that the trainer takes.
struct Faulty {
    vs: VarStore,
    weight: Tensor,
    n_batches: usize,
    fails_at: usize,
}

impl Predictor for Faulty {
    fn predict(&self, inputs: &cumdf_data::Inputs) -> Answer {
        let logits = Tensor::zeros([inputs.len(), 7], (Kind::Float, Device::Cpu)) + &self.weight;
        Answer::Classes(logits.detach().softmax(-1, Kind::Float))
    }
}

impl Learner for Faulty {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn predictor(&self) -> &dyn Predictor {
        self
    }

    fn loss(&mut self, _batch: &TrainBatch) -> LossTerms {
        self.n_batches += 1;
        let mut terms = LossTerms::default();
        terms.add("good", 1.0, || self.weight.square().sum(Kind::Float));
        let factor = if self.n_batches == self.fails_at { f64::NAN } else { 1.0 };
        terms.add("bad", 0.5, || self.weight.square().sum(Kind::Float) * factor);
        terms
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_by_name_and_keeps_the_last_good_checkpoint() {
    let _alone = alone();
    let (config, corpus) = (tiny_config(), tiny_corpus());
    let folder = tempfile::tempdir().expect("a folder");
    let vs = VarStore::new(Device::Cpu);
    let weight = vs.root().ones("weight", &[7]);
    let mut stage = config.method.stages().remove(1);
    stage.epochs = 3;
    let n_batches = corpus.train.n_batches(stage.train.batch_size);
    let mut faulty = Faulty { vs, weight, n_batches: 0, fails_at: n_batches + 2 };
    let (problem, identity) = (pipeline::problem(&corpus), json!({}));
    let data = TrainingData::new(&corpus, &problem);
    let plan = Plan {
        stage: &stage,
        seed: 1,
        method: "faulty",
        config: &json!({}),
        identity: &identity,
        problem: &problem,
    };
    let card = Card { identity: &identity, config: "", threads: 1, device: "cpu".into() };
    let mut run = RunDir::open(folder.path(), &card, Existing::Refuse).expect("a run");
    let error = fit(&mut faulty, &plan, &data, &mut run).expect_err("a NaN loss");
    let message = format!("{error:#}");
    assert!(
        message.contains("`bad`")
            && message.contains("epoch 2: the loss term")
            && message.contains("batch 2 of the epoch"),
        "{message}"
    );
    assert!(message.contains("of epoch 1, is kept") && run.best().exists(), "{message}");
}
