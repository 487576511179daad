//! What a model is handed. Labels exist in [`TrainBatch`] alone: evaluation has no way to reach them.

use std::cell::OnceCell;

use tch::Tensor;

use crate::TrainSet;

/// The features of `B` samples, as a model sees them. Carries no label.
///
/// `T` is the longest length in the batch, which may be shorter than the data set's.
#[derive(Debug)]
pub struct Inputs {
    /// `[B, T, d_m]` per modality, standardised; exactly 0 wherever `seen` is false.
    pub features: [Tensor; 3],
    /// `[B, 3, T]` bool: the frame is there (inside the length, neither dropped nor absent).
    pub seen: Tensor,
    /// `[B, T]` bool: the step lies inside the sample's length; every sample has at least one.
    pub valid: Tensor,
}

impl Inputs {
    /// `[B, 3]` bool: the modality has at least one seen frame.
    pub fn available(&self) -> Tensor {
        self.seen.any_dim(2, false)
    }

    /// Number of samples `B`.
    pub fn len(&self) -> i64 {
        self.valid.size()[0]
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Training labels of `B` samples. Only [`crate::TrainSet`] makes them.
#[derive(Debug)]
pub struct Targets {
    pub(crate) distribution: Tensor,
    pub(crate) score: Option<Tensor>,
    pub(crate) flags: Option<Tensor>,
}

impl Targets {
    /// The labels of the samples at `index [B]`.
    pub fn at(&self, index: &Tensor) -> Self {
        let rows = |table: &Tensor| table.index_select(0, index);
        Self {
            distribution: rows(&self.distribution),
            score: self.score.as_ref().map(rows),
            flags: self.flags.as_ref().map(rows),
        }
    }

    /// The labels mixed with what a teacher holds of the same samples: `(1 - share)` of the one and
    /// `share` of the other, of distribution and score alike; the flags stay.
    ///
    /// - `probs`: `[B, C]`
    /// - `bin_scores`: the score `[C]` of each class, where labels are scores
    pub fn mixed(&self, share: f64, probs: &Tensor, bin_scores: Option<&Tensor>) -> Self {
        let mix = |label: &Tensor, taught: &Tensor| label * (1.0 - share) + taught * share;
        let score = self.score.as_ref().map(|score| match bin_scores {
            Some(bins) => mix(score, &probs.matmul(bins)),
            None => score.shallow_clone(),
        });
        let distribution = mix(&self.distribution, probs);
        Self { distribution, score, flags: self.flags.as_ref().map(Tensor::shallow_clone) }
    }

    /// `[B, C]`: the distribution over classes that cross-entropy is trained towards.
    pub fn distribution(&self) -> &Tensor {
        &self.distribution
    }

    /// `[B]`: the real score; `None` for emotions.
    pub fn score(&self) -> Option<&Tensor> {
        self.score.as_ref()
    }

    /// `[B, C]`: 1 for each emotion that the sample has, 0 for the others; `None` for scores.
    pub fn flags(&self) -> Option<&Tensor> {
        self.flags.as_ref()
    }
}

/// `B` training samples: what a learner's loss reads. Nothing is gathered before it is asked for,
/// so a learner that reads one view pays for one.
#[derive(Debug)]
pub struct TrainBatch<'a> {
    /// `[B]` i64 on the device: positions in the training split, stable under shuffling.
    pub index: Tensor,
    set: &'a TrainSet,
    rows: Vec<usize>,
    longest: i64,
    seen: Option<Tensor>,
    targets: OnceCell<Targets>,
}

impl<'a> TrainBatch<'a> {
    /// `seen` is `[B, 3, T]` after MRMS, `None` where nothing was hidden.
    pub(crate) fn new(
        set: &'a TrainSet,
        rows: Vec<usize>,
        index: Tensor,
        longest: i64,
        seen: Option<Tensor>,
    ) -> Self {
        Self { index, set, rows, longest, seen, targets: OnceCell::new() }
    }

    /// The samples of the batch for which `keep` is true of their position in the split; `None`
    /// where there is none.
    pub fn only(&self, keep: impl Fn(usize) -> bool) -> Option<Self> {
        let places: Vec<i64> =
            (0..self.len()).filter(|place| keep(self.rows[*place as usize])).collect();
        if places.is_empty() {
            return None;
        }
        let rows: Vec<_> = places.iter().map(|place| self.rows[*place as usize]).collect();
        let longest = rows.iter().map(|row| self.set.resident.lengths[*row]).max().unwrap_or(1);
        let places = Tensor::from_slice(&places).to_device(self.index.device());
        let index = self.index.index_select(0, &places);
        let seen = self.seen.as_ref().map(|seen| {
            seen.index_select(0, &places).narrow(2, 0, longest).contiguous() // [B, 3, T]
        });
        Some(Self::new(self.set, rows, index, longest, seen))
    }

    /// The view with nothing dropped: what the samples really have.
    pub fn complete(&self) -> Inputs {
        self.set.resident.gather(&self.index, self.longest, None)
    }

    /// What the stage shows of the samples: the view after MRMS, or the complete one where no masks
    /// were drawn.
    pub fn shown(&self) -> Inputs {
        self.set.resident.gather(&self.index, self.longest, self.seen.as_ref())
    }

    /// The labels of both views.
    pub fn targets(&self) -> &Targets {
        self.targets.get_or_init(|| self.set.targets(&self.index))
    }

    /// The same positions as `index`, on the host.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Number of samples `B`.
    pub fn len(&self) -> i64 {
        self.rows.len() as i64
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
