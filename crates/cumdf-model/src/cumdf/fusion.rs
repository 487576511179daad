//! Label-Guided Multimodal Masked Transformer (LG-MMT), Eq. 5-9, and its counterfactual passes in
//! closed form.
//!
//! One query token attends over time, so keys and values are never projected over time: with
//! `q' = W_K^T Q` a head's scores are `Z~_m . q'`, and the attended value is `W_V sum_t w_t z_t`.
//! The paper's own mask (0 on padding, 1 elsewhere, added to logits) would favour the wrong side;
//! here closed steps get no weight. The plain form, with keys and values over time and three replaced
//! copies through the whole network, is `scripts/reference.py`; the parity tests hold both together,
//! gradients included.

use std::array::from_fn;

use tch::{
    Kind, Tensor,
    nn::{Init, Path},
};

use super::{
    config::{LabelGate, ModelConfig},
    knowledge::seen_or_valid,
};
use crate::{
    layers::{DropoutDraw, LayerNorm, Linear, mean_weights, pool},
    shape::Shape,
};

/// The pairs (m, n) of Eq. 6-9 as positions in `Modality::ALL`: keys from m, values from n.
pub const PAIRS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];
/// Names of [`PAIRS`], in paths and losses.
pub const PAIR_NAMES: [&str; 3] = ["la", "lv", "av"];

/// Fuses three sequences under the guidance of a label distribution.
#[derive(Debug)]
pub(crate) struct LabelGuidedFusion {
    embedding: Tensor, // E_y [C, d]
    gate: Linear,      // W_e, b_e
    query: Linear,
    keys: [Linear; 2],   // of language and audio, the first of a pair
    values: [Linear; 2], // of audio and vision, the second of a pair
    pairs: [Pair; 3],
    label_gate: LabelGate,
    n_heads: i64,
    ffn_dim: i64,
    dropout: f64,
}

/// What becomes of one pair's attended token (Eq. 9).
#[derive(Debug)]
struct Pair {
    output: Linear, // W_0
    linear1: Linear,
    linear2: Linear,
    norm: LayerNorm,
}

/// One factual pass, with what the counterfactual passes reuse.
#[derive(Debug)]
pub(crate) struct Fusion {
    /// `GAP(H_mn) [B, d]`, in the order of [`PAIRS`].
    pub(crate) pairs: [Tensor; 3],
    gated: [Tensor; 3],      // Z~_m [B, T, d]
    open_means: [Tensor; 3], // of Z~_m over its open steps, [B, d]
    factor: Tensor,          // what Eq. 5 multiplies by, [B, 1, d]
    draws: [DropoutDraw; 3], // of each pair's feed-forward
    valid_mean: Tensor,      // [B, 1, T]
}

/// The masks one pass reads.
pub(crate) struct Steps<'a> {
    /// `[B, T]` bool: inside the length.
    pub(crate) valid: &'a Tensor,
    /// Weights of the mean over the valid steps, `[B, 1, T]`.
    pub(crate) valid_mean: &'a Tensor,
    /// `[B, T]` bool per modality: readable by attention.
    pub(crate) open: &'a [Tensor; 3],
}

impl LabelGuidedFusion {
    pub(crate) fn new(root: &Path, cfg: &ModelConfig, shape: &Shape) -> Self {
        let (label, fusion) = (root / "label", root / "fusion");
        let d = cfg.hidden_dim;
        let square = |path: Path| Linear::without_bias(&path, d, d);
        let (key, value) = (&fusion / "key", &fusion / "value");
        let normal = Init::Randn { mean: 0.0, stdev: 1.0 };
        Self {
            embedding: label.var("embedding", &[shape.n_classes(), d], normal),
            gate: Linear::new(&(&label / "gate"), d, d),
            query: square(&fusion / "query"),
            keys: [square(&key / "language"), square(&key / "audio")],
            values: [square(&value / "audio"), square(&value / "vision")],
            pairs: PAIR_NAMES.map(|name| {
                let vs = &fusion / name;
                Pair {
                    output: square(&vs / "output"),
                    linear1: Linear::new(&(&vs / "linear1"), d, cfg.ffn_dim),
                    linear2: Linear::new(&(&vs / "linear2"), cfg.ffn_dim, d),
                    norm: LayerNorm::new(&(&vs / "norm"), d),
                }
            }),
            label_gate: cfg.label_gate,
            n_heads: cfg.n_heads,
            ffn_dim: cfg.ffn_dim,
            dropout: cfg.dropout,
        }
    }

    /// Eq. 5-9 on `X~_m [B, T, d]`, guided by `guide [B, C]`.
    pub(crate) fn forward(
        &self,
        knowledge: &[Tensor; 3],
        guide: &Tensor,
        steps: &Steps,
        train: bool,
    ) -> Fusion {
        let e = guide.matmul(&self.embedding); // [B, d]
        let gate = self.gate.forward(&e).unsqueeze(1);
        let factor = match self.label_gate {
            LabelGate::Product => gate,
            LabelGate::Residual => gate + 1.0,
        };
        let gated: [Tensor; 3] = from_fn(|m| &knowledge[m] * &factor);
        let query = self.query.forward(&e);
        let directions = self.keys.each_ref().map(|key| self.key_direction(&query, key));
        // The gate is constant over time, so it may come after the mean.
        let gate = factor.squeeze_dim(1);
        let open_means = from_fn(|m| &gate * pool(&knowledge[m], &mean_weights(&steps.open[m])));
        let hidden_like = e.new_empty([e.size()[0], self.ffn_dim], (Kind::Float, e.device()));
        let (mut draws, mut pairs) = (Vec::new(), Vec::new());
        for (p, (m, n)) in PAIRS.into_iter().enumerate() {
            let open = both_open(steps, m, n);
            let scores = directions[m].matmul(&gated[m].transpose(1, 2)); // [B, h, T]
            let weights = scores.masked_fill(&open.logical_not().unsqueeze(1), f64::NEG_INFINITY);
            let weights = weights.softmax(-1, Kind::Float);
            let attended = self.project_heads(&weights.matmul(&gated[n]), &self.values[n - 1]);
            let draw = DropoutDraw::new(&hidden_like, self.dropout, train);
            let fed = self.pairs[p].feed(&attended, &draw);
            pairs.push(self.pairs[p].over_time(&gated[m], &fed, steps.valid_mean));
            draws.push(draw);
        }
        Fusion {
            pairs: pairs.try_into().expect("one tensor a pair"),
            gated,
            open_means,
            factor,
            draws: draws.try_into().expect("one draw a pair"),
            valid_mean: steps.valid_mean.shallow_clone(),
        }
    }

    /// `GAP(H_mn) [B, d]` of every pair when modality `removed` is `mean [d]` at every valid step
    /// (Eq. 12), everything else as in `factual`.
    ///
    /// A constant as keys makes the attention uniform, so the head is the mean of the values; as
    /// values it makes the head that constant, whatever the weights. No `[B, T, d]` is projected.
    pub(crate) fn without(&self, factual: &Fusion, removed: usize, mean: &Tensor) -> [Tensor; 3] {
        let constant = factual.factor.squeeze_dim(1) * mean; // Z~_removed [B, d]
        from_fn(|p| {
            let (m, n) = PAIRS[p];
            let (pair, draw) = (&self.pairs[p], &factual.draws[p]);
            if removed == n {
                let fed = pair.feed(&self.values[n - 1].forward(&constant), draw);
                pair.over_time(&factual.gated[m], &fed, &factual.valid_mean)
            } else if removed == m {
                let values = self.values[n - 1].forward(&factual.open_means[n]);
                let fed = pair.feed(&values, draw);
                pair.norm.forward(&(&constant + fed))
            } else {
                factual.pairs[p].shallow_clone()
            }
        })
    }

    /// `W_K^T Q` per head over `sqrt(d / h)`: what a step's dot product with gives its score;
    /// `[B, h, d]`.
    fn key_direction(&self, query: &Tensor, key: &Linear) -> Tensor {
        let (b, d) = query.size2().expect("query is [B, d]");
        let head_dim = d / self.n_heads;
        let query = query.view([b, self.n_heads, head_dim]).transpose(0, 1); // [h, B, d / h]
        let key = key.weight().view([self.n_heads, head_dim, d]);
        query.matmul(&key).transpose(0, 1) / (head_dim as f64).sqrt()
    }

    /// Each head's own rows of `W_V` on its average `[B, h, d]`, concatenated: `[B, d]`.
    fn project_heads(&self, averages: &Tensor, value: &Linear) -> Tensor {
        let (b, h, d) = averages.size3().expect("averages are [B, h, d]");
        let value = value.weight().view([h, d / h, d]).transpose(1, 2);
        averages.transpose(0, 1).matmul(&value).transpose(0, 1).reshape([b, d])
    }

    /// Squared norms of `W_Q`, of all `W_K` and of all `W_V`, scalars (Eq. 17).
    pub(crate) fn squared_norms(&self) -> [Tensor; 3] {
        let square = |linear: &Linear| linear.weight().square().sum(Kind::Float);
        [
            square(&self.query),
            square(&self.keys[0]) + square(&self.keys[1]),
            square(&self.values[0]) + square(&self.values[1]),
        ]
    }
}

impl Pair {
    /// `FFN(head W_0)`, `[B, d]` to `[B, d]`.
    fn feed(&self, attended: &Tensor, draw: &DropoutDraw) -> Tensor {
        let hidden = self.linear1.forward(&self.output.forward(attended)).relu();
        self.linear2.forward(&draw.apply(&hidden))
    }

    /// `GAP(LayerNorm(Z~ + f))`: `z [B, T, d]`, `fed [B, d]` to `[B, d]`.
    fn over_time(&self, z: &Tensor, fed: &Tensor, valid_mean: &Tensor) -> Tensor {
        pool(&self.norm.forward(&(z + fed.unsqueeze(1))), valid_mean)
    }
}

/// Steps open in both modalities, or the valid ones where there is no such step; `[B, T]`.
fn both_open(steps: &Steps, m: usize, n: usize) -> Tensor {
    seen_or_valid(&steps.open[m].logical_and(&steps.open[n]), steps.valid)
}
