//! Modality Attribution-based Counterfactual Inference (MACI), Eq. 12-16: how much a prediction
//! owes to each modality.

use std::array::from_fn;

use cumdf_data::Modality;
use tch::{Kind, Tensor, nn::Path};

/// Below this a sum of effects counts as nothing: three float roundings of a probability.
const NO_EFFECT: f64 = 1e-12;

/// The training averages `mu_m [d]` of `X~_m`, which stand in for a removed modality (Eq. 12).
#[derive(Debug)]
pub(crate) struct TrainingMeans([Tensor; 3]);

impl TrainingMeans {
    pub(crate) fn new(vs: &Path, dim: i64) -> Self {
        let vs = vs / "mean";
        Self(Modality::ALL.map(|m| vs.zeros_no_train(m.name(), &[dim])))
    }

    pub(crate) fn of(&self, m: usize) -> &Tensor {
        &self.0[m]
    }

    pub(crate) fn set(&mut self, means: &[Tensor; 3]) {
        let _guard = tch::no_grad_guard();
        for (buffer, mean) in self.0.iter_mut().zip(means) {
            buffer.copy_(mean);
        }
    }
}

/// Sums what `TrainingMeans` averages, batch by batch, in double precision on the device.
#[derive(Debug)]
pub struct MeanAccumulator {
    sums: [Tensor; 3],   // [d]
    counts: [Tensor; 3], // scalars
}

impl MeanAccumulator {
    /// Nothing summed yet; `like` gives width and device, `[.., d]`.
    pub fn new(like: &Tensor) -> Self {
        let dim = *like.size().last().expect("like has a last axis");
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Double, like.device()));
        Self { sums: from_fn(|_| zeros(&[dim])), counts: from_fn(|_| zeros(&[])) }
    }

    /// Adds the valid steps of samples in which the modality is available.
    ///
    /// - `knowledge`: `X~_m [B, T, d]` per modality
    /// - `valid`: `[B, T]` bool; `available`: `[B, 3]` bool
    pub fn add(&mut self, knowledge: &[Tensor; 3], valid: &Tensor, available: &Tensor) {
        let available = available.unbind(1);
        for m in 0..3 {
            let counted = valid.logical_and(&available[m].unsqueeze(1)).to_kind(Kind::Double);
            let x = knowledge[m].detach().to_kind(Kind::Double);
            let sum = (x * counted.unsqueeze(2)).sum_dim_intlist(
                [0i64, 1].as_slice(),
                false,
                Kind::Double,
            );
            self.sums[m] += sum;
            self.counts[m] += counted.sum(Kind::Double);
        }
    }

    /// The means `[d]`; zeros for a modality that was never there.
    pub fn means(&self) -> [Tensor; 3] {
        from_fn(|m| (&self.sums[m] / self.counts[m].clamp_min(1.0)).to_kind(Kind::Float))
    }
}

/// Effects `delta [B, 3]` of Eq. 13: the expectation under `target [B, C]` of
/// `|y^ - y^_con,m|`, which is the change of the true class's probability where the target is one
/// class; 0 where `available [B, 3]` is false.
///
/// - `probs`: `y^ [B, C]`; `without`: `y^_con,m [B, C]` per modality
pub(crate) fn effects(
    probs: &Tensor,
    without: &[Tensor; 3],
    target: &Tensor,
    available: &Tensor,
) -> Tensor {
    let change = without.each_ref().map(|w| {
        ((probs - w).abs() * target).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
    });
    Tensor::stack(&change, 1) * available.to_kind(Kind::Float)
}

/// Shares `X_con [3]` of a batch (Eq. 14-15): they sum to 1, and are equal where nothing had any
/// effect.
pub fn batch_shares(effects: &Tensor) -> Tensor {
    let sums = effects.sum_dim_intlist([0i64].as_slice(), false, Kind::Float); // [3]
    shares(&sums, &sums.ones_like())
}

/// The same per sample, `[B, 3]`: equal among the available modalities where nothing had any
/// effect, among all three where none is available.
pub(crate) fn sample_shares(effects: &Tensor, available: &Tensor) -> Tensor {
    let none = available.any_dim(1, true).logical_not();
    let fallback = available.logical_or(&none).to_kind(Kind::Float);
    shares(effects, &fallback)
}

/// `x / sum(x)` over the last axis, or `fallback / sum(fallback)` where the sum is nothing.
fn shares(x: &Tensor, fallback: &Tensor) -> Tensor {
    let total = |t: &Tensor| t.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
    let sum = total(x);
    let equal = fallback / total(fallback);
    (x / sum.clamp_min(NO_EFFECT)).where_self(&sum.gt(NO_EFFECT), &equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_one_whatever_the_effects() {
        let effects = Tensor::from_slice(&[0.2f32, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let available = Tensor::from_slice(&[1i64, 1, 1, 1, 0, 1, 0, 0, 0]).view([3, 3]).eq(1);
        let got = sample_shares(&effects.view([3, 3]), &available);
        let third = 1.0 / 3.0;
        let want = Tensor::from_slice(&[0.5f32, 0.25, 0.25, 0.5, 0.0, 0.5, third, third, third]);
        assert!((got - want.view([3, 3])).abs().max().double_value(&[]) < 1e-6);
    }
}
