//! The losses, each a function of tensors (Eq. 10, 16-18). Weights stay in the configuration.

use cumdf_data::Targets;
use tch::{Kind, Tensor};

/// Cross-entropy `L_task` with a target distribution, mean over samples. Eq. 18.
///
/// - `logits`, `target`: `[B, C]`
pub fn cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    per_sample_cross_entropy(logits, target).mean(Kind::Float)
}

/// The same per sample, `[B]`.
fn per_sample_cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    -(logits.log_softmax(-1, Kind::Float) * target).sum_dim_intlist(
        [-1i64].as_slice(),
        false,
        Kind::Float,
    )
}

/// Uni-modal cross-entropy `L_uni`: mean over the (sample, modality) pairs with a seen frame, 0
/// when there is none. Trains the heads of Eq. 11.
///
/// - `logits`: `[B, C]` per modality; `target`: `[B, C]`; `available`: `[B, 3]` bool
pub fn unimodal(logits: &[Tensor; 3], target: &Tensor, available: &Tensor) -> Tensor {
    let each = Tensor::stack(&logits.each_ref().map(|l| per_sample_cross_entropy(l, target)), 1);
    masked_mean(&each, available)
}

/// Mean absolute error `L_score` of the expected score, in the score's units.
///
/// - `logits`: `[B, C]`; `bin_scores`: `[C]`; `score`: `[B]`
pub fn expected_score(logits: &Tensor, bin_scores: &Tensor, score: &Tensor) -> Tensor {
    let expected = logits.softmax(-1, Kind::Float).matmul(bin_scores);
    (expected - score).abs().mean(Kind::Float)
}

/// Counterfactual loss `L_cou`, Eq. 16 with `lambda_m = stopgrad(X_con,m)`: least, 1/3, when the
/// modalities carry equal weight.
///
/// - `shares`: `X_con [3]`
pub fn counterfactual(shares: &Tensor) -> Tensor {
    (shares.detach() * shares).sum(Kind::Float)
}

/// Cosine distance `1 - cos(a, b)` per row, `[B]`: one term of `L_SRD` (Eq. 10).
///
/// - `student`, `teacher`: `[B, d]`, already projected
pub fn cosine_distance(student: &Tensor, teacher: &Tensor) -> Tensor {
    1.0 - Tensor::cosine_similarity(student, teacher, -1, 1e-8)
}

/// Added under a square root, whose gradient at 0 is infinite.
const ROOT_FLOOR: f64 = 1e-8;

/// Highest central moment that [`cmd`] compares.
const MOMENTS: i64 = 5;

/// Central moment discrepancy of two batches of vectors: the distance of their means plus the
/// distances of their central moments 2 to 5, taken over the batch. Zellinger et al., "Central
/// Moment Discrepancy (CMD) for Domain-Invariant Representation Learning" (ICLR 2017), without its
/// scaling by the range of the values, as github.com/ZhuoYulang/IF-MMIN uses it.
///
/// - `a`, `b`: `[B, d]`
///
/// Each distance is `sqrt(squares + 1e-8)`, so that its gradient stays finite where the batches
/// agree; two equal batches are 5e-4 apart.
pub fn cmd(a: &Tensor, b: &Tensor) -> Tensor {
    let batch_mean = |x: &Tensor| x.mean_dim([0i64].as_slice(), true, Kind::Float); // [1, d]
    let distance = |x: Tensor| (x.square().sum(Kind::Float) + ROOT_FLOOR).sqrt();
    let (mean_a, mean_b) = (batch_mean(a), batch_mean(b));
    let (centred_a, centred_b) = (a - &mean_a, b - &mean_b);
    let moment = |x: &Tensor, k: i64| batch_mean(&x.pow_tensor_scalar(k));
    (2..=MOMENTS).fold(distance(mean_a - mean_b), |sum, k| {
        sum + distance(moment(&centred_a, k) - moment(&centred_b, k))
    })
}

/// The task loss of a network that answers with a score or a decision per emotion: mean absolute
/// error, or the cross-entropy of every pair, mean over samples and emotions.
///
/// - `output`: `[B]` in units of the score, or logits `[B, C, 2]`, "no" first
pub fn score_or_flags(output: &Tensor, targets: &Targets) -> Tensor {
    match (targets.score(), targets.flags()) {
        (Some(score), _) => (output - score).abs().mean(Kind::Float),
        (None, Some(flags)) => {
            let flags = flags.flatten(0, -1).to_kind(Kind::Int64); // [B C]
            output.flatten(0, 1).cross_entropy_for_logits(&flags)
        }
        (None, None) => unreachable!("a label is a score or a set of emotions"),
    }
}

/// Mean of `x` over the true places of `mask` (same shape), 0 when there is none.
pub fn masked_mean(x: &Tensor, mask: &Tensor) -> Tensor {
    let kept = x.masked_fill(&mask.logical_not(), 0.0).sum(Kind::Float);
    kept / mask.to_kind(Kind::Float).sum(Kind::Float).clamp_min(1.0)
}

/// Mean over the frames of a mask and all channels, `sum / (frames d + 1e-6)`: 0 without a frame.
///
/// - `each`: `[B, T, d]`; `frames`: `[B, T]` bool
pub fn frame_mean(each: &Tensor, frames: &Tensor) -> Tensor {
    let d = each.size()[2] as f64;
    let kept = each.masked_fill(&frames.logical_not().unsqueeze(-1), 0.0).sum(Kind::Float);
    kept / (frames.to_kind(Kind::Float).sum(Kind::Float) * d + 1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shares_are_the_least_counterfactual_loss() {
        let equal = counterfactual(&Tensor::from_slice(&[1.0f32 / 3.0; 3])).double_value(&[]);
        let skewed = counterfactual(&Tensor::from_slice(&[0.5f32, 0.3, 0.2])).double_value(&[]);
        assert!((equal - 1.0 / 3.0).abs() < 1e-6 && skewed > equal, "{equal} {skewed}");
    }

    #[test]
    fn a_uniform_guess_costs_log_c() {
        let target = Tensor::from_slice(&[0f32, 1.0, 0.0, 0.0]).view([1, 4]);
        let loss = cross_entropy(&target.zeros_like(), &target).double_value(&[]);
        assert!((loss - 4f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn nothing_seen_costs_nothing() {
        let logits = [0, 1, 2].map(|_| Tensor::from_slice(&[f32::NAN, 0.0]).view([1, 2]));
        let target = Tensor::from_slice(&[1f32, 0.0]).view([1, 2]);
        let none = Tensor::zeros([1, 3], (Kind::Bool, tch::Device::Cpu));
        assert_eq!(unimodal(&logits, &target, &none).double_value(&[]).to_bits(), 0);
    }

    #[test]
    fn frames_outside_the_mask_cost_nothing_and_no_frame_costs_zero() {
        let each = Tensor::from_slice(&[1f32, 3.0, f32::NAN, 5.0]).view([1, 2, 2]);
        let frames = |open: [bool; 2]| Tensor::from_slice(&open).view([1, 2]);
        let first = frame_mean(&each, &frames([true, false])).double_value(&[]);
        assert!((first - 2.0).abs() < 1e-5, "{first}");
        assert_eq!(frame_mean(&each, &frames([false, false])).double_value(&[]).to_bits(), 0);
    }

    /// {0, 2} against {1, 1}: equal means, variances 1 and 0, third moments 0, fourth 1 and 0,
    /// fifth 0.
    #[test]
    fn moments_by_hand() {
        let a = Tensor::from_slice(&[0f32, 2.0]).view([2, 1]);
        let b = Tensor::from_slice(&[1f32, 1.0]).view([2, 1]);
        let got = cmd(&a, &b).double_value(&[]);
        assert!((got - 2.0).abs() < 5e-4, "{got}");
    }

    #[test]
    fn equal_batches_and_a_batch_of_one_have_a_finite_gradient() {
        for n in [1, 4] {
            let a = Tensor::randn([n, 3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
            let loss = cmd(&a, &a.detach());
            loss.backward();
            assert!(loss.double_value(&[]) < 1e-3, "{loss}");
            assert!(bool::try_from(a.grad().isfinite().all()).unwrap(), "{n}: {}", a.grad());
        }
    }
}
