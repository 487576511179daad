//! Sizes and switches of CUMDF. Their values live in `configs/`, never here.

use serde::{Deserialize, Serialize};

/// The CUMDF network. `docs/model.md` says what each switch does to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Hidden size `d`, a positive multiple of `n_heads`. Paper: 300.
    pub hidden_dim: i64,
    /// Attention heads `h` of AMSKE and LG-MMT.
    pub n_heads: i64,
    /// Width of the feed-forward layers of AMSKE and LG-MMT.
    pub ffn_dim: i64,
    /// Kernel sizes `k_m` of Eq. 1, odd, in the order language, audio, vision.
    pub kernel_sizes: [i64; 3],
    /// Drop probability of every dropout, in [0, 1). The paper's "0.8" is read as keep probability.
    pub dropout: f64,
    /// Standard deviation of the noise added to standardised input features in training, one draw
    /// per sample and feature, held over its seen frames. As printed: 0.
    pub input_noise: f64,
    /// What follows the convolution of Eq. 1. As printed: none.
    pub conv_activation: ConvActivation,
    /// What normalises pooled vectors before a classifier. As printed: none.
    pub pool_norm: PoolNorm,
    /// Whether the pooled `X~_m` stand beside `H` at the output head. As printed: no.
    pub head_pooled: bool,
    /// Whether an unseen frame is a learned vector instead of the convolution of zeros.
    /// As printed: no.
    pub missing_embedding: bool,
    /// Whether GMCKE scales its products by `1 / sqrt(d)` before the tanh. As printed: no.
    pub scale_common: bool,
    /// How the label embedding meets the features (Eq. 5).
    pub label_gate: LabelGate,
    /// Whether attention also ignores missing frames, not only padding. As printed: no.
    pub mask_missing: bool,
    /// Modality Knowledge Extractor; off for Table 3's ablation.
    pub mke: bool,
    /// Label-guided fusion; off for Table 3's ablation.
    pub lg_mmt: bool,
    /// Counterfactual attribution; off for Table 3's ablation.
    pub maci: bool,
}

/// What follows the convolution of Eq. 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvActivation {
    /// Nothing, as printed.
    None,
    /// A rectifier, before the positions are added.
    Relu,
}

/// What normalises a pooled vector before its classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolNorm {
    /// Nothing, as printed.
    None,
    /// Batch normalisation.
    Batch,
}

/// How Eq. 5 gates features by the label embedding, `u = W_e e + b_e`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelGate {
    /// `X~ * u`, as printed; shrinks the features at initialisation.
    Product,
    /// `X~ * (1 + u)`.
    Residual,
}

/// No width may be larger: far beyond any use, and its weights still fit into memory.
const LARGEST: i64 = 2048;
/// Nor a kernel longer than this, in steps.
const LONGEST_KERNEL: i64 = 999;

impl ModelConfig {
    /// What is wrong with these values, each with its key; empty when a network can be made.
    pub fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        let mut check = |good: bool, what: String| {
            if !good {
                bad.push(what);
            }
        };
        let (d, h) = (self.hidden_dim, self.n_heads);
        check(
            h >= 1 && (2..=LARGEST).contains(&d) && d % h.max(1) == 0,
            format!(
                "model.hidden_dim = {d}: must be a multiple of model.n_heads = {h}, from 2 to {LARGEST}"
            ),
        );
        check(d % 2 == 0, format!("model.hidden_dim = {d}: must be even"));
        check(
            (1..=4 * LARGEST).contains(&self.ffn_dim),
            format!("model.ffn_dim = {}: must lie in 1 to {}", self.ffn_dim, 4 * LARGEST),
        );
        check(
            self.kernel_sizes.iter().all(|k| (1..=LONGEST_KERNEL).contains(k) && k % 2 == 1),
            format!(
                "model.kernel_sizes = {:?}: must be odd, from 1 to {LONGEST_KERNEL}",
                self.kernel_sizes
            ),
        );
        check(
            (0.0..1.0).contains(&self.dropout),
            format!("model.dropout = {}: must lie in [0, 1)", self.dropout),
        );
        check(
            (0.0..=1e3).contains(&self.input_noise),
            format!("model.input_noise = {}: must lie in 0 to 1000", self.input_noise),
        );
        bad
    }

    /// Width of the output head's input: `H`, and the pooled `X~_m` beside it if so configured.
    pub(crate) fn head_dim(&self) -> i64 {
        3 * self.hidden_dim * if self.head_pooled { 2 } else { 1 }
    }

    /// Numbers alive at once per sample of `steps` steps, about: the products over pairs of steps
    /// (GMCKE's three, and AMSKE's per head) and the sequences of width `d`. Training keeps what
    /// the backward pass reads.
    pub fn floats_per_sample(&self, steps: i64, training: bool) -> f64 {
        let (t, d) = (steps as f64, self.hidden_dim as f64);
        let (f, h) = (self.ffn_dim as f64, self.n_heads as f64);
        let (squares, sequences) = match (self.mke, training) {
            (true, false) => (5.0 + 2.0 * h, 36.0 * d + 2.0 * f),
            (true, true) => (12.0 + 9.0 * h, 100.0 * d + 9.0 * f),
            (false, false) => (0.0, 16.0 * d),
            (false, true) => (0.0, 40.0 * d),
        };
        squares * t * t + sequences * t
    }
}
