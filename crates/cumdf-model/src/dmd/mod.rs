//! DMD, a baseline: each modality is decoupled into a shared ("homogeneous") and a private
//! ("heterogeneous") part; in both, modalities teach each other through learned edges.
//!
//! Li, Wang, Cui, "Decoupled Multimodal Distilling for Emotion Recognition" (CVPR 2023); code
//! github.com/mdswyz/DMD. Trained on complete data; a missing frame enters as zeros.
//!
//! [`Dmd`] is what predicts: convolutions decouple ([`Decoupled`]), Transformers (`mult.rs`) encode
//! ([`Encoded`]), a gated block answers. [`Auxiliary`] (`auxiliary.rs`) has the further heads that
//! only losses read, with the two distillation units (`distil.rs`); the losses of the decoupling are
//! in [`margin`](mod@margin).
//!
//! Where paper and code differ this follows the code: `sigmoid(W h)` replaces the vector that it
//! looks at instead of gating it, and triplets of the margin loss are of any modality. Departures
//! from the code:
//! - words come as vectors straight into the convolution, as in its GloVe path;
//! - the step that stands for a sample is the last whose window lies inside it,
//!   `max(len - k_m, 0)`, not the last of the padding ([`LastStep`]). The causal mask then makes
//!   the steps beyond the longest sample of a batch useless, and Transformers do not run over them;
//! - the cosine of `L_ort` is over channels, the paper's meaning; the code's shapes make it over
//!   the batch in old versions of PyTorch and an error in new ones;
//! - what reaches no loss is left out: three projections of the private features, and the biases of
//!   the distillation units (`distil.rs`);
//! - emotions, which the source does not treat: two logits each, and for the margin Hamming's
//!   distance of labels;
//! - scores are centred at the middle of the task's range; the answer has the middle added back.
//!
//! Convolutions have no padding and heads read flattened sequences, so that sizes depend on the
//! data's steps `T`: inputs are filled up with zeros or cut to `T`, and a kernel wider than `T` is cut
//! to it. A sequence of one step thus works, with `T'_m = 1`.
//!
//! A modality that is missing gives zeros (the convolutions have no bias), no positions, and after
//! that what biases make of it; the cosines are guarded.

pub mod auxiliary;
mod config;
mod distil;
pub mod margin;
mod mult;

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Modality, Task};
use tch::{Kind, Tensor, nn::Path};

use self::mult::{MultConfig, MultEncoders};
pub use self::{
    auxiliary::{Auxiliary, AuxiliaryPass},
    config::{DmdConfig, LastStep},
    distil::{GdUnit, Vertices},
};
use crate::{
    answer::{Answer, Predictor},
    layers::{Linear, fan_in_uniform, with_steps},
    self_mm::n_outputs,
    shape::Shape,
};

/// The order of the source's vertices and concatenations, which is not that of [`Modality::ALL`].
pub const ORDER: [Modality; 3] = [Modality::Language, Modality::Vision, Modality::Audio];

/// Which modalities each private part is enriched by, in this order, for each of
/// [`Modality::ALL`].
const SOURCES: [[Modality; 2]; 3] = [
    [Modality::Audio, Modality::Vision],
    [Modality::Language, Modality::Vision],
    [Modality::Language, Modality::Audio],
];

/// The network. It answers `K` values: one centred score, or two logits per emotion.
///
/// Variables: `project.<m>.weight`, `private.<m>.weight`, `shared.weight`, the Transformers
/// `common.<m>`, `cross.<target>_<source>` and `memory.<m>`, `gate.{<m>,common}` and
/// `fusion.{linear1,linear2,out}`.
#[derive(Debug)]
pub struct Dmd {
    project: [Tensor; 3], // [d, d_m, k_m]
    private: [Pointwise; 3],
    shared: Pointwise,
    common: MultEncoders, // by modality
    cross: MultEncoders,  // by target and its sources
    memory: MultEncoders, // by modality, of width 2d
    gates: [Linear; 4],   // in ORDER, then of what is common
    fusion: ResidualHead, // 9d -> K
    language_dropout: f64,
    last_step: LastStep,
    kernels: [i64; 3],
    steps: i64, // T
    task: Task,
}

/// The features of a batch, per modality `[B, T'_m, d]` with `T'_m = T - k_m + 1`.
#[derive(Debug)]
pub struct Decoupled {
    /// `x'_m`, before the decoupling.
    pub projected: [Tensor; 3],
    /// `s_m`.
    pub private: [Tensor; 3],
    /// `c_m`.
    pub shared: [Tensor; 3],
}

/// What Transformers make of them, at the step that stands for each sample.
#[derive(Debug)]
pub struct Encoded {
    /// What each private part is after reading the other two, the outputs of `cross` that `memory` reads:
    /// `[B, T''_m, 2d]`, the steps that are needed of `T'_m`.
    pub crossed: [Tensor; 3],
    /// `h_m [B, 2d]` of the private part, by modality.
    pub private: [Tensor; 3],
    /// `[h^c_l; h^c_v; h^c_a] [B, 3d]` of the shared parts.
    pub common: Tensor,
}

/// One pass through the network.
#[derive(Debug)]
pub struct DmdPass {
    /// Features per step.
    pub decoupled: Decoupled,
    /// Vectors per sample.
    pub encoded: Encoded,
    /// `F [B, 9d]`: what stands for the vectors in the answer.
    pub gated: Tensor,
    /// `[B, K]`: the centred score, or logits, "no" before "yes" for each emotion.
    pub output: Tensor,
}

impl Dmd {
    /// Registers the variables under `vs`, the root of a store.
    ///
    /// # Errors
    /// When a value in `cfg` is impossible; all such values are listed.
    pub fn new(vs: &Path, cfg: &DmdConfig, shape: &Shape) -> Result<Self> {
        let bad = cfg.problems();
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        let (d, steps) = (cfg.dim, shape.steps);
        let kernels = cfg.kernels(steps);
        let project = Modality::ALL.map(|m| {
            let (width, k) = (shape.dims[m.index()], kernels[m.index()]);
            let init = fan_in_uniform(width * k);
            (vs / "project" / m.name()).var("weight", &[d, width, k], init)
        });
        let private = Modality::ALL.map(|m| Pointwise::new(&(vs / "private" / m.name()), d, d));
        let shared = Pointwise::new(&(vs / "shared"), d, d);
        let encoders = |paths: &[Path], dim: i64, attention_dropouts: Vec<f64>| {
            let cfg = MultConfig {
                dim,
                n_heads: cfg.n_heads,
                n_layers: cfg.n_layers,
                attention_dropouts,
                relu_dropout: cfg.relu_dropout,
                residual_dropout: cfg.residual_dropout,
                embedding_dropout: cfg.embedding_dropout,
            };
            MultEncoders::new(paths, cfg, steps)
        };
        let common = encoders(
            &Modality::ALL.map(|m| vs / "common" / m.name()),
            d,
            Modality::ALL.map(|m| cfg.attention_dropout(m)).to_vec(),
        );
        let (paths, dropouts): (Vec<_>, Vec<_>) = crossings()
            .map(|(m, n)| (vs / "cross" / format!("{m}_{n}"), cfg.attention_dropout(n)))
            .unzip();
        let cross = encoders(&paths, d, dropouts);
        let memory = encoders(
            &Modality::ALL.map(|m| vs / "memory" / m.name()),
            2 * d,
            vec![cfg.language_attention_dropout; 3],
        );
        let gate = |name: &str, dim| Linear::new(&(vs / "gate" / name), dim, dim);
        let [l, v, a] = ORDER.map(|m| gate(m.name(), 2 * d));
        let gates = [l, v, a, gate("common", 3 * d)];
        let k = n_answers(&shape.task);
        let fusion = ResidualHead::new(&(vs / "fusion"), 9 * d, 9 * d, k, cfg.output_dropout);
        Ok(Self {
            project,
            private,
            shared,
            common,
            cross,
            memory,
            gates,
            fusion,
            language_dropout: cfg.language_dropout,
            last_step: cfg.last_step,
            kernels,
            steps,
            task: shape.task.clone(),
        })
    }

    /// One pass. `train` switches dropout on.
    pub fn forward(&self, inputs: &Inputs, train: bool) -> DmdPass {
        let decoupled = self.decouple(inputs, train);
        let encoded = self.encode(&decoupled, &inputs.valid, train);
        let gated = self.gate(&encoded);
        let output = self.fusion.forward(&gated, train).logits;
        DmdPass { decoupled, encoded, gated, output }
    }

    fn decouple(&self, inputs: &Inputs, train: bool) -> Decoupled {
        let projected = Modality::ALL.map(|m| {
            let x = with_steps(&inputs.features[m.index()], self.steps); // [B, T, d_m]
            let dropout = if m == Modality::Language { self.language_dropout } else { 0.0 };
            convolve(&x.dropout(dropout, train), &self.project[m.index()])
        });
        let private = self.private_of(&projected);
        let lengths = projected.each_ref().map(|x| x.size()[1]);
        let shared = self.shared.forward(&Tensor::cat(&projected, 1)).split_with_sizes(lengths, 1);
        let shared = shared.try_into().expect("three parts");
        Decoupled { projected, private, shared }
    }

    /// The private convolutions, of features or of what they are reconstructed to.
    pub(super) fn private_of(&self, x: &[Tensor; 3]) -> [Tensor; 3] {
        std::array::from_fn(|m| self.private[m].forward(&x[m]))
    }

    fn encode(&self, decoupled: &Decoupled, valid: &Tensor, train: bool) -> Encoded {
        let longest = valid.size()[1].min(self.steps);
        let needed = self.needed(longest);
        let first = |xs: &[Tensor; 3]| -> [Tensor; 3] {
            std::array::from_fn(|m| xs[m].narrow(1, 0, needed[m]))
        };
        let length = valid.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64); // [B]
        let steps = std::array::from_fn::<_, 3, _>(|m| self.step(m, &length));
        let steps = steps.each_ref();
        let private = first(&decoupled.private);
        let (queries, sources): (Vec<_>, Vec<_>) = crossings()
            .map(|(m, n)| {
                let [m, n] = [m.index(), n.index()];
                (&private[m], (&private[n], (self.kernels[m] - self.kernels[n]).abs()))
            })
            .unzip();
        let crossed = self.cross.cross(&queries, &sources, train);
        let crossed: [Tensor; 3] =
            std::array::from_fn(|m| Tensor::cat(&crossed[2 * m..2 * m + 2], 2));
        let three = |vectors: Vec<Tensor>| -> [Tensor; 3] { vectors.try_into().expect("three") };
        let private = three(self.memory.at_step(&crossed, &steps, train));
        let common = three(self.common.at_step(&first(&decoupled.shared), &steps, train));
        let common = Tensor::cat(&ORDER.map(|m| &common[m.index()]), 1);
        Encoded { crossed, private, common }
    }

    /// Which step of `T'_m` stands for each sample of modality `m`, `[B]`.
    fn step(&self, m: usize, length: &Tensor) -> Tensor {
        let last = self.steps - self.kernels[m]; // T'_m - 1
        match self.last_step {
            LastStep::Official => length.full_like(last),
            LastStep::Own => (length - self.kernels[m]).clamp(0, last),
        }
    }

    /// How many of the `T'_m` steps are read where no sample is longer than `longest`.
    fn needed(&self, longest: i64) -> [i64; 3] {
        let all = self.kernels.map(|k| self.steps - k + 1);
        if self.last_step == LastStep::Official {
            return all;
        }
        // A target's last step sees as much further into its source as their kernels differ.
        let reach = |m: usize| {
            let last = |k: i64| (longest - k).max(0) + (k - self.kernels[m]).abs();
            self.kernels.iter().map(|k| last(*k)).max().expect("three kernels")
        };
        std::array::from_fn(|m| all[m].min(1 + reach(m)))
    }

    fn gate(&self, encoded: &Encoded) -> Tensor {
        let [l, v, a] = ORDER.map(|m| &encoded.private[m.index()]);
        let parts = self.gates.iter().zip([l, v, a, &encoded.common]);
        Tensor::cat(&parts.map(|(gate, x)| gate.forward(x).sigmoid()).collect::<Vec<_>>(), 1)
    }

    /// Answers of a head, `[B, K]`, as the task has them: scores `[B]` in units of the labels, or
    /// logits `[B, C, 2]`, "no" first.
    pub fn in_units(&self, output: &Tensor) -> Tensor {
        match self.task.neutral() {
            Some(neutral) => output.squeeze_dim(1) + f64::from(neutral),
            None => output.view([output.size()[0], -1, 2]),
        }
    }
}

impl Predictor for Dmd {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        let output = self.in_units(&self.forward(inputs, false).output);
        match self.task {
            Task::Sentiment { .. } => Answer::Score(output),
            Task::Emotion { .. } => Answer::Flags(output.softmax(-1, Kind::Float).select(2, 1)),
        }
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        self.floats(steps, false)
    }
}

impl Dmd {
    /// Numbers alive at once per sample of `steps` steps, about: attention weights of the crossings,
    /// a layer's in prediction, all layers' in training.
    pub fn floats(&self, steps: i64, training: bool) -> f64 {
        let weights = (self.cross.n_heads() * steps * steps) as f64;
        // Six crossings and six encoders of one modality; scores, weights, and what dropout makes.
        if training { 12.0 * 4.0 * self.cross.n_layers() as f64 * weights } else { 18.0 * weights }
    }
}

/// Every target with each of its sources.
fn crossings() -> impl Iterator<Item = (Modality, Modality)> {
    Modality::ALL.into_iter().flat_map(|m| SOURCES[m.index()].map(|n| (m, n)))
}

/// `K`: 1 for a score, two for every emotion.
fn n_answers(task: &Task) -> i64 {
    match task {
        Task::Sentiment { .. } => 1,
        Task::Emotion { .. } => 2 * n_outputs(task),
    }
}

/// `[B, T, d]` to `[B, T - k + 1, out]` by a kernel `[out, d, k]` without bias.
fn convolve(x: &Tensor, kernel: &Tensor) -> Tensor {
    x.transpose(1, 2).conv1d(kernel, None::<&Tensor>, 1, 0, 1, 1).transpose(1, 2).contiguous()
}

/// A convolution over one step, without bias. Variable: `weight [out, in, 1]`.
#[derive(Debug)]
struct Pointwise(Tensor);

impl Pointwise {
    fn new(vs: &Path, in_dim: i64, out_dim: i64) -> Self {
        Self(vs.var("weight", &[out_dim, in_dim, 1], fan_in_uniform(in_dim)))
    }

    /// `[B, T, in]` to `[B, T, out]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.0.squeeze_dim(2), None::<&Tensor>)
    }
}

/// A head on a residual block: `y = W_2 dropout(relu(W_1 x)) + x`, `logits = W_3 y`.
#[derive(Debug)]
struct ResidualHead {
    linear1: Linear, // in -> hidden
    linear2: Linear, // hidden -> in
    out: Linear,     // in -> K
    dropout: f64,
}

/// What a [`ResidualHead`] makes of a batch.
struct Headed {
    hidden: Tensor, // [B, hidden], after the ReLU
    block: Tensor,  // [B, in]
    logits: Tensor, // [B, K]
}

impl ResidualHead {
    fn new(vs: &Path, dim: i64, hidden: i64, k: i64, dropout: f64) -> Self {
        Self {
            linear1: Linear::new(&(vs / "linear1"), dim, hidden),
            linear2: Linear::new(&(vs / "linear2"), hidden, dim),
            out: Linear::new(&(vs / "out"), dim, k),
            dropout,
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Headed {
        let hidden = self.linear1.forward(x).relu();
        let block = self.linear2.forward(&hidden.dropout(self.dropout, train)) + x;
        let logits = self.out.forward(&block);
        Headed { hidden, block, logits }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn::VarStore};

    use super::*;
    use crate::testing::{
        alone, assert_close, assert_gradients, hide, inputs, n_parameters, names, wave,
    };

    const DIMS: [i64; 3] = [6, 4, 5];

    fn mosi() -> DmdConfig {
        DmdConfig {
            dim: 50,
            n_heads: 10,
            n_layers: 4,
            language_kernel: 5,
            audio_kernel: 5,
            vision_kernel: 5,
            homogeneous_graph: 64,
            heterogeneous_graph: 32,
            last_step: LastStep::Own,
            language_dropout: 0.5,
            language_attention_dropout: 0.3,
            audio_attention_dropout: 0.2,
            vision_attention_dropout: 0.0,
            embedding_dropout: 0.2,
            relu_dropout: 0.0,
            residual_dropout: 0.0,
            output_dropout: 0.5,
        }
    }

    fn tiny(kernels: [i64; 3]) -> DmdConfig {
        let [language_kernel, audio_kernel, vision_kernel] = kernels;
        DmdConfig {
            dim: 8,
            n_heads: 2,
            n_layers: 2,
            language_kernel,
            audio_kernel,
            vision_kernel,
            homogeneous_graph: 4,
            heterogeneous_graph: 3,
            ..mosi()
        }
    }

    fn sentiment(lo: i64, hi: i64) -> Task {
        Task::Sentiment { lo, hi }
    }

    fn emotions() -> Task {
        Task::Emotion { classes: ["neutral", "happy", "sad", "angry"].map(String::from).to_vec() }
    }

    struct Made {
        vs: VarStore,
        scratch: VarStore,
        net: Dmd,
        auxiliary: Auxiliary,
    }

    fn made(cfg: &DmdConfig, task: Task, steps: i64, dims: [i64; 3]) -> Made {
        let [vs, scratch] = [(); 2].map(|()| VarStore::new(Device::Cpu));
        let shape = Shape { task, steps, dims };
        let net = Dmd::new(&vs.root(), cfg, &shape).unwrap();
        let auxiliary = Auxiliary::new(&scratch.root(), cfg, &shape);
        Made { vs, scratch, net, auxiliary }
    }

    fn values(answer: Answer) -> Tensor {
        match answer {
            Answer::Score(x) | Answer::Flags(x) | Answer::Classes(x) => x,
        }
    }

    #[test]
    fn it_has_the_published_size_and_names() {
        let made = made(&mosi(), sentiment(-3, 3), 50, [300, 74, 1024]);
        let units: Vec<_> =
            names(&made.scratch).into_iter().filter(|n| n.starts_with("distil")).collect();
        let in_units: usize = units.iter().map(|n| made.scratch.variables()[n].numel()).sum();
        assert_eq!(n_parameters(&made.vs) + n_parameters(&made.scratch) - in_units, 4_549_758);
        // The code has 194 biases more, which no edge depends on.
        assert_eq!(in_units, 7_074 - 2 * (64 + 32) - 2);

        let mut want = vec!["shared.weight".to_owned()];
        let linear = |layer: &str| ["weight", "bias"].map(|v| format!("{layer}.{v}"));
        let mut encoders = Vec::new();
        for m in Modality::ALL {
            want.extend(["project", "private"].map(|part| format!("{part}.{m}.weight")));
            encoders.extend(["common", "memory"].map(|part| format!("{part}.{m}")));
        }
        encoders.extend(crossings().map(|(m, n)| format!("cross.{m}_{n}")));
        for encoder in encoders {
            want.extend(linear(&format!("{encoder}.norm")));
            for i in 0..4 {
                let layer = format!("{encoder}.layer.{i}");
                for part in ["norm1", "norm2", "attn.out_proj", "linear1", "linear2"] {
                    want.extend(linear(&format!("{layer}.{part}")));
                }
                want.extend(["weight", "bias"].map(|v| format!("{layer}.attn.in_proj_{v}")));
            }
        }
        for gate in ["language", "audio", "vision", "common"] {
            want.extend(linear(&format!("gate.{gate}")));
        }
        want.extend(
            ["linear1", "linear2", "out"].iter().flat_map(|l| linear(&format!("fusion.{l}"))),
        );
        want.sort();
        assert_eq!(names(&made.vs), want);

        let mut want = Vec::new();
        let mut heads = vec!["common_head".to_owned()];
        for m in Modality::ALL {
            want.push(format!("reconstruct.{m}.weight"));
            want.extend(linear(&format!("margin.{m}")));
            heads.extend(["hom", "het"].map(|branch| format!("{branch}.{m}")));
        }
        for head in heads {
            want.extend(
                ["linear1", "linear2", "out"].iter().flat_map(|l| linear(&format!("{head}.{l}"))),
            );
        }
        for unit in ["hom", "het"] {
            want.extend(["logit", "repr", "edge"].map(|l| format!("distil.{unit}.{l}.weight")));
        }
        want.sort();
        assert_eq!(names(&made.scratch), want);
    }

    /// Something that depends on every output.
    fn anything(made: &Made, inputs: &Inputs, train: bool) -> Tensor {
        let pass = made.net.forward(inputs, train);
        let aux = made.auxiliary.forward(&made.net, &pass, train);
        let mut all = vec![&pass.output, &aux.common];
        all.extend(aux.private_again.iter().chain(&aux.margin).chain(&aux.edges));
        for vertices in [&aux.homogeneous, &aux.heterogeneous] {
            all.extend([&vertices.logits, &vertices.representations]);
        }
        let each = all.iter().map(|x| ((*x - 0.3) * wave(&x.size())).square().sum(Kind::Float));
        each.reduce(|a, b| a + b).unwrap()
    }

    #[test]
    fn every_variable_gets_a_gradient() {
        for task in [sentiment(-3, 3), emotions()] {
            let quiet = DmdConfig { output_dropout: 0.0, ..tiny([3, 1, 2]) };
            let made = made(&quiet, task, 7, DIMS);
            let batch = inputs(&[3, 7, 1, 4, 5, 2, 7, 6], 7, DIMS);
            let loss = anything(&made, &batch, true);
            assert_gradients(&made.vs, &loss);
            let Made { scratch, .. } = made;
            let reached = |name: &str| scratch.variables()[name].grad().abs().max();
            for name in names(&scratch) {
                assert!(reached(&name).double_value(&[]) > 0.0, "{name}");
            }
        }
    }

    #[test]
    fn neither_batch_mates_nor_padding_change_an_answer() {
        for (task, kernels, last_step) in [
            (sentiment(-3, 3), [5, 5, 5], LastStep::Own),
            (emotions(), [5, 1, 3], LastStep::Own),
            (sentiment(0, 6), [1, 2, 4], LastStep::Own),
            (emotions(), [5, 1, 3], LastStep::Official),
        ] {
            let cfg = DmdConfig { last_step, ..tiny(kernels) };
            let made = made(&cfg, task, 12, DIMS);
            let lengths = [3, 7, 1];
            let [batch, padded] = [7, 12].map(|steps| inputs(&lengths, steps, DIMS));
            for inputs in [&batch, &padded] {
                hide(inputs, 0, 1);
            }
            let together = values(made.net.predict(&batch));
            assert_close(&values(made.net.predict(&padded)), &together, 1e-5);
            for row in 0..3 {
                let single = values(made.net.predict(&alone(&batch, row)));
                assert_close(&single, &together.narrow(0, row, 1), 1e-5);
            }
        }
    }

    /// Against a run over all steps, which a batch-mate of full length asks for.
    #[test]
    fn steps_that_nobody_reads_are_left_out_without_a_trace() {
        for kernels in [[5, 5, 5], [5, 1, 3], [1, 2, 4]] {
            let made = made(&tiny(kernels), sentiment(-3, 3), 12, DIMS);
            let short = inputs(&[3, 6, 1], 6, DIMS);
            let wide = inputs(&[3, 6, 1], 12, DIMS);
            let [short, wide] = [short, wide].map(|batch| made.net.forward(&batch, false));
            let some = short.encoded.crossed.iter().map(|x| x.size()[1]).sum::<i64>();
            let all = wide.encoded.crossed.iter().map(|x| x.size()[1]).sum::<i64>();
            assert!(some < all, "{some} steps of {all}");
            assert_close(&short.encoded.common, &wide.encoded.common, 1e-5);
            for m in 0..3 {
                assert_close(&short.encoded.private[m], &wide.encoded.private[m], 1e-5);
            }
        }
    }

    #[test]
    fn the_step_that_stands_for_a_sample_is_the_last_inside_it() {
        let made = made(&tiny([5, 1, 3]), sentiment(-3, 3), 12, DIMS);
        let length = Tensor::from_slice(&[12i64, 6, 4, 1, 20]);
        for (m, want) in [[7i64, 1, 0, 0, 7], [11, 5, 3, 0, 11], [9, 3, 1, 0, 9]].iter().enumerate()
        {
            let got = Vec::<i64>::try_from(made.net.step(m, &length)).unwrap();
            assert_eq!(got, want, "{m}");
        }
        let official = DmdConfig { last_step: LastStep::Official, ..tiny([5, 1, 3]) };
        let made = made_again(&official);
        assert_eq!(Vec::<i64>::try_from(made.net.step(2, &length)).unwrap(), [9; 5]);
    }

    fn made_again(cfg: &DmdConfig) -> Made {
        made(cfg, sentiment(-3, 3), 12, DIMS)
    }

    #[test]
    fn every_missing_pattern_and_a_single_step_give_finite_answers_and_gradients() {
        for (task, steps) in [(sentiment(-3, 3), 6), (emotions(), 1)] {
            let made = made(&tiny([5, 3, 1]), task, steps, DIMS);
            let lengths = [6, 4, 1, 3, 6, 2, 5].map(|length: i64| length.min(steps));
            let batch = inputs(&lengths, steps, DIMS);
            for row in 0..7 {
                for m in 0..3 {
                    if (row + 1) >> m & 1 == 0 {
                        hide(&batch, row, m);
                    }
                }
            }
            let answer = values(made.net.predict(&batch));
            assert!(bool::try_from(answer.isfinite().all()).unwrap(), "{answer}");
            let pass = made.net.forward(&batch, true);
            let aux = made.auxiliary.forward(&made.net, &pass, true);
            let vectors = Tensor::cat(&aux.margin, 0);
            let labels = wave(&[7, 1]).repeat([3, 1]);
            let [_, unit] = made.auxiliary.units();
            let loss = anything(&made, &batch, true)
                + auxiliary::orthogonality(&pass.decoupled)
                + auxiliary::distance(&aux.reconstructed, &pass.decoupled.projected)
                + auxiliary::distance(&aux.private_again, &pass.decoupled.private)
                + unit.representation_loss(&aux.edges[1], &aux.heterogeneous)
                + margin::margin(&vectors, &labels);
            loss.backward();
            for vs in [&made.vs, &made.scratch] {
                for (name, variable) in vs.variables() {
                    let grad = variable.grad();
                    let finite = grad.defined() && bool::try_from(grad.isfinite().all()).unwrap();
                    assert!(finite, "{name} at {steps} steps: {grad}");
                }
            }
        }
    }

    #[test]
    fn what_is_missing_enters_as_exact_zeros() {
        let made = made(&tiny([3, 3, 3]), sentiment(-3, 3), 6, DIMS);
        let batch = inputs(&[6, 4], 6, DIMS);
        hide(&batch, 1, 2);
        let Decoupled { projected, private, shared } = made.net.forward(&batch, true).decoupled;
        for x in [&projected[2], &private[2], &shared[2]] {
            assert!(!bool::try_from(x.get(1).any()).unwrap(), "{x}");
        }
    }

    #[test]
    fn answers_have_the_form_of_the_task() {
        let batch = inputs(&[3, 5], 5, DIMS);
        let made = made(&tiny([3, 3, 3]), emotions(), 5, DIMS);
        let Answer::Flags(flags) = made.net.predict(&batch) else { panic!("emotions want flags") };
        let logits = made.net.forward(&batch, false).output.view([2, 4, 2]);
        let want = (logits.select(2, 1) - logits.select(2, 0)).sigmoid();
        assert_close(&flags, &want, 1e-6);
        let made = made_of_range(1, 5);
        let Answer::Score(score) = made.net.predict(&batch) else {
            panic!("sentiment wants scores")
        };
        let centred = made.net.forward(&batch, false).output;
        assert_close(&score, &(centred.squeeze_dim(1) + 3.0), 1e-6);
    }

    fn made_of_range(lo: i64, hi: i64) -> Made {
        made(&tiny([3, 3, 3]), sentiment(lo, hi), 5, DIMS)
    }

    #[test]
    fn vectors_come_in_the_order_language_vision_audio() {
        let made = made(&tiny([3, 3, 3]), sentiment(-3, 3), 6, DIMS);
        let batch = inputs(&[6, 4], 6, DIMS);
        let heard = inputs(&[6, 4], 6, DIMS);
        (0..2).for_each(|row| hide(&heard, row, 1));
        let [with, without] = [&batch, &heard].map(|batch| {
            let pass = made.net.forward(batch, false);
            let aux = made.auxiliary.forward(&made.net, &pass, false);
            (pass.encoded.common, aux.homogeneous.logits)
        });
        let moved = |x: &Tensor, y: &Tensor| (x - y).abs().max().double_value(&[]) > 1e-6;
        let parts = with.0.chunk(3, 1).into_iter().zip(without.0.chunk(3, 1));
        let common: Vec<_> = parts.map(|(x, y)| moved(&x, &y)).collect();
        let logits: Vec<_> = (0..3).map(|v| moved(&with.1.get(v), &without.1.get(v))).collect();
        assert_eq!((common, logits), (vec![false, false, true], vec![false, false, true]));
    }

    #[test]
    fn the_sigmoid_replaces_what_it_looks_at() {
        let made = made(&tiny([3, 3, 3]), sentiment(-3, 3), 6, DIMS);
        let pass = made.net.forward(&inputs(&[6, 4], 6, DIMS), false);
        let v = made.vs.variables();
        let of = |name: &str, x: &Tensor| {
            let [w, b] = ["weight", "bias"].map(|p| &v[&format!("gate.{name}.{p}")]);
            x.linear(w, Some(b)).sigmoid()
        };
        let [l, a, vision] = &pass.encoded.private;
        let want = [
            of("language", l),
            of("vision", vision),
            of("audio", a),
            of("common", &pass.encoded.common),
        ];
        assert_close(&pass.gated, &Tensor::cat(&want, 1), 1e-6);
    }

    #[test]
    fn impossible_values_are_all_listed() {
        assert_eq!(mosi().problems(), [""; 0]);
        let cfg = DmdConfig { dim: 50, n_heads: 7, audio_kernel: 0, output_dropout: 1.0, ..mosi() };
        let vs = VarStore::new(Device::Cpu);
        let shape = Shape { task: emotions(), steps: 5, dims: DIMS };
        let error = Dmd::new(&vs.root(), &cfg, &shape).unwrap_err();
        let want = "model.n_heads = 7: must divide model.dim = 50\n  \
                    model.audio_kernel = 0: must lie between 1 and 64\n  \
                    model.output_dropout = 1: must lie in [0, 1)";
        assert_eq!(error.to_string(), want);
        let odd = DmdConfig { dim: 9, n_heads: 3, ..mosi() };
        assert_eq!(odd.problems(), ["model.dim = 9: must be even, between 4 and 4096"]);
    }
}
