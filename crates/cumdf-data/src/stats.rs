//! Standardisation: mean and spread of every feature, from the training split and nothing else.

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{Modality, ModalitySet, Samples};

/// A feature with a smaller standard deviation is constant and divided by 1.
const LEAST_STD: f64 = 1e-6;
/// The smallest clip that cuts: below it nearly every value would be cut to the same two.
const LEAST_CLIP: f64 = 0.1;
/// Values copied out of a tensor at a time.
const CHUNK: i64 = 1 << 22;

/// What turns raw features into standardised ones; it travels in the checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureStats {
    /// Mean of each feature, `[d_m]` per modality; 0 for a modality training never saw.
    pub mean: [Vec<f32>; 3],
    /// Standard deviation of each feature, `[d_m]` per modality; 1 where it is below 1e-6.
    pub std: [Vec<f32>; 3],
    /// Standardised values are cut to `-clip..=clip`, at least 0.1; 0 cuts nothing.
    pub clip: f64,
    /// Modalities present in some training sample. The others are hidden from every model:
    /// weights that were never trained would read them.
    pub trained: ModalitySet,
}

impl FeatureStats {
    /// Measures the present, valid frames of `train`; an utterance-level modality counts one frame
    /// per sample. Values that are not finite are left out. Sums are kept in f64, in file order.
    ///
    /// # Errors
    /// When `clip` is neither 0 nor a finite number of at least 0.1.
    pub fn fit(train: &Samples, clip: f64) -> Result<Self> {
        check_clip(clip)?;
        let [language, audio, vision] = Modality::ALL.map(|m| fit_one(train, m));
        let ((l_mean, l_std), (a_mean, a_std), (v_mean, v_std)) = (language?, audio?, vision?);
        Ok(Self {
            mean: [l_mean, a_mean, v_mean],
            std: [l_std, a_std, v_std],
            clip,
            trained: train.available(),
        })
    }

    /// Features per step `d_m`.
    pub fn dims(&self) -> [i64; 3] {
        self.mean.each_ref().map(|mean| mean.len() as i64)
    }

    /// Checks statistics that were not measured here but read, say from a checkpoint, against the
    /// `dims` features per step that they are to be of.
    ///
    /// # Errors
    /// When a list has another length than `dims` says, a mean is not finite, a deviation is not
    /// finite and positive, the clip is none that [`FeatureStats::fit`] allows, or no modality was
    /// trained on; the message names modality and feature.
    pub fn check(&self, dims: [i64; 3]) -> Result<()> {
        check_clip(self.clip)?;
        ensure!(!self.trained.is_empty(), "the statistics name no modality that was trained on");
        for modality in Modality::ALL {
            let m = modality.index();
            let (mean, std, dim) = (&self.mean[m], &self.std[m], dims[m]);
            ensure!(dim >= 1, "{modality} has {dim} features per step, expected 1 or more");
            for (what, values) in [("means", mean), ("deviations", std)] {
                ensure!(
                    i64::try_from(values.len()).is_ok_and(|len| len == dim),
                    "the statistics hold {} {what} of {modality}, expected {dim}, one per feature",
                    values.len()
                );
            }
            if let Some(d) = mean.iter().position(|value| !value.is_finite()) {
                bail!("the mean of {modality}, feature {d}, is {}, expected a number", mean[d]);
            }
            if let Some(d) = std.iter().position(|value| !value.is_finite() || *value <= 0.0) {
                bail!(
                    "the deviation of {modality}, feature {d}, is {}, expected a number above 0",
                    std[d]
                );
            }
        }
        Ok(())
    }

    /// `(x - mean) / std` of `[.., d_m]` features, cut to the clip; NaN becomes 0, the mean.
    pub(crate) fn standardise(&self, modality: Modality, x: &Tensor) -> Tensor {
        let m = modality.index();
        let on_device = |values: &[f32]| Tensor::from_slice(values).to_device(x.device());
        let mut z = x - on_device(&self.mean[m]); // a copy of our own, so the rest runs in place
        let mut z = z.divide_(&on_device(&self.std[m])).nan_to_num_(0.0, 0.0, 0.0);
        if self.clip > 0.0 {
            let _ = z.clamp_(-self.clip, self.clip);
        }
        z
    }
}

fn check_clip(clip: f64) -> Result<()> {
    ensure!(
        clip == 0.0 || (clip.is_finite() && clip >= LEAST_CLIP),
        "data.clip is {clip:?}, expected 0 (off) or at least {LEAST_CLIP}: it cuts features, in \
         standard deviations"
    );
    Ok(())
}

/// Mean and standard deviation of one modality's features.
fn fit_one(train: &Samples, modality: Modality) -> Result<(Vec<f32>, Vec<f32>)> {
    let x = &train.features[modality.index()];
    let (n, steps, dim) = x.size3()?;
    let width = dim as usize;
    // Sums are taken around each feature's first value: a constant then has spread exactly 0.
    let mut shift = vec![None; width];
    let mut sum = vec![0f64; width];
    let mut sum_sq = vec![0f64; width];
    let mut count = vec![0u64; width];
    let rows = (CHUNK / (steps * dim)).max(1);
    for start in (0..n).step_by(rows as usize) {
        let len = rows.min(n - start);
        let chunk = Vec::<f32>::try_from(x.narrow(0, start, len).flatten(0, -1))?;
        for (row, frames) in chunk.chunks_exact((steps * dim) as usize).enumerate() {
            let sample = start as usize + row;
            if !train.present[sample].contains(modality) {
                continue;
            }
            let used = train.lengths[sample].min(steps) as usize;
            for frame in frames.chunks_exact(width).take(used) {
                for (d, value) in frame.iter().enumerate().filter(|(_, v)| v.is_finite()) {
                    let value = f64::from(*value);
                    let delta = value - *shift[d].get_or_insert(value);
                    sum[d] += delta;
                    sum_sq[d] += delta * delta;
                    count[d] += 1;
                }
            }
        }
    }
    let moments = (0..width).map(|d| {
        let Some(shift) = shift[d] else { return (0.0, 1.0) };
        let n = count[d] as f64;
        let mean = sum[d] / n;
        let std = (sum_sq[d] / n - mean * mean).max(0.0).sqrt();
        ((shift + mean) as f32, if std < LEAST_STD { 1.0 } else { std as f32 })
    });
    Ok(moments.unzip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Labels;

    /// Two samples of lengths 2 and 1; audio of the second is absent, vision is never there.
    fn toy() -> Samples {
        let language = [1f32, 5.0, 3.0, 5.0, 8.0, 5.0, f32::NAN, 100.0];
        let audio = [2f32, 6.0];
        let vision = [f32::NAN, 7.0];
        Samples {
            features: [
                Tensor::from_slice(&language).reshape([2, 2, 2]),
                Tensor::from_slice(&audio).reshape([2, 1, 1]),
                Tensor::from_slice(&vision).reshape([2, 1, 1]),
            ],
            labels: Labels::Scores(vec![0.0, 1.0]),
            lengths: vec![2, 1],
            ids: vec!["a".to_owned(), "b".to_owned()],
            present: vec!["la".parse().unwrap(), "l".parse().unwrap()],
            truth: None,
        }
    }

    #[test]
    fn only_present_valid_finite_frames_count() {
        let stats = FeatureStats::fit(&toy(), 2.0).unwrap();
        // Language: 1, 3, 8 (the frame past the length is left out) and a constant 5.
        assert_eq!(stats.mean, [vec![4.0, 5.0], vec![2.0], vec![0.0]]);
        let spread = ((9.0 + 1.0 + 16.0) / 3.0f64).sqrt() as f32;
        assert_eq!(stats.std, [vec![spread, 1.0], vec![1.0], vec![1.0]]);
        assert_eq!(stats.trained.key(), "la");
        assert_eq!(stats.dims(), [2, 1, 1]);
    }

    #[test]
    fn a_constant_far_from_zero_has_no_spread() {
        let mut samples = toy();
        samples.features[0] =
            Tensor::full([2, 2, 2], 123_456.78, (tch::Kind::Float, tch::Device::Cpu));
        let stats = FeatureStats::fit(&samples, 0.0).unwrap();
        assert_eq!(stats.std[0], [1.0, 1.0]);
    }

    #[test]
    fn standardised_values_are_clipped_and_gaps_are_zero() {
        let stats = FeatureStats::fit(&toy(), 2.0).unwrap();
        let x =
            Tensor::from_slice(&[4f32, 5.5, f32::NAN, 1000.0, 4.0, f32::INFINITY]).reshape([3, 2]);
        let z = Vec::<f32>::try_from(stats.standardise(Modality::Language, &x).flatten(0, -1));
        assert_eq!(z.unwrap(), [0.0, 0.5, 0.0, 2.0, 0.0, 0.0]);
        assert!(Vec::<f32>::try_from(x.flatten(0, -1)).unwrap()[2].is_nan(), "the input changed");
    }

    #[test]
    fn statistics_survive_json() {
        let stats = FeatureStats::fit(&toy(), 5.0).unwrap();
        let json = serde_json::to_string(&stats).unwrap();
        assert_eq!(serde_json::from_str::<FeatureStats>(&json).unwrap(), stats);
    }

    #[test]
    fn a_clip_that_would_cut_everything_is_refused() {
        for clip in [1e-300, 0.099, -1.0, f64::NAN, f64::INFINITY] {
            let said = FeatureStats::fit(&toy(), clip).unwrap_err().to_string();
            assert!(said.contains("expected 0 (off) or at least 0.1"), "{said}");
            assert!(said.starts_with(&format!("data.clip is {clip:?}")), "{said}");
        }
        for clip in [0.0, 0.1, 5.0] {
            assert!(FeatureStats::fit(&toy(), clip).is_ok(), "{clip}");
        }
    }

    #[test]
    fn statistics_that_cannot_be_of_this_data_are_refused_by_modality_and_feature() {
        let good = FeatureStats::fit(&toy(), 5.0).unwrap();
        let dims = [2, 1, 1];
        good.check(dims).unwrap();
        let with = |change: fn(&mut FeatureStats)| {
            let mut stats = good.clone();
            change(&mut stats);
            stats.check(dims).unwrap_err().to_string()
        };
        for (said, expected) in [
            (with(|s| s.std[0].truncate(1)), "1 deviations of language, expected 2"),
            (with(|s| s.mean[1].push(0.0)), "2 means of audio, expected 1"),
            (with(|s| s.mean[0][1] = f32::INFINITY), "mean of language, feature 1, is inf"),
            (with(|s| s.std[0][1] = 0.0), "deviation of language, feature 1, is 0"),
            (with(|s| s.std[2][0] = -1.0), "deviation of vision, feature 0, is -1"),
            (with(|s| s.std[1][0] = f32::NAN), "deviation of audio, feature 0, is NaN"),
            (with(|s| s.clip = -0.5), "data.clip is -0.5"),
            (with(|s| s.trained = ModalitySet::EMPTY), "no modality that was trained on"),
        ] {
            assert!(said.contains(expected), "{said:?} does not say {expected:?}");
        }
        for dims in [[2, -1, 1], [2, 0, 1]] {
            let said = good.check(dims).unwrap_err().to_string();
            assert!(said.contains("audio has") && said.contains("expected 1 or more"), "{said}");
        }
        let said = good.check([2, 1, i64::MAX]).unwrap_err().to_string();
        assert!(said.contains("1 means of vision, expected 9223372036854775807"), "{said}");
    }
}
