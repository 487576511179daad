//! TransModality's training: one stage on incomplete data, which the cells translate into complete
//! data (Wang, Wan and Wan, WWW 2020; github.com/hyeonJeongByeon/TransModality). Chosen on validation
//! data; the source's script validates on the test split.

use anyhow::Result;
use cumdf_data::{Inputs, MrmsConfig, Targets, TrainBatch};
use cumdf_model::{
    Predictor, Shape, loss,
    transm::{TransM, TransMConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::nn::{Path, VarStore};

use crate::{
    learner::{Learner, LossTerms},
    method::{self, Context, Entry, Method, recipe},
    policy::{TrainConfig, loss_weight_problems},
    stage::{Shown, Stage, one_stage_problems},
};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "transm",
    title: "TransM",
    about: "translates language into audio and vision and back by Transformers (WWW 2020)",
    formula: 1,
    recipes: &[
        recipe!("transm", Sentiment),
        recipe!("transm-emotion", Emotion),
        recipe!("transm-mosei", Sentiment),
    ],
    read: method::read::<Config>,
};

/// Name of the only stage.
const STAGE: &str = "train";

/// Settings of TransModality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What training sees. Ours: masked.
    pub sees: Shown,
    /// Masks (MRMS) of what training sees, and of the draw that chooses the checkpoint.
    pub masks: MrmsConfig,
    /// The network.
    pub model: TransMConfig,
    /// Weights of the losses.
    pub loss: LossConfig,
    /// Passes over the training split.
    pub epochs: u32,
    /// Optimisation.
    pub train: TrainConfig,
}

/// Weights of what is added to the loss of the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Of the four translations' errors, 0 to 1000000. Source: 10; ours: 1.
    pub translate: f64,
}

impl Method for Config {
    fn stages(&self) -> Vec<Stage> {
        vec![Stage::only(STAGE, self.sees, &self.masks, self.epochs, &self.train, json!(self))]
    }

    fn problems(&self) -> Vec<String> {
        let mut bad = one_stage_problems(self.epochs, &self.train, &self.masks);
        bad.extend(loss_weight_problems(&[("translate", self.loss.translate)]));
        bad.extend(self.model.problems());
        bad
    }

    fn learner(&self, _stage: &str, cx: &Context) -> Result<Box<dyn Learner>> {
        cx.seed_weights();
        Ok(Box::new(TransMLearner::new(self, cx)?))
    }

    fn network(&self, _stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>> {
        Ok(Box::new(TransM::new(vs, &self.model, shape)?))
    }
}

/// Learns the task and the translations.
#[derive(Debug)]
pub struct TransMLearner {
    vs: VarStore,
    net: TransM,
    weights: LossConfig,
}

impl TransMLearner {
    /// A fresh learner; its weights come from libtorch's generator.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(config: &Config, cx: &Context) -> Result<Self> {
        let vs = VarStore::new(cx.device);
        let net = TransM::new(&vs.root(), &config.model, &cx.problem.shape)?;
        Ok(Self { vs, net, weights: config.loss.clone() })
    }

    /// The network.
    pub fn net(&self) -> &TransM {
        &self.net
    }

    /// The losses of a batch.
    ///
    /// - `complete`, `shown`: two views of the same samples, trimmed alike
    pub fn terms(&self, complete: &Inputs, shown: &Inputs, targets: &Targets) -> LossTerms {
        let pass = self.net.forward(shown, true);
        let mut terms = LossTerms::default();
        terms.add("task", 1.0, || loss::score_or_flags(&pass.output, targets));
        terms.add("translate", self.weights.translate, || {
            self.net.translate(&pass, true).loss(complete)
        });
        terms
    }
}

impl Learner for TransMLearner {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.net
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        self.terms(&batch.complete(), &batch.shown(), batch.targets())
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        self.net.config().floats_per_sample(steps, true)
    }
}
