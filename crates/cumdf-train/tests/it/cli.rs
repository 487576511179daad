//! The program as people meet it: what it refuses and in which words, where runs lie, what is never
//! lost.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cumdf_data::Labels;
use cumdf_train::registry;
use serde_json::Value;
use tch::Device;

use crate::tiny::{self, SETS, alone, program, refusal, run, small, student, succeeds, written};

fn bytes(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// A command without `--out`, run in `folder`.
fn at_home(folder: &Path, command: &[&str], more: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_cumdf-train"));
    program.current_dir(folder).args(command).args(["--device", "cpu", "--threads", "1"]);
    program.args(SETS.iter().flat_map(|set| ["--set", set])).args(more);
    program
}

fn evaluate(checkpoint: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cumdf-train"));
    command.arg("evaluate").arg("--checkpoint").arg(checkpoint);
    command
}

#[test]
fn a_folder_with_results_is_not_overwritten_without_a_word() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    succeeds(student(&data, &out, &[]));
    let message = refusal(student(&data, &out, &[]));
    assert!(message.contains("--resume"), "{message}");
    let message = refusal(student(&data, &out, &["--resume", "--set", "student.epochs=4"]));
    assert!(message.contains("settings.student.student.epochs is 3 there, 4 here"), "{message}");
}

#[test]
fn the_same_bytes_under_another_path_are_the_same_data_and_other_labels_are_not() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    succeeds(student(&data, &out, &[]));
    let best = bytes(out.join("student/best.safetensors"));
    let copy = folder.path().join("copy.h5");
    fs::copy(&data, &copy).expect("a copy");
    succeeds(student(&copy, &out, &["--resume"]));
    assert!(bytes(out.join("student/best.safetensors")) == best, "it was trained again");

    let mut reversed = tiny::sentiment();
    let Labels::Scores(scores) = &mut reversed.train.labels else { panic!("scores") };
    scores.reverse();
    reversed.write(&data).expect("a file");
    let message = refusal(student(&data, &out, &["--resume"]));
    assert!(message.contains("data.sha256"), "{message}");
    assert!(bytes(out.join("student/best.safetensors")) == best);
}

#[test]
fn a_student_knows_its_teacher() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    let teacher = |seed: &str| {
        let out = folder.path().join(format!("teacher-{seed}"));
        let mut command = tiny::program(&["teacher", "--seed", seed], &data, &out);
        command.args(SETS.iter().flat_map(|set| ["--set", set]));
        succeeds(command);
        out.join("teacher/best.safetensors").display().to_string()
    };
    let (a, b) = (teacher("1"), teacher("2"));
    succeeds(student(&data, &out, &["--teacher", &a]));
    let best = bytes(out.join("student/best.safetensors"));
    let message = refusal(student(&data, &out, &["--teacher", &b, "--resume"]));
    assert!(message.contains("earlier.teacher"), "{message}");
    assert!(bytes(out.join("student/best.safetensors")) == best);

    // A student is no teacher, nor is one of other data; neither leaves a folder behind.
    let own = out.join("student/best.safetensors").display().to_string();
    let other = folder.path().join("other");
    let message = refusal(student(&data, &other, &["--teacher", &own]));
    assert!(message.contains("is the student of cumdf, not the teacher"), "{message}");
    let mut changed = tiny::sentiment();
    changed.train.lengths[0] = 6;
    let elsewhere = folder.path().join("elsewhere.h5");
    changed.write(&elsewhere).expect("a file");
    let message = refusal(student(&elsewhere, &other, &["--teacher", &a]));
    assert!(message.contains("train a teacher on the same file"), "{message}");
    assert!(!other.exists(), "a refused run left a folder");
}

#[test]
fn overwriting_a_student_keeps_its_teacher_and_so_does_a_key_of_the_student_s_own() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    succeeds(student(&data, &out, &[]));
    let teacher = || fs::metadata(out.join("teacher/best.safetensors")).expect("it").modified();
    let before = (teacher().expect("a time"), bytes(out.join("teacher/last.safetensors")));
    succeeds(student(&data, &out, &["--overwrite", "--set", "loss.cou=0"]));
    let after = (teacher().expect("a time"), bytes(out.join("teacher/last.safetensors")));
    assert!(before == after, "the teacher was trained again");
}

#[test]
fn overwriting_with_other_settings_keeps_what_was_beside_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let data = written(folder.path());
    for (method, sets) in
        [("cumdf", SETS.map(str::to_owned).to_vec()), ("if-mmin", small("if-mmin", 1))]
    {
        let out = folder.path().join(method);
        let command = |more: &[&str]| {
            let mut command = program(&["train", "--method", method], &data, &out);
            command.args(sets.iter().flat_map(|set| ["--set", set])).args(more);
            command
        };
        succeeds(command(&[]));
        let teacher = bytes(out.join("teacher/best.safetensors"));
        succeeds(command(&["--seed", "2", "--overwrite", "--no-test"]));
        assert!(bytes(out.join("teacher-1/best.safetensors")) == teacher, "{method}");
        assert!(bytes(out.join("teacher/best.safetensors")) != teacher, "{method}");
        assert!(!out.join("student/result.json").exists(), "{method}: another run's figures stay");
    }
}

#[test]
fn a_run_whose_chosen_network_was_deleted_begins_anew() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    succeeds(student(&data, &out, &[]));
    let best = out.join("student/best.safetensors");
    let before = bytes(&best);
    fs::remove_file(&best).expect("removed");
    succeeds(student(&data, &out, &["--resume"]));
    assert!(bytes(&best) == before);
}

#[test]
fn a_recipe_for_other_labels_is_refused_and_the_right_one_is_found() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("emotions.h5");
    tiny::dataset(tiny::tasks()[1].clone(), [70, 20, 30]).write(&path).expect("a file");
    let out = folder.path().join("run");
    let command = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cumdf-train"));
        command.args(["train", "--method", "self-mm", "--no-test", "--set", "epochs=1"]);
        command.args(more).arg("--out").arg(&out);
        command
    };
    let file = format!("data.file={}", path.display());
    let message = refusal(command(&["--set", &file, "--set", "recipe=self-mm"]));
    assert!(message.contains("use self-mm-emotion"), "{message}");
    assert!(!out.exists());
    succeeds(command(&["--set", &file]));
}

#[test]
fn what_training_needs_is_said_before_it_begins() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    let sets =
        ["model.hidden_dim=1024", "model.ffn_dim=2048", "teacher.epochs=1", "student.epochs=1"];
    let mut command = program(&["teacher"], &data, &out);
    command.args(sets.iter().flat_map(|set| ["--set", set]));
    let output = run(command);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("training with batches of 32 samples of 8 steps needs about"), "{told}");
}

#[test]
fn a_default_folder_has_the_newest_run_and_keeps_the_others_beside_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path());
    let go = |more: &[&str]| at_home(folder.path(), &["student", "--data", "tiny.h5"], more);
    let told = succeeds(go(&[]));
    assert!(told.contains("runs/tiny/cumdf/student/best.safetensors"), "{told}");
    let home = folder.path().join("runs/tiny/cumdf");
    let first = bytes(home.join("student/best.safetensors"));
    let output = run(go(&["--set", "loss.cou=0.2"]));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("kept in runs/tiny/cumdf/student-1"), "{told}");
    assert!(bytes(home.join("student-1/best.safetensors")) == first);
    assert!(bytes(home.join("student/best.safetensors")) != first);
    assert!(!home.join("teacher-1").exists(), "the teacher reads no loss.cou");
    // The data is found from anywhere.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut command = evaluate(&home.join("student/best.safetensors"));
    command.current_dir(elsewhere.path());
    succeeds(command);
}

#[test]
fn a_run_goes_on_with_the_threads_it_began_with() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    let command = |threads: &str, epochs: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cumdf-train"));
        command.args(["train", "--method", "mlp", "--resume", "--threads", threads, "--data"]);
        command.arg(&data).arg("--out").arg(&out).args(["--set", epochs]);
        command.args(["--set", "train.patience=100000"]);
        command
    };
    let mut child = command("1", "epochs=100000").spawn().expect("it starts");
    let metrics = out.join("train/metrics.jsonl");
    // The state of the first epoch is saved before the line of the second is written.
    while fs::read_to_string(&metrics).unwrap_or_default().lines().count() < 2 {
        assert!(child.try_wait().expect("a status").is_none(), "it ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().expect("kill -9");
    child.wait().expect("it ends");
    let message = refusal(command("2", "epochs=100000"));
    assert!(message.contains("threads is 1 there, 2 here"), "{message}");
}

#[test]
fn evaluate_prints_json_and_writes_a_row_per_sample() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    succeeds(student(&data, &out, &[]));
    let best = out.join("student/best.safetensors");
    let csv = folder.path().join("predictions.csv");
    let mut command = evaluate(&best);
    command.args(["--condition", "la", "--drop-ratio", "0.3", "--shapley"]);
    command.arg("--predictions").arg(&csv);
    let report: Value = serde_json::from_str(&succeeds(command)).expect("JSON");
    assert_eq!((&report["condition"], &report["samples"]), (&"la".into(), &30.into()));
    assert_eq!(report["same_data"], true);
    assert!(report["metrics"]["mae"].as_f64().is_some_and(|mae| mae > 0.0), "{report}");
    let mut reader = csv::Reader::from_path(&csv).expect("a CSV file");
    let columns: Vec<_> = reader.headers().expect("a header").iter().map(str::to_owned).collect();
    assert_eq!(columns[..4], ["id", "label", "prediction", "p_-3"]);
    let last = ["entropy", "language", "audio", "vision"].map(str::to_owned);
    let shapley = ["shapley_language", "shapley_audio", "shapley_vision"].map(str::to_owned);
    assert_eq!(columns[columns.len() - 7..], [&last[..], &shapley].concat());
    let rows: Vec<_> = reader.records().map(|row| row.expect("a row")).collect();
    assert_eq!((rows.len(), &rows[7][0]), (30, "test 7"));
    for row in &rows {
        let shares: Vec<f64> =
            row.iter().skip(columns.len() - 6).map(|s| s.parse().expect("a share")).collect();
        let (shares, moved) = shares.split_at(3);
        assert_eq!(
            moved[2].to_bits(),
            0f64.to_bits(),
            "vision is hidden, and yet moves: {moved:?}"
        );
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{shares:?}");
        assert!(shares[2].abs() < 1e-9, "vision is hidden, and yet has a share: {shares:?}");
    }

    // Many views at once: the same figures, with nothing seen the same for all, a row and a curve each.
    let (views, plot) = (folder.path().join("views.csv"), folder.path().join("views.svg"));
    let sweep = |ratios: &str| {
        let mut command = evaluate(&best);
        command.args(["--conditions", "all", "--drop-ratios", ratios, "--mask-seeds", "2"]);
        command.arg("--csv").arg(&views).arg("--plot").arg(&plot);
        command
    };
    assert!(refusal(sweep("0,2")).contains("--drop-ratios has 2"));
    assert!(!views.exists() && !plot.exists());
    let mut command = evaluate(&best);
    command.args(["--drop-ratios", "0,1", "--csv"]).arg(folder.path().join("absent/views.csv"));
    assert!(refusal(command).contains("its folder does not exist"));
    let mut command = evaluate(&best);
    command.args(["--predictions", "one.csv", "--csv", "many.csv"]);
    assert_eq!(run(command).status.code(), Some(2), "one of the two would not be written");
    let all: Value = serde_json::from_str(&succeeds(sweep("1,0.3,0"))).expect("JSON");
    let of = |condition: &str| {
        let shown = all["views"].as_array().expect("views");
        let is_it = |v: &&Value| v["condition"] == condition && v["metric"] == "mae";
        shown.iter().find(is_it).unwrap_or_else(|| panic!("no {condition} in {all}"))["mean"]
            .clone()
    };
    assert_eq!(of("la")[2], of("v")[2], "the prior");
    let mut rows = csv::Reader::from_path(&views).expect("a CSV file");
    let rows: Vec<_> = rows.records().map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 7 * (1 + 2 + 1));
    let one = rows.iter().find(|row| [&row[0], &row[1], &row[2]] == ["la", "0.3", "0"]);
    assert_eq!(one.expect("the view of above")[3], report["metrics"]["mae"].to_string());
    assert!(std::fs::read_to_string(&plot).expect("a picture").contains("{l,a,v}"));

    // Other data of the same sizes: scored, with a word.
    let mut other = tiny::sentiment();
    other.test.lengths[0] = 6;
    let path = folder.path().join("other.h5");
    other.write(&path).expect("a file");
    let mut command = evaluate(&best);
    command.arg("--data").arg(&path);
    let output = run(command);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(report["same_data"] == false && told.contains("is not the file"), "{told}");

    // Files that are no chosen checkpoint, and broken ones, say so.
    let message = refusal(evaluate(&out.join("student/last.safetensors")));
    assert!(message.contains("best.safetensors beside it"), "{message}");
    let message = refusal(evaluate(&data));
    assert!(message.contains("is an HDF5 file"), "{message}");
    let whole = bytes(&best);
    for cut in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        let path = folder.path().join("cut.safetensors");
        fs::write(&path, &whole[..cut]).expect("written");
        let error = registry::load(&path, Device::Cpu).expect_err("it is cut short");
        assert!(format!("{error:#}").contains("cut.safetensors"), "cut at {cut}: {error:#}");
    }
    for (what, edit) in damages() {
        let path = folder.path().join("damaged.safetensors");
        fs::write(&path, with_header(&whole, edit)).expect("written");
        let message = refusal(evaluate(&path));
        assert!(
            message.contains("damaged.safetensors") && !message.contains("bug"),
            "{what}: {message}"
        );
    }
}

type Edit = fn(&mut Value);

/// Headers that no training writes.
fn damages() -> [(&'static str, Edit); 5] {
    [
        ("a negative size", |h| h["data"]["shape"]["dims"][0] = (-4).into()),
        ("a huge size", |h| h["data"]["shape"]["dims"][1] = 1_000_000_000_000_000_i64.into()),
        ("endless steps", |h| h["data"]["shape"]["steps"] = i64::MAX.into()),
        ("a deviation too few", |h| {
            h["data"]["stats"]["std"][0].as_array_mut().expect("a list").pop();
        }),
        ("a range of all numbers", |h| {
            h["data"]["shape"]["task"]["sentiment"]["lo"] = i64::MIN.into();
        }),
    ]
}

/// A checkpoint with its header edited.
fn with_header(bytes: &[u8], edit: Edit) -> Vec<u8> {
    let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes).expect("metadata");
    let text = &metadata.metadata().as_ref().expect("metadata")["cumdf"];
    let mut header: Value = serde_json::from_str(text).expect("JSON");
    edit(&mut header);
    let tensors = safetensors::SafeTensors::deserialize(bytes).expect("tensors");
    let metadata = BTreeMap::from([("cumdf".to_owned(), header.to_string())]);
    safetensors::serialize(tensors.tensors(), Some(metadata.into_iter().collect())).expect("bytes")
}

#[test]
fn without_maci_nothing_is_attributed() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    succeeds(student(&data, &out, &["--set", "model.maci=false"]));
    let csv = folder.path().join("predictions.csv");
    let mut command = evaluate(&out.join("student/best.safetensors"));
    command.arg("--predictions").arg(&csv);
    succeeds(command);
    let mut reader = csv::Reader::from_path(&csv).expect("a CSV file");
    for row in reader.records() {
        let row = row.expect("a row");
        assert!(row.iter().rev().take(3).all(str::is_empty), "{row:?}");
    }
}

#[test]
fn without_test_no_test_figure_is_made() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    let told = succeeds(student(&data, &out, &["--no-test"]));
    assert!(told.contains("best.safetensors") && !told.contains("MAE"), "{told}");
    assert!(!out.join("student/result.json").exists());
}

#[test]
fn figures_are_in_percent_in_every_file() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    succeeds(student(&data, &out, &[]));
    let result: Value =
        serde_json::from_slice(&bytes(out.join("student/result.json"))).expect("it");
    let line = fs::read_to_string(out.join("student/metrics.jsonl")).expect("metrics");
    let line: Value = serde_json::from_str(line.lines().next().expect("a line")).expect("JSON");
    for figures in [&result["metrics"]["lav"], &line["valid"]["lav"]] {
        for metric in ["f1", "f1_nonneg", "acc2"] {
            let value = figures[metric].as_f64().expect("a figure");
            assert!(value > 1.0 && value <= 100.0, "{metric} {value}");
        }
    }
}

#[test]
fn slips_are_told_the_way() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, out) = (written(folder.path()), folder.path().join("run"));
    for (more, want) in [
        (&["--set", "batch_size=16"][..], "did you mean `train.batch_size`"),
        (&["--epochs", "3"], "given as --set student.epochs=.. or --set teacher.epochs=..\n"),
        (&["--set", "train.clip=1"], "such as { norm = 1.0 }"),
        (&["--seed", "-1"], "a seed is a whole number of 0 or more"),
        (&["--set", "train.batch_size=many"], "expected a whole number"),
        (&["--set", "model.hidden_dim=1000000000000"], "model.hidden_dim"),
        (&["--set", "model.ffn_dim=9000000000000000000"], "model.ffn_dim"),
        (&["--set", "model.kernel_sizes=[999999999999, 1, 1]"], "model.kernel_sizes"),
        (&["--set", "recipe=self-mm"], "cumdf was asked for"),
        (&["--set", "train.groups.rubbish={ learning_rate = 0.1, weight_decay = 0.0 }"], "rest"),
    ] {
        let message = refusal(student(&data, &out, more));
        assert!(message.contains(want), "{more:?}: {message}");
        assert!(!out.exists(), "{more:?} left a folder");
    }
    for condition in ["all", "ll", "val", "", "lav "] {
        let mut command = evaluate(&PathBuf::from("nothing.safetensors"));
        command.args(["--condition", condition]);
        let message = refusal(command);
        assert!(message.contains("lav"), "{condition:?}: {message}");
    }
}
