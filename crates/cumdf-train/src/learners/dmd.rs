//! DMD's training: one stage, by default on complete data, of the answer, a head per modality and
//! part, two distillation units and the losses of the decoupling (Li et al., CVPR 2023;
//! `trains/singleTask/DMD.py` of github.com/mdswyz/DMD).

use anyhow::Result;
use cumdf_data::{Inputs, MrmsConfig, Targets, TrainBatch};
use cumdf_model::{
    Predictor, Shape,
    dmd::{
        Auxiliary, AuxiliaryPass, Dmd, DmdConfig, DmdPass, Vertices,
        auxiliary::{distance, orthogonality},
        margin::{margin, points},
    },
    loss,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{
    Kind, Tensor,
    nn::{Path, VarStore},
};

use crate::{
    learner::{Learner, LossTerms},
    method::{self, Context, Entry, Method, recipe},
    policy::{TrainConfig, loss_weight_problems},
    stage::{Shown, Stage, one_stage_problems},
};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "dmd",
    title: "DMD",
    about: "shared and private parts of each modality that teach each other; complete data (CVPR 2023)",
    formula: 1,
    recipes: &[
        recipe!("dmd", Sentiment),
        recipe!("dmd-emotion", Emotion),
        recipe!("dmd-mosei", Sentiment),
    ],
    read: method::read::<Config>,
};

/// Name of the only stage.
const STAGE: &str = "distil";

/// Settings of DMD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What training sees. Source: complete data.
    pub sees: Shown,
    /// Masks (MRMS), where training sees them.
    pub masks: MrmsConfig,
    /// The network.
    pub model: DmdConfig,
    /// Passes over the training split.
    pub epochs: u32,
    /// Weights of the losses; that of the answer is 1.
    pub loss: LossConfig,
    /// Optimisation.
    pub train: TrainConfig,
}

/// Weights of the losses, each in 0 to 1000000; a loss of weight 0 is not computed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// Of the answers of the seven further heads. Source: 1.
    pub heads: f64,
    /// Of both distillation units. Source: 0.05.
    pub distil: f64,
    /// Of the reconstruction and of the private part after it. Source: 0.1.
    pub reconstruct: f64,
    /// Of the margin and of the orthogonality. Source: 0.1 of 0.1.
    pub constrain: f64,
}

impl Method for Config {
    fn stages(&self) -> Vec<Stage> {
        vec![Stage::only(STAGE, self.sees, &self.masks, self.epochs, &self.train, json!(self))]
    }

    fn problems(&self) -> Vec<String> {
        let mut bad = one_stage_problems(self.epochs, &self.train, &self.masks);
        let LossConfig { heads, distil, reconstruct, constrain } = self.loss;
        bad.extend(loss_weight_problems(&[
            ("heads", heads),
            ("distil", distil),
            ("reconstruct", reconstruct),
            ("constrain", constrain),
        ]));
        bad.extend(self.model.problems());
        bad
    }

    fn learner(&self, _stage: &str, cx: &Context) -> Result<Box<dyn Learner>> {
        cx.seed_weights();
        Ok(Box::new(DmdLearner::new(self, cx)?))
    }

    fn network(&self, _stage: &str, vs: &Path, shape: &Shape) -> Result<Box<dyn Predictor>> {
        Ok(Box::new(Dmd::new(vs, &self.model, shape)?))
    }
}

/// Trains the network with the heads and units that only its losses read.
#[derive(Debug)]
pub struct DmdLearner {
    vs: VarStore,
    net: Dmd,
    scratch: VarStore,
    auxiliary: Auxiliary,
    weights: LossConfig,
}

impl DmdLearner {
    /// A fresh learner; its weights come from libtorch's generator.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(config: &Config, cx: &Context) -> Result<Self> {
        let shape = &cx.problem.shape;
        let [vs, scratch] = [(); 2].map(|()| VarStore::new(cx.device));
        let net = Dmd::new(&vs.root(), &config.model, shape)?;
        let auxiliary = Auxiliary::new(&scratch.root(), &config.model, shape);
        Ok(Self { vs, net, scratch, auxiliary, weights: config.loss })
    }

    /// The network.
    pub fn net(&self) -> &Dmd {
        &self.net
    }

    /// A pass through all that training reads.
    pub fn pass(&self, inputs: &Inputs) -> (DmdPass, AuxiliaryPass) {
        let pass = self.net.forward(inputs, true);
        let auxiliary = self.auxiliary.forward(&self.net, &pass, true);
        (pass, auxiliary)
    }

    /// The losses of a pass.
    pub fn terms(&self, pass: &DmdPass, aux: &AuxiliaryPass, targets: &Targets) -> LossTerms {
        let LossConfig { heads, distil, reconstruct, constrain } = self.weights;
        let task = |output: &Tensor| loss::score_or_flags(&self.net.in_units(output), targets);
        let of_all = |branch: &Vertices| {
            let each: Vec<_> = branch.logits.unbind(0).iter().map(task).collect();
            Tensor::stack(&each, 0).sum(Kind::Float)
        };
        let [hom, het] = [&aux.homogeneous, &aux.heterogeneous];
        let [hom_unit, het_unit] = self.auxiliary.units();
        let [hom_edges, het_edges] = &aux.edges;
        let mut terms = LossTerms::default();
        terms.add("task", 1.0, || task(&pass.output));
        terms.add("common", heads, || task(&aux.common));
        terms.add("hom", heads, || of_all(hom));
        terms.add("het", heads, || of_all(het));
        terms.add("hom_logit", distil, || hom_unit.logit_loss(hom_edges, hom));
        terms.add("hom_prior", distil, || hom_unit.prior_loss(hom_edges));
        terms.add("het_logit", distil, || het_unit.logit_loss(het_edges, het));
        terms.add("het_repr", distil, || het_unit.representation_loss(het_edges, het));
        terms.add("het_prior", distil, || het_unit.prior_loss(het_edges));
        let features = &pass.decoupled;
        terms.add("private", reconstruct, || distance(&features.private, &aux.private_again));
        terms.add("reconstruct", reconstruct, || distance(&aux.reconstructed, &features.projected));
        terms.add("margin", constrain, || {
            let labels = points(targets).repeat([3, 1]); // [3B, C]
            margin(&Tensor::cat(&aux.margin, 0), &labels)
        });
        terms.add("orthogonal", constrain, || orthogonality(features));
        terms
    }
}

impl Learner for DmdLearner {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn scratch(&self) -> Option<&VarStore> {
        Some(&self.scratch)
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.net
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        let (pass, auxiliary) = self.pass(&batch.shown());
        self.terms(&pass, &auxiliary, batch.targets())
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        self.net.floats(steps, true)
    }
}
