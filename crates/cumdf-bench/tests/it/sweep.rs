//! Sweeps on a toy data set: plans, claims, and that no cell is run twice or lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    hash::{BuildHasher as _, RandomState},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use cumdf_train::run_dir::read_metrics;
use serde_json::Value;

use crate::common::{said, scores, table, text, toy, wait_for};

/// How often `sweep run` is killed: a quick look by default, 20 by hand.
const KILLS: &str = "CUMDF_TEST_KILLS";

/// Settings so small that an epoch takes some milliseconds.
const TINY: [&str; 8] = [
    "model.hidden_dim=8",
    "model.n_heads=2",
    "model.ffn_dim=8",
    "train.batch_size=8",
    "train.patience=1000",
    "masks.inter=0.5",
    "teacher.epochs=5",
    "epochs=5", // of the floor `mlp`
];

/// A folder with a data set and a plan of five cells: two trainings, a floor of two seeds, a floor
/// without.
struct Sweep {
    _dir: tempfile::TempDir,
    data: PathBuf,
    out: PathBuf,
    plan: PathBuf,
}

/// What the cells in `out` hold that is worth something: name and bytes.
fn results(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut results = BTreeMap::new();
    let mut folders = vec![out.join("cells")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
            assert!(!name.starts_with(".writing"), "{}", path.display());
            if name.ends_with(".csv") || name.ends_with(".safetensors") {
                let bytes = fs::read(&path).expect("a file that can be read");
                results.insert(path.strip_prefix(out).expect("it is in there").to_owned(), bytes);
            }
        }
    }
    results
}

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cumdf-bench"));
    command.env("HDF5_USE_FILE_LOCKING", "FALSE").env_remove("SLURM_CPUS_PER_TASK");
    command.args(args).stdin(Stdio::null());
    command
}

impl Sweep {
    /// - `epochs`: of a student
    fn new(epochs: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let data = scores(dir.path());
        let [out, plan] = ["out", "plan.json"].map(|name| dir.path().join(name));
        let sweep = Self { _dir: dir, data, out, plan };
        let planned = sweep.plan(epochs);
        assert!(planned.status.success(), "{}", said(&planned));
        assert!(!sweep.out.exists(), "a plan makes nothing");
        fs::write(&sweep.plan, planned.stdout).expect("a temporary folder can be written");
        sweep
    }

    /// What decides its cells, as on the command line.
    fn arguments(&self, epochs: usize) -> Vec<String> {
        let epochs = format!("student.epochs={epochs}");
        let sets = TINY.iter().copied().chain([epochs.as_str()]).flat_map(|set| ["--set", set]);
        let mut arguments: Vec<_> = sets.map(str::to_owned).collect();
        arguments.extend(["--device", "cpu", "--seeds", "2", "--models", "cumdf"].map(Into::into));
        arguments.extend(["--data", text(&self.data), "--out", text(&self.out)].map(Into::into));
        arguments
    }

    fn plan(&self, epochs: usize) -> Output {
        // --fresh plays no part: it must not move anything aside when the table is made.
        bench(&["sweep", "plan", "--fresh"])
            .args(self.arguments(epochs))
            .output()
            .expect("the program starts")
    }

    fn command(&self, what: &str, args: &[&str]) -> Command {
        let mut command = bench(&["sweep", what, "--plan", text(&self.plan)]);
        command.args(args);
        command
    }

    fn output(&self, what: &str, args: &[&str]) -> Output {
        self.command(what, args).output().expect("the program starts")
    }

    /// Standard output of what must go well.
    fn well(&self, what: &str, args: &[&str]) -> String {
        let output = self.output(what, args);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The cells of the plan: folder, and whether it is trained.
    fn cells(&self) -> Vec<(PathBuf, bool)> {
        let plan: Value = serde_json::from_slice(&fs::read(&self.plan).expect("it was written"))
            .expect("it is JSON");
        let cell = |cell: &Value| {
            (self.out.join(cell["dir"].as_str().expect("a path")), cell["config"].is_object())
        };
        plan["cells"].as_array().expect("a list").iter().map(cell).collect()
    }

    /// The first cell of CUMDF, with its index.
    fn long(&self) -> (String, PathBuf) {
        let cells = self.cells();
        let at =
            cells.iter().position(|(dir, _)| text(dir).contains("/cumdf/")).expect("one of CUMDF");
        (at.to_string(), cells[at].0.clone())
    }

    /// Asserts that every cell was trained once, however many processes had a hand in it: no epoch
    /// that was kept was trained again, and every claim was given back.
    fn assert_once(&self) {
        for (dir, is_trained) in self.cells() {
            let files: Vec<_> =
                fs::read_dir(dir.join("claim")).expect("a claim").flatten().collect();
            assert_eq!(files.len(), 1, "{files:?}");
            assert_eq!(files[0].file_name(), "free");
            let unfinished = fs::read_dir(&dir).expect("a cell").flatten();
            let is_left = |name: &str| name.starts_with(".claim-");
            assert!(
                !unfinished.map(|e| e.file_name()).any(|name| is_left(&name.to_string_lossy()))
            );
            if !is_trained {
                continue;
            }
            // The line of an epoch is said once its state is kept.
            let log = fs::read_to_string(dir.join("log.txt")).expect("a log");
            let mut seen = BTreeSet::new();
            for line in log.lines() {
                let Some((head, _)) = line.split_once(": loss") else { continue };
                assert!(seen.insert(head), "{}: {head} was done twice:\n{log}", dir.display());
            }
            assert!(!seen.is_empty(), "{log}");
            for stage in ["teacher", "student", "train"].map(|stage| dir.join(stage)) {
                let Ok(lines) = read_metrics(&stage.join("metrics.jsonl")) else { continue };
                let epochs: Vec<_> =
                    lines.iter().map(|line| line["epoch"].as_u64().expect("a number")).collect();
                assert!(epochs.iter().copied().eq(1..=epochs.len() as u64), "{epochs:?}");
            }
        }
    }
}

#[test]
fn a_plan_is_run_told_and_becomes_the_table_of_table1() {
    let sweep = Sweep::new(2);
    let cells = sweep.cells();
    assert_eq!(cells.len(), 5);
    let all_open = "5 cells: 0 finished, 0 running, 0 failed, 5 open\n";
    assert_eq!(sweep.well("status", &[]), all_open);
    // A plan with open cells has a table all the same, which says so.
    let output = sweep.output("tables", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let read = |name: &str| fs::read_to_string(sweep.out.join(name)).unwrap();
    assert!(read("table1.md").contains("it is not finished"), "{}", read("table1.md"));
    assert_eq!(sweep.well("status", &[]), all_open, "`tables` trains nothing");

    // One by itself, then the rest.
    let (index, dir) = sweep.long();
    sweep.well("cell", &["--index", &index]);
    assert!(dir.join("trained.json").is_file());
    assert!(sweep.well("status", &[]).starts_with("5 cells: 1 finished, "));
    sweep.well("run", &["--jobs", "2"]);
    let done = "5 cells: 5 finished, 0 running, 0 failed, 0 open\n";
    assert_eq!(sweep.well("status", &[]), done);
    sweep.assert_once();
    for (dir, _) in &cells {
        let log = fs::read_to_string(dir.join("log.txt")).unwrap_or_default();
        assert!(log.matches("a session begins").count() <= 1, "{log}");
    }

    // Nothing is left to `table1`, which makes the same table.
    sweep.well("tables", &[]);
    let json = table(&sweep.out);
    let output = bench(&["table1"]).args(sweep.arguments(2)).output().unwrap();
    assert!(said(&output).contains("5 cells are finished already"), "{}", said(&output));
    assert!(!said(&output).contains("to run"), "{}", said(&output));
    assert_eq!(table(&sweep.out), json);
}

#[test]
fn a_plan_works_where_folder_and_data_have_other_paths() {
    let sweep = Sweep::new(2);
    let elsewhere = tempfile::tempdir().unwrap();
    let [data, out] = ["moved.h5", "other out"].map(|name| elsewhere.path().join(name));
    fs::rename(&sweep.data, &data).unwrap();
    let output = sweep.output("run", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let place = ["--data", text(&data), "--out", text(&out)];
    sweep.well("run", &place);
    sweep.well("tables", &place);
    assert!(out.join("table1.json").is_file());
    assert!(!sweep.out.exists());
    let status = sweep.well("status", &["--out", text(&out)]);
    assert!(status.contains("5 finished"), "{status}");
}

#[test]
fn what_cannot_be_followed_is_refused_with_the_way_out() {
    let sweep = Sweep::new(2);
    let refused = |what: &str, args: &[&str], words: &str| {
        let output = sweep.output(what, args);
        assert_eq!(output.status.code(), Some(1), "{what} {args:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{what} {args:?}: {}", said(&output));
    };
    refused("cell", &["--index", "5"], "there is no cell 5: the plan has 5, counted from 0");
    if cumdf_train::device::no_cuda().is_some() {
        refused("run", &["--gpus", "0,1"], "--gpus: device \"cuda:0\" is not usable: ");
    } else {
        refused("run", &["--gpus", "0"], "the cells of this plan are for cpu");
    }
    refused("run", &["--data", "absent.h5"], "absent.h5");
    let plan = fs::read_to_string(&sweep.plan).unwrap();
    for (text, words) in [
        (&plan[..plan.len() / 2], "it is torn, or no plan"),
        ("", "it is empty"),
        (&plan.replace("\"version\": 1,", "\"version\": 9,"), "it is a plan of version 9"),
        (&plan.replace("\"formula\": \"", "\"formula\": \"9"), "would train another cell: formula"),
    ] {
        fs::write(&sweep.plan, text).unwrap();
        for what in ["run", "status", "slurm"] {
            refused(what, &[], words);
        }
    }
    fs::write(&sweep.plan, plan).unwrap();
    // One label less is another file.
    let other = toy(
        &sweep.out.with_file_name(""),
        "toy",
        cumdf_data::Task::Sentiment { lo: -1, hi: 2 },
        cumdf_data::ModalitySet::ALL,
    );
    assert_eq!(other, sweep.data);
    refused("run", &[], "is not the file that was planned with: its content has changed");
    assert!(!sweep.out.exists());
}

#[test]
fn a_failure_is_told_and_waits_for_retry() {
    let sweep = Sweep::new(2);
    let (index, dir) = sweep.long();
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("student"), "in the way").unwrap();
    let output = sweep.output("run", &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let status = sweep.well("status", &[]);
    assert!(status.starts_with("5 cells: 4 finished, 0 running, 1 failed, 0 open\n"), "{status}");
    assert!(status.contains("toy, cumdf, seed 1: on "), "{status}");
    assert!(status.contains("student"), "{status}");
    let log = || fs::read_to_string(dir.join("log.txt")).unwrap();
    let before = log();
    for args in [&["run"][..], &["cell", "--index", &index]] {
        let output = sweep.output(args[0], &args[1..]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("`sweep retry` has it tried again"), "{}", said(&output));
    }
    assert_eq!(log(), before, "it was tried again");

    fs::remove_file(dir.join("student")).unwrap();
    assert_eq!(sweep.well("retry", &[]), "open again: toy, cumdf, seed 1\n");
    assert_eq!(sweep.well("retry", &[]), "nothing has failed\n");
    sweep.well("run", &[]);
    assert!(sweep.well("status", &[]).starts_with("5 cells: 5 finished"));
}

fn send(signal: &str, process: &str) {
    let status =
        Command::new("kill").args([signal, "--", process]).status().expect("kill is there");
    assert!(status.success(), "kill {signal} {process}");
}

#[cfg(unix)]
#[test]
fn a_cell_whose_time_is_up_exits_with_75_and_goes_on() {
    let sweep = Sweep::new(60);
    let (index, dir) = sweep.long();
    let student = dir.join("student/metrics.jsonl");
    let n_epochs = || fs::read_to_string(&student).unwrap_or_default().lines().count();
    let mut child =
        sweep.command("cell", &["--index", &index]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the student does not begin", || n_epochs() > 2);
    let status = sweep.well("status", &[]);
    assert!(status.starts_with("5 cells: 0 finished, 1 running, 0 failed, 4 open\n"), "{status}");
    assert!(status.contains("toy, cumdf, seed 1: process "), "{status}");
    assert!(status.contains(" of at most 65 epochs"), "{status}");
    send("-USR1", &child.id().to_string());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    wait_for("the claim is not given back", || dir.join("claim/free").exists());
    let n = n_epochs();
    assert!(n < 60, "it was not stopped");
    let status = sweep.well("status", &[]);
    assert!(status.contains("0 running, 0 failed, 5 open\nopen, and begun"), "{status}");
    sweep.well("cell", &["--index", &index]);
    assert_eq!(n_epochs(), 60);
}

/// Two on one plan, each with room for all cells.
#[test]
fn two_runs_share_a_plan() {
    let sweep = Sweep::new(40);
    let start = || sweep.command("run", &["--jobs", "2"]).stderr(Stdio::piped()).spawn().unwrap();
    let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
    for output in &both {
        assert!(output.status.success(), "{}", said(output));
    }
    sweep.assert_once();
    for (dir, _) in sweep.cells() {
        let log = fs::read_to_string(dir.join("log.txt")).unwrap_or_default();
        assert!(log.matches("a session begins").count() <= 1, "{}: {log}", dir.display());
    }
}

/// `sweep run` is killed at random moments, by turns alone (its children must find out) and with
/// its children, and started again at once. When it ends before it is killed, another folder is begun.
#[cfg(unix)]
#[test]
fn killed_at_random_moments_no_cell_is_run_twice_or_lost() {
    use std::os::unix::process::CommandExt as _;

    let n_kills: usize = env::var(KILLS).map_or(3, |n| n.parse().expect("a number"));
    let mut sweep = Sweep::new(12);
    sweep.out = sweep.out.with_file_name("unbroken");
    sweep.well("run", &["--out", text(&sweep.out)]);
    let unbroken = results(&sweep.out);
    let (mut n, mut round) = (0, 0);
    while n < n_kills {
        round += 1;
        sweep.out = sweep.out.with_file_name(format!("round {round}"));
        let out = sweep.out.clone();
        let here = ["--out", text(&out)];
        let is_done = loop {
            let mut command = sweep.command("run", &[&here[..], &["--jobs", "2"]].concat());
            let mut child = command.stderr(Stdio::null()).process_group(0).spawn().unwrap();
            let random = RandomState::new().hash_one(n) % 2500;
            thread::sleep(Duration::from_millis(random));
            if let Some(status) = child.try_wait().unwrap() {
                break status.success();
            }
            let alone = n % 2 == 0;
            send("-KILL", &format!("{}{}", if alone { "" } else { "-" }, child.id()));
            child.wait().unwrap();
            n += 1;
            let status = sweep.well("status", &here);
            let status = status.lines().next().unwrap_or_default();
            let with = if alone { "alone" } else { "with its children" };
            eprintln!("kill {n} after {random} ms, {with}: {status}");
            if n == n_kills {
                break sweep.output("run", &here).status.success();
            }
        };
        assert!(is_done, "{}", sweep.well("status", &here));
        let done = "5 cells: 5 finished, 0 running, 0 failed, 0 open\n";
        assert_eq!(sweep.well("status", &here), done);
        sweep.assert_once();
        let broken = results(&out);
        assert!(broken.keys().eq(unbroken.keys()), "{:?} {:?}", broken.keys(), unbroken.keys());
        for (path, bytes) in &broken {
            assert!(*bytes == unbroken[path], "{} has other bytes than unbroken", path.display());
        }
        eprintln!("finished: {} files have the bytes of an unbroken run", broken.len());
    }
}

#[test]
fn the_scripts_for_slurm_leave_out_what_needs_no_run() {
    let sweep = Sweep::new(2);
    let (index, _) = sweep.long();
    sweep.well("cell", &["--index", &index]);
    let to = sweep.out.with_file_name("it's a 100% \"odd\" $place");
    let args = ["--to", text(&to), "--at-once", "3", "--time", "1:00:00", "--sbatch=--account=a b"];
    let told = sweep.well("slurm", &args);
    assert!(told.contains("4 cells: 1-4") || told.contains("4 cells: 0,2-4"), "{told}");
    let cells = fs::read_to_string(to.join("cells.sh")).unwrap();
    for line in [
        "#SBATCH --array=",
        "#SBATCH --requeue\n",
        "#SBATCH --signal=B:USR1@120\n",
        "#SBATCH --time=1:00:00\n",
        "#SBATCH \"--account=a b\"\n",
        "/it\\'s a 100%% \\\"odd\\\" $place/cell-%A_%a.log\"\n",
        "scontrol requeue \"$SLURM_JOB_ID\"",
    ] {
        assert!(cells.contains(line), "{line}: {cells}");
    }
    for script in ["cells.sh", "tables.sh"] {
        let checked = Command::new("bash").arg("-n").arg(to.join(script)).output().unwrap();
        assert!(checked.status.success(), "{}", said(&checked));
    }
    assert!(!cells.contains("gpu"), "{cells}");
}

/// Whoever planned with a GPU that is elsewhere.
#[test]
fn a_plan_for_gpus_can_be_made_without_one_and_says_so_where_it_is_run() {
    let sweep = Sweep::new(2);
    let mut arguments = sweep.arguments(2);
    let at = arguments.iter().position(|argument| argument == "cpu").unwrap();
    arguments[at] = "cuda".into();
    let plan = bench(&["sweep", "plan"]).args(&arguments).output().unwrap();
    assert!(plan.status.success(), "{}", said(&plan));
    fs::write(&sweep.plan, &plan.stdout).unwrap();
    sweep.well("slurm", &[]);
    let cells = fs::read_to_string(sweep.out.join("slurm/cells.sh")).unwrap();
    assert!(cells.contains("#SBATCH --gres=gpu:1\n"), "{cells}");
    if cumdf_train::device::no_cuda().is_some() {
        let output = sweep.output("run", &[]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("device \"cuda\" is not usable"), "{}", said(&output));
    }
}

#[test]
fn figure_3_is_planned_with_its_own_views() {
    let sweep = Sweep::new(2);
    let mut command = bench(&["sweep", "plan", "figure3"]);
    let plan =
        command.args(sweep.arguments(2)).args(["--drop-ratios", "0,0.5,1"]).output().unwrap();
    assert!(plan.status.success(), "{}", said(&plan));
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["arguments"][0], "figure3");
    let views: Vec<_> =
        plan["cells"][0]["views"].as_array().unwrap().iter().flat_map(Value::as_str).collect();
    assert!(views.contains(&"lav-p0.5-ha"), "{views:?}");
    assert!(Path::new(plan["out"].as_str().unwrap()).is_absolute());
}
