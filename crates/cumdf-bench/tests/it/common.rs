//! What the tests of the program share: small data sets, the program on them, and waiting.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use cumdf_bench::grid::variants::{self, COMPARISON, Work};
use cumdf_data::{Dataset, Labels, ModalitySet, Samples, Task};
use cumdf_train::config::Config;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Settings so small that a training takes a second, for the methods of the rows that `args` choose:
/// one or two epochs of what has any.
pub(crate) fn tiny(args: &[&str]) -> Vec<String> {
    let keys: Vec<_> = match args.iter().position(|arg| *arg == "--models") {
        Some(at) => args[at + 1].split(',').map(str::to_owned).collect(),
        None => vec![],
    };
    let rows = variants::select(&COMPARISON, &keys, false).expect("the rows are there");
    let mut sets: BTreeSet<String> =
        ["model.hidden_dim=8", "model.n_heads=2", "model.ffn_dim=8", "train.batch_size=8"]
            .map(String::from)
            .into();
    for row in rows {
        if let Work::Train(entry) = row.work() {
            let config = Config::resolve(Some(entry.name), None, None, &[]).expect("its recipe");
            shorten("", &config.to_json(), &mut sets);
        }
    }
    sets.into_iter().flat_map(|set| ["--set".to_owned(), set]).collect()
}

fn shorten(at: &str, table: &Value, sets: &mut BTreeSet<String>) {
    for (key, value) in table.as_object().into_iter().flatten() {
        let full = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match (value, key.as_str()) {
            (Value::Object(_), _) => shorten(&full, value, sets),
            _ if full == "student.epochs" => drop(sets.insert(format!("{full}=2"))),
            (_, "epochs" | "constant_epochs") => drop(sets.insert(format!("{full}=1"))),
            (_, "folds") => drop(sets.insert(format!("{full}=2"))),
            (_, "warmup_epochs") => drop(sets.insert(format!("{full}=0.0"))),
            _ => {}
        }
    }
}

/// A data set of 24 / 8 / 12 samples that nothing can be learned from.
pub(crate) fn toy(folder: &Path, name: &str, task: Task, present: ModalitySet) -> PathBuf {
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
    let path = folder.join(format!("{}.h5", name.replace([' ', '/'], "-")));
    let data = Dataset::new(name, task, splits).expect("the toy keeps the rules");
    data.write(&path).expect("a temporary folder can be written");
    path
}

/// The program's command `name` with the folder `out`.
pub(crate) fn artefact(name: &str, out: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cumdf-bench"));
    // A test that starts a program while another writes its data set hands it the open file, lock
    // included; HDF5 would then refuse the finished file to the other test's program.
    command.env("HDF5_USE_FILE_LOCKING", "FALSE");
    command.env_remove("COLUMNS");
    command.arg(name).args(["--device", "cpu"]).args(args).arg("--out").arg(out);
    command
}

/// The one that most tests take: scores from -1 to 1, all modalities.
pub(crate) fn scores(folder: &Path) -> PathBuf {
    toy(folder, "toy", Task::Sentiment { lo: -1, hi: 1 }, ModalitySet::ALL)
}

/// All of `table1.json` but how it came about: the command and where the data lay.
pub(crate) fn table(out: &Path) -> Value {
    let text = fs::read_to_string(out.join("table1.json")).expect("it was written");
    let mut whole: Value = serde_json::from_str(&text).expect("it is JSON");
    let parts = whole.as_object_mut().expect("it is an object");
    parts.remove("provenance").expect("it says where it comes from");
    whole
}

/// What a program said on standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Waits for something, for two minutes at most.
pub(crate) fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < Duration::from_secs(120), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
