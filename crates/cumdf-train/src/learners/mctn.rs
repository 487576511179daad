//! MCTN's training: one stage, up to three translating networks at once, on incomplete data with
//! complete targets (Pham et al., AAAI 2019; github.com/hainow/MCTN). The best epoch on validation
//! data answers; the source takes the last one.

use anyhow::Result;
use cumdf_data::{Inputs, Modality, ModalitySet, MrmsConfig, Targets, TrainBatch, View};
use cumdf_model::{
    Predictor, Shape,
    mctn::{Mctn, MctnConfig, MctnPass, Translations, task_loss, translation_error},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{
    Tensor,
    nn::{Path, VarStore},
};

use crate::{
    evaluate,
    learner::{Learner, LossTerms},
    method::{self, Context, Entry, Method, recipe},
    policy::{TrainConfig, loss_weight_problems},
    stage::{Shown, Stage, one_stage_problems},
};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "mctn",
    title: "MCTN",
    about: "answers from representations that translate one modality into the others and back; a \
            network per source (AAAI 2019)",
    formula: 1,
    recipes: &[
        recipe!("mctn", Sentiment),
        recipe!("mctn-emotion", Emotion),
        recipe!("mctn-mosei", Sentiment),
    ],
    read: method::read::<Config>,
};

/// Name of the only stage.
const STAGE: &str = "train";

/// Settings of MCTN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What training sees of the sources. Source: complete data. Ours: masked.
    pub sees: Shown,
    /// Masks (MRMS), where training sees them.
    pub masks: MrmsConfig,
    /// The networks.
    pub model: MctnConfig,
    /// The weights of the losses.
    pub loss: LossConfig,
    /// Passes over the training split.
    pub epochs: u32,
    /// Optimisation; there is one group, `rest`.
    pub train: TrainConfig,
}

/// Weights of the losses beside the task's, which is 1; each in 0 to 1000000.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Of the translation of the source into the first target. Source: 0.1.
    pub translate: f64,
    /// Of the translation back. Source: 0.1.
    pub cycle: f64,
    /// Of the translation into the second target. Source: 0.1.
    pub second: f64,
    /// Of the square of the last layer's matrix. Source: 0.01.
    pub decay: f64,
}

impl Method for Config {
    fn stages(&self) -> Vec<Stage> {
        vec![Stage::only(STAGE, self.sees, &self.masks, self.epochs, &self.train, json!(self))]
    }

    fn problems(&self) -> Vec<String> {
        let mut bad = one_stage_problems(self.epochs, &self.train, &self.masks);
        let LossConfig { translate, cycle, second, decay } = self.loss;
        let weights =
            [("translate", translate), ("cycle", cycle), ("second", second), ("decay", decay)];
        bad.extend(loss_weight_problems(&weights));
        bad.extend(self.model.problems());
        bad
    }

    fn learner(&self, _stage: &str, cx: &Context) -> Result<Box<dyn Learner>> {
        cx.seed_weights();
        Ok(Box::new(MctnLearner::new(self, cx)?))
    }

    fn network(&self, _stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>> {
        Ok(Box::new(Mctn::new(vs, &self.model, shape)?))
    }
}

/// Trains all networks at once; they share nothing but the batch.
#[derive(Debug)]
pub struct MctnLearner {
    vs: VarStore,
    net: Mctn,
    weights: LossConfig,
}

impl MctnLearner {
    /// A fresh learner; its weights come from libtorch's generator.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(config: &Config, cx: &Context) -> Result<Self> {
        let vs = VarStore::new(cx.device);
        let net = Mctn::new(&vs.root(), &config.model, &cx.problem.shape)?;
        Ok(Self { vs, net, weights: config.loss.clone() })
    }

    /// The networks.
    pub fn net(&self) -> &Mctn {
        &self.net
    }

    /// The losses of a pass over `shown`, each added up over the networks.
    ///
    /// - `complete`, `shown`: two views of the same samples, trimmed alike
    pub fn terms(
        &self,
        pass: &MctnPass,
        complete: &Inputs,
        shown: &Inputs,
        targets: &Targets,
    ) -> LossTerms {
        let column = |flags: &Tensor, m: Modality| flags.select(1, m.index() as i64); // [B]
        let (own, real) = (shown.available(), complete.available()); // [B, 3]
        let sources: Vec<_> = self.net.sources().iter().map(|m| column(&own, *m)).collect();
        let error = |t: &Translations, got: &Tensor, m: Modality| {
            let samples = column(&own, t.source).logical_and(&column(&real, m));
            translation_error(got, &complete.features[m.index()], &samples, &complete.valid)
        };
        let all = |of: &dyn Fn(&Translations) -> Tensor| {
            let errors = pass.translations.iter().map(of);
            errors.reduce(|sum, error| sum + error).expect("there is a network")
        };
        let LossConfig { translate, cycle, second, decay } = self.weights;
        let mut terms = LossTerms::default();
        terms.add("task", 1.0, || task_loss(&pass.outputs, &Tensor::stack(&sources, 0), targets));
        terms.add("translate", translate, || all(&|t| error(t, &t.first, t.targets[0])));
        terms.add("cycle", cycle, || all(&|t| error(t, &t.cycle, t.source)));
        terms.add("second", second, || all(&|t| error(t, &t.second, t.targets[1])));
        terms.add("decay", decay, || self.net.decay());
        terms
    }
}

impl Learner for MctnLearner {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.net
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        let shown = batch.shown();
        let pass = self.net.forward(&shown);
        self.terms(&pass, &batch.complete(), &shown, batch.targets())
    }

    /// The conditions in which one network answers alone, so that no error depends on the weights
    /// that it decides.
    fn weighed_by(&self) -> Vec<View> {
        let alone = |source: Modality| evaluate::view(ModalitySet::of([source]), 0.0);
        self.net.sources().into_iter().map(alone).collect()
    }

    fn weigh(&mut self, errors: &[Option<f64>]) {
        let mut quality = [None; 3];
        for (source, error) in self.net.sources().iter().zip(errors) {
            quality[source.index()] = *error;
        }
        self.net.set_quality(quality);
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        self.net.floats_to_train(steps)
    }
}
