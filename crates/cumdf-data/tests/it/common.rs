//! A data set small enough to check by hand.

use cumdf_data::{Dataset, Labels, ModalitySet, Samples, Task};
use tch::{Kind, Tensor};

/// Steps, and features per step, of [`toy`].
pub(crate) const STEPS: i64 = 4;
pub(crate) const DIMS: [i64; 3] = [3, 2, 1];

/// `n` samples named `{prefix}0..`, of lengths 1, 2, 3, 4, 1, ...; vision is utterance-level. Every
/// value is its position in the tensor plus one, so none is 0.
pub(crate) fn samples(prefix: &str, n: i64) -> Samples {
    let counted = |steps: i64, dim: i64| {
        (Tensor::arange(n * steps * dim, (Kind::Float, tch::Device::Cpu)) + 1.0)
            .reshape([n, steps, dim])
    };
    Samples {
        features: [counted(STEPS, DIMS[0]), counted(STEPS, DIMS[1]), counted(1, DIMS[2])],
        labels: Labels::Scores((0..n).map(|i| (i % 13) as f32 / 2.0 - 3.0).collect()),
        lengths: (0..n).map(|i| 1 + i % STEPS).collect(),
        ids: (0..n).map(|i| format!("{prefix}{i}")).collect(),
        present: vec![ModalitySet::ALL; n as usize],
        truth: None,
    }
}

/// A sentiment data set of 10, 5 and 6 samples.
pub(crate) fn toy() -> Dataset {
    let splits = [samples("train", 10), samples("valid", 5), samples("test", 6)];
    Dataset::new("toy", Task::Sentiment { lo: -3, hi: 3 }, splits).expect("the toy is valid")
}

/// A data set with the given splits and two emotions.
pub(crate) fn emotions(mut splits: [Samples; 3]) -> anyhow::Result<Dataset> {
    for samples in &mut splits {
        let rows = (0..samples.len()).map(|i| vec![i % 3 != 0, i % 3 != 1]).collect();
        samples.labels = Labels::Classes(rows);
    }
    let classes = vec!["happy".to_owned(), "sad".to_owned()];
    Dataset::new("toy emotions", Task::Emotion { classes }, splits)
}

/// The values of a tensor in C order.
pub(crate) fn floats(x: &Tensor) -> Vec<f32> {
    Vec::try_from(x.to_kind(Kind::Float).contiguous().flatten(0, -1)).expect("a tensor of floats")
}
