//! Sizes of the network.

use cumdf_data::Modality;
use serde::{Deserialize, Serialize};

use crate::problems;

/// The widest kernel; more is a typing error.
const LARGEST_KERNEL: i64 = 64;

/// Sizes of a [`super::Dmd`]. "Source" is `config/config.json` of the authors' code, for MOSI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DmdConfig {
    /// Width `d` of features and of the Transformers, even, 4 to 4096 channels; those that read two
    /// modalities at once are twice as wide. Source: 50.
    pub dim: i64,
    /// Attention heads of every Transformer, 1 to `dim` and a divisor of it. Source: 10.
    pub n_heads: i64,
    /// Layers of every Transformer, 1 to 64. Source: 4.
    pub n_layers: i64,
    /// Steps that a language feature is made of, 1 to 64; cut to the data's steps. Source: 5.
    pub language_kernel: i64,
    /// Steps that an audio feature is made of, 1 to 64; cut to the data's steps. Source: 5.
    pub audio_kernel: i64,
    /// Steps that a vision feature is made of, 1 to 64; cut to the data's steps. Source: 5.
    pub vision_kernel: i64,
    /// Width of the homogeneous distillation unit, 1 to 8192. Source: 64.
    pub homogeneous_graph: i64,
    /// Width of the heterogeneous distillation unit, 1 to 8192. Source: 32.
    pub heterogeneous_graph: i64,
    /// Which step of a Transformer's output stands for the sample. Ours: "own".
    pub last_step: LastStep,
    /// Drop probability of words' features, in [0, 1). Source: 0.5.
    pub language_dropout: f64,
    /// Drop probability of attention weights over language, in [0, 1); also where two modalities are
    /// read at once. Source: 0.3.
    pub language_attention_dropout: f64,
    /// Drop probability of attention weights over audio, in [0, 1). Source: 0.2.
    pub audio_attention_dropout: f64,
    /// Drop probability of attention weights over vision, in [0, 1). Source: 0.
    pub vision_attention_dropout: f64,
    /// Drop probability of what enters a Transformer, in [0, 1). Source: 0.2.
    pub embedding_dropout: f64,
    /// Drop probability inside a Transformer's feed-forward, in [0, 1). Source: 0.
    pub relu_dropout: f64,
    /// Drop probability of what a Transformer's residuals add, in [0, 1). Source: 0.
    pub residual_dropout: f64,
    /// Drop probability inside the residual blocks before answers, in [0, 1). Source: 0.5.
    pub output_dropout: f64,
}

/// Which step of a Transformer's output stands for the sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastStep {
    /// The last of the padded sequence, as the source: mostly padding.
    Official,
    /// The last whose window lies inside the sample.
    Own,
}

impl DmdConfig {
    /// Every value that no network can have, a line each; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        let dim = self.dim;
        if !(4..=4096).contains(&dim) || dim % 2 != 0 {
            bad.push(format!("model.dim = {dim}: must be even, between 4 and 4096"));
        }
        let n_heads = self.n_heads;
        if n_heads < 1 || dim % n_heads != 0 {
            bad.push(format!("model.n_heads = {n_heads}: must divide model.dim = {dim}"));
        }
        problems::at_most(&mut bad, "n_layers", self.n_layers, 64);
        problems::at_most(&mut bad, "language_kernel", self.language_kernel, LARGEST_KERNEL);
        problems::at_most(&mut bad, "audio_kernel", self.audio_kernel, LARGEST_KERNEL);
        problems::at_most(&mut bad, "vision_kernel", self.vision_kernel, LARGEST_KERNEL);
        problems::size(&mut bad, "homogeneous_graph", self.homogeneous_graph);
        problems::size(&mut bad, "heterogeneous_graph", self.heterogeneous_graph);
        for (key, p) in [
            ("language_dropout", self.language_dropout),
            ("language_attention_dropout", self.language_attention_dropout),
            ("audio_attention_dropout", self.audio_attention_dropout),
            ("vision_attention_dropout", self.vision_attention_dropout),
            ("embedding_dropout", self.embedding_dropout),
            ("relu_dropout", self.relu_dropout),
            ("residual_dropout", self.residual_dropout),
            ("output_dropout", self.output_dropout),
        ] {
            problems::dropout(&mut bad, key, p);
        }
        bad
    }

    /// `k_m`, for sequences of `steps`.
    pub(super) fn kernels(&self, steps: i64) -> [i64; 3] {
        [self.language_kernel, self.audio_kernel, self.vision_kernel].map(|k| k.min(steps))
    }

    /// Of attention weights over `m`.
    pub(super) fn attention_dropout(&self, m: Modality) -> f64 {
        match m {
            Modality::Language => self.language_attention_dropout,
            Modality::Audio => self.audio_attention_dropout,
            Modality::Vision => self.vision_attention_dropout,
        }
    }
}
