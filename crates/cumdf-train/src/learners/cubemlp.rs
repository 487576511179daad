//! CubeMLP's training: one stage, by default on complete data, with the task's loss alone (Sun et
//! al., ACM MM 2022; `Train.py` of github.com/kiva12138/CubeMLP, which chooses by the validation
//! error and so does this).

use anyhow::Result;
use cumdf_data::{Inputs, MrmsConfig, Targets, TrainBatch};
use cumdf_model::{
    Predictor, Shape,
    cubemlp::{CubeMlp, CubeMlpConfig},
    loss,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::nn::{Path, VarStore};

use crate::{
    learner::{Learner, LossTerms},
    method::{self, Context, Entry, Method, recipe},
    policy::TrainConfig,
    stage::{Shown, Stage, one_stage_problems},
};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "cubemlp",
    title: "CubeMLP",
    about: "MLPs along time, modality and channel; complete data (ACM MM 2022)",
    formula: 1,
    recipes: &[
        recipe!("cubemlp", Sentiment),
        recipe!("cubemlp-emotion", Emotion),
        recipe!("cubemlp-mosei", Sentiment),
    ],
    read: method::read::<Config>,
};

/// Name of the only stage.
const STAGE: &str = "train";

/// Settings of CubeMLP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What training sees. Source: complete data.
    pub sees: Shown,
    /// Masks (MRMS), where training sees them.
    pub masks: MrmsConfig,
    /// The network.
    pub model: CubeMlpConfig,
    /// Passes over the training split.
    pub epochs: u32,
    /// Optimisation; there is one group.
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
        Ok(Box::new(CubeMlpLearner::new(self, cx)?))
    }

    fn network(&self, _stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>> {
        Ok(Box::new(CubeMlp::new(vs, &self.model, shape)?))
    }
}

/// Mean absolute error for scores, cross-entropy of every decision for emotions.
#[derive(Debug)]
pub struct CubeMlpLearner {
    vs: VarStore,
    net: CubeMlp,
}

impl CubeMlpLearner {
    /// A fresh learner; its weights come from libtorch's generator.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(config: &Config, cx: &Context) -> Result<Self> {
        let vs = VarStore::new(cx.device);
        let net = CubeMlp::new(&vs.root(), &config.model, &cx.problem.shape)?;
        Ok(Self { vs, net })
    }

    /// The network.
    pub fn net(&self) -> &CubeMlp {
        &self.net
    }

    /// The losses of a view of samples with these labels.
    pub fn terms(&self, inputs: &Inputs, targets: &Targets) -> LossTerms {
        let output = self.net.forward(inputs, true).output;
        let mut terms = LossTerms::default();
        terms.add("task", 1.0, || loss::score_or_flags(&output, targets));
        terms
    }
}

impl Learner for CubeMlpLearner {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.net
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        self.terms(&batch.shown(), batch.targets())
    }
}
