//! CubeMLP, a baseline: the modalities' sequences form a cube of time, modality and channel, and
//! small MLPs along each axis in turn mix it and shrink it.
//!
//! Sun et al., "CubeMLP: An MLP-based Model for Multimodal Sentiment Analysis and Depression
//! Estimation" (ACM MM 2022); code github.com/kiva12138/CubeMLP. Trained on complete data.
//!
//! `encoder.rs` makes the cube, `mixer.rs` has its blocks; here is the network with its head. The
//! loss is the task's alone, [`crate::loss::score_or_flags`].
//!
//! # Sizes
//! The mixer is tied to the number of steps `T` of its data. A block never makes more steps than
//! it gets: blocks of 50 and 10 steps make 50 and 10 of `T = 50`, 20 and 10 of `T = 20`, 1 and 1
//! of `T = 1`, so that one recipe serves all data. At `T = 1` a normalisation over time is over a
//! single value and leaves its bias; the residual product alone carries the sample through the
//! time axis.
//!
//! # What is missing
//! Nothing is masked: padded steps are zeros that take part in the mixing, and a missing frame
//! enters the encoders as zeros. Of an absent modality the recurrent layers make a vector of their
//! biases, which layer normalisation blows up to unit variance: a confident constant. That is the
//! method's own weakness and stays.
//!
//! # Departures
//! - words come as vectors, so language gets the recurrent encoder of audio and vision instead of
//!   BERT; [`TextEncoder::Linear`] is the source's own layer behind BERT;
//! - recurrent layers turn round inside each sample's own length; the source pads audio and vision
//!   to BERT's length and fills empty frames with 1e-6;
//! - `T` steps as the data have them, where the source pads every sample to 100;
//! - emotions, which the source's code cannot choose a checkpoint for: two logits each; scores are
//!   counted from the middle of their range.

mod encoder;
mod mixer;

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Task};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn::Path};

use self::{encoder::Encoders, mixer::Block};
use crate::{
    answer::{Answer, Predictor},
    layers::Linear,
    problems,
    shape::Shape,
};

/// Most blocks a mixer may have.
const MOST_BLOCKS: usize = 16;

/// Added to variances; the source's, 1e-6.
const NORM_EPS: f64 = 1e-6;

/// Sizes of a [`CubeMlp`]. "Source" is the authors' code with the options of its README, for MOSI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CubeMlpConfig {
    /// How words are encoded. Ours, in place of BERT: `gru`.
    pub text_encoder: TextEncoder,
    /// Channels of every encoder, 1 to 8192. Source: 128.
    pub hidden: i64,
    /// Steps, modalities and channels that each block makes, 1 to 8192 each; 1 to 16 blocks. A
    /// block makes no more steps than it gets. Source: [50, 3, 128], [10, 3, 32].
    pub blocks: Vec<[i64; 3]>,
    /// What becomes of the last block's steps. Source: `mean`.
    pub time_pooling: TimePooling,
    /// A pooled vector longer than this gets a hidden layer of this size, 1 to 8192 channels.
    /// Source: 128.
    pub head_hidden: i64,
    /// Drop probability of the encoders' outputs, in [0, 1). Source: 0.1 for each modality.
    pub encoder_dropout: f64,
    /// Drop probability of the MLPs' outputs, in [0, 1). Source: 0.1 for each axis.
    pub mlp_dropout: f64,
    /// Drop probability in the head's hidden layer, in [0, 1). Source: 0.1.
    pub head_dropout: f64,
}

/// How words are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextEncoder {
    /// As audio and vision: two bidirectional recurrent layers.
    Gru,
    /// One linear layer without bias, each word by itself.
    Linear,
}

/// What becomes of the last block's steps; its modalities always lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimePooling {
    /// Their mean.
    Mean,
    /// Side by side.
    Cat,
}

impl CubeMlpConfig {
    /// Every value that no network can have, a line each; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        problems::size(&mut bad, "hidden", self.hidden);
        let n_blocks = self.blocks.len();
        if !(1..=MOST_BLOCKS).contains(&n_blocks) {
            bad.push(format!("model.blocks has {n_blocks}: must have between 1 and {MOST_BLOCKS}"));
        }
        for (block, sizes) in self.blocks.iter().enumerate() {
            for (axis, size) in sizes.iter().enumerate() {
                problems::size(&mut bad, &format!("blocks[{block}][{axis}]"), *size);
            }
        }
        problems::size(&mut bad, "head_hidden", self.head_hidden);
        problems::dropout(&mut bad, "encoder_dropout", self.encoder_dropout);
        problems::dropout(&mut bad, "mlp_dropout", self.mlp_dropout);
        problems::dropout(&mut bad, "head_dropout", self.head_dropout);
        bad
    }

    /// Steps, modalities and channels of the cube before and after every block, for data of so many
    /// steps.
    pub fn cubes(&self, steps: i64) -> Vec<[i64; 3]> {
        let mut cubes = vec![[steps, 3, self.hidden]];
        for [block_steps, modalities, channels] in &self.blocks {
            let before = cubes[cubes.len() - 1][0];
            cubes.push([*block_steps.min(&before), *modalities, *channels]);
        }
        cubes
    }
}

/// The CubeMLP network. It answers with one score, or with two logits per emotion.
///
/// Variables: `encoder.<modality>.gru` and `.norm` (language may have `.linear` instead),
/// `block.<i>.{time,modality,channel}.{norm,linear1,linear2,residual}` with `i` from 0, and `head`,
/// or `head.linear{1,2}` where it has a hidden layer.
#[derive(Debug)]
pub struct CubeMlp {
    encoders: Encoders,
    blocks: Vec<Block>,
    time_pooling: TimePooling,
    head: Head,
    steps: i64, // T of the data
    task: Task,
}

/// One pass through the network. Cubes lie with the modality in front, as `mixer.rs` says.
#[derive(Debug)]
pub struct CubeMlpPass {
    /// `[3, B, T, h]`: the encoders' outputs, zero beyond each sample's length.
    pub cube: Tensor,
    /// The cube of every block after time `[M, B, D, T']`, after modality `[M', B, D, T']` and after
    /// channel `[M', B, T', D']`, which is the block's output.
    pub blocks: Vec<[Tensor; 3]>,
    /// `[B, F]`: the last block's output, pooled.
    pub pooled: Tensor,
    /// A score `[B]`, or two logits per emotion `[B, C, 2]`, "no" first.
    pub output: Tensor,
}

impl CubeMlp {
    /// Registers the variables under `vs`, the root of a store.
    ///
    /// # Errors
    /// When a value in `cfg` is impossible; all such values are listed.
    pub fn new(vs: &Path, cfg: &CubeMlpConfig, shape: &Shape) -> Result<Self> {
        let bad = cfg.problems();
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        let encoders = Encoders::new(&(vs / "encoder"), cfg, shape);
        let cubes = cfg.cubes(shape.steps);
        let blocks = cubes.windows(2).enumerate().map(|(i, sizes)| {
            Block::new(&(vs / "block" / i as i64), sizes[0], sizes[1], cfg.mlp_dropout)
        });
        let blocks = blocks.collect();
        let [steps, modalities, channels] = cubes[cubes.len() - 1];
        let pooled = match cfg.time_pooling {
            TimePooling::Mean => modalities * channels,
            TimePooling::Cat => steps * modalities * channels,
        };
        let n_outputs = match &shape.task {
            Task::Sentiment { .. } => 1,
            Task::Emotion { classes } => 2 * classes.len() as i64,
        };
        let head = Head::new(&(vs / "head"), pooled, cfg, n_outputs);
        let (time_pooling, task) = (cfg.time_pooling, shape.task.clone());
        Ok(Self { encoders, blocks, time_pooling, head, steps: shape.steps, task })
    }

    /// One pass. `train` switches dropout on.
    pub fn forward(&self, inputs: &Inputs, train: bool) -> CubeMlpPass {
        let cube = self.encoders.forward(inputs, self.steps, train);
        let mut blocks: Vec<[Tensor; 3]> = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let x = blocks.last().map_or(&cube, |[.., x]| x);
            blocks.push(block.forward(x, train));
        }
        let mixed = blocks.last().map_or(&cube, |[.., x]| x); // [M', B, T', D']
        let pooled = match self.time_pooling {
            TimePooling::Mean => {
                let mean = mixed.mean_dim([2i64].as_slice(), false, Kind::Float); // [M', B, D']
                mean.transpose(0, 1).flatten(1, -1)
            }
            TimePooling::Cat => mixed.permute([1, 2, 0, 3]).flatten(1, -1), // from [B, T', M', D']
        };
        let output = self.head.forward(&pooled, train); // [B, 1] or [B, 2 C]
        let output = match self.task.neutral() {
            Some(neutral) => output.squeeze_dim(1) + f64::from(neutral),
            None => output.view([-1, self.task.n_classes() as i64, 2]),
        };
        CubeMlpPass { cube, blocks, pooled, output }
    }
}

impl Predictor for CubeMlp {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        let output = self.forward(inputs, false).output;
        match self.task {
            Task::Sentiment { .. } => Answer::Score(output),
            Task::Emotion { .. } => {
                Answer::Flags((output.select(2, 1) - output.select(2, 0)).sigmoid())
            }
        }
    }
}

/// One linear layer, or two around a ReLU and dropout where its input is long.
#[derive(Debug)]
struct Head {
    hidden: Option<Linear>, // F -> hidden
    out: Linear,
    dropout: f64,
}

impl Head {
    fn new(vs: &Path, in_dim: i64, cfg: &CubeMlpConfig, out_dim: i64) -> Self {
        let dropout = cfg.head_dropout;
        if in_dim <= cfg.head_hidden {
            return Self { hidden: None, out: Linear::new(vs, in_dim, out_dim), dropout };
        }
        let hidden = Linear::new(&(vs / "linear1"), in_dim, cfg.head_hidden);
        let out = Linear::new(&(vs / "linear2"), cfg.head_hidden, out_dim);
        Self { hidden: Some(hidden), out, dropout }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        match &self.hidden {
            None => self.out.forward(x),
            Some(hidden) => {
                self.out.forward(&hidden.forward(x).relu().dropout(self.dropout, train))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cumdf_data::Modality;
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{
        alone, assert_close, assert_gradients, hide, inputs, n_parameters, names,
    };

    const DIMS: [i64; 3] = [6, 4, 5];
    const AXES: [&str; 3] = ["time", "modality", "channel"];

    fn mosi() -> CubeMlpConfig {
        CubeMlpConfig {
            text_encoder: TextEncoder::Gru,
            hidden: 128,
            blocks: vec![[50, 3, 128], [10, 3, 32]],
            time_pooling: TimePooling::Mean,
            head_hidden: 128,
            encoder_dropout: 0.1,
            mlp_dropout: 0.1,
            head_dropout: 0.1,
        }
    }

    fn small() -> CubeMlpConfig {
        CubeMlpConfig { hidden: 12, blocks: vec![[6, 3, 8], [4, 2, 5]], ..mosi() }
    }

    fn shape(task: Task, steps: i64) -> Shape {
        Shape { task, steps, dims: DIMS }
    }

    fn sentiment(lo: i64, hi: i64) -> Task {
        Task::Sentiment { lo, hi }
    }

    fn emotions() -> Task {
        Task::Emotion { classes: ["neutral", "happy", "sad", "angry"].map(String::from).to_vec() }
    }

    fn network(cfg: &CubeMlpConfig, task: Task, steps: i64) -> (VarStore, CubeMlp) {
        let vs = VarStore::new(Device::Cpu);
        let model = CubeMlp::new(&vs.root(), cfg, &shape(task, steps)).unwrap();
        (vs, model)
    }

    /// Both text encoders, both poolings, with and without the head's hidden layer.
    fn variants() -> [CubeMlpConfig; 3] {
        let linear = CubeMlpConfig { text_encoder: TextEncoder::Linear, ..small() };
        let cat = CubeMlpConfig { time_pooling: TimePooling::Cat, head_hidden: 7, ..small() };
        [small(), linear, cat]
    }

    #[test]
    fn it_has_the_published_size() {
        let size = |cfg: CubeMlpConfig, steps, task| {
            let vs = VarStore::new(Device::Cpu);
            let shape = Shape { task, steps, dims: [300, 74, 1024] };
            let _model = CubeMlp::new(&vs.root(), &cfg, &shape).unwrap();
            let all = n_parameters(&vs);
            let mut mixer = vs.variables();
            mixer.retain(|name, _| name.starts_with("block."));
            (all, mixer.values().map(Tensor::numel).sum::<usize>())
        };
        let linear = || CubeMlpConfig { text_encoder: TextEncoder::Linear, ..mosi() };
        assert_eq!(size(mosi(), 50, sentiment(-3, 3)), (2_331_591, 68_198));
        assert_eq!(size(linear(), 50, sentiment(-3, 3)), (1_743_047, 68_198));
        assert_eq!(size(mosi(), 20, emotions()), (2_325_190, 61_118));
        let mosei = vec![[50, 3, 128], [10, 3, 64], [10, 3, 32], [10, 3, 3]];
        let mosei = CubeMlpConfig { blocks: mosei, time_pooling: TimePooling::Cat, ..mosi() };
        assert_eq!(size(mosei, 50, sentiment(-3, 3)).1, 85_867);
    }

    #[test]
    fn names_are_pinned() {
        for (cfg, head) in variants().into_iter().zip([vec![""], vec![""], vec!["1", "2"]]) {
            let (vs, _) = network(&cfg, emotions(), 8);
            let mut want = Vec::new();
            for m in Modality::ALL.map(Modality::name) {
                if m == "language" && cfg.text_encoder == TextEncoder::Linear {
                    want.push("encoder.language.linear.weight".to_owned());
                    continue;
                }
                for kind in ["weight_ih", "weight_hh", "bias_ih", "bias_hh"] {
                    for layer in ["l0", "l0_reverse", "l1", "l1_reverse"] {
                        want.push(format!("encoder.{m}.gru.{kind}_{layer}"));
                    }
                }
                want.extend(["weight", "bias"].map(|v| format!("encoder.{m}.norm.{v}")));
            }
            for block in 0..2 {
                for axis in AXES {
                    let axis = format!("block.{block}.{axis}");
                    for layer in ["norm", "linear1", "linear2"] {
                        want.extend(["weight", "bias"].map(|v| format!("{axis}.{layer}.{v}")));
                    }
                    want.push(format!("{axis}.residual.weight"));
                }
            }
            for layer in head {
                let layer =
                    if layer.is_empty() { String::new() } else { format!(".linear{layer}") };
                want.extend(["weight", "bias"].map(|v| format!("head{layer}.{v}")));
            }
            want.sort();
            assert_eq!(names(&vs), want);
        }
    }

    #[test]
    fn a_block_never_makes_more_steps_than_it_gets() {
        assert_eq!(mosi().cubes(50), [[50, 3, 128], [50, 3, 128], [10, 3, 32]]);
        assert_eq!(mosi().cubes(100), [[100, 3, 128], [50, 3, 128], [10, 3, 32]]);
        assert_eq!(mosi().cubes(20), [[20, 3, 128], [20, 3, 128], [10, 3, 32]]);
        assert_eq!(mosi().cubes(1), [[1, 3, 128], [1, 3, 128], [1, 3, 32]]);
        for steps in [1, 5, 20] {
            let (_vs, model) = network(&mosi(), sentiment(-3, 3), steps);
            let pass = model.forward(&inputs(&[1, 1], 1, DIMS), false);
            let sizes: Vec<_> = pass.blocks.iter().map(|[.., x]| x.size()).collect();
            let want = [vec![3, 2, steps, 128], vec![3, 2, steps.min(10), 32]];
            assert_eq!(sizes, want, "{steps} steps");
        }
    }

    #[test]
    fn every_variable_gets_a_gradient() {
        for cfg in variants() {
            for task in [sentiment(-3, 3), emotions()] {
                let (vs, model) = network(&cfg, task, 8);
                let pass = model.forward(&inputs(&[3, 5, 1, 4, 5, 2, 5, 5], 5, DIMS), true);
                assert_gradients(&vs, &pass.output.square().sum(Kind::Float));
            }
        }
    }

    #[test]
    fn a_single_step_is_enough() {
        for task in [sentiment(-3, 3), emotions()] {
            let (_vs, model) = network(&small(), task, 1);
            let pass = model.forward(&inputs(&[1, 1, 1], 1, DIMS), true);
            pass.output.sum(Kind::Float).backward();
            assert!(bool::try_from(pass.output.isfinite().all()).unwrap(), "{}", pass.output);
            let rows = pass.output.view([3, -1]);
            assert!(!rows.get(0).equal(&rows.get(1)), "the sample is lost: {rows}");
        }
    }

    #[test]
    fn neither_batch_mates_nor_padding_change_an_answer() {
        for cfg in variants() {
            for task in [sentiment(-3, 3), emotions()] {
                let (_vs, model) = network(&cfg, task, 9);
                let lengths = [3, 7, 1];
                // As long as the longest, as the data, and longer than they.
                let [batch, padded, wide] = [7, 9, 12].map(|steps| inputs(&lengths, steps, DIMS));
                for inputs in [&batch, &padded, &wide] {
                    hide(inputs, 0, 1);
                }
                let answer = |inputs: &Inputs| model.predict(inputs).tensor().shallow_clone();
                let together = answer(&batch);
                assert_close(&answer(&padded), &together, 1e-5);
                assert_close(&answer(&wide), &together, 1e-5);
                for row in 0..3 {
                    let single = answer(&alone(&batch, row));
                    assert_close(&single, &together.narrow(0, row, 1), 1e-5);
                }
            }
        }
    }

    #[test]
    fn what_lies_beyond_a_length_is_never_read() {
        for cfg in variants() {
            let (_vs, model) = network(&cfg, emotions(), 9);
            let batch = inputs(&[3, 7, 1], 7, DIMS);
            let want = model.predict(&batch);
            let beyond = batch.valid.logical_not().unsqueeze(-1);
            for rubbish in [f64::NAN, 1e30] {
                let spoilt = Inputs {
                    features: batch.features.each_ref().map(|x| x.masked_fill(&beyond, rubbish)),
                    seen: batch.seen.shallow_clone(),
                    valid: batch.valid.shallow_clone(),
                };
                let got = model.predict(&spoilt);
                assert!(got.tensor().equal(want.tensor()), "{rubbish} was read");
            }
        }
    }

    #[test]
    fn every_missing_pattern_is_answered_and_an_absent_modality_is_the_same_for_all() {
        let (_vs, model) = network(&small(), sentiment(-3, 3), 6);
        for pattern in 1..7 {
            let batch = inputs(&[6, 6, 6], 6, DIMS);
            let absent: Vec<usize> = (0..3).filter(|m| pattern >> m & 1 == 0).collect();
            absent.iter().for_each(|m| (0..3).for_each(|row| hide(&batch, row, *m)));
            let pass = model.forward(&batch, false);
            assert!(bool::try_from(pass.output.isfinite().all()).unwrap(), "{}", pass.output);
            for m in absent {
                let cube = pass.cube.get(m as i64); // [B, T, h]
                assert!(cube.get(0).equal(&cube.get(1)) && cube.get(1).equal(&cube.get(2)));
                assert!(bool::try_from(cube.any()).unwrap(), "it is not zero either");
            }
        }
    }

    #[test]
    fn the_cube_is_zero_beyond_each_length() {
        for cfg in variants() {
            let (vs, model) = network(&cfg, sentiment(-3, 3), 9);
            tch::no_grad(|| {
                for (name, mut variable) in vs.variables() {
                    if name.ends_with("norm.bias") {
                        let _ = variable.fill_(1.0); // what normalisation makes of a zero
                    }
                }
            });
            let cube = model.forward(&inputs(&[3, 7], 7, DIMS), false).cube; // [3, 2, 9, h]
            for (row, length) in [3, 7].into_iter().enumerate() {
                let sample = cube.select(1, row as i64);
                let beyond = sample.narrow(1, length, 9 - length);
                assert!(!bool::try_from(beyond.any()).unwrap(), "{beyond}");
                assert!(
                    bool::try_from(sample.narrow(1, 0, length).any_dim(2, false).all()).unwrap()
                );
            }
        }
    }

    /// Two steps, a value a modality: the mean over steps, or all, modalities side by side.
    #[test]
    fn pooling_keeps_the_source_s_order() {
        for (time_pooling, order) in [(TimePooling::Mean, vec![]), (TimePooling::Cat, vec![0, 1])] {
            let cfg = CubeMlpConfig { time_pooling, ..small() };
            let (_vs, model) = network(&cfg, sentiment(-3, 3), 9);
            let pass = model.forward(&inputs(&[3, 7], 7, DIMS), false);
            let [.., last] = &pass.blocks[1]; // [M, B, T, D]
            let [n_modalities, _, _, _] = <[i64; 4]>::try_from(last.size()).unwrap();
            let mean = last.mean_dim([2i64].as_slice(), false, Kind::Float);
            let steps: Vec<Tensor> = match order.as_slice() {
                [] => (0..n_modalities).map(|m| mean.get(m)).collect(),
                _ => (0..last.size()[2])
                    .flat_map(|t| (0..n_modalities).map(move |m| (t, m)))
                    .map(|(t, m)| last.get(m).select(1, t))
                    .collect(),
            };
            assert_close(&pass.pooled, &Tensor::cat(&steps, 1), 1e-6);
        }
    }

    #[test]
    fn answers_have_the_form_of_the_task() {
        let batch = inputs(&[3, 5], 5, DIMS);
        let (_vs, model) = network(&small(), emotions(), 5);
        let Answer::Flags(flags) = model.predict(&batch) else { panic!("emotions want flags") };
        let logits = model.forward(&batch, false).output;
        assert_eq!(logits.size(), [2, 4, 2]);
        assert_close(&flags, &logits.softmax(-1, Kind::Float).select(2, 1), 1e-6);
        let (vs, model) = network(&small(), sentiment(1, 5), 5);
        tch::no_grad(|| {
            let _ = vs.variables()["head.weight"].shallow_clone().fill_(0.0);
            let _ = vs.variables()["head.bias"].shallow_clone().fill_(0.5);
        });
        let Answer::Score(score) = model.predict(&batch) else { panic!("sentiment wants scores") };
        assert_close(&score, &Tensor::from_slice(&[3.5f32, 3.5]), 1e-6);
    }

    #[test]
    fn impossible_values_are_all_listed() {
        assert_eq!(mosi().problems(), [""; 0]);
        let blocks = vec![[50, 0, 128], [10, 3, 9000]];
        let cfg = CubeMlpConfig { hidden: 0, blocks, mlp_dropout: 1.0, ..mosi() };
        let vs = VarStore::new(Device::Cpu);
        let error = CubeMlp::new(&vs.root(), &cfg, &shape(emotions(), 5)).unwrap_err();
        let want = "model.hidden = 0: must lie between 1 and 8192\n  \
                    model.blocks[0][1] = 0: must lie between 1 and 8192\n  \
                    model.blocks[1][2] = 9000: must lie between 1 and 8192\n  \
                    model.mlp_dropout = 1: must lie in [0, 1)";
        assert_eq!(error.to_string(), want);
        let none = CubeMlpConfig { blocks: vec![], ..mosi() };
        assert_eq!(none.problems(), ["model.blocks has 0: must have between 1 and 16"]);
    }
}
