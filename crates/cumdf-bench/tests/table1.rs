//! The program on toy data sets, from files to tables.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use cumdf_data::{Dataset, Labels, Modality, ModalitySet, Samples, Task};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Small enough that a training takes a second.
const TINY: [&str; 12] = [
    "--set",
    "model.hidden_dim=8",
    "--set",
    "model.n_heads=2",
    "--set",
    "model.ffn_dim=8",
    "--set",
    "train.batch_size=8",
    "--set",
    "teacher.epochs=1",
    "--set",
    "student.epochs=2",
];

/// A data set of 24 / 8 / 12 samples that nothing can be learned from.
fn toy(folder: &Path, name: &str, task: Task, present: ModalitySet) -> PathBuf {
    let mut first = 0;
    let splits = [24, 8, 12].map(|n| {
        let rows = first..first + n;
        first += n;
        let features = [(4, 5), (4, 3), (1, 2)].map(|(steps, dim)| {
            // Tests run side by side in one process and would share libtorch's generator.
            let at = Tensor::arange(n * steps * dim, (Kind::Float, Device::Cpu)) + first as f64;
            (at * 12.9898).sin().reshape([n, steps, dim])
        });
        let labels = match &task {
            Task::Sentiment { lo, hi } => {
                let score = |i: i64| (lo + i % (hi - lo + 1)) as f32;
                Labels::Scores(rows.clone().map(score).collect())
            }
            Task::Emotion { classes } => {
                let c = classes.len() as i64;
                Labels::Classes(
                    rows.clone().map(|i| (0..c).map(|k| k == i % c).collect()).collect(),
                )
            }
        };
        Samples {
            features,
            labels,
            lengths: rows.clone().map(|i| 1 + i % 4).collect(),
            ids: rows.map(|i| format!("sample {i}")).collect(),
            present: vec![present; n as usize],
            truth: None,
        }
    });
    let path = folder.join(format!("{}.h5", name.replace(' ', "-")));
    let data = Dataset::new(name, task, splits).expect("the toy keeps the rules");
    data.write(&path).expect("a temporary folder can be written");
    path
}

fn program(out: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cumdf-bench"));
    // A test that starts a program while another writes its data set hands it the open file, lock
    // included; HDF5 would then refuse the finished file to the other test's program.
    command.env("HDF5_USE_FILE_LOCKING", "FALSE");
    command.env_remove("COLUMNS");
    command.arg("table1").args(["--device", "cpu"]).args(TINY).args(args).arg("--out").arg(out);
    command
}

fn run(out: &Path, args: &[&str]) -> Output {
    program(out, args).output().expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn records(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("table1.json")).expect("table1.json was written");
    serde_json::from_str(&text).expect("table1.json is a list")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

#[test]
fn two_data_sets_become_a_complete_table() {
    let dir = tempfile::tempdir().unwrap();
    let no_vision = ModalitySet::of([Modality::Language, Modality::Audio]);
    let mosi = toy(dir.path(), "CMU-MOSI (toy)", Task::Sentiment { lo: -3, hi: 3 }, no_vision);
    let classes = ["happy", "sad"].map(String::from).to_vec();
    let emotions = toy(dir.path(), "toy emotions", Task::Emotion { classes }, ModalitySet::ALL);
    let out = dir.path().join("out");
    let args = ["--data", text(&mosi), "--data", text(&emotions), "--seeds", "2"];
    let output = run(&out, &args);
    assert!(output.status.success(), "{}", said(&output));

    let records = records(&out);
    assert_eq!(records.len(), 10 * 7 * 6 + 10 * 7 * 4);
    for record in &records {
        let keys: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "dataset",
            "model",
            "condition",
            "same_as",
            "metric",
            "mean",
            "std",
            "seeds",
            "paper",
            "floor",
            "floor_of",
            "note",
        ];
        assert_eq!(keys, expected);
        let [model, condition] = ["model", "condition"].map(|key| record[key].as_str().unwrap());
        let on_mosi = record["dataset"] == "CMU-MOSI (toy)";
        let trained = model.starts_with("cumdf");
        let measured = (trained || model == "constant") && !(on_mosi && condition.contains('v'));
        assert_eq!(record["mean"].is_number(), measured, "{record}");
        assert_eq!(record["note"].is_null(), measured, "{record}");
        assert_eq!(record["std"].is_number(), measured && trained, "{record}");
        assert!(!measured || record["seeds"] == if trained { 2 } else { 1 }, "{record}");
        let answerable = !(on_mosi && condition.contains('v'));
        assert_eq!(record["floor"].is_number(), answerable, "{record}");
        assert_eq!(record["floor_of"] == "constant", answerable, "{record}");
        let metric = record["metric"].as_str().unwrap();
        let printed = on_mosi
            && ["mae", "f1"].contains(&metric)
            && !["constant", "cumdf-no-distillation"].contains(&model);
        assert_eq!(record["paper"].is_number(), printed, "{record}");
    }
    let found = |wanted: [&str; 4]| {
        let keys = ["dataset", "model", "condition", "metric"];
        let is = |r: &&Value| keys.iter().zip(wanted).all(|(key, value)| r[*key] == value);
        records.iter().find(is).unwrap_or_else(|| panic!("no record for {wanted:?}"))
    };
    let note = &found(["CMU-MOSI (toy)", "cumdf", "lav", "acc7"])["note"];
    assert_eq!(note, "n/a: the test split has no vision");
    assert_eq!(found(["toy emotions", "transm", "la", "f1_happy"])["note"], "not yet");
    assert!(found(["toy emotions", "cumdf", "v", "f1_sad"])["mean"].is_number());
    assert_eq!(found(["CMU-MOSI (toy)", "cumdf", "lav", "f1"])["paper"], 84.37);

    let csv = fs::read_to_string(out.join("table1.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + records.len());
    let markdown = fs::read_to_string(out.join("table1.md")).unwrap();
    let difference = "language has 5 features per step, the paper's 300";
    assert!(markdown.contains(difference), "{markdown}");
    assert!(markdown.contains("CUMDF beats the best floor in "), "{markdown}");
    let latex = fs::read_to_string(out.join("table1.tex")).unwrap();
    assert_eq!(latex.matches("\\begin{tabular}").count(), 2);
    let shown = String::from_utf8(output.stdout).unwrap();
    for line in shown.lines().take_while(|line| !line.starts_with("written: ")) {
        assert!(line.chars().count() <= 80 || line.contains(".h5"), "too wide: {line}");
    }

    // The trainings' own files are in percent too.
    let figure = |seed: u64| {
        let path = out.join(format!("cells/toy-emotions/cumdf/seed-{seed}/result.json"));
        let result: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        result["figures"]["la"]["acc"].as_f64().unwrap()
    };
    let mean = found(["toy emotions", "cumdf", "la", "acc"])["mean"].as_f64().unwrap();
    assert!(((figure(1) + figure(2)) / 2.0 - mean).abs() < 1e-6 && mean > 1.0, "{mean}");

    // A second time, nothing is left to do; other settings are other cells.
    let json = fs::read(out.join("table1.json")).unwrap();
    let output = program(&out, &args).env("COLUMNS", "60").output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let too_wide = |line: &&str| line.chars().count() > 60 && !line.contains(text(dir.path()));
    assert_eq!(shown.lines().find(too_wide), None);
    assert!(said(&output).contains("8 trainings are finished already"), "{}", said(&output));
    assert!(!said(&output).contains("to run"), "{}", said(&output));
    assert_eq!(fs::read(out.join("table1.json")).unwrap(), json);
    let output = run(&out, &[&args[..], &["--set", "train.learning_rate=0.01"]].concat());
    assert!(said(&output).contains("8 trainings to run"), "{}", said(&output));
    assert_ne!(fs::read(out.join("table1.json")).unwrap(), json);
}

#[test]
fn a_killed_table_continues_and_ends_like_an_unbroken_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = toy(dir.path(), "toy", Task::Sentiment { lo: -1, hi: 1 }, ModalitySet::ALL);
    let args = ["--data", text(&data), "--seeds", "1", "--jobs", "1", "--models", "cumdf"];
    let args = [&args[..], &["--set", "student.epochs=40", "--set", "train.patience=40"]].concat();
    let [broken, unbroken] = ["broken", "unbroken"].map(|name| dir.path().join(name));
    let output = run(&unbroken, &args);
    assert!(output.status.success(), "{}", said(&output));

    let mut child = program(&broken, &args).stderr(Stdio::null()).spawn().unwrap();
    let run_dir = broken.join("cells/toy/cumdf/seed-1/run/student");
    let lines = || fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap_or_default();
    let start = Instant::now();
    while lines().lines().count() < 3 {
        assert!(start.elapsed() < Duration::from_secs(120), "the training does not begin");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap(); // SIGKILL: it cannot tell its own child
    child.wait().unwrap();
    // Which must find out by itself.
    let (mut before, mut after) = (String::new(), lines());
    while before != after {
        thread::sleep(Duration::from_secs(1));
        (before, after) = (after, lines());
    }
    assert!(!broken.join("table1.json").exists());
    let n_done = after.lines().count();
    assert!((3..40).contains(&n_done), "{n_done} epochs were done when it was killed");

    let output = run(&broken, &args);
    assert!(output.status.success(), "{}", said(&output));
    let log = fs::read_to_string(broken.join("cells/toy/cumdf/seed-1/log.txt")).unwrap();
    assert!(log.contains("goes on after epoch"), "{log}");
    assert_eq!(records(&broken), records(&unbroken));
}

#[test]
fn a_failed_training_is_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = toy(dir.path(), "toy", Task::Sentiment { lo: -1, hi: 1 }, ModalitySet::ALL);
    let out = dir.path().join("out");
    // In the way of one cell's training folder lies a file.
    let blocked = out.join("cells/toy/cumdf/seed-1");
    fs::create_dir_all(&blocked).unwrap();
    let args = ["--data", text(&data), "--seeds", "1"];
    let output = run(&out, &[&args[..], &["--set", "train.learning_rate=1e-9"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    fs::remove_dir_all(blocked.join("run")).unwrap();
    fs::remove_file(blocked.join("result.json")).unwrap();
    fs::write(blocked.join("run"), "in the way").unwrap();
    let output = run(&out, &[&args[..], &["--set", "train.learning_rate=1e-9"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("toy, cumdf, seed 1 failed: "), "{}", said(&output));
    assert!(said(&output).contains("1 of 2 trainings failed"), "{}", said(&output));
    for record in records(&out) {
        let note = record["note"].as_str().unwrap_or_default();
        assert_eq!(note.starts_with("failed: seed 1: "), record["model"] == "cumdf", "{record}");
        assert!(record["mean"].is_number() || record["model"] != "cumdf-no-distillation");
    }
}

#[test]
fn what_cannot_be_run_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    for (args, answer) in [
        (&["--models", "dmd"][..], "DMD is not built yet"),
        (&["--models", "cumdv"], "no such model; known are"),
        (&["--data", "absent.h5"], "absent.h5: cannot be opened"),
        (&["--data", "a", "--config", "b", "--config", "c"], "2 --config and 1 --data"),
        (&["--seeds", "0"], "invalid value '0'"),
    ] {
        let output = run(dir.path(), args);
        assert!(!output.status.success());
        assert!(said(&output).contains(answer), "{args:?}: {}", said(&output));
    }
}
