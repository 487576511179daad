//! TransModality ("TransM"), a baseline: translates language into another modality and back; the
//! encoders of both directions come to hold what the two have in common.
//!
//! Wang, Wan and Wan, "TransModality: An End2End Fusion Method with Transformer for Multimodal
//! Sentiment Analysis" (WWW 2020); code github.com/hyeonJeongByeon/TransModality.
//!
//! A bidirectional GRU makes `f_m` of each modality. Two cells ([`CELLS`]), of language and another
//! modality `n`, then have two encoders and two decoders each:
//!
//! ```text
//! E1 = encode1(f_l + PE)          D1 = decode1(f_n + PE, memory E1)      x^_n = forward(D1)
//! E2 = encode2(D1 + PE)           D2 = decode2(f_l + PE, memory E2)      x^_l = back(D2)
//! ```
//!
//! The head reads the mean over the valid steps of `[E1_lv; E2_lv; E1_la; E2_la; f_l; f_a; f_v]`;
//! `x^` are held against the features ([`Translations::loss`]). A decoder's query is the sequence it
//! is to find, neither shifted nor masked, as in the source. So it can copy: the method is a fusion
//! network with an autoencoder's loss. `D1`, and `E2` with it, read the other modality; `E1` does not.
//!
//! **Missing modalities.** Trained on incomplete data with complete data to translate into; a missing
//! frame enters as zeros. Where language is absent `E1` sees the GRU's answer to zeros, and `f_a` and
//! `f_v` still reach the head; where `n` is absent, `D1` and `E2` know of language alone. A
//! translation into a modality that a sample does not have costs nothing. Only padding is hidden from
//! attention. A sample of one step (`T` = 1) attends to that step alone.
//!
//! Departures from the source:
//! - its step is an utterance of a video, with a label; ours is a word of an utterance, so the head
//!   reads one mean of all steps instead of every step;
//! - features are standardised and have signs, so nothing rectifies `x^`;
//! - GRUs have no dropout between their states, and read a sample's valid steps only; the dropout of
//!   their inputs is one draw for all steps of a sample, as the source's library draws it;
//! - a binary decision per emotion (two logits each), and a score where the task is sentiment,
//!   counted from the middle of its range.
//!
//! Attention weights are not dropped; dropout acts on what each part of a layer adds. Layers other
//! than attention start as PyTorch's.

mod transformer;

use std::array::from_fn;

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Modality, Task};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn::Path};

use self::transformer::{Blocks, N_CELLS, Product, Sizes, key_logits};
use crate::{
    answer::{Answer, Predictor},
    layers::{BiRnn, DropoutDraw, Linear, Turn, mean_weights, sinusoid},
    loss::frame_mean,
    problems,
    shape::Shape,
};

/// The modality that each cell translates language into, in the order of every array of two here.
pub const CELLS: [Modality; N_CELLS] = [Modality::Audio, Modality::Vision];

/// Most layers of an encoder or a decoder.
const DEEPEST: i64 = 64;

/// Sizes of a [`TransM`]. "Source" is the authors' code, the same for all its data sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransMConfig {
    /// States of a GRU in each direction, 1 to 8192 channels. Source: 300.
    pub gru_dim: i64,
    /// Width `d` of `f_m` and of the Transformers, 2 to 8192 channels: even, and a multiple of
    /// `n_heads`. Source: 100.
    pub width: i64,
    /// Attention heads, 1 to 8192. Source: 5.
    pub n_heads: i64,
    /// Inner width of the feed-forward networks of the cell of vision, 1 to 8192 channels.
    /// Source: 200.
    pub vision_ffn_dim: i64,
    /// Inner width of those of the cell of audio, 1 to 8192 channels. Source: 120.
    pub audio_ffn_dim: i64,
    /// Layers of each encoder, 1 to 64. Source: 10; ours, as the data are few: 4.
    pub encoder_layers: i64,
    /// Layers of each decoder, 1 to 64. Source: 5; ours: 2.
    pub decoder_layers: i64,
    /// Drop probability of the features that a GRU reads, in [0, 1). Source: 0.5.
    pub input_dropout: f64,
    /// Drop probability before and after the layer that makes `f_m`, in [0, 1). Source: 0.3.
    pub dropout: f64,
    /// Drop probability in the cells, in [0, 1). Source: 0.5; ours: 0.3, for MOSEI 0.2.
    pub cell_dropout: f64,
}

impl TransMConfig {
    /// Every value that no network can have, a line each; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        problems::size(&mut bad, "gru_dim", self.gru_dim);
        problems::size(&mut bad, "width", self.width);
        problems::size(&mut bad, "n_heads", self.n_heads);
        let (d, h) = (self.width, self.n_heads);
        if bad.is_empty() && (d % 2 != 0 || d % h != 0) {
            bad.push(format!("model.width = {d}: must be even and a multiple of n_heads = {h}"));
        }
        problems::size(&mut bad, "vision_ffn_dim", self.vision_ffn_dim);
        problems::size(&mut bad, "audio_ffn_dim", self.audio_ffn_dim);
        problems::at_most(&mut bad, "encoder_layers", self.encoder_layers, DEEPEST);
        problems::at_most(&mut bad, "decoder_layers", self.decoder_layers, DEEPEST);
        problems::dropout(&mut bad, "input_dropout", self.input_dropout);
        problems::dropout(&mut bad, "dropout", self.dropout);
        problems::dropout(&mut bad, "cell_dropout", self.cell_dropout);
        bad
    }

    fn sizes(&self) -> Sizes {
        let ffn = CELLS.map(|other| match other {
            Modality::Audio => self.audio_ffn_dim,
            _ => self.vision_ffn_dim,
        });
        Sizes { width: self.width, n_heads: self.n_heads, ffn, dropout: self.cell_dropout }
    }

    /// Numbers alive at once per sample of `steps` steps, about: the GRUs' gates, and what the
    /// layers of a cell make, all of which training keeps.
    pub fn floats_per_sample(&self, steps: i64, training: bool) -> f64 {
        let (t, d, h) = (steps as f64, self.width as f64, self.n_heads as f64);
        let ffn = self.vision_ffn_dim.max(self.audio_ffn_dim) as f64;
        let (encoders, decoders) = (2 * self.encoder_layers, 2 * self.decoder_layers);
        let (encoders, decoders) =
            if training { (encoders as f64, decoders as f64) } else { (0.0, 1.0) };
        let sequences = encoders * (16.0 * d + 2.0 * ffn) + decoders * (26.0 * d + 2.0 * ffn);
        let squares = (encoders + 2.0 * decoders) * 3.0 * h;
        let grus = 6.0 * 13.0 * self.gru_dim as f64;
        N_CELLS as f64 * (sequences * t + squares * t * t) + grus * t
    }
}

/// The TransModality network.
///
/// Variables: `encoder.<m>.{gru,out}`; `cell.<n>.{encode1,decode1,encode2,decode2}.layer.<i>` with
/// `i` from 0, in each `own`, in a decoder's `memory`, of four linear layers, `linear1`, `linear2`
/// and a `norm<k>` per part; `cell.<n>.{forward,back}`; `head`.
#[derive(Debug)]
pub struct TransM {
    grus: [BiRnn; 3],  // d_m -> gru_dim, twice
    outs: [Linear; 3], // 2 gru_dim -> d
    encode1: Blocks,   // of both cells, as all four
    decode1: Blocks,
    encode2: Blocks,
    decode2: Blocks,
    forward: [Linear; N_CELLS], // d -> d_n
    back: [Linear; N_CELLS],    // d -> d_l
    head: Linear,               // 7 d -> outputs
    n_emotions: Option<i64>,    // none for a score
    neutral: f64,               // what a score of no evidence is; 0 for emotions
    cfg: TransMConfig,
}

/// One pass, as far as an answer needs it. `N` runs over [`CELLS`].
#[derive(Debug)]
pub struct TransMPass {
    /// `f_m [3, B, T, d]`, in the order of [`Modality::ALL`]; 0 at padding.
    pub features: Tensor,
    /// `E1 [N, B, T, d]`.
    pub encoded1: Tensor,
    /// `D1 [N, B, T, d]`.
    pub decoded1: Tensor,
    /// `E2 [N, B, T, d]`.
    pub encoded2: Tensor,
    /// What the head reads, `[B, 7 d]`.
    pub pooled: Tensor,
    /// A score `[B]`, or two logits per emotion `[B, C, 2]`, "no" first.
    pub output: Tensor,
    language: Tensor, // f_l + PE [N, B, T, d]
    keys: Tensor,     // which of them attention may read
}

/// The features as the cells translate them.
#[derive(Debug)]
pub struct Translations {
    /// `D2 [N, B, T, d]`.
    pub decoded2: Tensor,
    /// `x^_n [B, T, d_n]` of every cell, out of language.
    pub others: [Tensor; N_CELLS],
    /// `x^_l [B, T, d_l]` of every cell, out of `x^_n`.
    pub language: [Tensor; N_CELLS],
}

impl TransM {
    /// Registers the variables under `vs`, the root of a store.
    ///
    /// # Errors
    /// When a value in `cfg` is impossible; all such values are listed.
    pub fn new(vs: &Path, cfg: &TransMConfig, shape: &Shape) -> Result<Self> {
        let bad = cfg.problems();
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        let (d, sizes) = (cfg.width, cfg.sizes());
        let encoder = |m: Modality| vs / "encoder" / m.name();
        let cell = |c: usize| vs / "cell" / CELLS[c].name();
        let block = |name: &str| from_fn(|c| cell(c) / name);
        let encoders = |name| Blocks::encoders(&block(name), cfg.encoder_layers, sizes);
        let decoders = |name| Blocks::decoders(&block(name), cfg.decoder_layers, sizes);
        let n_emotions = match &shape.task {
            Task::Sentiment { .. } => None,
            Task::Emotion { classes } => Some(classes.len() as i64),
        };
        let dim = |m: Modality| shape.dims[m.index()];
        Ok(Self {
            grus: Modality::ALL.map(|m| BiRnn::gru(&(encoder(m) / "gru"), 0, dim(m), cfg.gru_dim)),
            outs: Modality::ALL.map(|m| Linear::new(&(encoder(m) / "out"), 2 * cfg.gru_dim, d)),
            encode1: encoders("encode1"),
            decode1: decoders("decode1"),
            encode2: encoders("encode2"),
            decode2: decoders("decode2"),
            forward: from_fn(|c| Linear::new(&(cell(c) / "forward"), d, dim(CELLS[c]))),
            back: from_fn(|c| Linear::new(&(cell(c) / "back"), d, dim(Modality::Language))),
            head: Linear::new(&(vs / "head"), 7 * d, n_emotions.map_or(1, |n| 2 * n)),
            n_emotions,
            neutral: shape.task.neutral().map_or(0.0, f64::from),
            cfg: cfg.clone(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &TransMConfig {
        &self.cfg
    }

    /// All but the translations. `train` switches dropout on.
    pub fn forward(&self, inputs: &Inputs, train: bool) -> TransMPass {
        let features = self.features(inputs, train);
        let steps = inputs.valid.size()[1];
        let positions = sinusoid(steps, self.cfg.width, inputs.valid.device()); // [T, d]
        let placed = &features + &positions;
        let language = placed.narrow(0, 0, 1).expand([N_CELLS as i64, -1, -1, -1], false);
        let others = placed.narrow(0, 1, N_CELLS as i64); // in the order of `CELLS`
        let keys = key_logits(&inputs.valid);
        let encoded1 = self.encode1.forward(&language, None, &keys, train);
        let decoded1 = self.decode1.forward(&others, Some(&encoded1), &keys, train);
        let encoded2 = self.encode2.forward(&(&decoded1 + &positions), None, &keys, train);
        let pooled = pool(&encoded1, &encoded2, &features, &inputs.valid);
        let output = self.head.forward(&pooled);
        let output = match self.n_emotions {
            None => output.squeeze_dim(1) + self.neutral,
            Some(n) => output.view([-1, n, 2]),
        };
        TransMPass { features, encoded1, decoded1, encoded2, pooled, output, language, keys }
    }

    /// The translations of a pass, which only training needs.
    pub fn translate(&self, pass: &TransMPass, train: bool) -> Translations {
        let TransMPass { language, encoded2, decoded1, keys, .. } = pass;
        let decoded2 = self.decode2.forward(language, Some(encoded2), keys, train);
        let each = |layers: &[Linear; N_CELLS], decoded: &Tensor| {
            from_fn(|c| layers[c].forward(&decoded.get(c as i64)))
        };
        Translations {
            others: each(&self.forward, decoded1),
            language: each(&self.back, &decoded2),
            decoded2,
        }
    }

    /// `f_m [3, B, T, d]`.
    fn features(&self, inputs: &Inputs, train: bool) -> Tensor {
        let read = inputs.features.each_ref().map(|x| {
            let per_sample = x.narrow(1, 0, 1); // [B, 1, d_m]
            DropoutDraw::new(&per_sample, self.cfg.input_dropout, train).apply(x)
        });
        let turn = Turn::new(&inputs.valid);
        let states = BiRnn::run(self.grus.each_ref(), read.each_ref(), &turn);
        let states = Tensor::cat(states.as_flattened(), 2); // [B, T, 3 2 gru_dim]
        let (b, t, _) = states.size3().expect("states are [B, T, ..]");
        let drop = |x: Tensor| x.dropout(self.cfg.dropout, train);
        let rows = drop(states).view([b * t, 3, -1]).transpose(0, 1); // [3, B T, 2 gru_dim]
        let features = drop(Product::of(&self.outs).forward(&rows).tanh());
        let beyond = inputs.valid.logical_not().unsqueeze(-1); // [B, T, 1]
        features.view([3, b, t, self.cfg.width]).masked_fill(&beyond, 0.0)
    }
}

/// The mean over the valid steps of `[E1_lv; E2_lv; E1_la; E2_la; f_l; f_a; f_v]`, `[B, 7 d]`.
///
/// - `e1`, `e2`: `[N, B, T, d]`; `f`: `[3, B, T, d]`
fn pool(e1: &Tensor, e2: &Tensor, f: &Tensor, valid: &Tensor) -> Tensor {
    let weights = mean_weights(valid); // [B, 1, T]
    let [e1, e2, f] = [e1, e2, f].map(|x| weights.matmul(x).squeeze_dim(2)); // [.., B, d]
    let [audio, vision] = [0, 1]; // of `CELLS`
    let cells = [e1.get(vision), e2.get(vision), e1.get(audio), e2.get(audio)];
    let parts: Vec<Tensor> = cells.into_iter().chain(f.unbind(0)).collect();
    Tensor::cat(&parts, 1)
}

impl Translations {
    /// Mean absolute error of the four translations, added up: each a mean over channels and over
    /// the valid steps of the samples that have the modality in the complete view; 0 where none has.
    /// In units of the standardised features.
    pub fn loss(&self, complete: &Inputs) -> Tensor {
        let miss = |x: &Tensor, m: Modality| (x - &complete.features[m.index()]).abs();
        let valid = complete.valid.unsqueeze(1); // [B, 1, T]
        let frames = complete.available().unsqueeze(-1).logical_and(&valid); // [B, 3, T]
        let mean =
            |each: &Tensor, m: Modality| frame_mean(each, &frames.select(1, m.index() as i64));
        let language = self.language.each_ref().map(|x| miss(x, Modality::Language));
        let back = mean(&language.into_iter().sum(), Modality::Language);
        CELLS.iter().zip(&self.others).fold(back, |sum, (m, x)| sum + mean(&miss(x, *m), *m))
    }
}

impl Predictor for TransM {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        let output = self.forward(inputs, false).output;
        match self.n_emotions {
            None => Answer::Score(output),
            Some(_) => Answer::Flags((output.select(2, 1) - output.select(2, 0)).sigmoid()),
        }
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        self.cfg.floats_per_sample(steps, false)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn::VarStore};

    use super::*;
    use crate::testing::{
        alone, assert_close, assert_gradients, hide, inputs, n_parameters, names, settle,
    };

    const DIMS: [i64; 3] = [6, 4, 5];
    const D: i64 = 12;

    fn official() -> TransMConfig {
        TransMConfig {
            gru_dim: 300,
            width: 100,
            n_heads: 5,
            vision_ffn_dim: 200,
            audio_ffn_dim: 120,
            encoder_layers: 10,
            decoder_layers: 5,
            input_dropout: 0.5,
            dropout: 0.3,
            cell_dropout: 0.5,
        }
    }

    fn small() -> TransMConfig {
        TransMConfig {
            gru_dim: 7,
            width: D,
            n_heads: 3,
            vision_ffn_dim: 14,
            audio_ffn_dim: 9,
            encoder_layers: 2,
            decoder_layers: 2,
            input_dropout: 0.0,
            dropout: 0.0,
            cell_dropout: 0.0,
        }
    }

    fn sentiment() -> Task {
        Task::Sentiment { lo: 0, hi: 4 }
    }

    fn emotions() -> Task {
        Task::Emotion { classes: ["neutral", "happy", "sad", "angry"].map(String::from).to_vec() }
    }

    fn model(cfg: &TransMConfig, task: Task, dims: [i64; 3]) -> (VarStore, TransM) {
        let vs = VarStore::new(Device::Cpu);
        let model = TransM::new(&vs.root(), cfg, &Shape { task, steps: 50, dims }).unwrap();
        (vs, model)
    }

    fn tiny(task: Task) -> (VarStore, TransM) {
        tch::manual_seed(1);
        model(&small(), task, DIMS)
    }

    fn values(answer: Answer) -> Tensor {
        match answer {
            Answer::Score(x) | Answer::Flags(x) | Answer::Classes(x) => x,
        }
    }

    fn all_finite(x: &Tensor) -> bool {
        bool::try_from(x.isfinite().all()).unwrap()
    }

    /// Absent in every sample.
    fn without(inputs: &Inputs, modality: Modality) {
        for row in 0..inputs.valid.size()[0] {
            hide(inputs, row, modality.index());
        }
    }

    /// GRUs 4,147,200, the layers behind them 180,300, the Transformers 5,195,600 or 2,078,240, the
    /// translations' layers 171,498, the head 701.
    #[test]
    fn it_has_the_published_size_at_either_depth() {
        let dims = [300, 74, 1024];
        let light = TransMConfig { encoder_layers: 4, decoder_layers: 2, ..official() };
        for (cfg, want) in [(official(), 9_695_299), (light, 6_577_939)] {
            assert_eq!(n_parameters(&model(&cfg, sentiment(), dims).0), want);
        }
    }

    #[test]
    fn variables_are_named_after_their_places() {
        let cfg = TransMConfig { encoder_layers: 2, decoder_layers: 1, ..small() };
        let (vs, _model) = model(&cfg, sentiment(), DIMS);
        let affine = |at: String| ["weight", "bias"].map(|v| format!("{at}.{v}"));
        let mut layers = vec!["head".to_owned()];
        let mut want = Vec::new();
        for m in Modality::ALL.map(Modality::name) {
            layers.push(format!("encoder.{m}.out"));
            for v in ["weight_ih", "weight_hh", "bias_ih", "bias_hh"] {
                want.extend(["", "_reverse"].map(|way| format!("encoder.{m}.gru.{v}_l0{way}")));
            }
        }
        for n in CELLS.map(Modality::name) {
            layers.extend(["forward", "back"].map(|name| format!("cell.{n}.{name}")));
            for (block, depth, parts) in
                [("encode1", 2, 2), ("decode1", 1, 3), ("encode2", 2, 2), ("decode2", 1, 3)]
            {
                for i in 0..depth {
                    let at = |name: &str| format!("cell.{n}.{block}.layer.{i}.{name}");
                    layers.extend(["linear1", "linear2"].map(at));
                    layers.extend((1..=parts).map(|k| at(&format!("norm{k}"))));
                    for part in &["own", "memory"][..parts - 1] {
                        let four = ["query", "key", "value", "out"];
                        layers.extend(four.map(|name| at(&format!("{part}.{name}"))));
                    }
                }
            }
        }
        want.extend(layers.into_iter().flat_map(affine));
        want.sort();
        assert_eq!(names(&vs), want);
    }

    #[test]
    fn attention_starts_glorot_uniform_and_the_rest_as_pytorch_s() {
        let (vs, _model) = model(&official(), sentiment(), [300, 74, 1024]);
        for (name, variable) in vs.variables() {
            let largest = variable.abs().max().double_value(&[]);
            let bound = match name.split('.').rev().nth(2) {
                Some("own" | "memory") if name.ends_with("bias") => 0.0,
                Some("own" | "memory") => (6.0f64 / 200.0).sqrt(),
                _ if name.contains("gru") => 1.0 / 300f64.sqrt(),
                _ if name.contains("norm") => continue,
                _ if name.ends_with("weight") => 1.0 / (variable.size()[1] as f64).sqrt(),
                _ => continue,
            };
            assert!((0.95 * bound..=1.00001 * bound).contains(&largest), "{name}: {largest}");
        }
    }

    #[test]
    fn every_variable_gets_a_gradient() {
        let batch = inputs(&[3, 5, 1, 4, 5, 2, 5, 5], 5, DIMS);
        for task in [sentiment(), emotions()] {
            let (vs, model) = tiny(task);
            settle(&vs);
            let pass = model.forward(&batch, true);
            let translated = model.translate(&pass, true).loss(&batch);
            assert_gradients(&vs, &(pass.output.square().sum(Kind::Float) + translated));
        }
    }

    #[test]
    fn neither_batch_mates_nor_padding_change_an_answer() {
        for task in [sentiment(), emotions()] {
            let (_vs, model) = tiny(task);
            let [batch, padded] = [7, 12].map(|steps| inputs(&[3, 7, 1], steps, DIMS));
            for inputs in [&batch, &padded] {
                hide(inputs, 0, 1);
                hide(inputs, 1, 0);
            }
            let together = values(model.predict(&batch));
            assert_close(&values(model.predict(&padded)), &together, 1e-5);
            for row in 0..3 {
                let single = values(model.predict(&alone(&batch, row)));
                assert_close(&single, &together.narrow(0, row, 1), 1e-5);
            }
        }
    }

    #[test]
    fn a_padded_key_gets_no_weight_and_a_padded_step_is_read_nowhere() {
        let batch = inputs(&[3, 5, 1], 5, DIMS);
        let weights = key_logits(&batch.valid).softmax(3, Kind::Float).view([2, 3, 5]);
        let padding = batch.valid.logical_not();
        let open = weights.masked_select(&padding.expand([2, 3, 5], false));
        assert!(!bool::try_from(open.any()).unwrap(), "{weights}");

        let (_vs, model) = tiny(sentiment());
        let _guard = tch::no_grad_guard();
        let pass = model.forward(&batch, false);
        let spoilt = inputs(&[3, 5, 1], 5, DIMS);
        for mut x in spoilt.features.each_ref().map(Tensor::shallow_clone) {
            let _ = x.masked_fill_(&padding.unsqueeze(-1), 1e30);
        }
        let other = model.forward(&spoilt, false);
        assert!(pass.output.equal(&other.output), "{} {}", pass.output, other.output);
        assert!(pass.features.equal(&other.features));
        let beyond = pass.features.masked_select(&padding.unsqueeze(-1));
        assert!(!bool::try_from(beyond.any()).unwrap(), "{beyond}");
    }

    #[test]
    fn the_first_encoder_knows_of_language_alone() {
        let (_vs, model) = tiny(sentiment());
        let [batch, other] = [(); 2].map(|()| inputs(&[4, 2], 4, DIMS));
        let _ = other.features[Modality::Vision.index()].select(1, 1).fill_(2.0);
        let _guard = tch::no_grad_guard();
        let [a, b] = [&batch, &other].map(|inputs| model.forward(inputs, false));
        let [audio, vision] = [0, 1];
        assert!(a.encoded1.equal(&b.encoded1));
        for (a, b) in [(&a.decoded1, &b.decoded1), (&a.encoded2, &b.encoded2)] {
            assert!(a.get(audio).equal(&b.get(audio)));
            assert!(!a.get(vision).equal(&b.get(vision)));
        }
    }

    /// The query of a decoder is what it is to find: it reads step t to find step t, and later
    /// steps too.
    #[test]
    fn a_decoder_can_copy() {
        let (_vs, model) = tiny(sentiment());
        let [batch, other] = [(); 2].map(|()| inputs(&[4], 4, DIMS));
        let last = other.features[Modality::Audio.index()].select(1, 3);
        let _ = last.shallow_clone().fill_(2.0);
        let _guard = tch::no_grad_guard();
        let [a, b] = [&batch, &other].map(|inputs| model.forward(inputs, false).decoded1.get(0));
        for step in 0..4 {
            assert!(!a.select(1, step).equal(&b.select(1, step)), "step {step} does not see it");
        }
    }

    /// Three samples of one length: the second has the first's language, the third another.
    #[test]
    fn without_the_other_modality_a_cell_knows_of_language_alone() {
        let (_vs, model) = tiny(sentiment());
        let batch = inputs(&[4, 4, 4], 4, DIMS);
        let mut second = batch.features[0].get(1);
        second.copy_(&batch.features[0].get(0));
        without(&batch, Modality::Vision);
        let _guard = tch::no_grad_guard();
        let pass = model.forward(&batch, false);
        let vision = pass.features.get(Modality::Vision.index() as i64);
        assert_close(&vision.get(0), &vision.get(2), 1e-6);
        for x in [&pass.decoded1, &pass.encoded2].map(|x| x.get(1)) {
            assert_close(&x.get(0), &x.get(1), 1e-6);
            assert!(!x.get(0).equal(&x.get(2)), "language does not reach it");
        }
    }

    #[test]
    fn whatever_is_missing_answers_losses_and_gradients_stay_finite() {
        for (task, lengths) in [(sentiment(), [4, 2]), (emotions(), [1, 1])] {
            for absent in 0..8 {
                let (vs, model) = tiny(task.clone());
                let steps = lengths[0];
                let [complete, batch] = [(); 2].map(|()| inputs(&lengths, steps, DIMS));
                for m in Modality::ALL.into_iter().filter(|m| absent >> m.index() & 1 == 1) {
                    without(&batch, m);
                }
                for target in [&complete, &batch] {
                    let pass = model.forward(&batch, true);
                    let loss = model.translate(&pass, true).loss(target);
                    let total = pass.output.square().sum(Kind::Float) + loss;
                    assert!(all_finite(&total), "{absent:03b}: {total}");
                    total.backward();
                }
                for (name, variable) in vs.variables() {
                    let grad = variable.grad(); // a GRU has none between the states of one step
                    assert!(!grad.defined() || all_finite(&grad), "{absent:03b}: {name}");
                }
                assert!(all_finite(&values(model.predict(&batch))), "{absent:03b}");
            }
        }
    }

    /// Errors per channel: audio 1 at two frames; vision 2, but the second sample has none; language
    /// 1 and 3.
    #[test]
    fn translations_cost_their_mean_errors_where_there_is_something_to_find() {
        let complete = inputs(&[2, 1], 2, DIMS);
        hide(&complete, 1, Modality::Vision.index());
        let off = |m: Modality, by: f64| &complete.features[m.index()] + by;
        let [mut audio, mut vision] = [off(Modality::Audio, 1.0), off(Modality::Vision, -2.0)];
        let _ = audio.get(1).get(1).fill_(1e6); // padding
        let _ = vision.get(1).fill_(1e6); // absent
        (audio, vision) = (audio.copy(), vision.copy());
        let nothing = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let translations = Translations {
            decoded2: nothing,
            others: [audio, vision],
            language: [off(Modality::Language, 1.0), off(Modality::Language, 3.0)],
        };
        let got = translations.loss(&complete).double_value(&[]);
        assert!((got - 7.0).abs() < 1e-5, "{got}");
        Modality::ALL.into_iter().for_each(|m| without(&complete, m));
        assert_eq!(translations.loss(&complete).double_value(&[]).to_bits(), 0);
    }

    #[test]
    fn the_head_reads_the_mean_of_seven_sequences() {
        let (vs, model) = tiny(emotions());
        let batch = inputs(&[3, 5], 5, DIMS);
        let _guard = tch::no_grad_guard();
        let pass = model.forward(&batch, false);
        let [audio, vision] = [0, 1];
        let [e1, e2, f] = [&pass.encoded1, &pass.encoded2, &pass.features];
        let parts = [
            e1.get(vision),
            e2.get(vision),
            e1.get(audio),
            e2.get(audio),
            f.get(0),
            f.get(1),
            f.get(2),
        ];
        let all = Tensor::cat(&parts, 2); // [B, T, 7 d]
        let variables = vs.variables();
        for (row, length) in [(0, 3), (1, 5)] {
            let mean = all.get(row).narrow(0, 0, length).mean_dim(0i64, false, Kind::Float);
            let want = variables["head.weight"].mv(&mean) + &variables["head.bias"];
            assert_close(&pass.output.get(row).flatten(0, 1), &want, 1e-5);
        }
    }

    #[test]
    fn answers_have_the_form_of_the_task() {
        let batch = inputs(&[3, 5], 5, DIMS);
        let (_vs, model) = tiny(emotions());
        let Answer::Flags(flags) = model.predict(&batch) else { panic!("emotions want flags") };
        let output = model.forward(&batch, false).output;
        assert_eq!(output.size(), [2, 4, 2]);
        assert_close(&flags, &output.softmax(2, Kind::Float).select(2, 1), 1e-6);
        let (vs, model) = tiny(sentiment());
        let _guard = tch::no_grad_guard();
        for name in ["head.weight", "head.bias"] {
            let _ = vs.variables()[name].shallow_clone().zero_();
        }
        let Answer::Score(score) = model.predict(&batch) else { panic!("sentiment wants scores") };
        assert_close(&score, &Tensor::from_slice(&[2f32, 2.0]), 0.0); // the middle of 0 to 4
    }

    #[test]
    fn a_draw_hides_a_feature_at_every_step() {
        let cfg = TransMConfig { input_dropout: 0.5, ..small() };
        let x = inputs(&[4, 4], 4, DIMS).features[0].abs() + 1.0;
        tch::manual_seed(4);
        let kept = DropoutDraw::new(&x.narrow(1, 0, 1), cfg.input_dropout, true).apply(&x).gt(0.0);
        assert!(kept.select(1, 0).unsqueeze(1).expand_as(&kept).equal(&kept), "{kept}");
        assert!(bool::try_from(kept.logical_not().any()).unwrap());
    }

    #[test]
    fn impossible_values_are_all_listed() {
        assert_eq!(official().problems(), [""; 0]);
        let cfg = TransMConfig { width: 102, cell_dropout: 1.0, ..official() };
        let shape = Shape { task: sentiment(), steps: 5, dims: DIMS };
        let error = TransM::new(&VarStore::new(Device::Cpu).root(), &cfg, &shape).unwrap_err();
        let want = "model.width = 102: must be even and a multiple of n_heads = 5\n  \
                    model.cell_dropout = 1: must lie in [0, 1)";
        assert_eq!(error.to_string(), want);
        let cfg = TransMConfig { encoder_layers: 0, n_heads: 0, ..official() };
        assert_eq!(cfg.problems().len(), 2);
    }
}
