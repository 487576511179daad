//! Self-MM, a baseline: one fused and three uni-modal heads on shared encoders. The uni-modal
//! heads learn from labels that the method generates itself.
//!
//! Yu et al., "Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning
//! for Multimodal Sentiment Analysis" (AAAI 2021); code github.com/thuiar/Self-MM. Trained on
//! complete data; a missing frame enters as zeros.
//!
//! Where paper and code differ this follows the code: the distance to a centre is the Euclidean
//! norm, not its square over the root of the size. Departures from both:
//! - words come as vectors, so language gets the same LSTM as audio and vision instead of BERT;
//! - scores are centred at the middle of the task's range, so that any range has a positive and a
//!   negative half; the answer has the middle added back;
//! - emotions, which the source does not treat: every emotion is a label of -1 or +1 with a logit,
//!   a generated label and centres of its own.
//!
//! # Training
//! [`SelfMm::forward`] gives a batch's [`SelfMmPass`]; its losses are [`score_loss`] or
//! [`flag_loss`] on the fused answers, and [`unimodal_score_loss`] or [`unimodal_flag_loss`] per
//! modality. The learner keeps, for every training sample, labels `Y_s [N, K]` (first all `y`) and
//! features `F_s [N, D]` (first 0) per head, and per head [`Centres`] (first 0). After the
//! backward pass of a batch in epoch `n`:
//! 1. from epoch 2 on, per modality, [`deltas`], [`generated_labels`] and [`smoothed_labels`]
//!    replace the batch's rows of `Y_s`;
//! 2. the batch's features replace its rows of `F_s`, for all four heads;
//! 3. [`Centres::moved`] takes the centres anew over all samples.

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Modality, Task};
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor, nn::Path};

use crate::{
    answer::{Answer, Predictor},
    layers::{LstmEncoder, Mlp3},
    problems,
    shape::Shape,
};

/// Names of the heads, in the order of every array of four here: the fused one, then
/// [`Modality::ALL`].
pub const HEADS: [&str; 4] = ["fused", "language", "audio", "vision"];

/// Position of the fused head in [`HEADS`].
pub const FUSED: usize = 0;

/// Keeps a quotient of distances finite where the divisor is 0.
const DIVISION_FLOOR: f64 = 1e-8;

/// Sizes of a [`SelfMm`]. "Source" is `config/config_regression.py` of the authors' code, for
/// MOSI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfMmConfig {
    /// Width of the language LSTM, 1 to 8192 channels. Ours, in place of BERT: 128.
    pub language_hidden: i64,
    /// Width of the audio LSTM, 1 to 8192 channels. Source: 32.
    pub audio_hidden: i64,
    /// Width of the vision LSTM, 1 to 8192 channels. Source: 64.
    pub vision_hidden: i64,
    /// Size of the language vector that is fused, 1 to 8192 channels. Ours, in place of BERT's
    /// 768: 128.
    pub language_out: i64,
    /// Size of the audio vector that is fused, 1 to 8192 channels. Source: 16.
    pub audio_out: i64,
    /// Size of the vision vector that is fused, 1 to 8192 channels. Source: 32.
    pub vision_out: i64,
    /// Size of the fused head's feature, 1 to 8192 channels. Source: 128.
    pub fused_post: i64,
    /// Size of the language head's feature, 1 to 8192 channels. Source: 64.
    pub language_post: i64,
    /// Size of the audio head's feature, 1 to 8192 channels. Source: 16.
    pub audio_post: i64,
    /// Size of the vision head's feature, 1 to 8192 channels. Source: 32.
    pub vision_post: i64,
    /// Drop probability at the fused head's input, in [0, 1). Source: 0.1.
    pub fused_dropout: f64,
    /// Drop probability at the language head's input, in [0, 1). Source: 0.
    pub language_dropout: f64,
    /// Drop probability at the audio head's input, in [0, 1). Source: 0.1.
    pub audio_dropout: f64,
    /// Drop probability at the vision head's input, in [0, 1). Source: 0.1.
    pub vision_dropout: f64,
}

impl SelfMmConfig {
    /// Every value that no network can have, a line each; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        problems::size(&mut bad, "language_hidden", self.language_hidden);
        problems::size(&mut bad, "audio_hidden", self.audio_hidden);
        problems::size(&mut bad, "vision_hidden", self.vision_hidden);
        problems::size(&mut bad, "language_out", self.language_out);
        problems::size(&mut bad, "audio_out", self.audio_out);
        problems::size(&mut bad, "vision_out", self.vision_out);
        problems::size(&mut bad, "fused_post", self.fused_post);
        problems::size(&mut bad, "language_post", self.language_post);
        problems::size(&mut bad, "audio_post", self.audio_post);
        problems::size(&mut bad, "vision_post", self.vision_post);
        problems::dropout(&mut bad, "fused_dropout", self.fused_dropout);
        problems::dropout(&mut bad, "language_dropout", self.language_dropout);
        problems::dropout(&mut bad, "audio_dropout", self.audio_dropout);
        problems::dropout(&mut bad, "vision_dropout", self.vision_dropout);
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

    /// Sizes of the features `F_s`, in the order of [`HEADS`].
    pub fn feature_dims(&self) -> [i64; 4] {
        [self.fused_post, self.language_post, self.audio_post, self.vision_post]
    }

    fn dropouts(&self) -> [f64; 4] {
        [self.fused_dropout, self.language_dropout, self.audio_dropout, self.vision_dropout]
    }
}

/// The Self-MM network. It answers `K` values per head: one centred score, or a logit per emotion.
///
/// Variables: `<modality>.lstm`, `<modality>.out`, `head.<s>.linear{1,2,3}` with `s` of [`HEADS`].
#[derive(Debug)]
pub struct SelfMm {
    encoders: [LstmEncoder; 3],
    heads: [Mlp3; 4],
    task: Task,
}

/// One pass through all heads, in the order of [`HEADS`].
#[derive(Debug)]
pub struct SelfMmPass {
    /// `y_s [B, K]`: the score minus the task's neutral score, or a logit per emotion.
    pub answers: [Tensor; 4],
    /// `F_s [B, D_s]`: what the distances to the centres are taken in.
    pub features: [Tensor; 4],
}

impl SelfMm {
    /// Registers the variables under `vs`, the root of a store.
    ///
    /// # Errors
    /// When a value in `cfg` is impossible; all such values are listed.
    pub fn new(vs: &Path, cfg: &SelfMmConfig, shape: &Shape) -> Result<Self> {
        let bad = cfg.problems();
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        let encoders = Modality::ALL.map(|m| {
            let in_dim = shape.dims[m.index()];
            LstmEncoder::new(&(vs / m.name()), in_dim, cfg.hidden(m), cfg.out(m))
        });
        let [language, audio, vision] = Modality::ALL.map(|m| cfg.out(m));
        let in_dims = [language + audio + vision, language, audio, vision];
        let n_outputs = n_outputs(&shape.task);
        let heads = std::array::from_fn(|s| {
            let (hidden, dropout) = (cfg.feature_dims()[s], cfg.dropouts()[s]);
            Mlp3::new(&(vs / "head" / HEADS[s]), in_dims[s], hidden, n_outputs, dropout)
        });
        Ok(Self { encoders, heads, task: shape.task.clone() })
    }

    /// One pass through all heads. `train` switches dropout on.
    pub fn forward(&self, inputs: &Inputs, train: bool) -> SelfMmPass {
        let vectors = self.encode(inputs, train);
        let fused = Tensor::cat(&vectors, 1);
        let [language, audio, vision] = &vectors;
        let [m, l, a, v] = [(0, &fused), (1, language), (2, audio), (3, vision)]
            .map(|(s, z)| self.heads[s].forward(z, train));
        SelfMmPass { features: [m.0, l.0, a.0, v.0], answers: [m.1, l.1, a.1, v.1] }
    }

    /// The modalities' vectors, `[B, out_m]` each.
    fn encode(&self, inputs: &Inputs, train: bool) -> [Tensor; 3] {
        std::array::from_fn(|m| self.encoders[m].last(&inputs.features[m], &inputs.valid, train))
    }
}

impl Predictor for SelfMm {
    /// The fused head's answer alone.
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        let fused = Tensor::cat(&self.encode(inputs, false), 1); // [B, sum of out_m]
        let (_, answer) = self.heads[FUSED].forward(&fused, false);
        match self.task.neutral() {
            Some(neutral) => Answer::Score(answer.squeeze_dim(1) + f64::from(neutral)),
            None => Answer::Flags(answer.sigmoid()),
        }
    }
}

/// Number of answers `K` per head: 1 for a score, else one per emotion.
pub fn n_outputs(task: &Task) -> i64 {
    match task {
        Task::Sentiment { .. } => 1,
        Task::Emotion { classes } => classes.len() as i64,
    }
}

/// `H`: labels lie in [-H, H], half the range of a centred score, 1 for emotions.
pub fn half_width(task: &Task) -> f64 {
    match task {
        Task::Sentiment { lo, hi } => (hi - lo) as f64 / 2.0,
        Task::Emotion { .. } => 1.0,
    }
}

/// Where one head's features lie on average, per answer `k`.
#[derive(Debug)]
pub struct Centres {
    /// `[K, D]`: mean feature of the samples whose label is above 0.
    pub positive: Tensor,
    /// `[K, D]`: mean feature of the samples whose label is below 0.
    pub negative: Tensor,
}

impl Centres {
    /// The centres over all samples. A sign without a sample keeps its centre.
    ///
    /// - `features`: `F_s [N, D]`; `labels`: the same head's `Y_s [N, K]`
    #[must_use]
    pub fn moved(&self, features: &Tensor, labels: &Tensor) -> Self {
        let features = features.detach();
        let mean = |members: Tensor, kept: &Tensor| {
            let members = members.to_kind(Kind::Float).transpose(0, 1); // [K, N]
            let count = members.sum_dim_intlist([1i64].as_slice(), true, Kind::Float); // [K, 1]
            let mean = members.matmul(&features) / count.clamp_min(1.0); // [K, D]
            mean.where_self(&count.gt(0.0), kept)
        };
        Self {
            positive: mean(labels.gt(0.0), &self.positive),
            negative: mean(labels.lt(0.0), &self.negative),
        }
    }
}

/// How much nearer features lie to the positive than to the negative centre, relative to the
/// former: `(D- - D+) / (D+ + 1e-8)` with Euclidean distances, `[B, K]`, without gradient.
///
/// - `features`: `F_s [B, D]` of this batch
pub fn deltas(features: &Tensor, centres: &Centres) -> Tensor {
    let features = features.detach().unsqueeze(1); // [B, 1, D]
    let distance = |centre: &Tensor| {
        (&features - centre).square().sum_dim_intlist([2i64].as_slice(), false, Kind::Float).sqrt()
    };
    let positive = distance(&centres.positive);
    (distance(&centres.negative) - &positive) / (positive + DIVISION_FLOOR)
}

/// A modality's new labels, `[B, K]` in [-H, H]: the label moved by how the modality's `delta_s`
/// differs from the fused head's `delta_m`, as the mean of a ratio and a difference,
/// `1/2 (delta_s / delta_m) y + 1/2 (y + delta_s - delta_m)`.
///
/// - `label`: `y [B, K]`, centred; `delta`, `fused_delta`: `[B, K]` of [`deltas`]
///
/// The ratio explodes where `delta_m` is near 0; the clamp to the range is what tames it.
pub fn generated_labels(
    label: &Tensor,
    delta: &Tensor,
    fused_delta: &Tensor,
    half_width: f64,
) -> Tensor {
    let ratio = delta / (fused_delta + DIVISION_FLOOR);
    ((ratio * label + label + delta - fused_delta) * 0.5).clamp(-half_width, half_width)
}

/// `(n - 1) / (n + 1) Y_s + 2 / (n + 1) y_new` in epoch `n >= 2`, counted from 1: every epoch
/// weighs twice what a plain mean would give it.
///
/// - `labels`, `generated`: `[B, K]`
pub fn smoothed_labels(labels: &Tensor, generated: &Tensor, epoch: u32) -> Tensor {
    let n = f64::from(epoch);
    labels * ((n - 1.0) / (n + 1.0)) + generated * (2.0 / (n + 1.0))
}

/// Loss of the fused head on a sentiment task: mean absolute error, in units of the score.
///
/// - `answer`, `label`: `[B, 1]`, centred
pub fn score_loss(answer: &Tensor, label: &Tensor) -> Tensor {
    (answer - label).abs().mean(Kind::Float)
}

/// Loss of the fused head on an emotion task: binary cross-entropy, mean over samples and
/// emotions.
///
/// - `logits`: `[B, C]`; `label`: `[B, C]`, -1 or +1
pub fn flag_loss(logits: &Tensor, label: &Tensor) -> Tensor {
    flag_cross_entropy(logits, label).mean(Kind::Float)
}

/// Loss of a uni-modal head on a sentiment task: absolute error weighted by how far the generated
/// label departs from the true one, mean over samples. Exactly 0 where none departs.
///
/// - `answer`, `own`, `label`: `[B, 1]`, centred: `y_s`, `Y_s` and the true label
pub fn unimodal_score_loss(answer: &Tensor, own: &Tensor, label: &Tensor) -> Tensor {
    (departure(own, label) * (answer - own).abs()).mean(Kind::Float)
}

/// Loss of a uni-modal head on an emotion task: binary cross-entropy against `(Y_s + 1) / 2`, with
/// the same weights, mean over samples and emotions.
///
/// - `logits`: `[B, C]`; `own`: `[B, C]` in [-1, 1]; `label`: `[B, C]`, -1 or +1
pub fn unimodal_flag_loss(logits: &Tensor, own: &Tensor, label: &Tensor) -> Tensor {
    (departure(own, label) * flag_cross_entropy(logits, own)).mean(Kind::Float)
}

/// `tanh |Y_s - Y_m|`.
fn departure(own: &Tensor, label: &Tensor) -> Tensor {
    (own - label).abs().tanh()
}

/// Per element, against labels in [-1, 1].
fn flag_cross_entropy(logits: &Tensor, label: &Tensor) -> Tensor {
    let none = None::<Tensor>;
    let target = (label + 1.0) / 2.0;
    logits.binary_cross_entropy_with_logits(&target, none.as_ref(), None, Reduction::None)
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{
        alone, assert_close, assert_gradients, hide, inputs, n_parameters, names, wave,
    };

    const DIMS: [i64; 3] = [6, 4, 5];

    fn mosi() -> SelfMmConfig {
        SelfMmConfig {
            language_hidden: 128,
            audio_hidden: 32,
            vision_hidden: 64,
            language_out: 128,
            audio_out: 16,
            vision_out: 32,
            fused_post: 128,
            language_post: 64,
            audio_post: 16,
            vision_post: 32,
            fused_dropout: 0.1,
            language_dropout: 0.0,
            audio_dropout: 0.1,
            vision_dropout: 0.1,
        }
    }

    fn shape(task: Task, dims: [i64; 3]) -> Shape {
        Shape { task, steps: 50, dims }
    }

    fn sentiment(lo: i64, hi: i64) -> Task {
        Task::Sentiment { lo, hi }
    }

    fn emotions() -> Task {
        Task::Emotion { classes: ["neutral", "happy", "sad", "angry"].map(String::from).to_vec() }
    }

    fn network(task: Task) -> (VarStore, SelfMm) {
        let vs = VarStore::new(Device::Cpu);
        let model = SelfMm::new(&vs.root(), &mosi(), &shape(task, DIMS)).unwrap();
        (vs, model)
    }

    fn values(answer: Answer) -> Tensor {
        match answer {
            Answer::Score(x) | Answer::Flags(x) | Answer::Classes(x) => x,
        }
    }

    fn column(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).unsqueeze(1)
    }

    #[test]
    fn it_has_the_published_size_and_names() {
        let vs = VarStore::new(Device::Cpu);
        let shape = shape(sentiment(-3, 3), [300, 74, 1024]);
        let _model = SelfMm::new(&vs.root(), &mosi(), &shape).unwrap();
        assert_eq!(n_parameters(&vs), 586_628);
        let names = names(&vs);
        let mut want = Vec::new();
        for m in ["language", "audio", "vision"] {
            let lstm = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"];
            want.extend(lstm.map(|v| format!("{m}.lstm.{v}")));
            want.extend(["weight", "bias"].map(|v| format!("{m}.out.{v}")));
        }
        for s in HEADS {
            for linear in 1..=3 {
                let layer = format!("head.{s}.linear{linear}");
                want.extend(["weight", "bias"].map(|v| format!("{layer}.{v}")));
            }
        }
        want.sort();
        assert_eq!(names, want);
    }

    #[test]
    fn every_variable_gets_a_gradient() {
        for task in [sentiment(-3, 3), emotions()] {
            let (vs, model) = network(task);
            let pass = model.forward(&inputs(&[3, 5, 1, 4, 5, 2, 5, 5], 5, DIMS), true);
            let loss = pass.answers.iter().map(|y| y.square().sum(Kind::Float));
            assert_gradients(&vs, &loss.sum());
        }
    }

    #[test]
    fn features_are_what_the_head_rectifies() {
        let (_vs, model) = network(emotions());
        let pass = model.forward(&inputs(&[3, 5], 5, DIMS), false);
        for (s, name) in HEADS.into_iter().enumerate() {
            assert_eq!(pass.features[s].size(), [2, mosi().feature_dims()[s]], "{name}");
            assert_eq!(pass.answers[s].size(), [2, 4], "{name}");
            assert!(pass.features[s].min().double_value(&[]) >= 0.0, "{name}");
        }
    }

    #[test]
    fn neither_batch_mates_nor_padding_change_an_answer() {
        for task in [sentiment(-3, 3), emotions()] {
            let (_vs, model) = network(task);
            let lengths = [3, 7, 1];
            let [batch, padded] = [7, 12].map(|steps| inputs(&lengths, steps, DIMS));
            for inputs in [&batch, &padded] {
                hide(inputs, 0, 1);
            }
            let together = values(model.predict(&batch));
            assert_close(&values(model.predict(&padded)), &together, 1e-6);
            for row in 0..3 {
                let single = values(model.predict(&alone(&batch, row)));
                assert_close(&single, &together.narrow(0, row, 1), 1e-6);
            }
        }
    }

    #[test]
    fn answers_have_the_form_of_the_task() {
        let (_vs, model) = network(emotions());
        let batch = inputs(&[3, 5], 5, DIMS);
        let Answer::Flags(flags) = model.predict(&batch) else { panic!("emotions want flags") };
        let logits = &model.forward(&batch, false).answers[FUSED];
        assert_close(&flags, &logits.sigmoid(), 1e-6);
        let (_vs, model) = network(sentiment(1, 5));
        let Answer::Score(score) = model.predict(&batch) else { panic!("sentiment wants scores") };
        let centred = &model.forward(&batch, false).answers[FUSED];
        assert_close(&score, &(centred.squeeze_dim(1) + 3.0), 1e-6);
        assert!((half_width(&sentiment(1, 5)) - 2.0).abs() < 1e-9);
    }

    /// Features on a line: `D_m+ = 2, D_m- = 3, D_s+ = 2.5, D_s- = 2.75`, y = 1.2.
    #[test]
    fn a_label_by_hand() {
        let at = |positive: f32, negative: f32| Centres {
            positive: column(&[positive]),
            negative: column(&[negative]),
        };
        let origin = column(&[0.0]);
        let fused_delta = deltas(&origin, &at(2.0, -3.0));
        let delta = deltas(&origin, &at(2.5, -2.75));
        assert_close(&fused_delta, &column(&[0.5]), 1e-6);
        assert_close(&delta, &column(&[0.1]), 1e-6);
        let label = column(&[1.2]);
        let new = generated_labels(&label, &delta, &fused_delta, 3.0);
        assert_close(&new, &column(&[0.52]), 1e-6);
        let own = smoothed_labels(&label, &new, 2);
        assert_close(&own, &column(&[0.746_667]), 1e-6);
        assert_close(&smoothed_labels(&label, &new, 3), &column(&[0.86]), 1e-6);
        assert_close(&departure(&own, &label), &column(&[0.4246]), 1e-4);
    }

    #[test]
    fn labels_stay_in_their_range_where_the_ratio_explodes() {
        let label = column(&[1.2, -1.2, 0.0, 1.2]);
        let delta = column(&[0.1, 0.1, 0.1, 0.1]);
        let fused_delta = column(&[0.0, 0.0, 0.0, 1e-6]);
        let new = generated_labels(&label, &delta, &fused_delta, 3.0);
        assert_close(&new, &column(&[3.0, -3.0, 0.05, 3.0]), 1e-6);
    }

    #[test]
    fn a_modality_that_agrees_costs_nothing() {
        let label = column(&[1.2, -0.4]);
        let answer = wave(&[2, 1]).set_requires_grad(true);
        let loss = unimodal_score_loss(&answer, &label, &label);
        loss.backward();
        assert_eq!(loss.double_value(&[]).to_bits(), 0);
        assert!(!bool::try_from(answer.grad().any()).unwrap(), "{}", answer.grad());
        let flags = column(&[1.0, -1.0]);
        assert_eq!(unimodal_flag_loss(&answer, &flags, &flags).double_value(&[]).to_bits(), 0);
    }

    /// One sample: weight tanh(0.5) = 0.462117; |0.5 - 1.5| = 1; log(1 + e^-0.5) = 0.474077 for
    /// the label 1, log(1 + e^0.5) = 0.974077 for -1, their mean for the generated label 0.
    #[test]
    fn losses_by_hand() {
        let close = |loss: Tensor, want: f64| {
            let got = loss.double_value(&[]);
            assert!((got - want).abs() < 1e-5, "{got} for {want}");
        };
        let answer = column(&[0.5]);
        close(score_loss(&answer, &column(&[1.5])), 1.0);
        close(unimodal_score_loss(&answer, &column(&[1.5]), &column(&[2.0])), 0.462_117);
        close(flag_loss(&answer, &column(&[1.0])), 0.474_077);
        close(flag_loss(&answer, &column(&[-1.0])), 0.974_077);
        let weight = 1f64.tanh();
        close(
            unimodal_flag_loss(&answer, &column(&[0.0]), &column(&[1.0])),
            weight * (0.474_077 + 0.974_077) / 2.0,
        );
    }

    #[test]
    fn centres_are_means_by_sign_and_a_sign_without_samples_keeps_its_own() {
        let features = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 50.0, 60.0]).view([3, 2]);
        // Two answers: the first has both signs and a neutral sample, the second no negative one.
        let labels = Tensor::from_slice(&[1f32, 1.0, -1.0, 2.0, 0.0, 0.5]).view([3, 2]);
        let before = Centres {
            positive: Tensor::zeros([2, 2], (Kind::Float, Device::Cpu)),
            negative: Tensor::from_slice(&[0f32, 0.0, 7.0, 8.0]).view([2, 2]),
        };
        let after = before.moved(&features, &labels);
        let positive = Tensor::from_slice(&[1f32, 2.0, 18.0, 22.0]).view([2, 2]);
        let negative = Tensor::from_slice(&[3f32, 4.0, 7.0, 8.0]).view([2, 2]);
        assert_close(&after.positive, &positive, 1e-6);
        assert_close(&after.negative, &negative, 1e-6);
    }

    #[test]
    fn data_of_one_sign_never_become_nan() {
        let zeros = || Tensor::zeros([1, 3], (Kind::Float, Device::Cpu));
        let features = wave(&[4, 3]);
        let label = column(&[1.0, 2.0, 0.5, 3.0]);
        let mut own = label.copy();
        let mut centres = Centres { positive: zeros(), negative: zeros() };
        for epoch in 2..6 {
            centres = centres.moved(&features, &own);
            let delta = deltas(&features, &centres);
            let fused_delta = deltas(&(&features * 0.5), &centres);
            let new = generated_labels(&label, &delta, &fused_delta, 3.0);
            own = smoothed_labels(&own, &new, epoch);
            assert!(bool::try_from(own.isfinite().all()).unwrap(), "epoch {epoch}: {own}");
        }
    }

    #[test]
    fn impossible_values_are_all_listed() {
        assert_eq!(mosi().problems(), [""; 0]);
        let cfg = SelfMmConfig { audio_hidden: 0, fused_post: 9000, audio_dropout: 1.0, ..mosi() };
        let vs = VarStore::new(Device::Cpu);
        let error = SelfMm::new(&vs.root(), &cfg, &shape(emotions(), DIMS)).unwrap_err();
        let want = "model.audio_hidden = 0: must lie between 1 and 8192\n  \
                    model.fused_post = 9000: must lie between 1 and 8192\n  \
                    model.audio_dropout = 1: must lie in [0, 1)";
        assert_eq!(error.to_string(), want);
    }
}
