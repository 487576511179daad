//! The floor `mlp`: one hidden layer on mean features, one network for all conditions.

use anyhow::Result;
use cumdf_data::{MrmsConfig, TrainBatch};
use cumdf_model::{
    Predictor, Shape, loss,
    mlp::{Mlp, MlpConfig},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::nn::{Path, VarStore};

use crate::{
    learner::{Learner, LossTerms},
    method::{self, Context, Entry, Method, recipe},
    policy::TrainConfig,
    stage::{Judged, Shown, Stage, one_stage_problems},
};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "mlp",
    title: "MLP on mean features",
    about: "one hidden layer on the mean of the seen frames, a floor",
    formula: 1,
    recipes: &[recipe!("mlp", Any)],
    read: method::read::<Config>,
};

const STAGE: &str = "train";

/// Settings of the floor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What training sees.
    pub sees: Shown,
    /// Masks in training (MRMS).
    pub masks: MrmsConfig,
    /// The network.
    pub model: MlpConfig,
    /// Passes over the training split.
    pub epochs: u32,
    /// Optimisation.
    pub train: TrainConfig,
}

impl Method for Config {
    fn stages(&self) -> Vec<Stage> {
        let only =
            Stage::only(STAGE, self.sees, &self.masks, self.epochs, &self.train, json!(self));
        vec![Stage { judged: Judged::Conditions, ..only }]
    }

    fn problems(&self) -> Vec<String> {
        let mut bad = one_stage_problems(self.epochs, &self.train, &self.masks);
        bad.extend(self.model.problems());
        bad
    }

    fn learner(&self, _stage: &str, cx: &Context) -> Result<Box<dyn Learner>> {
        cx.seed_weights();
        let vs = VarStore::new(cx.device);
        let net = Mlp::new(&vs.root(), &self.model, &cx.problem.shape)?;
        Ok(Box::new(MlpLearner { vs, net }))
    }

    fn network(&self, _stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>> {
        Ok(Box::new(Mlp::new(vs, &self.model, shape)?))
    }
}

/// Mean absolute error for scores, cross-entropy for emotions.
#[derive(Debug)]
struct MlpLearner {
    vs: VarStore,
    net: Mlp,
}

impl Learner for MlpLearner {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.net
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        let output = self.net.forward(&batch.shown(), true);
        let targets = batch.targets();
        let mut terms = LossTerms::default();
        terms.add("task", 1.0, || match targets.score() {
            Some(_) => loss::score_or_flags(&output, targets),
            None => loss::cross_entropy(&output, targets.distribution()),
        });
        terms
    }
}
