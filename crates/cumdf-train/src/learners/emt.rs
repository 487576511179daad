//! EMT-DLFR's training: one stage in which the complete and the incomplete view of every sample go
//! through the same network (Sun et al., IEEE Transactions on Affective Computing, 2023;
//! `trains/missingTask/EMT_DLFR.py` of github.com/sunlicai/EMT-DLFR). The checkpoint is chosen by
//! the task alone; in the source the total decides, whose attraction of at best -4 can hide a worse
//! task.
//!
//! Batch normalisation, in the SimSiam heads, wants two samples at least: the trainer leaves no last
//! batch of one, it joins the batch before.

use anyhow::Result;
use cumdf_data::{Inputs, MrmsConfig, Targets, TrainBatch};
use cumdf_model::{
    Predictor, Shape,
    emt::{Emt, EmtConfig, Siamese, VECTORS},
    loss,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::nn::{Path, VarStore};

use crate::{
    learner::{Learner, LossTerms, REST},
    method::{self, Context, Entry, Method, recipe},
    policy::{TrainConfig, loss_weight_problems},
    stage::{Shown, Stage, one_stage_problems},
};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "emt",
    title: "EMT-DLFR",
    about: "a global context and local sequences read each other; complete and incomplete views \
            compared (IEEE TAC 2023)",
    formula: 1,
    recipes: &[
        recipe!("emt", Sentiment),
        recipe!("emt-emotion", Emotion),
        recipe!("emt-mosei", Sentiment),
    ],
    read: method::read::<Config>,
};

/// Name of the only stage.
const STAGE: &str = "siamese";

/// Settings of EMT-DLFR.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the incomplete view is. Source: masked; the other leaves two views alike.
    pub sees: Shown,
    /// Masks (MRMS), of training and of the draw that chooses the checkpoint.
    pub masks: MrmsConfig,
    /// The network, and the heads that its training needs.
    pub model: EmtConfig,
    /// Weights of the losses beside the task's.
    pub loss: LossConfig,
    /// Passes over the training split.
    pub epochs: u32,
    /// Optimisation; the groups are `language`, `audio` and `vision` for their encoders, and `rest`.
    pub train: TrainConfig,
}

/// Weights of the losses beside the incomplete view's task, 0 to 1000000 each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// `w_1`, of the attraction between the views and of the complete view's task. Source: 1.
    pub siamese: f64,
    /// `w_2`, of the hidden frames' reconstruction. Source: 1.
    pub reconstruct: f64,
}

impl Method for Config {
    fn stages(&self) -> Vec<Stage> {
        vec![Stage::only(STAGE, self.sees, &self.masks, self.epochs, &self.train, json!(self))]
    }

    fn problems(&self) -> Vec<String> {
        let mut bad = one_stage_problems(self.epochs, &self.train, &self.masks);
        let LossConfig { siamese, reconstruct } = self.loss;
        bad.extend(loss_weight_problems(&[("siamese", siamese), ("reconstruct", reconstruct)]));
        bad.extend(self.model.problems());
        bad
    }

    fn learner(&self, _stage: &str, cx: &Context) -> Result<Box<dyn Learner>> {
        cx.seed_weights();
        Ok(Box::new(EmtLearner::new(self, cx)?))
    }

    fn network(&self, _stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>> {
        Ok(Box::new(Emt::new(vs, &self.model, shape)?))
    }
}

/// Trains the network on both views.
#[derive(Debug)]
pub struct EmtLearner {
    vs: VarStore,
    net: Emt,
    scratch: VarStore,
    siamese: Siamese,
    weights: LossConfig,
}

impl EmtLearner {
    /// A fresh learner; its weights come from libtorch's generator.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(config: &Config, cx: &Context) -> Result<Self> {
        let shape = &cx.problem.shape;
        let vs = VarStore::new(cx.device);
        let net = Emt::new(&vs.root(), &config.model, shape)?;
        let scratch = VarStore::new(cx.device);
        let siamese = Siamese::new(&scratch.root(), &config.model, shape);
        Ok(Self { vs, net, scratch, siamese, weights: config.loss.clone() })
    }

    /// The network.
    pub fn net(&self) -> &Emt {
        &self.net
    }

    /// What only training needs.
    pub fn siamese(&self) -> &Siamese {
        &self.siamese
    }

    /// The losses of a batch: the incomplete view's task, and by their weights the complete view's,
    /// the attraction and the reconstruction.
    ///
    /// - `complete`, `incomplete`: two views of the same samples, trimmed alike
    pub fn terms(&self, complete: &Inputs, incomplete: &Inputs, targets: &Targets) -> LossTerms {
        let pass = self.net.views(complete, incomplete, true);
        let outputs = pass.output.chunk(2, 0); // complete, incomplete
        let LossConfig { siamese, reconstruct } = self.weights;
        let mut terms = LossTerms::default();
        terms.add("task", 1.0, || loss::score_or_flags(&outputs[1], targets));
        terms.add("complete", siamese, || loss::score_or_flags(&outputs[0], targets));
        terms.add("attract", siamese, || self.siamese.attract(&pass.vectors));
        terms.add("reconstruct", reconstruct, || {
            self.siamese.reconstruct(&pass.tokens, complete, incomplete)
        });
        terms
    }
}

impl Learner for EmtLearner {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn scratch(&self) -> Option<&VarStore> {
        Some(&self.scratch)
    }

    fn group(&self, variable: &str) -> &'static str {
        let Some(inside) = variable.strip_prefix("encoder.") else { return REST };
        let modality = VECTORS.iter().find(|name| inside.split('.').next() == Some(name));
        modality.copied().unwrap_or(REST)
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
