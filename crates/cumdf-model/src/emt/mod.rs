//! EMT-DLFR, a baseline: a few utterance vectors and the modalities' sequences read each other, and
//! training compares what a network makes of a sample's complete and incomplete view.
//!
//! Sun et al., "Efficient Multimodal Transformer with Dual-Level Feature Restoration for Robust
//! Multimodal Sentiment Analysis" (IEEE Transactions on Affective Computing, 2023); code
//! github.com/sunlicai/EMT-DLFR.
//!
//! Each modality's LSTM gives a sequence of tokens (local) and the vector of its last valid step;
//! the three vectors are the global context. In every layer of the fusion the context reads
//! each sequence, each sequence reads the context, and the three contexts that this makes are
//! pooled into one. The answer rests on the three vectors and the last context.
//!
//! Training sees both views of a sample ([`Emt::views`]): [`Siamese`] draws their vectors together
//! and rebuilds the hidden frames. Nothing of it is needed to predict.
//!
//! Departures from the source:
//! - words come as vectors, so language gets the same LSTM as audio and vision instead of BERT, and
//!   its features are what is rebuilt; its SimSiam head shrinks with its vector;
//! - training draws new masks in every epoch and one network serves all missing rates; in the
//!   source masks are drawn once and every rate has a network of its own;
//! - what is rebuilt are the frames that the complete view has: a modality that the data lack has
//!   no target;
//! - both views go through encoders and fusion as one batch, which changes no result: batch
//!   normalisation, in the SimSiam heads alone, takes the complete view first;
//! - emotions, which the source does not treat: two logits each.
//!
//! A modality that is missing enters as zeros and still has a vector and tokens, made of zeros.
//! With one step (T = 1) a sequence is one token, whose self-attention reads itself.

mod fusion;
mod siamese;

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Modality, Task};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn::Path};

use self::fusion::Fusion;
pub use self::siamese::{Siamese, attraction, reconstruction};
use crate::{
    answer::{Answer, Predictor},
    layers::{Linear, LstmEncoder, Mlp3, last_step, sinusoid},
    problems,
    shape::Shape,
};

/// Names of the vectors that the views are compared by: the global context, then
/// [`Modality::ALL`].
pub const VECTORS: [&str; 4] = ["global", "language", "audio", "vision"];

/// Most layers the fusion may have.
const MOST_LAYERS: i64 = 64;

/// Sizes of an [`Emt`] and of its [`Siamese`]. "Source" is `config/config_regression.py` of the
/// authors' code, for MOSI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmtConfig {
    /// Width of the language LSTM, 1 to 8192 channels. Ours, in place of BERT: 128.
    pub language_hidden: i64,
    /// Width of the audio LSTM, 1 to 8192 channels. Source: 32.
    pub audio_hidden: i64,
    /// Width of the vision LSTM, 1 to 8192 channels. Source: 64.
    pub vision_hidden: i64,
    /// Size of the language vector and tokens, 1 to 8192 channels. Ours, in place of BERT's 768:
    /// 128. Of `*_hidden` channels they come out of the LSTM as they are.
    pub language_out: i64,
    /// Size of the audio vector and tokens, 1 to 8192 channels. Source: 16.
    pub audio_out: i64,
    /// Size of the vision vector and tokens, 1 to 8192 channels. Source: 32.
    pub vision_out: i64,
    /// Width `d` of the fusion, 1 to 8192 channels, even, a multiple of `n_heads`. Source: 128.
    pub model_dim: i64,
    /// Heads of every attention, at least 1. Source: 4.
    pub n_heads: i64,
    /// Layers of the fusion, 1 to 64; they share their variables. Source: 3.
    pub n_layers: i64,
    /// Drop probability of attention weights, in [0, 1). Source: 0.3.
    pub attention_dropout: f64,
    /// Drop probability after the feed-forward network, in [0, 1). Source: 0.1.
    pub feed_dropout: f64,
    /// Drop probability at the head's input, in [0, 1). Source: 0.3.
    pub head_dropout: f64,
    /// Width of the head, 1 to 8192 channels. Source: 256.
    pub head_hidden: i64,
    /// Training only: bottleneck of the global context's SimSiam predictor, 1 to 8192 channels.
    /// Source: 128.
    pub global_predictor: i64,
    /// The same of the language vector. Ours, half the vector: 64. Source, of BERT's 768: 256.
    pub language_predictor: i64,
    /// The same of the audio vector. Source: 8.
    pub audio_predictor: i64,
    /// The same of the vision vector. Source: 16.
    pub vision_predictor: i64,
}

impl EmtConfig {
    /// Every value that no network can have, a line each; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        let sizes = [
            ("language_hidden", self.language_hidden),
            ("audio_hidden", self.audio_hidden),
            ("vision_hidden", self.vision_hidden),
            ("language_out", self.language_out),
            ("audio_out", self.audio_out),
            ("vision_out", self.vision_out),
            ("model_dim", self.model_dim),
            ("n_heads", self.n_heads),
            ("head_hidden", self.head_hidden),
            ("global_predictor", self.global_predictor),
            ("language_predictor", self.language_predictor),
            ("audio_predictor", self.audio_predictor),
            ("vision_predictor", self.vision_predictor),
        ];
        for (key, value) in sizes {
            problems::size(&mut bad, key, value);
        }
        problems::at_most(&mut bad, "n_layers", self.n_layers, MOST_LAYERS);
        problems::dropout(&mut bad, "attention_dropout", self.attention_dropout);
        problems::dropout(&mut bad, "feed_dropout", self.feed_dropout);
        problems::dropout(&mut bad, "head_dropout", self.head_dropout);
        let (d, heads) = (self.model_dim, self.n_heads);
        if heads >= 1 && (d % heads != 0 || d % 2 != 0) {
            bad.push(format!(
                "model.model_dim = {d}: must be even, and a multiple of n_heads = {heads}"
            ));
        }
        bad
    }

    fn hidden(&self, modality: Modality) -> i64 {
        match modality {
            Modality::Language => self.language_hidden,
            Modality::Audio => self.audio_hidden,
            Modality::Vision => self.vision_hidden,
        }
    }

    fn out(&self, modality: Modality) -> i64 {
        match modality {
            Modality::Language => self.language_out,
            Modality::Audio => self.audio_out,
            Modality::Vision => self.vision_out,
        }
    }

    /// Sizes of the vectors, in the order of [`VECTORS`].
    fn vector_dims(&self) -> [i64; 4] {
        [3 * self.model_dim, self.language_out, self.audio_out, self.vision_out]
    }

    fn predictors(&self) -> [i64; 4] {
        let Self { global_predictor, language_predictor, .. } = *self;
        [global_predictor, language_predictor, self.audio_predictor, self.vision_predictor]
    }

    /// Numbers alive at once per sample of `steps` steps, about: the attention of three sequences
    /// to themselves, and the feed-forward network's input, gate and product.
    ///
    /// - `training`: of both views, with what the gradients of every layer need
    pub fn floats_per_sample(&self, steps: i64, training: bool) -> f64 {
        let [steps, heads, d] = [steps, self.n_heads, self.model_dim].map(|n| n as f64);
        let unit = 3.0 * steps * (2.0 * heads * steps + 24.0 * d);
        if training { 2.0 * self.n_layers as f64 * unit } else { unit }
    }
}

/// The EMT network.
///
/// Variables: `encoder.<modality>.{lstm,out}`, `project.<modality>`,
/// `fusion.{cross,own,feed,pool}`, `head.linear{1,2,3}`. There is no `out` where the LSTM has its
/// width, and no `project` where the tokens have the fusion's.
#[derive(Debug)]
pub struct Emt {
    encoders: [LstmEncoder; 3],
    project: [Option<Linear>; 3], // out_m -> d
    fusion: Fusion,
    head: Mlp3, // sum of out_m + 3d -> outputs
    cfg: EmtConfig,
    task: Task,
}

/// What the encoders made of `N` samples.
#[derive(Debug)]
pub struct Encoded {
    /// `[N, T, out_m]` each; what lies beyond a sample's length means nothing.
    pub sequences: [Tensor; 3],
    /// `[N, 3, T, d]`: the same, projected, with positions.
    pub local: Tensor,
    /// `[N, 3, d]`: the projected vectors, the first context.
    pub global: Tensor,
}

/// What the network made of `N` samples.
#[derive(Debug)]
pub struct EmtPass {
    /// `[N, n]` each, in the order of [`VECTORS`].
    pub vectors: [Tensor; 4],
    /// A score `[N]`, or two logits per emotion `[N, C, 2]`, "no" first.
    pub output: Tensor,
    /// `[k, 3, T, d]`: the fused tokens of the last `k` samples, for which they were asked.
    pub tokens: Tensor,
}

impl Emt {
    /// Registers the variables under `vs`, the root of a store.
    ///
    /// # Errors
    /// When a value in `cfg` is impossible; all such values are listed.
    pub fn new(vs: &Path, cfg: &EmtConfig, shape: &Shape) -> Result<Self> {
        let bad = cfg.problems();
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        let n_outputs = match &shape.task {
            Task::Sentiment { .. } => 1,
            Task::Emotion { classes } => 2 * classes.len() as i64,
        };
        let head_in = cfg.vector_dims().iter().sum();
        Ok(Self {
            encoders: Modality::ALL.map(|m| {
                let vs = vs / "encoder" / m.name();
                LstmEncoder::lean(&vs, shape.dims[m.index()], cfg.hidden(m), cfg.out(m))
            }),
            project: Modality::ALL.map(|m| {
                let vs = vs / "project" / m.name();
                let wanted = cfg.out(m) != cfg.model_dim;
                wanted.then(|| Linear::without_bias(&vs, cfg.out(m), cfg.model_dim))
            }),
            fusion: Fusion::new(&(vs / "fusion"), cfg),
            head: Mlp3::new(&(vs / "head"), head_in, cfg.head_hidden, n_outputs, cfg.head_dropout),
            cfg: cfg.clone(),
            task: shape.task.clone(),
        })
    }

    /// One pass over one view of `B` samples; `kept` of them, the last ones, keep their tokens.
    /// `train` switches dropout on.
    pub fn forward(&self, inputs: &Inputs, kept: i64, train: bool) -> EmtPass {
        self.run(inputs.features.each_ref(), &inputs.valid, kept, train)
    }

    /// One pass over both views, the `B` complete samples before the `B` incomplete ones, which
    /// keep their tokens.
    ///
    /// - `complete`, `incomplete`: two views of the same samples, trimmed alike
    pub fn views(&self, complete: &Inputs, incomplete: &Inputs, train: bool) -> EmtPass {
        let features: [_; 3] = std::array::from_fn(|m| {
            Tensor::cat(&[&complete.features[m], &incomplete.features[m]], 0)
        });
        let valid = complete.valid.repeat([2, 1]);
        self.run(features.each_ref(), &valid, incomplete.len(), train)
    }

    /// What the encoders make of `N` samples, `[N, T, d_m]` each, `valid [N, T]`.
    pub fn encode(&self, features: [&Tensor; 3], valid: &Tensor, train: bool) -> Encoded {
        let sequences: [_; 3] = std::array::from_fn(|m| self.encoders[m].seq(features[m], train));
        let local: [_; 3] = std::array::from_fn(|m| match &self.project[m] {
            Some(project) => project.forward(&sequences[m]),
            None => sequences[m].shallow_clone(),
        });
        let local = Tensor::stack(&local, 1); // [N, 3, T, d]
        let (n, m, t, d) = local.size4().expect("local is [N, 3, T, d]");
        // A step's projection knows no other step: the vector's is that of its token.
        let each_valid = valid.unsqueeze(1).expand([n, m, t], false).reshape([n * m, t]);
        let global = last_step(&local.view([n * m, t, d]), &each_valid).view([n, m, d]);
        let local = local + sinusoid(t, d, valid.device());
        Encoded { sequences, local, global }
    }

    fn run(&self, features: [&Tensor; 3], valid: &Tensor, kept: i64, train: bool) -> EmtPass {
        let Encoded { sequences, local, global } = self.encode(features, valid, train);
        let [language, audio, vision] = sequences.map(|sequence| last_step(&sequence, valid));
        let (global, tokens) = self.fusion.forward(local, &global, valid, kept, train);
        let fused = Tensor::cat(&[&language, &audio, &vision, &global], 1);
        let (_, output) = self.head.forward(&fused, train);
        let output = match self.task.neutral() {
            Some(neutral) => output.squeeze_dim(1) + f64::from(neutral),
            None => output.view([output.size()[0], -1, 2]),
        };
        EmtPass { vectors: [global, language, audio, vision], output, tokens }
    }

    /// Its sizes.
    pub fn config(&self) -> &EmtConfig {
        &self.cfg
    }
}

impl Predictor for Emt {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        let output = self.forward(inputs, 0, false).output;
        match self.task {
            Task::Sentiment { .. } => Answer::Score(output),
            Task::Emotion { .. } => {
                Answer::Flags((output.select(2, 1) - output.select(2, 0)).sigmoid())
            }
        }
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        self.cfg.floats_per_sample(steps, false)
    }
}

#[cfg(test)]
mod tests;
