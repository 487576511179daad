//! Sizes and switches of the network. Their values live in `configs/`, never here.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What the data decides about a network's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataShape {
    /// Features a step `d_m`, in the order of [`cumdf_data::Modality::ALL`].
    pub dims: [i64; 3],
    /// Number of classes `C`.
    pub n_classes: i64,
}

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

impl ModelConfig {
    /// Refuses sizes that no network can have, all at once.
    ///
    /// # Errors
    /// Lists every bad value with its key.
    pub fn validate(&self) -> Result<()> {
        let mut bad = Vec::new();
        if self.n_heads < 1 || self.hidden_dim < 2 || self.hidden_dim % self.n_heads.max(1) != 0 {
            bad.push(format!(
                "model.hidden_dim = {}: must be a positive multiple of model.n_heads = {}",
                self.hidden_dim, self.n_heads
            ));
        }
        if self.hidden_dim % 2 != 0 {
            bad.push(format!("model.hidden_dim = {}: must be even", self.hidden_dim));
        }
        if self.ffn_dim < 1 {
            bad.push(format!("model.ffn_dim = {}: must be at least 1", self.ffn_dim));
        }
        if self.kernel_sizes.iter().any(|k| *k < 1 || k % 2 == 0) {
            bad.push(format!("model.kernel_sizes = {:?}: must be odd", self.kernel_sizes));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            bad.push(format!("model.dropout = {}: must lie in [0, 1)", self.dropout));
        }
        if !(self.input_noise.is_finite() && self.input_noise >= 0.0) {
            bad.push(format!("model.input_noise = {}: must be 0 or more", self.input_noise));
        }
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        Ok(())
    }

    /// Width of the output head's input: `H`, and the pooled `X~_m` beside it if so configured.
    pub(crate) fn head_dim(&self) -> i64 {
        3 * self.hidden_dim * if self.head_pooled { 2 } else { 1 }
    }
}
