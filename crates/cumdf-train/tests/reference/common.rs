//! What the tests against the independent references in `tests/golden/` share.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use cumdf_data::{
    Corpus, Dataset, EpochOrder, Inputs, Labels, Modality, ModalitySet, MrmsConfig, Samples, Task,
    TrainBatch,
};
use cumdf_model::{Answer, Problem};
use cumdf_train::{
    config::Config,
    learner::Learner,
    method::{Context, Trained},
};
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const TOLERANCE: f64 = 1e-5;

/// One golden file.
pub(crate) struct Golden {
    pub(crate) case: Value,
    tensors: BTreeMap<String, Tensor>,
    unread: RefCell<BTreeSet<String>>,
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let path = folder.join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).expect("a golden file");
        let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("a header");
        let case = &metadata.metadata().as_ref().expect("metadata")["case"];
        let case = serde_json::from_str(case).expect("JSON");
        let tensors: BTreeMap<_, _> =
            Tensor::read_safetensors(&path).expect("tensors").into_iter().collect();
        let unread = RefCell::new(tensors.keys().cloned().collect());
        Self { case, tensors, unread }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Tensor> {
        self.unread.borrow_mut().remove(name);
        self.tensors.get(name).map(Tensor::shallow_clone)
    }

    pub(crate) fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("the golden file has no {name}"))
    }

    /// The tensors whose names start so, by the rest of the name.
    pub(crate) fn part(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let own = self.tensors.keys().filter_map(|name| name.strip_prefix(prefix));
        own.map(|rest| (rest.to_owned(), self.get(&format!("{prefix}{rest}")))).collect()
    }

    pub(crate) fn by_modality(&self, prefix: &str) -> [Tensor; 3] {
        Modality::ALL.map(|m| self.get(&format!("{prefix}.{m}")))
    }

    /// The features and what is seen under `view`, with the valid steps under `valid`.
    pub(crate) fn inputs(&self, view: &str, valid: &str) -> Inputs {
        Inputs {
            features: self.by_modality(&format!("{view}.features")),
            seen: self.get(&format!("{view}.seen")).to_kind(Kind::Bool),
            valid: self.get(valid).to_kind(Kind::Bool),
        }
    }

    /// A corpus of these training labels, and features as wide as the golden ones: the only way to
    /// make targets.
    pub(crate) fn corpus(&self, task: Task, labels: &Labels, soft: bool) -> Corpus {
        const STEPS: i64 = 3;
        let n = labels.len() as i64;
        let dims = Modality::ALL.map(|m| integer(&self.case["model"]["dims"][m.name()]));
        let samples = |split: &str| Samples {
            features: dims.map(|d| {
                let x = Tensor::arange(n * STEPS * d, (Kind::Float, Device::Cpu));
                (x * 0.7).sin().view([n, STEPS, d])
            }),
            labels: labels.clone(),
            lengths: vec![STEPS; n as usize],
            ids: (0..n).map(|i| format!("{split} {i}")).collect(),
            present: vec![ModalitySet::ALL; n as usize],
            truth: None,
        };
        let splits = ["train", "valid", "test"].map(samples);
        let dataset = Dataset::new("golden", task, splits).expect("a data set");
        Corpus::prepare(&dataset, 0.0, soft, Device::Cpu).expect("a corpus")
    }

    pub(crate) fn is_sentiment(&self) -> bool {
        self.case["task"] == "sentiment"
    }

    /// The method's recipe for the task with these values instead.
    pub(crate) fn recipe<M: DeserializeOwned>(
        &self,
        method: &str,
        sets: Vec<String>,
    ) -> (Config, M) {
        let suffix = if self.is_sentiment() { "" } else { "-emotion" };
        let mut all = vec![format!("recipe={method}{suffix}")];
        all.extend(sets);
        let config = Config::resolve(Some(method), None, None, &all).expect("a configuration");
        let own = config.settings().expect("the method's own");
        (config, own)
    }

    /// A corpus with these training labels: scores `[N]` or flags `[N, C]`.
    pub(crate) fn labelled(&self, labels: &Tensor) -> Corpus {
        let model = &self.case["model"];
        let (task, labels) = if self.is_sentiment() {
            let [lo, hi] = [0, 1].map(|end| model["range"][end].as_i64());
            let task = Task::Sentiment { lo: lo.unwrap_or(-3), hi: hi.unwrap_or(3) };
            (task, scores(labels))
        } else {
            (emotions(integer(&model["classes"])), flags(labels))
        };
        self.corpus(task, &labels, false)
    }

    /// A corpus with the case's own training labels.
    pub(crate) fn own_corpus(&self, part: &str) -> Corpus {
        self.labelled(&self.get(&format!("{part}target.{}", self.kind())))
    }

    /// The name of the labels under `target.`.
    pub(crate) fn kind(&self) -> &'static str {
        if self.is_sentiment() { "score" } else { "flags" }
    }

    /// Every tensor was looked at.
    pub(crate) fn assert_all_read(&self) {
        let unread = self.unread.borrow();
        assert!(unread.is_empty(), "nothing was compared with {unread:?}");
    }
}

pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

pub(crate) fn integer(value: &Value) -> i64 {
    value.as_i64().expect("an integer")
}

/// The rows of `[N, C]` as flags.
pub(crate) fn flags(distribution: &Tensor) -> Labels {
    let rows: Vec<Vec<f32>> = Vec::try_from(distribution).expect("rows");
    Labels::Classes(rows.iter().map(|row| row.iter().map(|p| *p > 0.0).collect()).collect())
}

pub(crate) fn scores(scores: &Tensor) -> Labels {
    Labels::Scores(Vec::try_from(scores).expect("scores"))
}

/// Emotions of no name.
pub(crate) fn emotions(n: i64) -> Task {
    Task::Emotion { classes: (0..n).map(|c| c.to_string()).collect() }
}

/// What a learner of `stage` starts from.
pub(crate) fn context<'a>(
    problem: &'a Problem,
    corpus: &'a Corpus,
    stage: &'a str,
    earlier: &'a [Trained],
) -> Context<'a> {
    Context { problem, train: &corpus.train, device: Device::Cpu, seed: 1, stage, earlier }
}

/// The only batch of an epoch in which something is hidden.
pub(crate) fn hidden_batch(corpus: &Corpus) -> TrainBatch<'_> {
    let masks = MrmsConfig { drop_ratios: vec![0.5], inter: 0.5 };
    let order = EpochOrder { seed: 1, epoch: 1, batch_size: 8, bucket: 1 };
    let batch = corpus.train.epoch(Some(&masks), order).next().expect("a batch");
    assert!(batch.shown().seen != batch.complete().seen, "nothing is hidden");
    batch
}

/// A score `[B]`, or probabilities of emotions `[B, C]`.
pub(crate) fn answer(learner: &dyn Learner, inputs: &Inputs) -> Tensor {
    match learner.predictor().predict(inputs) {
        Answer::Score(x) | Answer::Flags(x) => x,
        Answer::Classes(_) => panic!("one class instead of a score or flags"),
    }
}

/// The batch of all samples, in order: they are of one length.
pub(crate) fn whole_batch(corpus: &Corpus) -> TrainBatch<'_> {
    corpus.train.complete_batches(10).next().expect("one batch")
}

pub(crate) fn close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.size(), want.size(), "{what}");
    let scale = want.abs().max().double_value(&[]).max(1.0);
    let apart = (got - want).abs().max().double_value(&[]) / scale;
    assert!(apart <= TOLERANCE, "{what} is {apart:.1e} apart\n got {got}\nwant {want}");
}

/// The gradients of these variables are those under `grad.`.
pub(crate) fn close_gradients(golden: &Golden, variables: &BTreeMap<String, Tensor>) {
    for (name, variable) in variables.iter().filter(|(_, v)| v.requires_grad()) {
        let want = golden.get(&format!("grad.{name}"));
        let grad = variable.grad();
        let grad = if grad.defined() { grad } else { want.zeros_like() };
        close(&format!("gradient of {name}"), &grad, &want);
    }
}

/// Euclidean norm of all these variables' gradients, a scalar.
pub(crate) fn gradient_norm<'a>(variables: impl IntoIterator<Item = &'a Tensor>) -> Tensor {
    let grads = variables.into_iter().map(Tensor::grad).filter(Tensor::defined);
    let squares = grads.map(|grad| grad.square().sum(Kind::Float));
    squares.fold(Tensor::from(0f32), |sum, square| sum + square).sqrt()
}
