//! One vector per sample and modality: the mean over its seen frames.

use tch::{Device, Kind, Tensor};

use crate::{EvalSet, Inputs, Modality, TrainSet, View};

/// Samples pooled at once; it changes no result.
const BATCH: i64 = 256;

/// Mean features of a split of `N` samples, in file order, on the CPU. Carries no label.
#[derive(Debug)]
pub struct Pooled {
    /// `[N, d_m]` f64 per modality: the mean of the seen standardised frames, 0 where none is seen.
    pub features: [Tensor; 3],
    /// `[N, 3]` bool: the modality has at least one seen frame.
    pub seen: Tensor,
}

impl TrainSet {
    /// Mean features of the complete view.
    pub fn pooled(&self) -> Pooled {
        Pooled::of(self.complete_batches(BATCH).map(|b| (b.rows().to_vec(), b.complete())))
    }

    /// Whether each sample has one frame of `modality`, for the whole of it: pooled, such features
    /// are as standardised as they were before.
    pub fn is_one_frame(&self, modality: Modality) -> bool {
        self.resident.features[modality.index()].size()[1] == 1
    }
}

impl EvalSet {
    /// Mean features under `view`, over the frames that it leaves.
    pub fn pooled(&self, view: &View) -> Pooled {
        Pooled::of(self.batches(view, BATCH))
    }
}

impl Pooled {
    /// Pools batches that hold every sample once, each with its position in the file.
    fn of(batches: impl Iterator<Item = (Vec<usize>, Inputs)>) -> Self {
        let (mut order, mut parts) = (Vec::new(), [const { Vec::new() }; 3]);
        let mut seen = Vec::new();
        for (rows, inputs) in batches {
            order.extend(rows.iter().map(|row| *row as i64));
            let n_seen = inputs.seen.sum_dim_intlist(2, false, Kind::Double).clamp_min(1.0); // [B, 3]
            for modality in Modality::ALL {
                let m = modality.index();
                // Unseen frames are exactly 0, so the sum over all steps is that of the seen ones.
                let sum = inputs.features[m].sum_dim_intlist(1, false, Kind::Double); // [B, d_m]
                parts[m].push((sum / n_seen.narrow(1, m as i64, 1)).to_device(Device::Cpu));
            }
            seen.push(inputs.available().to_device(Device::Cpu));
        }
        let places = Tensor::from_slice(&order).argsort(0, false); // file order from batch order
        let in_order = |parts: &[Tensor]| Tensor::cat(parts, 0).index_select(0, &places);
        Self { features: parts.each_ref().map(|parts| in_order(parts)), seen: in_order(&seen) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Corpus, Dataset, Labels, Samples, Task};

    /// Three samples of lengths 2, 3, 1; audio is one frame, and the second sample has none.
    fn toy() -> Corpus {
        let samples = |prefix: &str| Samples {
            features: [
                Tensor::from_slice(&[1f32, 5.0, 9.0, 2.0, 3.0, 7.0, 4.0, 9.0, 9.0])
                    .reshape([3, 3, 1]),
                Tensor::from_slice(&[2f32, 77.0, 6.0]).reshape([3, 1, 1]),
                Tensor::zeros([3, 1, 1], (Kind::Float, Device::Cpu)),
            ],
            labels: Labels::Scores(vec![0.0, 1.0, 2.0]),
            lengths: vec![2, 3, 1],
            ids: ["a", "b", "c"].map(|id| format!("{prefix}{id}")).to_vec(),
            present: ["la", "l", "la"].map(|set| set.parse().unwrap()).to_vec(),
            truth: None,
        };
        let splits = ["train-", "valid-", "test-"].map(samples);
        let dataset = Dataset::new("toy", Task::Sentiment { lo: -3, hi: 3 }, splits).unwrap();
        Corpus::prepare(&dataset, 0.0, false, Device::Cpu).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f64> {
        Vec::try_from(x.to_kind(Kind::Double).flatten(0, -1)).unwrap()
    }

    #[test]
    fn means_are_taken_over_used_frames_in_file_order() {
        let corpus = toy();
        // Language: the six used frames 1, 5, 2, 3, 7, 4 have mean 11/3; the samples' are 3, 4, 4.
        let (mean, std) = (f64::from(corpus.stats.mean[0][0]), f64::from(corpus.stats.std[0][0]));
        for pooled in [corpus.train.pooled(), corpus.test.pooled(&View::COMPLETE)] {
            for (z, raw) in values(&pooled.features[0]).iter().zip([3.0, 4.0, 4.0]) {
                assert!((z * std + mean - raw).abs() < 1e-5, "{z} is not the mean {raw}");
            }
            assert_eq!(values(&pooled.features[1]), [-1.0, 0.0, 1.0]);
            assert_eq!(values(&pooled.seen), [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
        }
        assert_eq!(Modality::ALL.map(|m| corpus.train.is_one_frame(m)), [false, true, true]);
    }

    #[test]
    fn hidden_frames_are_not_in_the_mean() {
        let corpus = toy();
        let audio = View { condition: "a".parse().unwrap(), ..View::COMPLETE };
        let pooled = corpus.test.pooled(&audio);
        assert_eq!(values(&pooled.features[0]), [0.0; 3]);
        assert_eq!(values(&pooled.seen), [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);

        let holes = View { drop_ratio: 0.6, seed: 3, ..View::COMPLETE };
        let pooled = corpus.test.pooled(&holes);
        for (rows, inputs) in corpus.test.batches(&holes, 1) {
            let seen = values(&inputs.seen.select(1, 0));
            let frames = values(&inputs.features[0]);
            let n_seen: f64 = seen.iter().sum();
            let mean = frames.iter().sum::<f64>() / n_seen.max(1.0);
            let pooled = values(&pooled.features[0])[rows[0]];
            assert!((pooled - mean).abs() < 1e-12, "sample {}: {pooled}, not {mean}", rows[0]);
        }
    }
}
