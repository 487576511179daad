//! A whole split's answers on the host, and what scores, classes and decisions they stand for.

use anyhow::{Context as _, Result};
use cumdf_data::Task;
use cumdf_model::Answer;
use tch::{Device, Tensor};

/// The answers to the samples of a split, in file order; the forms are those of [`Answer`].
#[derive(Debug, Clone, PartialEq)]
pub enum Answers {
    /// Class probabilities, `[N][C]`.
    Classes(Vec<Vec<f32>>),
    /// Scores, `[N]`.
    Scores(Vec<f32>),
    /// A probability per emotion, `[N][C]`.
    Flags(Vec<Vec<f32>>),
}

impl Answers {
    /// Puts the answers to batches, in whatever order, into file order.
    ///
    /// - `rows`: the position of each sample in its split
    ///
    /// # Errors
    /// When the device fails, or there is no batch.
    pub fn in_order(rows: &[usize], batches: &[Answer]) -> Result<Self> {
        let first = batches.first().context("the split is empty")?;
        let parts: Vec<_> = batches.iter().map(Answer::tensor).collect();
        let all = Tensor::f_cat(&parts, 0)?.to_device(Device::Cpu);
        Ok(match first {
            Answer::Score(_) => Self::Scores(sorted(rows, Vec::try_from(all)?)),
            Answer::Classes(_) => Self::Classes(sorted(rows, Vec::try_from(all)?)),
            Answer::Flags(_) => Self::Flags(sorted(rows, Vec::try_from(all)?)),
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Scores(scores) => scores.len(),
            Self::Classes(rows) | Self::Flags(rows) => rows.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        match self {
            Self::Scores(scores) => scores.iter().all(|s| s.is_finite()),
            Self::Classes(rows) | Self::Flags(rows) => rows.iter().flatten().all(|p| p.is_finite()),
        }
    }

    /// The predicted scores of a sentiment task: as they are, or the expectation over bins.
    ///
    /// # Panics
    /// When these are decisions per emotion.
    pub fn scores(&self, task: &Task) -> Vec<f64> {
        (0..self.len()).map(|row| self.score(task, row)).collect()
    }

    /// The predicted score of the sample in place `row`, as [`Answers::scores`].
    ///
    /// # Panics
    /// When these are decisions per emotion.
    pub fn score(&self, task: &Task, row: usize) -> f64 {
        match self {
            Self::Scores(scores) => f64::from(scores[row]),
            Self::Classes(rows) => expected_score(task, &rows[row]),
            Self::Flags(_) => panic!("decisions per emotion are no scores"),
        }
    }

    /// The most probable class of each sample.
    ///
    /// # Panics
    /// When these are scores.
    pub fn classes(&self) -> Vec<usize> {
        match self {
            Self::Classes(rows) | Self::Flags(rows) => rows.iter().map(|p| argmax(p)).collect(),
            Self::Scores(_) => panic!("scores are no classes"),
        }
    }

    /// Whether each sample is said to have emotion `class`: its own decision, above one half, or
    /// that it is the most probable class.
    ///
    /// # Panics
    /// When these are scores.
    pub fn decisions(&self, class: usize) -> Vec<bool> {
        match self {
            Self::Flags(rows) => rows.iter().map(|p| p[class] > 0.5).collect(),
            Self::Classes(_) => self.classes().iter().map(|c| *c == class).collect(),
            Self::Scores(_) => panic!("scores are no emotions"),
        }
    }
}

/// The score that class probabilities stand for: the expectation over the task's bins.
///
/// Taken around the middle of the range, so that a symmetric distribution lies on it exactly, as
/// rounding would not have it otherwise.
///
/// # Panics
/// On an emotion task, which has no scores.
pub fn expected_score(task: &Task, probs: &[f32]) -> f64 {
    let neutral = f64::from(task.neutral().expect("a sentiment task has a neutral score"));
    let bins = task.bin_scores().expect("a sentiment task has bins");
    let offsets = bins.iter().map(|bin| f64::from(*bin) - neutral);
    neutral + offsets.zip(probs).map(|(offset, p)| offset * f64::from(*p)).sum::<f64>()
}

/// Entropy of a distribution in nats: 0 when certain, `ln C` when uniform.
pub fn entropy(probs: &[f32]) -> f64 {
    let terms = probs.iter().map(|p| f64::from(*p)).filter(|p| *p > 0.0);
    0.0 - terms.map(|p| p * p.ln()).sum::<f64>() // 0 rather than -0 when certain
}

/// Position of the largest value, the first of equals; 0 when there is none.
pub fn argmax(probs: &[f32]) -> usize {
    let larger = |best: usize, i: usize| if probs[i] > probs[best] { i } else { best };
    (1..probs.len()).fold(0, larger)
}

/// `values` of the samples `rows`, in the order of the split.
pub(crate) fn sorted<T: Default + Clone>(rows: &[usize], values: Vec<T>) -> Vec<T> {
    let mut ordered = vec![T::default(); values.len()];
    for (row, value) in rows.iter().zip(values) {
        ordered[*row] = value;
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_distribution_is_exactly_neutral_on_any_range() {
        let one_to_five = Task::Sentiment { lo: 1, hi: 5 };
        let flat = [0.2; 5];
        assert_eq!(expected_score(&one_to_five, &flat).to_bits(), 3f64.to_bits());
        let certain = [0.0, 0.0, 0.0, 1.0, 0.0];
        assert_eq!(expected_score(&one_to_five, &certain).to_bits(), 4f64.to_bits());
        assert!((entropy(&flat) - 5f64.ln()).abs() < 1e-6);
        assert_eq!(entropy(&certain).to_bits(), 0f64.to_bits());
    }

    #[test]
    fn batches_in_any_order_come_out_in_file_order() {
        let batch = |values: &[f32]| Answer::Score(Tensor::from_slice(values));
        let answers = Answers::in_order(&[2, 0, 1], &[batch(&[0.2, 0.0]), batch(&[0.1])]).unwrap();
        assert_eq!(answers, Answers::Scores(vec![0.0, 0.1, 0.2]));
    }
}
