//! What the tests of the program share: small data sets, and waiting.

use std::{
    path::{Path, PathBuf},
    process::Output,
    thread,
    time::{Duration, Instant},
};

use cumdf_data::{Dataset, Labels, ModalitySet, Samples, Task};
use tch::{Device, Kind, Tensor};

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
    let path = folder.join(format!("{}.h5", name.replace(' ', "-")));
    let data = Dataset::new(name, task, splits).expect("the toy keeps the rules");
    data.write(&path).expect("a temporary folder can be written");
    path
}

/// The one that most tests take: scores from -1 to 1, all modalities.
pub(crate) fn scores(folder: &Path) -> PathBuf {
    toy(folder, "toy", Task::Sentiment { lo: -1, hi: 1 }, ModalitySet::ALL)
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
