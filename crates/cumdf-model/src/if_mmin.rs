//! IF-MMIN, a baseline: a network trained on incomplete data imagines what a network trained on
//! complete data would have made of the missing modalities, helped by features that the modalities
//! share.
//!
//! Zuo et al., "Exploiting Modality-Invariant Feature for Robust Multimodal Emotion Recognition
//! with Missing Modalities" (ICASSP 2023); code github.com/ZhuoYulang/IF-MMIN.
//!
//! Two stages. The [`IfMminTeacher`] learns encoders of its own for every modality and one shared,
//! "invariant" encoder, on complete data. The [`IfMminStudent`] starts from those encoders
//! ([`ENCODERS`]) and learns a cascade of autoencoders on incomplete data; frozen, the teacher
//! gives it its [`ImaginationTargets`].
//!
//! Vectors of several modalities are concatenated in the source's order **audio, language,
//! vision**, here and nowhere else in this workspace.
//!
//! Departures from the source:
//! - recurrent layers, convolutions and maxima read a sample's valid steps only; in the source they
//!   read the batch's padding, so that a prediction depends on its batch-mates;
//! - words come as vectors of any size instead of BERT's 1024 channels;
//! - a binary decision per emotion (two logits each) instead of one choice among four, and a score
//!   where the task is sentiment, counted from the middle of its range;
//! - where single frames are missing, what is imagined is the embedding of those frames.

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Modality, Task};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn::Path};

use crate::{
    answer::{Answer, Predictor},
    layers::{Linear, Lstm, TextCnn, max_over_steps},
    loss::cmd,
    problems,
    shape::Shape,
};

/// Names of the sub-networks, the first part of a variable's name, that the student takes over
/// from the teacher.
pub const ENCODERS: [&str; 4] = ["audio", "language", "vision", "invariant"];

/// Most autoencoders a cascade may have.
const LONGEST_CASCADE: i64 = 64;

/// Sizes of both stages. "Source" is the authors' code: `models/utt_shared_model.py` and
/// `models/IFMMIN_model.py` with the options of its `scripts/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IfMminConfig {
    /// Size `E` of a modality's embedding, and of its invariant feature; 1 to 8192 channels.
    /// Source: 128.
    pub embedding_dim: i64,
    /// Filters per window width of the language encoder, 1 to 8192. Source: 128.
    pub text_filters: i64,
    /// Drop probability inside the language encoder, in [0, 1). Source: 0.5.
    pub text_dropout: f64,
    /// Width of both hidden layers of a classifier, 1 to 8192 channels. Source: 128.
    pub classifier_dim: i64,
    /// Drop probability in the teacher's classifier, in [0, 1). Source: 0.3.
    pub teacher_dropout: f64,
    /// Drop probability in the student's classifier, in [0, 1). Source: 0.5.
    pub student_dropout: f64,
    /// Number of autoencoders in the cascade, 1 to 64. Source: 5.
    pub cascade_blocks: i64,
    /// Widths of an autoencoder from its input to its bottleneck, 1 to 8192 channels each.
    /// Source: 256, 128, 64.
    pub cascade_dims: [i64; 3],
}

impl IfMminConfig {
    /// Every value that no network can have, a line each; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        problems::size(&mut bad, "embedding_dim", self.embedding_dim);
        problems::size(&mut bad, "text_filters", self.text_filters);
        problems::dropout(&mut bad, "text_dropout", self.text_dropout);
        problems::size(&mut bad, "classifier_dim", self.classifier_dim);
        problems::dropout(&mut bad, "teacher_dropout", self.teacher_dropout);
        problems::dropout(&mut bad, "student_dropout", self.student_dropout);
        problems::at_most(&mut bad, "cascade_blocks", self.cascade_blocks, LONGEST_CASCADE);
        for (at, dim) in self.cascade_dims.into_iter().enumerate() {
            problems::size(&mut bad, &format!("cascade_dims[{at}]"), dim);
        }
        bad
    }

    fn check(&self) -> Result<()> {
        let bad = self.problems();
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        Ok(())
    }
}

/// Stage 1: embeds every modality and classifies embeddings and invariant features together.
///
/// Variables: those of [`ENCODERS`] and `classifier.linear{1,2,3}`.
#[derive(Debug)]
pub struct IfMminTeacher {
    encoders: Encoders,
    classifier: Classifier, // 6 E -> outputs
}

/// Stage 2: the same encoders, then a cascade whose bottlenecks are classified.
///
/// Variables: as the teacher's, and `cascade.<b>.{encoder,decoder}.linear{1,2,3}` with `b` from 1,
/// `imagined.linear{1,2}`. The source clips gradients per sub-network, taking the cascade and
/// `imagined` as one.
#[derive(Debug)]
pub struct IfMminStudent {
    encoders: Encoders,
    cascade: Vec<Autoencoder>,
    imagined: [Linear; 2],  // 3 E -> 3 E -> 3 E
    classifier: Classifier, // blocks * bottleneck -> outputs
}

/// What the encoders made of `B` samples.
#[derive(Debug)]
pub struct Embedded {
    /// `e [B, 3 E]`: embeddings of audio, language, vision.
    pub specific: Tensor,
    /// `u [B, 3 E]`: their invariant features, in the same order.
    pub invariant: Tensor,
}

/// One pass through the teacher.
#[derive(Debug)]
pub struct TeacherPass {
    /// `e` and `u`.
    pub embedded: Embedded,
    /// A score `[B]`, or two logits per emotion `[B, C, 2]`, "no" first.
    pub output: Tensor,
}

/// One pass through the student.
#[derive(Debug)]
pub struct StudentPass {
    /// `e~` and `u` of the incomplete input.
    pub embedded: Embedded,
    /// `z_b [B, bottleneck]` of every autoencoder.
    pub bottlenecks: Vec<Tensor>,
    /// `E^ [B, 3 E]`: what is imagined of the missing part, audio, language, vision.
    pub imagined: Tensor,
    /// A score `[B]`, or two logits per emotion `[B, C, 2]`, "no" first.
    pub output: Tensor,
}

/// What the frozen teacher wants the student to find, without gradients.
#[derive(Debug)]
pub struct ImaginationTargets {
    /// `E [B, 3 E]`: embeddings of what the student is **not** shown. A modality that it sees in
    /// full has the embedding of zeros here.
    pub imagined: Tensor,
    /// `U [B, 3 E]`: invariant features of the complete input.
    pub invariant: Tensor,
}

impl IfMminTeacher {
    /// Registers the variables under `vs`, the root of a store.
    ///
    /// # Errors
    /// When a value in `cfg` is impossible; all such values are listed.
    pub fn new(vs: &Path, cfg: &IfMminConfig, shape: &Shape) -> Result<Self> {
        cfg.check()?;
        let in_dim = 6 * cfg.embedding_dim;
        Ok(Self {
            encoders: Encoders::new(vs, cfg, shape),
            classifier: Classifier::new(vs, in_dim, cfg, cfg.teacher_dropout, &shape.task),
        })
    }

    /// One pass over complete inputs. `train` switches dropout on.
    pub fn forward(&self, inputs: &Inputs, train: bool) -> TeacherPass {
        let embedded = self.encoders.forward(&inputs.features, &inputs.valid, train);
        let both = Tensor::cat(&[&embedded.specific, &embedded.invariant], 1);
        TeacherPass { output: self.classifier.forward(&both, train), embedded }
    }

    /// What a student that sees `incomplete` should find, in evaluation mode.
    ///
    /// - `complete`, `incomplete`: two views of the same samples, trimmed alike
    pub fn targets(&self, complete: &Inputs, incomplete: &Inputs) -> ImaginationTargets {
        let _guard = tch::no_grad_guard();
        let read = self.encoders.read(&complete.features);
        let unseen = self.encoders.read_unseen(&read, &incomplete.seen);
        let both: [_; 3] = std::array::from_fn(|m| Tensor::cat(&[&read[m], &unseen[m]], 0));
        let valid = complete.valid.repeat([2, 1]);
        let specific = self.encoders.embed(&both, &valid, false).chunk(2, 0);
        ImaginationTargets {
            invariant: self.encoders.invariant(&specific[0]),
            imagined: specific[1].shallow_clone(),
        }
    }
}

impl IfMminStudent {
    /// Registers the variables under `vs`, the root of a store. The encoders are fresh: take over
    /// the teacher's before training.
    ///
    /// # Errors
    /// When a value in `cfg` is impossible; all such values are listed.
    pub fn new(vs: &Path, cfg: &IfMminConfig, shape: &Shape) -> Result<Self> {
        cfg.check()?;
        let width = 3 * cfg.embedding_dim;
        let [first, second, bottleneck] = cfg.cascade_dims;
        let cascade = (1..=cfg.cascade_blocks).map(|b| {
            let vs = vs / "cascade" / b;
            Autoencoder {
                encoder: linears(&(&vs / "encoder"), [width, first, second, bottleneck]),
                decoder: linears(&(&vs / "decoder"), [bottleneck, second, first, width]),
            }
        });
        let imagined = vs / "imagined";
        let in_dim = cfg.cascade_blocks * bottleneck;
        Ok(Self {
            encoders: Encoders::new(vs, cfg, shape),
            cascade: cascade.collect(),
            imagined: linears(&imagined, [width; 3]),
            classifier: Classifier::new(vs, in_dim, cfg, cfg.student_dropout, &shape.task),
        })
    }

    /// One pass over inputs with gaps. `train` switches dropout on.
    pub fn forward(&self, inputs: &Inputs, train: bool) -> StudentPass {
        let embedded = self.encoders.forward(&inputs.features, &inputs.valid, train);
        let mut x = embedded.specific.shallow_clone();
        let mut bottlenecks = Vec::new();
        for block in &self.cascade {
            // Fed the block's own predecessor, not a running sum of all of them.
            let (z, next) = block.forward(&(x + &embedded.invariant));
            bottlenecks.push(z);
            x = next;
        }
        let [first, second] = &self.imagined;
        StudentPass {
            imagined: second.forward(&first.forward(&x).relu()),
            output: self.classifier.forward(&Tensor::cat(&bottlenecks, 1), train),
            embedded,
            bottlenecks,
        }
    }
}

impl Predictor for IfMminTeacher {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        self.classifier.answer(&self.forward(inputs, false).output)
    }
}

impl Predictor for IfMminStudent {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        self.classifier.answer(&self.forward(inputs, false).output)
    }
}

/// How far the invariant features of the modalities lie apart: the mean of [`cmd`] over the three
/// pairs, a scalar.
///
/// - `invariant`: `u [B, 3 E]`
pub fn invariant_distance(invariant: &Tensor) -> Tensor {
    let [a, l, v] = <[Tensor; 3]>::try_from(invariant.chunk(3, 1)).expect("u is [B, 3 E]");
    (cmd(&l, &v) + cmd(&l, &a) + cmd(&a, &v)) / 3.0
}

/// Encoders of one modality each, and the one they share.
#[derive(Debug)]
struct Encoders {
    audio: Lstm, // the maximum over time embeds
    language: TextCnn,
    vision: Lstm,
    invariant: [Linear; 2], // E -> E -> E
}

impl Encoders {
    fn new(vs: &Path, cfg: &IfMminConfig, shape: &Shape) -> Self {
        let e = cfg.embedding_dim;
        let [language, audio, vision] = shape.dims;
        Self {
            audio: Lstm::new(&(vs / "audio" / "lstm"), audio, e),
            language: TextCnn::new(
                &(vs / "language"),
                language,
                cfg.text_filters,
                e,
                cfg.text_dropout,
            ),
            vision: Lstm::new(&(vs / "vision" / "lstm"), vision, e),
            invariant: linears(&(vs / "invariant"), [e; 3]),
        }
    }

    /// `e` and `u`; `features`: `[B, T, d_m]` in the order of [`Modality::ALL`].
    fn forward(&self, features: &[Tensor; 3], valid: &Tensor, train: bool) -> Embedded {
        let [language, audio, vision] = features;
        let recur = |lstm: &Lstm, x| max_over_steps(&lstm.forward(x, train), valid);
        let language = self.language.forward(language, valid, train);
        let (audio, vision) = (recur(&self.audio, audio), recur(&self.vision, vision));
        let specific = Tensor::cat(&[audio, language, vision], 1);
        Embedded { invariant: self.invariant(&specific), specific }
    }

    /// `u [B, 3 E]` of `e [B, 3 E]`.
    fn invariant(&self, specific: &Tensor) -> Tensor {
        let (b, width) = specific.size2().expect("e is [B, 3 E]");
        let mut shared = specific.view([b, 3, width / 3]);
        for linear in &self.invariant {
            shared = linear.forward(&shared).leaky_relu();
        }
        shared.reshape([b, width])
    }

    /// The products of single frames with the first layers, `[B, T, ..]` each, in the order of
    /// [`Modality::ALL`]: most of an encoder's arithmetic.
    fn read(&self, features: &[Tensor; 3]) -> [Tensor; 3] {
        let [language, audio, vision] = features;
        [self.language.read(language), self.audio.read(audio), self.vision.read(vision)]
    }

    /// What [`Encoders::read`] gives where every frame of `seen [B, 3, T]` is zero and the others
    /// are as before: nothing need be multiplied again.
    fn read_unseen(&self, read: &[Tensor; 3], seen: &Tensor) -> [Tensor; 3] {
        let seen = |m: Modality| seen.select(1, m.index() as i64).unsqueeze(-1); // [B, T, 1]
        let [language, audio, vision] = read;
        let without = |lstm: &Lstm, read, m| lstm.bias().where_self(&seen(m), read);
        [
            language.masked_fill(&seen(Modality::Language).unsqueeze(-1), 0.0),
            without(&self.audio, audio, Modality::Audio),
            without(&self.vision, vision, Modality::Vision),
        ]
    }

    /// `e [B, 3 E]` of what [`Encoders::read`] found.
    fn embed(&self, read: &[Tensor; 3], valid: &Tensor, train: bool) -> Tensor {
        let [language, audio, vision] = read;
        let recur = |lstm: &Lstm, read| max_over_steps(&lstm.run(read), valid);
        let language = self.language.pool(language, valid, train);
        Tensor::cat(&[recur(&self.audio, audio), language, recur(&self.vision, vision)], 1)
    }
}

/// One block of the cascade.
#[derive(Debug)]
struct Autoencoder {
    encoder: [Linear; 3],
    decoder: [Linear; 3],
}

impl Autoencoder {
    /// The bottleneck `z [B, bottleneck]` and the block's output `[B, 3 E]`.
    fn forward(&self, x: &Tensor) -> (Tensor, Tensor) {
        let [first, second, third] = &self.encoder;
        let z = third.forward(&second.forward(&first.forward(x).leaky_relu()).leaky_relu());
        let [first, second, third] = &self.decoder;
        let out = third.forward(&second.forward(&first.forward(&z).relu()).relu());
        (z, out)
    }
}

/// Three linear layers with ReLU and dropout between; the head of the task.
#[derive(Debug)]
struct Classifier {
    linears: [Linear; 3],
    dropout: f64,
    n_emotions: Option<i64>, // none for a score
    neutral: f64,            // what a score of no evidence is; 0 for emotions
}

impl Classifier {
    fn new(vs: &Path, in_dim: i64, cfg: &IfMminConfig, dropout: f64, task: &Task) -> Self {
        let n_emotions = match task {
            Task::Sentiment { .. } => None,
            Task::Emotion { classes } => Some(classes.len() as i64),
        };
        let hidden = cfg.classifier_dim;
        let out_dim = n_emotions.map_or(1, |n| 2 * n);
        let linears = linears(&(vs / "classifier"), [in_dim, hidden, hidden, out_dim]);
        let neutral = task.neutral().map_or(0.0, f64::from);
        Self { linears, dropout, n_emotions, neutral }
    }

    /// `[B, in]` to `[B]` or `[B, C, 2]`.
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let [first, second, third] = &self.linears;
        let h = first.forward(x).relu().dropout(self.dropout, train);
        let h = second.forward(&h).relu().dropout(self.dropout, train);
        let out = third.forward(&h);
        match self.n_emotions {
            None => out.squeeze_dim(1) + self.neutral,
            Some(n) => out.view([-1, n, 2]),
        }
    }

    fn answer(&self, output: &Tensor) -> Answer {
        match self.n_emotions {
            None => Answer::Score(output.shallow_clone()),
            Some(_) => Answer::Flags((output.select(2, 1) - output.select(2, 0)).sigmoid()),
        }
    }
}

/// `N` layers of the `N + 1` given sizes as `linear1`, `linear2`, .., Kaiming-normal with zero
/// biases.
fn linears<const SIZES: usize, const N: usize>(vs: &Path, sizes: [i64; SIZES]) -> [Linear; N] {
    std::array::from_fn(|i| {
        let vs = vs / format!("linear{}", i + 1);
        Linear::kaiming_normal(&vs, sizes[i], sizes[i + 1])
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn::VarStore};

    use super::*;
    use crate::testing::{
        alone, assert_close, assert_gradients, hide, inputs, n_parameters, names,
    };

    const DIMS: [i64; 3] = [6, 4, 5];
    const E: i64 = 16;

    fn official() -> IfMminConfig {
        IfMminConfig {
            embedding_dim: 128,
            text_filters: 128,
            text_dropout: 0.5,
            classifier_dim: 128,
            teacher_dropout: 0.3,
            student_dropout: 0.5,
            cascade_blocks: 5,
            cascade_dims: [256, 128, 64],
        }
    }

    fn small() -> IfMminConfig {
        IfMminConfig {
            embedding_dim: E,
            text_filters: 16,
            classifier_dim: 32,
            cascade_blocks: 2,
            cascade_dims: [32, 24, 16],
            ..official()
        }
    }

    fn shape(task: Task, dims: [i64; 3]) -> Shape {
        Shape { task, steps: 50, dims }
    }

    fn sentiment() -> Task {
        Task::Sentiment { lo: -3, hi: 3 }
    }

    fn emotions() -> Task {
        Task::Emotion { classes: ["neutral", "happy", "sad", "angry"].map(String::from).to_vec() }
    }

    fn teacher(task: Task) -> (VarStore, IfMminTeacher) {
        let vs = VarStore::new(Device::Cpu);
        let model = IfMminTeacher::new(&vs.root(), &small(), &shape(task, DIMS)).unwrap();
        (vs, model)
    }

    fn student(task: Task) -> (VarStore, IfMminStudent) {
        let vs = VarStore::new(Device::Cpu);
        let model = IfMminStudent::new(&vs.root(), &small(), &shape(task, DIMS)).unwrap();
        (vs, model)
    }

    fn values(answer: Answer) -> Tensor {
        match answer {
            Answer::Score(x) | Answer::Flags(x) | Answer::Classes(x) => x,
        }
    }

    fn expected_names(cascade_blocks: usize) -> Vec<String> {
        let lstm = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"];
        let mut want: Vec<String> = ["audio", "vision"]
            .iter()
            .flat_map(|m| lstm.map(|v| format!("{m}.lstm.{v}")))
            .collect();
        let three = |net: &str| [1, 2, 3].map(|i| format!("{net}.linear{i}")).to_vec();
        let two = |net: &str| [1, 2].map(|i| format!("{net}.linear{i}")).to_vec();
        let mut layers =
            ["conv3", "conv4", "conv5", "linear"].map(|l| format!("language.{l}")).to_vec();
        layers.extend(two("invariant"));
        layers.extend(three("classifier"));
        for b in 1..=cascade_blocks {
            layers.extend(three(&format!("cascade.{b}.encoder")));
            layers.extend(three(&format!("cascade.{b}.decoder")));
        }
        if cascade_blocks > 0 {
            layers.extend(two("imagined"));
        }
        want.extend(layers.iter().flat_map(|l| ["weight", "bias"].map(|v| format!("{l}.{v}"))));
        want.sort();
        want
    }

    #[test]
    fn both_stages_have_the_published_sizes_and_names() {
        let shape = shape(sentiment(), [300, 74, 1024]);
        let vs = VarStore::new(Device::Cpu);
        let _teacher = IfMminTeacher::new(&vs.root(), &official(), &shape).unwrap();
        assert_eq!(n_parameters(&vs), 1_353_857);
        assert_eq!(names(&vs), expected_names(0));
        let vs = VarStore::new(Device::Cpu);
        let _student = IfMminStudent::new(&vs.root(), &official(), &shape).unwrap();
        assert_eq!(n_parameters(&vs), 2_990_913);
        assert_eq!(names(&vs), expected_names(5));
    }

    #[test]
    fn linear_layers_and_convolutions_start_kaiming_normal_without_biases() {
        let shape = shape(sentiment(), [300, 74, 1024]);
        let vs = VarStore::new(Device::Cpu);
        let _student = IfMminStudent::new(&vs.root(), &official(), &shape).unwrap();
        for (name, variable) in vs.variables() {
            if name.contains("lstm") || variable.numel() < 1000 && name.ends_with("weight") {
                continue; // LSTMs have their own rule, small matrices have no clear spread
            } else if name.ends_with("bias") {
                assert!(!bool::try_from(variable.any()).unwrap(), "{name} is not zero");
            } else {
                let fan_in = variable.size()[1..].iter().product::<i64>();
                let spread = variable.std(true).double_value(&[]) * (fan_in as f64 / 2.0).sqrt();
                assert!((spread - 1.0).abs() < 0.05, "{name}: {spread} of the wanted spread");
            }
        }
    }

    #[test]
    fn every_variable_gets_a_gradient() {
        let batch = inputs(&[3, 5, 1, 4, 5, 2, 5, 5], 5, DIMS);
        for task in [sentiment(), emotions()] {
            let (vs, model) = teacher(task.clone());
            let pass = model.forward(&batch, true);
            let apart = invariant_distance(&pass.embedded.invariant);
            assert_gradients(&vs, &(pass.output.square().sum(Kind::Float) + apart));
            let (vs, model) = student(task);
            let pass = model.forward(&batch, true);
            let (output, imagined) = (pass.output.square(), pass.imagined.square());
            assert_gradients(&vs, &(output.sum(Kind::Float) + imagined.sum(Kind::Float)));
        }
    }

    #[test]
    fn neither_batch_mates_nor_padding_change_an_answer() {
        for task in [sentiment(), emotions()] {
            let (_teacher_vs, teacher) = teacher(task.clone());
            let (_student_vs, student) = student(task);
            let lengths = [3, 7, 1];
            let [batch, padded] = [7, 12].map(|steps| inputs(&lengths, steps, DIMS));
            for inputs in [&batch, &padded] {
                hide(inputs, 0, 1);
                hide(inputs, 1, 0);
            }
            let models: [&dyn Predictor; 2] = [&teacher, &student];
            for model in models {
                let together = values(model.predict(&batch));
                assert_close(&values(model.predict(&padded)), &together, 1e-5);
                for row in 0..3 {
                    let single = values(model.predict(&alone(&batch, row)));
                    assert_close(&single, &together.narrow(0, row, 1), 1e-5);
                }
            }
        }
    }

    #[test]
    fn answers_have_the_form_of_the_task() {
        let batch = inputs(&[3, 5], 5, DIMS);
        let (_vs, model) = student(emotions());
        let Answer::Flags(flags) = model.predict(&batch) else { panic!("emotions want flags") };
        let output = model.forward(&batch, false).output;
        assert_eq!(output.size(), [2, 4, 2]);
        assert_close(&flags, &output.softmax(2, Kind::Float).select(2, 1), 1e-5);
        let (_vs, model) = student(sentiment());
        let Answer::Score(score) = model.predict(&batch) else { panic!("sentiment wants scores") };
        assert_close(&score, &model.forward(&batch, false).output, 1e-5); // two LSTM kernels
        assert_eq!(score.size(), [2]);
    }

    /// With a decoder that answers zeros, every block sees `u` alone from the second on; under a
    /// running sum it would still see `e`.
    #[test]
    fn a_block_is_fed_its_predecessor_and_the_invariant_features() {
        let (vs, model) = student(sentiment());
        let _guard = tch::no_grad_guard();
        let variables = vs.variables();
        for name in ["weight", "bias"].map(|v| format!("cascade.1.decoder.linear3.{v}")) {
            let _ = variables[&name].shallow_clone().zero_();
        }
        let pass = model.forward(&inputs(&[3, 5], 5, DIMS), false);
        let Embedded { specific, invariant } = &pass.embedded;
        let first = model.cascade[0].forward(&(specific + invariant)).0;
        let second = model.cascade[1].forward(invariant).0;
        assert_close(&pass.bottlenecks[0], &first, 1e-6);
        assert_close(&pass.bottlenecks[1], &second, 1e-6);
        assert_eq!(pass.imagined.size(), [2, 3 * E]);
    }

    #[test]
    fn what_is_not_shown_is_what_is_to_be_imagined() {
        let (_vs, model) = teacher(emotions());
        let [complete, only_audio] = [(); 2].map(|()| inputs(&[4, 2], 4, DIMS));
        for row in 0..2 {
            hide(&only_audio, row, 0);
            hide(&only_audio, row, 2);
        }
        let targets = model.targets(&complete, &only_audio);
        let zeros = complete.features.each_ref().map(Tensor::zeros_like);
        let _guard = tch::no_grad_guard();
        let part = |e: &Tensor, at: i64| e.narrow(1, at * E, E);
        let full = model.forward(&complete, false).embedded;
        let empty = model.encoders.forward(&zeros, &complete.valid, false).specific;
        assert_close(&part(&targets.imagined, 0), &part(&empty, 0), 1e-5); // audio is there
        assert_close(&part(&targets.imagined, 1), &part(&full.specific, 1), 1e-5); // language
        assert_close(&part(&targets.imagined, 2), &part(&full.specific, 2), 1e-5); // vision
        assert_close(&targets.invariant, &full.invariant, 1e-6);
        assert!(!targets.imagined.requires_grad() && !targets.invariant.requires_grad());
        let all_there = model.targets(&complete, &complete);
        assert_close(&all_there.imagined, &empty, 1e-6);
    }

    #[test]
    fn single_missing_frames_are_imagined_on_their_own() {
        let (_vs, model) = teacher(emotions());
        let [complete, dropped, rest] = [(); 3].map(|()| inputs(&[4], 4, DIMS));
        let hide_steps = |inputs: &Inputs, from: i64| {
            for (m, x) in inputs.features.iter().enumerate() {
                let _ = x.narrow(1, from, 2).zero_();
                let _ = inputs.seen.select(1, m as i64).narrow(1, from, 2).zero_();
            }
        };
        hide_steps(&dropped, 0);
        hide_steps(&rest, 2);
        let _guard = tch::no_grad_guard();
        let want = model.forward(&rest, false).embedded.specific;
        assert_close(&model.targets(&complete, &dropped).imagined, &want, 1e-6);
    }

    #[test]
    fn equal_invariant_features_are_not_apart() {
        let one = Tensor::randn([5, E], (Kind::Float, Device::Cpu));
        let near = invariant_distance(&Tensor::cat(&[&one, &one, &one], 1)).double_value(&[]);
        let far = invariant_distance(&Tensor::cat(&[&one, &one, &(&one + 3.0)], 1));
        // Two of three pairs are 3 apart in each of E channels.
        let want = 2.0 / 3.0 * 3.0 * (E as f64).sqrt();
        assert!(near < 1e-3, "{near}");
        assert!((far.double_value(&[]) - want).abs() < 1e-2, "{far} for {want}");
    }

    #[test]
    fn impossible_values_are_all_listed() {
        assert_eq!(official().problems(), [""; 0]);
        let cfg = IfMminConfig { cascade_blocks: 0, cascade_dims: [256, -1, 64], ..official() };
        let vs = VarStore::new(Device::Cpu);
        let error = IfMminStudent::new(&vs.root(), &cfg, &shape(emotions(), DIMS)).unwrap_err();
        let want = "model.cascade_blocks = 0: must lie between 1 and 64\n  \
                    model.cascade_dims[1] = -1: must lie between 1 and 8192";
        assert_eq!(error.to_string(), want);
    }
}
