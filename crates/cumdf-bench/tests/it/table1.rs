//! The program on toy data sets, from files to tables.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use cumdf_bench::{
    grid::{
        store,
        variants::{COMPARISON, Variant, Work},
    },
    report::table::Kind as RowKind,
};
use cumdf_data::{Dataset, Modality, ModalitySet, Samples, Split, Task};
use cumdf_train::{answers::Answers, evaluate, metrics::Metric, registry, run_dir::read_metrics};
use serde_json::Value;
use tch::Device;

use crate::common::{artefact, said, scores, table, text, tiny, toy, wait_for};

/// The rows that a table has with `--models cumdf`: that one and the floors.
const CUMDF: [&str; 2] = ["--models", "cumdf"];

/// Floors that take a child process, and floors that are trained.
fn floors() -> (usize, usize) {
    let is = |v: &&Variant, trained: bool| {
        v.key != "cumdf"
            && match v.work() {
                Work::Train(_) => trained && v.kind == RowKind::Floor,
                Work::Fit(_) => !trained,
                Work::Constant => false,
            }
    };
    let n = |trained| COMPARISON.iter().filter(|v| is(v, trained)).count();
    (n(false), n(true))
}

/// Cells of a table with `--models cumdf`, on one data set with one seed.
fn n_cells() -> usize {
    let (fitted, trained) = floors();
    fitted + 1 + trained
}

/// What is said when all of them are still to be run.
fn all_to_run() -> String {
    match n_cells() {
        1 => "1 cell to run".into(),
        n => format!("{n} cells to run"),
    }
}

fn bare(out: &Path, args: &[&str]) -> Command {
    artefact("table1", out, args)
}

fn program(out: &Path, args: &[&str]) -> Command {
    let tiny = tiny(args);
    let tiny: Vec<_> = tiny.iter().map(String::as_str).collect();
    let args = [&tiny[..], args].concat();
    bare(out, &args)
}

fn run(out: &Path, args: &[&str]) -> Output {
    program(out, args).stdin(Stdio::null()).output().expect("the program starts")
}

fn run_well(out: &Path, args: &[&str]) -> String {
    let output = run(out, args);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

fn records(out: &Path) -> Vec<Value> {
    part(out, "figures")
}

/// One of the lists in `table1.json`.
fn part(out: &Path, key: &str) -> Vec<Value> {
    part_of("table1", out, key)
}

fn part_of(name: &str, out: &Path, key: &str) -> Vec<Value> {
    let text = fs::read_to_string(out.join(format!("{name}.json"))).expect("it was written");
    let whole: Value = serde_json::from_str(&text).expect("it is JSON");
    whole[key].as_array().expect("it is a list").clone()
}

/// The folders in a folder.
fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|e| e.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// The cells of a variant on the data set `toy` whose names begin so.
fn cells(out: &Path, variant: &str, start: &str) -> Vec<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let all = folders(&out.join("cells/toy").join(variant));
    all.into_iter().filter(|path| name(path).starts_with(start)).collect()
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
    let n_rows = COMPARISON.iter().filter(|v| !v.extra).count();
    assert_eq!(records.len(), n_rows * 9 * (6 + 4));
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
            "standing",
            "best",
            "note",
        ];
        assert_eq!(keys, expected);
        let [model, condition] = ["model", "condition"].map(|key| record[key].as_str().unwrap());
        let on_mosi = record["dataset"] == "CMU-MOSI (toy)";
        let variant = COMPARISON.iter().find(|v| v.key == model).unwrap();
        let trained = matches!(variant.work(), Work::Train(_));
        let answerable = !(on_mosi && condition.contains('v'));
        assert_eq!(record["mean"].is_number(), answerable, "{record}");
        assert_eq!(record["note"].is_null(), answerable, "{record}");
        assert_eq!(record["std"].is_number(), answerable && trained, "{record}");
        assert!(!answerable || record["seeds"] == if trained { 2 } else { 1 }, "{record}");
        assert_eq!(record["floor"].is_number(), answerable, "{record}");
        assert_eq!(record["floor_of"].is_string(), answerable, "{record}");
        let metric = record["metric"].as_str().unwrap();
        let printed = on_mosi
            && ["mae", "f1"].contains(&metric)
            && !["constant", "linear", "mlp", "cumdf-no-distillation"].contains(&model);
        assert_eq!(record["paper"].is_number(), printed, "{record}");
    }
    let found = |wanted: [&str; 4]| {
        let keys = ["dataset", "model", "condition", "metric"];
        let is = |r: &&Value| keys.iter().zip(wanted).all(|(key, value)| r[*key] == value);
        records.iter().find(is).unwrap_or_else(|| panic!("no record for {wanted:?}"))
    };
    let note = &found(["CMU-MOSI (toy)", "cumdf", "lav", "acc7"])["note"];
    assert_eq!(note, "n/a: the test split has no vision");
    assert!(found(["toy emotions", "cumdf", "v", "f1_sad"])["mean"].is_number());
    assert_eq!(found(["CMU-MOSI (toy)", "cumdf", "lav", "f1"])["paper"], 84.37);

    // What is trained has its cost, what is not has none.
    let costs = part(&out, "costs");
    let trained = || COMPARISON.iter().filter(|v| !v.extra && matches!(v.work(), Work::Train(_)));
    assert_eq!(costs.len(), 2 * trained().count());
    for cost in &costs {
        assert!(trained().any(|v| cost["model"] == v.key), "{cost}");
        assert_eq!(cost["seeds"], 2, "{cost}");
        let [seconds, epochs, each] =
            ["seconds", "epochs", "seconds_per_epoch"].map(|key| cost[key].as_f64().unwrap());
        assert!(seconds > 0.0 && (seconds / epochs - each).abs() < 1e-9, "{cost}");
    }
    // One hidden layer of 8 on the means of 5 + 3 + 2 features, two emotions.
    let mlp = costs.iter().find(|c| c["dataset"] == "toy emotions" && c["model"] == "mlp").unwrap();
    assert_eq!(mlp["epochs"], 1.0, "{mlp}");
    assert_eq!(mlp["parameters"], (10 + 1) * 8 + (8 + 1) * 2, "{mlp}");

    // Each row was shown as soon as it was finished, CUMDF's first.
    let shown_at = |name: &str| {
        let start = format!("INFO toy emotions, {name}: F1 {{l}} ");
        let said = said(&output);
        let found = said.find(&start).unwrap_or_else(|| panic!("no line {start:?}: {said}"));
        assert_eq!(said.matches(&start).count(), 1, "{said}");
        found
    };
    assert!(shown_at("CUMDF") < shown_at("IF-MMIN"));
    for row in COMPARISON.iter().filter(|v| !v.extra && v.key != "constant") {
        shown_at(row.name);
    }
    let figure = |condition: &str| {
        found(["toy emotions", "linear", condition, "f1"])["mean"].as_f64().unwrap()
    };
    let [whole, mean, worst] = ["lav", "mean", "worst"].map(figure);
    let line = format!("{{l,a,v}} {whole:.2}, mean {mean:.2}, worst {worst:.2}");
    assert!(said(&output).contains(&line), "{line}: {}", said(&output));

    // What sums up is over {l}, {a} and {l,a}: these the file can answer. The paper's over all seven.
    let mean = |condition: &str, metric: &str| {
        found(["CMU-MOSI (toy)", "cumdf", condition, metric])["mean"].as_f64().unwrap()
    };
    for (metric, sign) in [("mae", 1.0), ("f1", -1.0)] {
        let figures = ["l", "a", "la"].map(|condition| mean(condition, metric));
        let average = figures.iter().sum::<f64>() / 3.0;
        assert!((mean("mean", metric) - average).abs() < 1e-6, "{metric}: {figures:?}");
        // The worst of each seed is as bad as the worst mean, or worse.
        let worst = figures.map(|figure| sign * figure).into_iter().fold(f64::MIN, f64::max);
        assert!(sign * mean("worst", metric) >= worst - 1e-6, "{metric}: {figures:?}");
    }
    let paper = |condition: &str, metric: &str| {
        found(["CMU-MOSI (toy)", "cumdf", condition, metric])["paper"].as_f64().unwrap()
    };
    assert!((paper("mean", "mae") - 5.05 / 7.0).abs() < 1e-9);
    for (metric, worst) in [("mae", 0.766), ("f1", 60.48)] {
        assert!((paper("worst", metric) - worst).abs() < 1e-9, "{}", paper("worst", metric));
    }

    let csv = fs::read_to_string(out.join("table1.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + records.len());
    let markdown = fs::read_to_string(out.join("table1.md")).unwrap();
    let difference = "language has 5 features per step, the paper's 300";
    assert!(markdown.contains(difference), "{markdown}");
    assert!(markdown.contains("CUMDF is above the best floor in "), "{markdown}");
    for over in [
        "the 3 conditions that this file answers, equal columns once: {l} {a} {l,a}; the \
         paper's: over all 7",
        "all 7 conditions",
    ] {
        let note =
            format!("mean, worst: of each seed by itself, then the mean over seeds; over {over}\n");
        assert!(markdown.contains(&note), "{note}{markdown}");
    }
    let latex = fs::read_to_string(out.join("table1.tex")).unwrap();
    assert_eq!(latex.matches("\\begin{table*}").count(), 2);
    assert_eq!(latex.matches("\\begin{tabular}").count(), 4, "too wide beside each other");
    let shown = String::from_utf8(output.stdout).unwrap();
    for line in shown.lines().take_while(|line| !line.starts_with("written: ")) {
        assert!(line.chars().count() <= 80 || line.contains(".h5"), "too wide: {line}");
    }

    // The table is that of the predictions that are stored, and every file is in percent.
    let stored = |seed: u64| {
        let cell = folders(&out.join("cells/toy-emotions/cumdf"))
            .into_iter()
            .find(|path| text(path).contains(&format!("seed-{seed}-")))
            .expect("its cell");
        let data = Dataset::open(&emotions).unwrap();
        let view = evaluate::view("la".parse().unwrap(), 0.0);
        let answers =
            store::read(&store::folder(&cell, Split::Test), &view, &data.task, &data.test.ids)
                .unwrap();
        let epochs = read_metrics(&cell.join("student/metrics.jsonl")).unwrap();
        let valid = epochs.last().unwrap()["valid"]["la"]["acc"].as_f64().unwrap();
        assert!(valid > 1.0, "{valid} is no percentage");
        100.0 * Metric::Acc.value(&data.task, &data.test.labels, &answers)
    };
    let mean = found(["toy emotions", "cumdf", "la", "acc"])["mean"].as_f64().unwrap();
    assert!(((stored(1) + stored(2)) / 2.0 - mean).abs() < 1e-6 && mean > 1.0, "{mean}");

    // A second time, nothing is left to do.
    let json = table(&out);
    let output = program(&out, &args).env("COLUMNS", "60").output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let too_wide = |line: &&str| line.chars().count() > 60 && !line.contains(text(dir.path()));
    assert_eq!(shown.lines().find(too_wide), None);
    assert!(said(&output).contains("cells are finished already"), "{}", said(&output));
    assert!(!said(&output).contains("to run"), "{}", said(&output));
    assert_eq!(table(&out), json);
}

#[test]
fn the_same_bytes_under_another_path_share_the_cells_and_other_settings_lie_beside() {
    let dir = tempfile::tempdir().unwrap();
    let data = scores(dir.path());
    let out = dir.path().join("out");
    let go = |data: &Path, more: &[&str]| {
        run_well(&out, &[&["--data", text(data), "--seeds", "1"], &CUMDF[..], more].concat())
    };
    let first = go(&data, &[]);
    assert!(first.contains(&all_to_run()), "{first}");
    let json = table(&out);

    // Another name for the file, a copy of it, a path with a detour.
    let copy = dir.path().join("copy.h5");
    fs::copy(&data, &copy).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    for path in [&copy, &dir.path().join("sub/../toy.h5")] {
        let again = go(path, &[]);
        assert!(!again.contains("to run"), "{again}");
        assert_eq!(table(&out), json);
    }

    // Other settings are other cells; the first ones stay and are taken again.
    let [mine] = &cells(&out, "cumdf", "seed-1-")[..] else { panic!("one cell") };
    let other = go(&data, &["--set", "loss.reg=0.5"]);
    assert!(other.contains("1 cell to run"), "{other}");
    assert_eq!(cells(&out, "cumdf", "seed-1-").len(), 2);
    assert!(mine.join("student/best.safetensors").is_file());
    let back = go(&data, &[]);
    assert!(!back.contains("to run"), "{back}");
    assert_eq!(table(&out), json);

    // The same data set twice is one.
    let twice = go(&data, &["--data", text(&copy)]);
    assert!(!twice.contains("to run"), "{twice}");
    assert_eq!(table(&out), json);

    let figures = records(&out);
    // `--fresh` without a terminal asks nothing, and keeps what was there.
    let fresh = go(&data, &["--fresh"]);
    assert!(fresh.contains(&all_to_run()), "{fresh}");
    assert_eq!(records(&out), figures, "as deterministic as before");
    let name = mine.file_name().unwrap().to_str().unwrap();
    let aside = mine.with_file_name(format!("{name}.old-1"));
    assert!(aside.join("views/lav.csv").is_file(), "{}", aside.display());
}

#[test]
fn predictions_that_are_missing_or_damaged_are_made_again_without_training() {
    let dir = tempfile::tempdir().unwrap();
    let data = scores(dir.path());
    let out = dir.path().join("out");
    let args = [&["--data", text(&data), "--seeds", "1"], &CUMDF[..]].concat();
    run_well(&out, &args);
    let json = table(&out);
    let [cell] = &cells(&out, "cumdf", "seed-1-")[..] else { panic!("one cell") };
    let read = |name: &str| fs::read(cell.join("views").join(name)).unwrap();
    let (kept, others) = (read("lav.csv"), ["l.csv", "av.csv"].map(read));
    let modified = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    let stamps = || {
        let paths = ["student/last.safetensors", "views/lav.csv"].map(|name| cell.join(name));
        paths.map(modified)
    };
    let before = stamps();

    fs::remove_file(cell.join("views/l.csv")).unwrap();
    fs::write(cell.join("views/av.csv"), &others[1][..others[1].len() / 2]).unwrap();
    // What a killed process leaves behind goes too.
    for folder in ["", "views"] {
        fs::write(cell.join(folder).join(".writing-abc"), "half").unwrap();
    }
    let again = run_well(&out, &args);
    assert!(again.contains("1 cell to run (1 of them only to test)"), "{again}");
    assert_eq!(["l.csv", "av.csv"].map(read), others);
    assert_eq!((read("lav.csv"), stamps()), (kept, before), "it was touched");
    assert_eq!(table(&out), json);
    for folder in ["", "views"] {
        assert!(!cell.join(folder).join(".writing-abc").exists());
    }
}

/// Starts a table of one long training and waits until that is under way.
fn begin(out: &Path, args: &[&str], epochs: usize) -> Child {
    let mut command = program(out, args);
    let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut child = child.expect("the program starts");
    wait_for("the training does not begin", || {
        assert!(matches!(child.try_wait(), Ok(None)), "the program ended early");
        n_epochs(out) >= epochs
    });
    child
}

fn n_epochs(out: &Path) -> usize {
    let [cell] = &cells(out, "cumdf", "seed-1-")[..] else { return 0 };
    let log = fs::read_to_string(cell.join("student/metrics.jsonl"));
    log.unwrap_or_default().lines().count()
}

const LONG: [&str; 6] =
    ["--set", "student.epochs=40", "--set", "train.patience=40", "--models", "cumdf"];

#[test]
fn a_killed_table_goes_on_and_ends_like_an_unbroken_one_and_its_log_has_both_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let data = scores(dir.path());
    let args = [&["--data", text(&data), "--seeds", "1", "--jobs", "1"], &LONG[..]].concat();
    let [broken, unbroken] = ["broken", "unbroken"].map(|name| dir.path().join(name));
    run_well(&unbroken, &args);

    let mut child = begin(&broken, &args, 3);
    child.kill().unwrap(); // SIGKILL: it cannot tell its own child
    child.wait().unwrap();
    // Which must find out by itself.
    let (mut before, mut after) = (0, n_epochs(&broken));
    while before != after {
        thread::sleep(Duration::from_secs(1));
        (before, after) = (after, n_epochs(&broken));
    }
    assert!(!broken.join("table1.json").exists());
    assert!((3..40).contains(&after), "{after} epochs were done when it was killed");

    run_well(&broken, &args);
    let [cell] = &cells(&broken, "cumdf", "seed-1-")[..] else { panic!("one cell") };
    let log = fs::read_to_string(cell.join("log.txt")).unwrap();
    assert_eq!(log.matches("--- a session begins").count(), 2, "{log}");
    assert!(log.contains("goes on after epoch"), "{log}");
    assert_eq!(records(&broken), records(&unbroken));
}

#[cfg(unix)]
#[test]
fn ctrl_c_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = scores(dir.path());
    let out = dir.path().join("out");
    let args = [&["--data", text(&data), "--seeds", "1", "--jobs", "1"], &LONG[..]].concat();
    let child = begin(&out, &args, 1);
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    let last = said(&output).lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("interrupted; 0 of "), "{last}");
    assert!(last.ends_with("the same command goes on where they stopped"), "{last}");
}

#[test]
fn two_tables_in_one_folder_share_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let data = scores(dir.path());
    let out = dir.path().join("out");
    let args = [&["--data", text(&data), "--seeds", "1", "--jobs", "1"], &LONG[..]].concat();
    let first = begin(&out, &args, 1);
    let second = run(&out, &args);
    assert!(second.status.success(), "{}", said(&second));
    let waited = "toy, cumdf, seed 1: another process is on it";
    assert!(said(&second).contains(waited), "{}", said(&second));
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", said(&first));
    let [cell] = &cells(&out, "cumdf", "seed-1-")[..] else { panic!("one cell") };
    let log = fs::read_to_string(cell.join("log.txt")).unwrap();
    assert_eq!(log.matches("--- a session begins").count(), 1, "it was trained twice: {log}");
}

#[test]
fn a_failed_cell_is_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = scores(dir.path());
    let out = dir.path().join("out");
    let args = ["--data", text(&data), "--seeds", "1", "--models", "cumdf,cumdf-no-distillation"];
    run_well(&out, &args);
    // In the way of one cell's training folder lies a file.
    let [cell] = &cells(&out, "cumdf", "seed-1-")[..] else { panic!("one cell") };
    fs::remove_file(cell.join("trained.json")).unwrap();
    fs::remove_dir_all(cell.join("student")).unwrap();
    fs::write(cell.join("student"), "in the way").unwrap();
    let output = run(&out, &args);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("toy, cumdf, seed 1 failed: "), "{}", said(&output));
    let failed = format!("1 of {} cells failed", n_cells() + 1);
    assert!(said(&output).contains(&failed), "{}", said(&output));
    for record in records(&out) {
        let note = record["note"].as_str().unwrap_or_default();
        assert_eq!(note.starts_with("failed: seed 1: "), record["model"] == "cumdf", "{record}");
        assert!(record["mean"].is_number() || record["model"] != "cumdf-no-distillation");
    }
}

/// As ICT-MMMO, of which no training sample has language.
#[test]
fn under_what_training_never_had_a_model_answers_its_prior() {
    let dir = tempfile::tempdir().unwrap();
    let path = scores(dir.path());
    let whole = Dataset::open(&path).unwrap();
    let deaf = ModalitySet::of([Modality::Audio, Modality::Vision]);
    let part = |samples: Samples| {
        let present = vec![deaf; samples.len()];
        let mut features = samples.features;
        features[0] = features[0].zeros_like();
        Samples { present, features, ..samples }
    };
    let splits = [part(whole.train), part(whole.valid), whole.test];
    let data = Dataset::new("toy", whole.task, splits).unwrap();
    data.write(&path).unwrap();
    let out = dir.path().join("out");
    run_well(&out, &[&["--data", text(&path), "--seeds", "1"], &CUMDF[..]].concat());
    let [cell] = &cells(&out, "cumdf", "seed-1-")[..] else { panic!("one cell") };
    let data = Dataset::open(&path).unwrap();
    let read = |condition: &str| {
        let view = evaluate::view(condition.parse().unwrap(), 0.0);
        store::read(&store::folder(cell, Split::Test), &view, &data.task, &data.test.ids).unwrap()
    };
    let checkpoint = registry::load(&cell.join("student/best.safetensors"), Device::Cpu).unwrap();
    let prior = checkpoint.header.data.prior.classes;
    assert_eq!(read("l"), Answers::Classes(vec![prior; data.test.len()]));
    assert_eq!(read("la"), read("a"));
    let same = |r: &Value| r["condition"] == "la" && r["same_as"] == "a";
    assert!(records(&out).iter().any(same));
}

#[test]
fn figure_3_rests_on_the_trainings_of_table_1() {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (scores(dir.path()), dir.path().join("out"));
    let args = [&["--data", text(&path), "--seeds", "1"], &CUMDF[..]].concat();
    run_well(&out, &args);
    let tiny = tiny(&args);
    let tiny: Vec<_> = tiny.iter().map(String::as_str).collect();
    let figure3 = |ratios: &str| {
        let args = [&tiny[..], &args, &["--drop-ratios", ratios]].concat();
        artefact("figure3", &out, &args).stdin(Stdio::null()).output().expect("it starts")
    };
    for (ratios, why) in [("0.5", "two or more"), ("0,1.5", "--drop-ratios has 1.5")] {
        let refused = figure3(ratios);
        assert!(!refused.status.success() && said(&refused).contains(why), "{}", said(&refused));
    }
    let output = figure3("1,0,0.5");
    assert!(output.status.success(), "{}", said(&output));
    let only_to_test = format!("({} of them only to test)", n_cells());
    assert!(said(&output).contains(&only_to_test), "{}", said(&output));

    let mae = |records: &[Value], condition: &str| {
        let is = |r: &&Value| {
            r["model"] == "cumdf" && r["metric"] == "mae" && r["condition"] == condition
        };
        let found = records.iter().find(is).unwrap_or_else(|| panic!("no {condition}"));
        found["mean"].as_f64().expect("a figure")
    };
    let (table, figure) = (records(&out), part_of("figure3", &out, "figures"));
    for shared in ["lav", "av", "lv", "la"] {
        let (here, there) = (mae(&figure, shared), mae(&table, shared));
        assert!((here - there).abs() < 1e-12, "{shared}: {here}, in the table {there}");
    }
    assert!(mae(&figure, "lav-p0.5-ha").is_finite());
    let curve = ["lav", "lav-p0.5", "lav-p1"].map(|view| mae(&figure, view));
    let area = (curve[0] + 2.0 * curve[1] + curve[2]) / 4.0;
    assert!((mae(&figure, "area") - area).abs() < 1e-12);
    assert!(fs::read(out.join("figure3-toy.png")).unwrap().starts_with(b"\x89PNG"));
    let picture = fs::read_to_string(out.join("figure3-toy.svg")).unwrap();
    for part in [
        "command: cumdf-bench figure3",
        "CUMDF",
        "frames of all modalities hidden",
        "frames of audio hidden",
        "F1, %",
    ] {
        assert!(picture.contains(part), "the picture lacks {part}");
    }
}

#[test]
fn a_table_says_where_it_comes_from_and_what_was_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (scores(dir.path()), dir.path().join("out"));
    let rows = ["--models", "cumdf,self-mm", "--seeds", "2"];
    run_well(&out, &[&["--data", text(&path)], &rows[..]].concat());
    let whole: Value =
        serde_json::from_str(&fs::read_to_string(out.join("table1.json")).unwrap()).unwrap();
    let from = &whole["provenance"];
    let data = Dataset::open(&path).unwrap();
    assert_eq!(from["data"][0]["sha256"], data.sha256.as_str());
    assert_eq!(from["seeds"], 2);
    let command = from["command"].as_str().unwrap();
    assert!(command.starts_with("cumdf-bench table1 --device cpu"), "{command}");
    assert!(command.contains("--models cumdf,self-mm --seeds 2"), "{command}");
    let overrides = from["overrides"].as_array().unwrap();
    assert!(overrides.iter().any(|set| set == "train.batch_size=8"), "{overrides:?}");

    let comparisons = whole["comparisons"].as_array().unwrap();
    let figures = records(&out);
    let mean = |model: &Value, c: &Value| {
        let is = |r: &&Value| {
            r["model"] == *model && ["condition", "metric"].iter().all(|key| r[*key] == c[*key])
        };
        figures.iter().find(is).unwrap()["mean"].as_f64().unwrap()
    };
    for c in comparisons {
        let number = |key: &str| c[key].as_f64().unwrap_or_else(|| panic!("{key}: {c}"));
        let less = mean(&c["model"], c) - mean(&c["other"], c);
        assert!((number("difference") - less).abs() < 1e-5, "{c}: {less}");
        assert!(number("low") <= number("high") && number("p") <= number("p_holm"), "{c}");
        assert!(c["wilcoxon"].is_null(), "two seeds are too few: {c}");
    }
    // Nine columns and three metrics; of five rows the best with four, the two trained ones with the
    // floor, and CUMDF with the other.
    let n = |question: &str| comparisons.iter().filter(|c| c["question"] == question).count();
    assert_eq!(["best", "floor", "reference"].map(n), [9 * 3 * 4, 9 * 3 * 2, 9 * 3]);
    let csv = fs::read_to_string(out.join("table1-comparisons.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + comparisons.len());
}

#[test]
fn what_cannot_be_run_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = scores(dir.path());
    let data = text(&data);
    for (args, answer) in [
        (&["--models", "cubemlpp"][..], "no such model; known are"),
        (&["--models", "cumdf", "--fair"], "--fair: none of the chosen rows has an (MRMS) row"),
        (&["--data", "absent.h5"], "absent.h5: cannot be opened"),
        (
            &["--data", "a", "--data", "b", "--config", "c", "--config", "d", "--config", "e"],
            "3 --config and 2 --data",
        ),
        (&["--seeds", "0"], "the number of seeds is a whole number from 1 to 1000"),
        (&["--seeds", "-1"], "the number of seeds is a whole number from 1 to 1000"),
        (&["--data", data, "--set", "seed=9007199254740991"], "the largest seed"),
        (
            &["--data", data, "--set", "seed=9223372036854775807"],
            "must lie in 0 to 9007199254740991",
        ),
        (&["--data", data, "--set", "train.batchsize=3"], "did you mean `batch_size`"),
        (
            &["--data", data, "--set", "student.distillation=true", "--models", "cumdf"],
            "the rows of this table decide student.distillation themselves",
        ),
        (&["--batch-size", "3"], "--set train.batch_size=.."),
    ] {
        let output = bare(&dir.path().join("out"), args).output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        assert!(said(&output).contains(answer), "{args:?}: {}", said(&output));
        assert!(!said(&output).contains("panicked"), "{args:?}: {}", said(&output));
        assert!(!dir.path().join("out").exists(), "{args:?} left something behind");
    }
}

#[test]
fn a_fair_comparison_trains_a_method_a_second_time_under_masks() {
    let dir = tempfile::tempdir().unwrap();
    let data = scores(dir.path());
    let out = dir.path().join("out");
    let rows = ["--models", "cumdf,self-mm", "--fair"];
    run_well(&out, &[&["--data", text(&data), "--seeds", "1"], &rows[..]].concat());
    for (row, sees) in [("self-mm", "complete"), ("self-mm-mrms", "masked")] {
        let [cell] = &cells(&out, row, "seed-1-")[..] else { panic!("one cell of {row}") };
        let config = fs::read_to_string(cell.join("config.toml")).unwrap();
        assert!(config.contains(&format!("sees = \"{sees}\"")), "{config}");
        let is_row = |r: &&Value| r["model"] == row && r["metric"] == "mae";
        let records = records(&out);
        let figures: Vec<_> = records.iter().filter(is_row).collect();
        assert_eq!(figures.len(), 9);
        assert!(figures.iter().all(|r| r["mean"].is_number()));
    }
}

#[test]
fn the_help_says_what_a_fair_comparison_answers() {
    let help = bare(Path::new("nowhere"), &["--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let words: Vec<_> = help.split_whitespace().collect();
    let help = words.join(" ");
    for said in ["--fair", "is it the method or the augmentation?", "--models self-mm-mrms"] {
        assert!(help.contains(said), "{said}: {help}");
    }
}
