//! MCTN, a baseline: a network learns to translate one modality into another and back, and a
//! representation that can do that is what it answers from. To answer, it needs its source alone.
//!
//! Pham et al., "Found in Translation: Learning Robust Joint Representations by Cyclic Translations
//! Between Modalities" (AAAI 2019); code github.com/hainow/MCTN.
//!
//! A network with the source `S` and the targets `P` and `Q`:
//! 1. a bidirectional LSTM `E1`, directions summed, reads `S`: `J1`;
//! 2. an attention decoder `D1` makes `P^` of `J1`, and of `E1(P^)` it makes `S^`, the cycle;
//! 3. a second LSTM `E2` reads `J1`: `J2`; a second decoder `D2` makes `Q^` of it;
//! 4. an LSTM over `J2`, pooled by attention, and a linear layer answer.
//!
//! The paper has one such network, of language to vision and audio. Here there are up to three, one
//! per source, of which each is asked about the samples that have something of its source:
//!
//! | source | `P` | `Q` |
//! | --- | --- | --- |
//! | language | vision | audio |
//! | audio | language | vision |
//! | vision | language | audio |
//!
//! Their answers (the score, or the probability of every emotion) are averaged with the weights
//! `softmax(-10 quality)`, `quality` being each network's error on validation data under the
//! condition that has nothing but its source ([`Mctn::set_quality`]). A sample that has something of
//! no source gets the weighted answer to as many zeros as it has steps: with `sources =
//! ["language"]`, the paper's network, that is what it answers to audio and vision whatever they are.
//!
//! # Missing data
//! A missing frame of the source enters as zeros. In training a network skips the samples that show
//! nothing of its source, and learns to translate into the **complete** targets of the samples that
//! truly have them: a target is never read to answer. With one step (`T = 1`) attention has one step
//! to look at, and everything else is as above.
//!
//! # Departures from the source
//! - standard LSTM cells in the decoders, scores `w . tanh(U J_j + V h + b)` and outputs as they
//!   are; the source's cell attends alike in every step, and its outputs, within [-1, 1], cannot
//!   reach standardised features. [`MctnCell::Official`] is the source's, with biased outputs;
//! - LSTMs run backwards from each sample's own end, attention and pooling read its own steps; in
//!   the source padding is read like data. Errors are over valid steps and the target's own
//!   channels: the source fills all modalities up to one width, `D`, with zeros and scores those too.
//!   `E1` reads the filled-up `S` and `P^`, as in the source;
//! - scores are counted from the middle of the task's range; two logits per emotion.
//!
//! # Speed
//! Its loops over time are what a training step costs, so as little as possible is done in them,
//! and no two that could be one: `E1(S)`; `D1`; `E1(P^)` beside `E2`; `D1` on the cycle beside `D2`;
//! the answering LSTM, each for all networks at once.

mod config;
mod decoder;
mod loss;
mod regressor;

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Modality, Task};
use tch::{Kind, Tensor, nn::Path};

pub use config::{MctnCell, MctnConfig};
pub use loss::{task_loss, translation_error};

use self::{
    decoder::{Decoder, decode},
    regressor::Regressor,
};
use crate::{
    answer::{Answer, Predictor},
    layers::{BiRnn, Turn},
    shape::Shape,
};

/// How much sharper than the errors the weights of the networks are.
const SHARPNESS: f64 = 10.0;

/// Up to three translating networks, which answer together.
///
/// Variables: `<source>.{encode1,decode1,encode2,decode2,regress}`, and the buffer `quality [3]`.
#[derive(Debug)]
pub struct Mctn {
    nets: Vec<Net>,  // in the order of Modality::ALL
    quality: Tensor, // [3]
    dims: [i64; 3],
    cell: MctnCell,
    task: Task,
}

/// The network of one source.
#[derive(Debug)]
struct Net {
    source: Modality,
    encode1: BiRnn,   // D -> h
    decode1: Decoder, // h -> D
    encode2: BiRnn,   // h -> h
    decode2: Decoder, // h -> D
    regress: Regressor,
}

/// One pass through all networks.
#[derive(Debug)]
pub struct MctnPass {
    /// What each network translated, in the order of their sources.
    pub translations: Vec<Translations>,
    /// What each answers from, `[N, B, h]`.
    pub pooled: Tensor,
    /// Scores `[N, B]` in units of the labels, or two logits per emotion `[N, B, C, 2]`, "no" first.
    pub outputs: Tensor,
}

/// What a network made of its source; frames beyond a sample's length are meaningless.
#[derive(Debug)]
pub struct Translations {
    /// `S`.
    pub source: Modality,
    /// `P` and `Q`.
    pub targets: [Modality; 2],
    /// `J1` and `J2`, `[B, T, h]`.
    pub joint: [Tensor; 2],
    /// `P^ [B, T, d_P]`.
    pub first: Tensor,
    /// `S^ [B, T, d_S]`, of `P^`.
    pub cycle: Tensor,
    /// `Q^ [B, T, d_Q]`.
    pub second: Tensor,
}

/// `P` and `Q` of the network with this source.
pub fn targets(source: Modality) -> [Modality; 2] {
    match source {
        Modality::Language => [Modality::Vision, Modality::Audio],
        Modality::Audio => [Modality::Language, Modality::Vision],
        Modality::Vision => [Modality::Language, Modality::Audio],
    }
}

impl Mctn {
    /// Registers the variables under `vs`, the root of a store.
    ///
    /// # Errors
    /// When a value in `cfg` is impossible; all such values are listed.
    pub fn new(vs: &Path, cfg: &MctnConfig, shape: &Shape) -> Result<Self> {
        let bad = cfg.problems();
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        let (h, cell) = (cfg.hidden_dim, cfg.cell);
        let [language, audio, vision] = shape.dims;
        let width = language.max(audio).max(vision); // D
        let n_outputs = match &shape.task {
            Task::Sentiment { .. } => 1,
            Task::Emotion { classes } => 2 * classes.len() as i64,
        };
        let net = |source: Modality| {
            let vs = vs / source.name();
            Net {
                source,
                encode1: BiRnn::lstm(&(&vs / "encode1"), 0, width, h),
                decode1: Decoder::new(&(&vs / "decode1"), h, width, cell),
                encode2: BiRnn::lstm(&(&vs / "encode2"), 0, h, h),
                decode2: Decoder::new(&(&vs / "decode2"), h, width, cell),
                regress: Regressor::new(&(&vs / "regress"), h, n_outputs),
            }
        };
        Ok(Self {
            nets: cfg.ordered().into_iter().map(net).collect(),
            quality: vs.zeros_no_train("quality", &[3]),
            dims: shape.dims,
            cell,
            task: shape.task.clone(),
        })
    }

    /// The sources, in the order of every array of a pass.
    pub fn sources(&self) -> Vec<Modality> {
        self.nets.iter().map(|net| net.source).collect()
    }

    /// One pass with all translations, over what the samples show.
    pub fn forward(&self, inputs: &Inputs) -> MctnPass {
        let (turn, beyond) = (Turn::new(&inputs.valid), inputs.valid.logical_not());
        let [decode1, decode2] = [self.each(|net| &net.decode1), self.each(|net| &net.decode2)];
        let joint1 = self.read_sources(inputs, &turn);
        let states = decode(&decode1, &joint1, &beyond).unbind(0); // [B, T, h] each
        let nets = self.nets.iter().zip(&states);
        let first: Vec<_> =
            nets.map(|(net, states)| net.decode1.frames(states, self.dim(net.first()))).collect();

        let again = self.nets.iter().enumerate().map(|(i, net)| match self.cell {
            MctnCell::Standard => {
                let [weight, bias] = net.decode1.channels(self.dim(net.first()));
                net.encode1.read_through(&states[i], &weight, &bias, &turn)
            }
            MctnCell::Official => net.encode1.read(&first[i], &turn),
        });
        let further = self.nets.iter().zip(joint1.unbind(0));
        let read = again.chain(further.map(|(net, joint)| net.encode2.read(&joint, &turn)));
        let encoders = [self.each(|net| &net.encode1), self.each(|net| &net.encode2)].concat();
        let joint = summed(BiRnn::run_on(&encoders, &read.collect::<Vec<_>>(), &turn));
        let n = self.nets.len() as i64;
        let joint2 = joint.narrow(0, n, n); // what is before it is E1(P^)

        let states = decode(&[decode1, decode2].concat(), &joint, &beyond);
        let nets = self.nets.iter().zip(first).zip(0..);
        let translations = nets.map(|((net, first), i)| Translations {
            source: net.source,
            targets: targets(net.source),
            joint: [joint1.get(i), joint2.get(i)],
            first,
            cycle: net.decode1.frames(&states.get(i), self.dim(net.source)),
            second: net.decode2.frames(&states.get(n + i), self.dim(net.second())),
        });
        let translations = translations.collect();
        let (pooled, outputs) = self.regress(&joint2, &beyond);
        MctnPass { translations, pooled, outputs }
    }

    /// The sum of the squares of the last layers' matrices, a scalar.
    pub fn decay(&self) -> Tensor {
        let squares = self.nets.iter().map(|net| net.regress.last().square().sum(Kind::Float));
        squares.reduce(|sum, square| sum + square).expect("there is a network")
    }

    /// Sets the errors by which the networks' answers are weighted, in the order of
    /// [`Modality::ALL`]. A network without one counts as the worst that has one.
    pub fn set_quality(&mut self, errors: [Option<f64>; 3]) {
        let worst = errors.into_iter().flatten().fold(0.0, f64::max);
        let errors = errors.map(|error| error.unwrap_or(worst) as f32);
        let _guard = tch::no_grad_guard();
        self.quality.copy_(&Tensor::from_slice(&errors));
    }

    /// About how many numbers [`Mctn::forward`] keeps per sample for the backward pass: its
    /// attention's hidden layer, in every step over every step.
    pub fn floats_to_train(&self, steps: i64) -> f64 {
        let h = self.nets[0].encode2.hidden();
        (3 * self.nets.len() as i64 * h) as f64 * (steps * steps) as f64
    }

    fn dim(&self, modality: Modality) -> i64 {
        self.dims[modality.index()]
    }

    fn each<'a, T>(&'a self, part: impl Fn(&'a Net) -> &'a T) -> Vec<&'a T> {
        self.nets.iter().map(part).collect()
    }

    /// `J1 [N, B, T, h]`.
    fn read_sources(&self, inputs: &Inputs, turn: &Turn) -> Tensor {
        let source = |net: &Net| net.encode1.read(&inputs.features[net.source.index()], turn);
        let read: Vec<_> = self.nets.iter().map(source).collect();
        summed(BiRnn::run_on(&self.each(|net| &net.encode1), &read, turn))
    }

    /// `J2 [N, B, T, h]` of `J1`.
    fn read_further(&self, first: &Tensor, turn: &Turn) -> Tensor {
        let further = self.nets.iter().zip(first.unbind(0));
        let read: Vec<_> = further.map(|(net, joint)| net.encode2.read(&joint, turn)).collect();
        summed(BiRnn::run_on(&self.each(|net| &net.encode2), &read, turn))
    }

    /// What is pooled of `J2`, `[N, B, h]`, and scores `[N, B]` or logits `[N, B, C, 2]`.
    fn regress(&self, joint: &Tensor, beyond: &Tensor) -> (Tensor, Tensor) {
        let (pooled, outputs) = Regressor::run(&self.each(|net| &net.regress), joint, beyond); // [N, B, K]
        let outputs = match self.task.neutral() {
            Some(neutral) => outputs.squeeze_dim(2) + f64::from(neutral),
            None => {
                let (n, b, k) = outputs.size3().expect("answers are [N, B, K]");
                outputs.view([n, b, k / 2, 2])
            }
        };
        (pooled, outputs)
    }

    /// The share of every network in every answer, `[N, B]`.
    fn shares(&self, inputs: &Inputs) -> Tensor {
        let places: Vec<_> = self.nets.iter().map(|net| net.source.index() as i64).collect();
        let places = Tensor::from_slice(&places).to_device(self.quality.device());
        let seen = inputs.available().index_select(1, &places).transpose(0, 1); // [N, B]
        let asked = seen.logical_or(&seen.any_dim(0, true).logical_not());
        let quality = self.quality.index_select(0, &places).unsqueeze(1) * -SHARPNESS;
        let weights =
            quality.expand_as(&asked).masked_fill(&asked.logical_not(), f64::NEG_INFINITY);
        weights.softmax(0, Kind::Float)
    }
}

impl Net {
    fn first(&self) -> Modality {
        targets(self.source)[0]
    }

    fn second(&self) -> Modality {
        targets(self.source)[1]
    }
}

/// The sums of both directions, `[N, B, T, h]`.
fn summed(outs: Vec<[Tensor; 2]>) -> Tensor {
    let sums: Vec<_> = outs.into_iter().map(|[forward, backward]| forward + backward).collect();
    Tensor::stack(&sums, 0)
}

impl Predictor for Mctn {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        let (turn, beyond) = (Turn::new(&inputs.valid), inputs.valid.logical_not());
        let joint = self.read_further(&self.read_sources(inputs, &turn), &turn);
        let (_, outputs) = self.regress(&joint, &beyond);
        let shares = self.shares(inputs); // [N, B]
        match self.task {
            Task::Sentiment { .. } => {
                Answer::Score((outputs * shares).sum_dim_intlist(0, false, Kind::Float))
            }
            Task::Emotion { .. } => {
                let yes = outputs.softmax(-1, Kind::Float).select(3, 1); // [N, B, C]
                Answer::Flags((yes * shares.unsqueeze(2)).sum_dim_intlist(0, false, Kind::Float))
            }
        }
    }
}

#[cfg(test)]
mod tests;
