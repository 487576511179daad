//! The tables and figures beside Table 1, from files to files.

use std::{fs, path::Path, process::Stdio};

use cumdf_bench::grid::variants::{ABLATION, Work};
use cumdf_data::{Dataset, ModalitySet, Task};
use serde_json::Value;

use crate::common::{artefact, said, text, tiny, toy};

/// Runs a command to its good end; what it said.
fn run(name: &str, out: &Path, args: &[&str]) -> String {
    let output = artefact(name, out, args).stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{name}: {}", said(&output));
    said(&output)
}

fn json(out: &Path, name: &str) -> Value {
    let text = fs::read_to_string(out.join(format!("{name}.json"))).expect("it was written");
    serde_json::from_str(&text).expect("it is JSON")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is no list"))
}

fn emotions(folder: &Path) -> std::path::PathBuf {
    let classes = ["happy", "sad"].map(String::from).to_vec();
    toy(folder, "toy emotions", Task::Emotion { classes }, ModalitySet::ALL)
}

fn scores(folder: &Path) -> std::path::PathBuf {
    toy(folder, "CMU-MOSI (toy)", Task::Sentiment { lo: -3, hi: 3 }, ModalitySet::ALL)
}

#[test]
fn everything_is_made_in_one_go_and_no_training_is_done_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (emotions(dir.path()), dir.path().join("out"));
    let tiny = tiny(&["--models", "cumdf,if-mmin"]);
    let tiny: Vec<_> = tiny.iter().map(String::as_str).collect();
    let args =
        [&tiny[..], &["--data", text(&data), "--models", "cumdf,if-mmin", "--seeds", "1"]].concat();
    run("all", &out, &args);
    for name in ["datasets", "table1", "table2", "table3", "figure3", "figure4", "efficiency"] {
        for ending in ["json", "csv", "md", "tex"] {
            let path = out.join(format!("{name}.{ending}"));
            assert!(fs::metadata(&path).is_ok_and(|file| file.len() > 100), "{}", path.display());
        }
        let from = &json(&out, name)["provenance"];
        assert!(from["command"].as_str().unwrap().starts_with("cumdf-bench all"), "{from}");
    }
    for name in ["figure3-toy-emotions", "figure4-toy-emotions"] {
        assert!(fs::read_to_string(out.join(format!("{name}.svg"))).unwrap().contains("CUMDF"));
        assert!(fs::read(out.join(format!("{name}.png"))).unwrap().starts_with(b"\x89PNG"));
    }

    // Table 2 has the figures of Table 1, the single emotions first.
    let [one, two] = ["table1", "table2"].map(|name| json(&out, name));
    let metrics = |table: &Value| {
        let mut metrics: Vec<_> = list(table, "figures")
            .iter()
            .map(|f| f["metric"].as_str().unwrap().to_owned())
            .collect();
        metrics.truncate(4);
        metrics
    };
    assert_eq!(metrics(&two), ["f1_happy", "f1_sad", "f1", "acc"]);
    let find = |table: &Value, wanted: &Value| {
        let same =
            |f: &&Value| ["model", "condition", "metric"].iter().all(|key| f[*key] == wanted[*key]);
        list(table, "figures").iter().find(same).expect("the same figure")["mean"].clone()
    };
    for figure in list(&one, "figures") {
        assert_eq!(figure["mean"], find(&two, figure), "{figure}");
    }

    // Table 3 has a row for each part and each departure, at the paper's drop ratio.
    let three = json(&out, "table3");
    for row in ABLATION.iter().filter(|row| !row.extra) {
        let figures = list(&three, "figures");
        let is = |f: &&Value| f["model"] == row.key && f["condition"] == "lav-p0.2";
        assert!(figures.iter().find(is).is_some_and(|f| f["mean"].is_number()), "{}", row.key);
    }
    let reference = list(&three, "comparisons").iter().filter(|c| c["question"] == "reference");
    assert!(reference.clone().count() > 0 && reference.clone().all(|c| c["model"] == "cumdf"));

    // Costs are those of the trainings.
    let efficiency = json(&out, "efficiency");
    let records = list(&efficiency, "records");
    assert_eq!(
        records.iter().map(|r| &r["model"]).collect::<Vec<_>>(),
        ["if-mmin", "cumdf", "mlp"]
    );
    for r in records {
        for key in ["training_gflop", "peak_megabytes", "prediction_mflop", "training_seconds"] {
            assert!(r[key].as_f64().is_some_and(|n| n > 0.0), "{key}: {r}");
        }
    }
    // Means of 10 features over 2.5 steps, a hidden layer of 8, two emotions, by prediction.
    let mlp = records[2]["prediction_mflop"].as_f64().unwrap();
    assert!((mlp - 2e-6 * (10.0 * 2.5 + 10.0 * 8.0 + 8.0 * 2.0)).abs() < 1e-9, "{mlp}");

    // Cases: three kinds, two models; what was seen is what there is to see.
    let four = json(&out, "figure4");
    let cases = list(&four, "records");
    assert_eq!(cases.len(), 3);
    let file = Dataset::open(&data).unwrap();
    for case in cases {
        let row = file.test.ids.iter().position(|id| case["id"] == id.as_str()).expect("its id");
        let steps = file.test.lengths[row] as usize;
        assert_eq!(list(case, "seen")[0].as_array().unwrap().len(), steps, "{case}");
        let said = list(case, "said");
        assert_eq!(said.iter().map(|s| &s["model"]).collect::<Vec<_>>(), ["CUMDF", "IF-MMIN"]);
        let shares: f64 = list(&said[0], "shares").iter().filter_map(Value::as_f64).sum();
        assert!((shares - 1.0).abs() < 1e-5 && said[1]["shares"].is_null(), "{case}");
    }

    let again = run("all", &out, &args);
    assert!(!again.contains("to run"), "{again}");
}

#[test]
fn figure_4_shows_who_is_asked_for_and_says_why_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (scores(dir.path()), dir.path().join("out"));
    let tiny = tiny(&["--models", "cumdf,self-mm"]);
    let tiny: Vec<_> = tiny.iter().map(String::as_str).collect();
    let args = [&tiny[..], &["--data", text(&data), "--models", "self-mm,cumdf"]].concat();
    let with = |more: &[&str]| {
        let args = [&args[..], more].concat();
        artefact("figure4", &out, &args).stdin(Stdio::null()).output().expect("it starts")
    };
    let output =
        with(&["--ids", "sample 35,sample 33", "--condition", "la", "--drop-ratio", "0.3"]);
    assert!(output.status.success(), "{}", said(&output));
    let four = json(&out, "figure4");
    let cases = list(&four, "records");
    assert_eq!(cases.iter().map(|c| &c["id"]).collect::<Vec<_>>(), ["sample 35", "sample 33"]);
    for case in cases {
        let models: Vec<_> = list(case, "said").iter().map(|s| &s["model"]).collect();
        assert_eq!(models, ["Self-MM", "CUMDF"], "in the order in which they were named");
        assert!(
            case["said"][0]["distribution"].is_null() && case["said"][1]["distribution"].is_array()
        );
    }
    for (more, why) in [
        (&["--ids", "nobody"][..], "--ids nobody: no sample of the test split"),
        (&["--drop-ratio", "1"], "--drop-ratio 1: must lie in [0, 1)"),
    ] {
        let output = with(more);
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert!(said(&output).contains(why), "{more:?}: {}", said(&output));
    }
    let alone = artefact("figure4", &out, &["--data", text(&data), "--models", "cumdf,linear"]);
    let output = { alone }.output().expect("it starts");
    assert!(
        said(&output).contains("figure4 shows two models that are trained"),
        "{}",
        said(&output)
    );
}

#[test]
fn table_2_is_about_emotions_and_table_3_about_cumdf() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (scores(dir.path()), dir.path().join("out"));
    for (name, more, why) in [
        ("table2", &[][..], "this table is about emotions: give it to table1"),
        ("table3", &["--fair"], "--fair: table3 has rows of CUMDF alone"),
        ("table3", &["--models", "self-mm"], "--models self-mm: no such model"),
    ] {
        let args = [&["--data", text(&data)], more].concat();
        let output = artefact(name, &out, &args).output().expect("it starts");
        assert_eq!(output.status.code(), Some(1), "{name} {more:?}");
        assert!(said(&output).contains(why), "{name} {more:?}: {}", said(&output));
    }

    // The paper's figures of its ablation stand beside those of CMU-MOSI, under its own view alone.
    let tiny = tiny(&["--models", "cumdf"]);
    let tiny: Vec<_> = tiny.iter().map(String::as_str).collect();
    let rows = ["--models", "cumdf,cumdf-no-mke", "--seeds", "1"];
    run("table3", &out, &[&tiny[..], &["--data", text(&data)], &rows].concat());
    let three = json(&out, "table3");
    let printed: Vec<_> =
        list(&three, "figures").iter().filter(|f| f["paper"].is_number()).collect();
    let of =
        |f: &Value| format!("{} {} {}", f["model"], f["condition"], f["paper"]).replace('"', "");
    assert_eq!(
        printed.into_iter().map(of).collect::<Vec<_>>(),
        [
            "cumdf lav-p0.2 0.758",
            "cumdf lav-p0.2 84.57",
            "cumdf-no-mke lav-p0.2 0.782",
            "cumdf-no-mke lav-p0.2 84.15"
        ]
    );
    let n_trained = ABLATION.iter().filter(|v| matches!(v.work(), Work::Train(_))).count();
    assert_eq!(n_trained, 19, "18 rows of CUMDF and a floor");
}

/// Every file below `folder` with these words in its path.
fn files(folder: &Path, words: &str) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let count = |path: std::path::PathBuf| match path.is_dir() {
        true => files(&path, words),
        false => usize::from(text(&path).contains(words)),
    };
    entries.map(count).sum()
}

#[test]
fn an_experiment_reads_the_test_split_when_it_is_told_to_and_trains_nothing_anew_then() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (scores(dir.path()), dir.path().join("out"));
    let file = dir.path().join("Two arms.toml");
    let experiment = "title = 'Two arms'\nseeds = 2\nbase = ['student.distillation=false']\n\
        [[arm]]\nkey = 'as-it-is'\nname = 'as it is'\n\
        [[arm]]\nkey = 'no-maci'\nname = 'without MACI'\nset = ['model.maci=false']\n";
    fs::write(&file, experiment).unwrap();
    let tiny = tiny(&["--models", "cumdf,mlp"]);
    let tiny: Vec<_> = tiny.iter().map(String::as_str).collect();
    let args = [&tiny[..], &[text(&file), "--data", text(&data)]].concat();
    run("experiment", &out, &args);
    let table = json(&out, "experiment-two-arms");
    assert_eq!(table["title"], "Two arms (validation split)");
    let models: Vec<_> = list(&table, "figures").iter().map(|f| f["model"].clone()).collect();
    for model in ["as-it-is", "no-maci", "constant", "linear", "mlp"] {
        assert!(models.iter().any(|own| own == model), "{model}");
    }
    let reference = list(&table, "comparisons").iter().filter(|c| c["question"] == "reference");
    assert!(reference.clone().count() > 0 && reference.clone().all(|c| c["model"] == "as-it-is"));
    assert_eq!(files(&out, "/views/"), 0, "the test split was read");

    // Figures are of the validation split: those of one arm's predictions, by hand.
    let dataset = Dataset::open(&data).unwrap();
    let figure = |table: &Value, model: &str| {
        let is =
            |f: &&Value| f["model"] == model && f["condition"] == "lav" && f["metric"] == "mae";
        list(table, "figures").iter().find(is).expect("a figure")["mean"].as_f64().unwrap()
    };
    let constant = |labels: &cumdf_data::Labels| {
        let floor =
            cumdf_train::metrics::constant_floor(&dataset.task, &dataset.train.labels, labels);
        floor.get(&cumdf_train::metrics::Metric::Mae).unwrap()
    };
    let [valid, test] = [&dataset.valid.labels, &dataset.test.labels].map(constant);
    assert!((valid - test).abs() > 1e-6 && (figure(&table, "constant") - valid).abs() < 1e-9);

    let before = files(&out, "metrics.jsonl");
    let said = run("experiment", &out, &[&args[..], &["--test"]].concat());
    assert!(said.contains("only to test"), "{said}");
    let table = json(&out, "experiment-two-arms-test");
    assert!((figure(&table, "constant") - test).abs() < 1e-9);
    assert!(files(&out, "/views/") > 0 && files(&out, "metrics.jsonl") == before);
}

#[test]
fn the_statistics_of_data_stand_beside_the_paper_s() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (scores(dir.path()), dir.path().join("out"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cumdf-bench"));
    command.arg("datasets").arg("--data").arg(&data).arg("--out").arg(&out);
    assert!(command.output().expect("it starts").status.success());
    let csv = fs::read_to_string(out.join("datasets.csv")).unwrap();
    let train = csv.lines().nth(1).unwrap();
    assert!(train.starts_with("CMU-MOSI (toy),train,24,1284,"), "{train}");
    assert_eq!(csv.lines().count(), 1 + 3);
}
