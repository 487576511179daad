//! One classifier per modality (Eq. 11): the label guide's source, and a loss of its own.

use std::array::from_fn;

use cumdf_data::Modality;
use tch::{Kind, Tensor, nn::Path};

use super::config::{ModelConfig, PoolNorm};
use crate::layers::{BatchNorm, BatchStats, Linear};

/// Classifies each modality's pooled knowledge on its own.
#[derive(Debug)]
pub(crate) struct UnimodalHeads {
    heads: [Head; 3],
    dropout: f64,
}

#[derive(Debug)]
struct Head {
    norm: Option<BatchNorm>,
    linear: Linear,
}

/// What the heads made of pooled vectors `p_m [B, d]`.
#[derive(Debug)]
pub(crate) struct Unimodal {
    /// `q_m [B, d]`: `p_m`, batch-normalised if so configured.
    pub(crate) normed: [Tensor; 3],
    /// `[B, C]` before softmax.
    pub(crate) logits: [Tensor; 3],
    stats: [Option<BatchStats>; 3],
}

impl UnimodalHeads {
    pub(crate) fn new(vs: &Path, cfg: &ModelConfig, n_classes: i64) -> Self {
        let heads = Modality::ALL.map(|m| {
            let vs = vs / m.name();
            let norm = (cfg.pool_norm == PoolNorm::Batch)
                .then(|| BatchNorm::new(&(&vs / "norm"), cfg.hidden_dim));
            Head { norm, linear: Linear::new(&(&vs / "linear"), cfg.hidden_dim, n_classes) }
        });
        Self { heads, dropout: cfg.dropout }
    }

    pub(crate) fn forward(&self, pooled: &[Tensor; 3], train: bool) -> Unimodal {
        let stats =
            from_fn(|m| self.heads[m].norm.as_ref().map(|norm| norm.stats(&pooled[m], train)));
        let normed = from_fn(|m| self.heads[m].normalise(&pooled[m], stats[m].as_ref()));
        let logits = from_fn(|m| {
            let kept = normed[m].dropout(self.dropout, train);
            self.heads[m].linear.forward(&kept)
        });
        Unimodal { normed, logits, stats }
    }

    /// `q_m` of another pooled vector, by the statistics of the factual pass.
    pub(crate) fn normalise_as(&self, factual: &Unimodal, m: usize, pooled: &Tensor) -> Tensor {
        self.heads[m].normalise(pooled, factual.stats[m].as_ref())
    }
}

impl Head {
    fn normalise(&self, pooled: &Tensor, stats: Option<&BatchStats>) -> Tensor {
        match (&self.norm, stats) {
            (Some(norm), Some(stats)) => norm.apply(pooled, stats),
            _ => pooled.shallow_clone(),
        }
    }
}

/// The model's own estimate of the label, `[B, C]`, gradient stopped: the mean of the uni-modal
/// predictions over the modalities of `available [B, 3]` bool, uniform where there is none.
pub(crate) fn estimate_label(logits: &[Tensor; 3], available: &Tensor) -> Tensor {
    let probs = Tensor::stack(&logits.each_ref().map(|l| l.detach().softmax(-1, Kind::Float)), 1);
    let weight = available.to_kind(Kind::Float).unsqueeze(2); // [B, 3, 1]
    let count = weight.sum_dim_intlist([1i64].as_slice(), false, Kind::Float); // [B, 1]
    let sum = (probs * weight).sum_dim_intlist([1i64].as_slice(), false, Kind::Float); // [B, C]
    let uniform = sum.full_like(1.0 / sum.size()[1] as f64);
    (sum / count.clamp_min(1.0)).where_self(&count.gt(0.0), &uniform)
}
