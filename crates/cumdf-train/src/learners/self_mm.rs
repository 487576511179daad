//! Self-MM's training: one stage, by default on complete data, with labels per modality that the method
//! generates itself, epoch by epoch (Yu et al., AAAI 2021; `trains/multiTask/SELF_MM.py` of
//! github.com/thuiar/Self-MM).

use std::array::from_fn;

use anyhow::Result;
use cumdf_data::{MrmsConfig, Targets, TrainBatch, TrainSet};
use cumdf_model::{
    Predictor, Shape,
    self_mm::{
        Centres, FUSED, HEADS, SelfMm, SelfMmConfig, SelfMmPass, deltas, flag_loss,
        generated_labels, half_width, n_outputs, score_loss, smoothed_labels, unimodal_flag_loss,
        unimodal_score_loss,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{
    Tensor,
    nn::{Path, VarStore},
};

use crate::{
    learner::{Learner, LossTerms, REST},
    method::{self, Context, Entry, Method, recipe},
    policy::TrainConfig,
    stage::{Shown, Stage, one_stage_problems},
};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "self-mm",
    title: "Self-MM",
    about: "a fused and three uni-modal heads, self-generated labels; complete data (AAAI 2021)",
    formula: 1,
    recipes: &[
        recipe!("self-mm", Sentiment),
        recipe!("self-mm-emotion", Emotion),
        recipe!("self-mm-mosei", Sentiment),
    ],
    read: method::read::<Config>,
};

/// Name of the only stage.
const STAGE: &str = "multitask";

/// Settings of Self-MM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What training sees. Source: complete data.
    pub sees: Shown,
    /// Masks (MRMS), where training sees them.
    pub masks: MrmsConfig,
    /// The network.
    pub model: SelfMmConfig,
    /// Passes over the training split.
    pub epochs: u32,
    /// Optimisation; the groups are `language`, `audio` and `vision` for their encoders, and
    /// `rest` for the heads.
    pub train: TrainConfig,
}

impl Method for Config {
    fn stages(&self) -> Vec<Stage> {
        vec![Stage::only(STAGE, self.sees, &self.masks, self.epochs, &self.train, json!(self))]
    }

    fn problems(&self) -> Vec<String> {
        let mut bad = one_stage_problems(self.epochs, &self.train, &self.masks);
        bad.extend(self.model.problems());
        bad
    }

    fn learner(&self, _stage: &str, cx: &Context) -> Result<Box<dyn Learner>> {
        cx.seed_weights();
        Ok(Box::new(SelfMmLearner::new(self, cx)?))
    }

    fn network(&self, _stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>> {
        Ok(Box::new(SelfMm::new(vs, &self.model, shape)?))
    }
}

/// Trains all heads at once; the uni-modal ones towards labels of its own making.
#[derive(Debug)]
pub struct SelfMmLearner {
    vs: VarStore,
    net: SelfMm,
    scratch: VarStore,
    heads: [Buffers; 4], // in the order of HEADS
    half_width: f64,
    neutral: Option<f64>, // of a score; none for emotions
    epoch: u32,
}

/// What one head remembers of every training sample, and of all.
#[derive(Debug)]
struct Buffers {
    labels: Tensor,   // Y_s [N, K]
    features: Tensor, // F_s [N, D]
    centres: Centres, // [K, D] each
}

impl SelfMmLearner {
    /// A fresh learner; its weights come from libtorch's generator.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(config: &Config, cx: &Context) -> Result<Self> {
        let shape = &cx.problem.shape;
        let vs = VarStore::new(cx.device);
        let net = SelfMm::new(&vs.root(), &config.model, shape)?;
        let scratch = VarStore::new(cx.device);
        let neutral = shape.task.neutral().map(f64::from);
        let labels = centred(&cx.train.all_targets(), neutral); // [N, K]
        let (n, k) = (cx.train.len() as i64, n_outputs(&shape.task));
        let heads = from_fn(|s| {
            let (root, dim) = (scratch.root() / HEADS[s], config.model.feature_dims()[s]);
            let mut own = root.zeros_no_train("labels", &[n, k]);
            own.copy_(&labels);
            Buffers {
                labels: own,
                features: root.zeros_no_train("features", &[n, dim]),
                centres: Centres {
                    positive: root.zeros_no_train("positive", &[k, dim]),
                    negative: root.zeros_no_train("negative", &[k, dim]),
                },
            }
        });
        let half_width = half_width(&shape.task);
        Ok(Self { vs, net, scratch, heads, half_width, neutral, epoch: 1 })
    }

    /// The network.
    pub fn net(&self) -> &SelfMm {
        &self.net
    }

    /// The losses of a pass over the samples `index [B]` with the true labels `y [B, K]`.
    pub fn terms(&self, pass: &SelfMmPass, index: &Tensor, y: &Tensor) -> LossTerms {
        let mut terms = LossTerms::default();
        let is_score = self.neutral.is_some();
        let fused = &pass.answers[FUSED];
        terms.add(
            "task",
            1.0,
            || if is_score { score_loss(fused, y) } else { flag_loss(fused, y) },
        );
        for s in (0..HEADS.len()).filter(|s| *s != FUSED) {
            let own = self.heads[s].labels.index_select(0, index);
            let loss = if is_score { unimodal_score_loss } else { unimodal_flag_loss };
            terms.add(HEADS[s], 1.0, || loss(&pass.answers[s], &own, y));
        }
        terms
    }

    /// Moves labels, features and centres on by the features of a pass, in epoch `epoch`.
    pub fn update(&mut self, pass: &SelfMmPass, index: &Tensor, y: &Tensor, epoch: u32) {
        let _guard = tch::no_grad_guard();
        if epoch >= 2 {
            let fused = deltas(&pass.features[FUSED], &self.heads[FUSED].centres);
            for s in (0..HEADS.len()).filter(|s| *s != FUSED) {
                let head = &mut self.heads[s];
                let delta = deltas(&pass.features[s], &head.centres);
                let generated = generated_labels(y, &delta, &fused, self.half_width);
                let own = head.labels.index_select(0, index);
                let _ =
                    head.labels.index_copy_(0, index, &smoothed_labels(&own, &generated, epoch));
            }
        }
        for (head, features) in self.heads.iter_mut().zip(&pass.features) {
            let _ = head.features.index_copy_(0, index, &features.detach());
            let moved = head.centres.moved(&head.features, &head.labels);
            // In place: the buffers stay the ones that the resume state names.
            head.centres.positive.copy_(&moved.positive);
            head.centres.negative.copy_(&moved.negative);
        }
    }
}

impl Learner for SelfMmLearner {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn scratch(&self) -> Option<&VarStore> {
        Some(&self.scratch)
    }

    fn group(&self, variable: &str) -> &'static str {
        let encoder = HEADS.iter().find(|name| variable.split('.').next() == Some(name));
        encoder.copied().unwrap_or(REST)
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.net
    }

    fn begin_epoch(&mut self, epoch: u32, _train: &TrainSet) {
        self.epoch = epoch;
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        let y = centred(batch.targets(), self.neutral);
        let pass = self.net.forward(&batch.shown(), true);
        let terms = self.terms(&pass, &batch.index, &y); // by the buffers as they are
        self.update(&pass, &batch.index, &y, self.epoch);
        terms
    }
}

/// Labels `[B, K]` around 0: scores less their neutral value, emotions as -1 and +1.
fn centred(targets: &Targets, neutral: Option<f64>) -> Tensor {
    match (targets.score(), targets.flags(), neutral) {
        (Some(score), _, Some(neutral)) => score.unsqueeze(1) - neutral,
        (_, Some(flags), _) => flags * 2.0 - 1.0,
        _ => unreachable!("a label is a score or a set of emotions"),
    }
}
