//! Two losses of the decoupling: shared features of samples with near labels lie near each other
//! (`L_mar`), and a frame's shared and private features do not overlap (`L_ort`).

use cumdf_data::Targets;
use tch::{Kind, Tensor};

/// How much further, in cosine, a sample must lie per unit of its label's distance.
const MARGIN: f64 = 0.15;

/// Keeps a cosine finite where a vector is 0, as bias-free convolutions make of a missing frame.
const COSINE_FLOOR: f64 = 1e-8;

/// `L_mar`: for every vector `i`, `max(0, 0.15 |y_i - y_k| - cos(i, j) + cos(i, k))`, mean over the
/// others `j` of its label and the vectors `k` of another label; then the mean over the vectors that
/// have both, 0 where none has.
///
/// - `vectors`: `[n, d]`; `labels`: `[n, C]`, of distance `sum_c |y_c - y'_c|`
pub fn margin(vectors: &Tensor, labels: &Tensor) -> Tensor {
    let unit = vectors / vectors.norm_scalaropt_dim(2.0, [1i64], true).clamp_min(COSINE_FLOOR);
    let cos = unit.matmul(&unit.tr()); // [n, n]
    let distance = (labels.unsqueeze(1) - labels).abs().sum_dim_intlist(2i64, false, Kind::Float);
    let equal = distance.eq(0.0);
    let n = vectors.size()[0];
    let others = Tensor::eye(n, (Kind::Bool, vectors.device())).logical_not();
    // A mean over pairs: each anchor's positives and negatives have weights that add up to 1.
    let weights = |members: Tensor| {
        let members = members.to_kind(Kind::Float); // [n, n]
        let count = members.sum_dim_intlist(1i64, true, Kind::Float); // [n, 1]
        (members / count.clamp_min(1.0), count.gt(0.0))
    };
    let (positive, has_positive) = weights(equal.logical_and(&others));
    let (negative, has_negative) = weights(equal.logical_not());
    let anchors = has_positive.logical_and(&has_negative).to_kind(Kind::Float); // [n, 1]
    let beyond = distance * MARGIN + &cos; // [n, n] of i and k
    let hinge = (beyond.unsqueeze(1) - cos.unsqueeze(2)).relu(); // [n, n, n] of i, j, k
    // [n, 1, n] x [n, n, n] x [n, n, 1]; 0 for an anchor that lacks either.
    let each = positive.unsqueeze(1).bmm(&hinge).bmm(&negative.unsqueeze(2)).flatten(0, -1);
    each.sum(Kind::Float) / anchors.sum(Kind::Float).clamp_min(1.0)
}

/// `L_ort` of one modality: `max(0, cos(s, c))` over the channels, mean over samples and steps.
///
/// - `private`, `shared`: `[B, T', d]`
pub fn orthogonality(private: &Tensor, shared: &Tensor) -> Tensor {
    Tensor::cosine_similarity(private, shared, -1, COSINE_FLOOR).relu().mean(Kind::Float)
}

/// Labels as points, `[B, C]`: the score, or a 0 or 1 per emotion (whose distance is Hamming's).
pub fn points(targets: &Targets) -> Tensor {
    match (targets.score(), targets.flags()) {
        (Some(score), _) => score.unsqueeze(1),
        (None, Some(flags)) => flags.shallow_clone(),
        (None, None) => unreachable!("a label is a score or a set of emotions"),
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::testing::wave;

    fn column(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).unsqueeze(1)
    }

    /// Unit vectors at angles whose cosines with the first are .9 (same label) and .5 (another);
    /// only the first one's term counts here.
    #[test]
    fn an_anchor_by_hand() {
        for (distance, want) in [(2f32, 0.0), (6.0, 0.5)] {
            let vector = |cos: f64| [cos as f32, (1.0 - cos * cos).sqrt() as f32];
            // The third lies on the other side, so that the second's negatives are far from it.
            let third = [0.5f32, -(0.75f32.sqrt())];
            let rows = [vector(1.0), vector(0.9), third].concat();
            let vectors = Tensor::from_slice(&rows).view([3, 2]);
            let labels = column(&[0.0, 0.0, distance]);
            let cos = |i: usize, k: usize| {
                f64::from(rows[2 * i] * rows[2 * k] + rows[2 * i + 1] * rows[2 * k + 1])
            };
            let hinge = |i, j, k| (0.15 * f64::from(distance) - cos(i, j) + cos(i, k)).max(0.0);
            assert!((hinge(0, 1, 2) - want).abs() < 1e-6);
            // The third has no positive and is skipped.
            let mean = (hinge(0, 1, 2) + hinge(1, 0, 2)) / 2.0;
            let got = margin(&vectors, &labels).double_value(&[]);
            assert!((got - mean).abs() < 1e-6, "{got} for {mean}");
        }
    }

    /// Against loops that follow the definition.
    #[test]
    fn it_is_the_mean_over_pairs_and_then_over_anchors() {
        let labels: [[f32; 2]; 7] =
            [[0., 1.], [1., 1.], [0., 1.], [0., 0.], [1., 1.], [0., 1.], [1., 0.]];
        let vectors = wave(&[7, 3]);
        let cos = |i: i64, j: i64| {
            Tensor::cosine_similarity(&vectors.get(i), &vectors.get(j), 0, 1e-8).double_value(&[])
        };
        let apart = |i: usize, j: usize| {
            (0..2).map(|c| f64::from((labels[i][c] - labels[j][c]).abs())).sum::<f64>()
        };
        let (mut sum, mut anchors) = (0.0, 0.0);
        for i in 0..7 {
            let same = |j: &usize| apart(i, *j) < 0.5;
            let positives: Vec<_> = (0..7).filter(|j| *j != i && same(j)).collect();
            let negatives: Vec<_> = (0..7).filter(|k| !same(k)).collect();
            if positives.is_empty() || negatives.is_empty() {
                continue;
            }
            let pairs = positives.iter().flat_map(|j| negatives.iter().map(move |k| (*j, *k)));
            let each: Vec<_> = pairs
                .map(|(j, k)| {
                    let near = cos(i as i64, j as i64) - cos(i as i64, k as i64);
                    (0.15 * apart(i, k) - near).max(0.0)
                })
                .collect();
            sum += each.iter().sum::<f64>() / each.len() as f64;
            anchors += 1.0;
        }
        let got = margin(&vectors, &Tensor::from_slice2(&labels)).double_value(&[]);
        assert!((got - sum / anchors).abs() < 1e-6, "{got} for {}", sum / anchors);
    }

    #[test]
    fn labels_that_are_all_equal_cost_nothing_and_zeros_stay_finite() {
        let none = margin(&wave(&[4, 3]), &column(&[1.0; 4])).double_value(&[]);
        assert!(none.abs() < 1e-9, "{none}");
        let zeros = || Tensor::zeros([2, 3, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (a, b) = (zeros(), zeros());
        let loss = orthogonality(&a, &b) + margin(&a.flatten(1, 2), &column(&[1.0, 2.0]));
        loss.backward();
        for x in [loss, a.grad(), b.grad()] {
            assert!(bool::try_from(x.isfinite().all()).unwrap(), "{x}");
        }
    }

    /// Cosines 1, -1 and 0 of frames: the negative one costs nothing.
    #[test]
    fn the_cosine_is_taken_over_channels() {
        let private = Tensor::from_slice(&[1f32, 0.0, 0.0, 2.0, 3.0, 0.0]).view([1, 3, 2]);
        let shared = Tensor::from_slice(&[5f32, 0.0, 0.0, -1.0, 0.0, 1.0]).view([1, 3, 2]);
        let got = orthogonality(&private, &shared).double_value(&[]);
        assert!((got - 1.0 / 3.0).abs() < 1e-6, "{got}");
    }
}
