//! CUMDF, the paper's network: extract, guide, fuse, classify, attribute. Teacher and student are
//! both this; they differ in what guides them and in their losses.
//!
//! [`knowledge`] is MKE (Eq. 1-4), `unimodal` Eq. 11, `fusion` LG-MMT (Eq. 5-9), `maci` Eq. 12-16,
//! `distil` the distances of Eq. 10, `committee` several networks that answer together. `docs/model.md` is the specification, equation by equation.

mod committee;
mod config;
mod distil;
mod fusion;
pub mod knowledge;
mod maci;
mod unimodal;

use std::array::from_fn;

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Targets};
use tch::{Kind, Tensor, nn::Path};

pub use committee::Committee;
pub use config::{ConvActivation, LabelGate, ModelConfig, PoolNorm};
pub use distil::{Distance, Srd, SrdProjection};
pub use fusion::{PAIR_NAMES, PAIRS};
pub use maci::{MeanAccumulator, batch_shares};

use fusion::{Fusion, LabelGuidedFusion, Steps};
use knowledge::{Knowledge, KnowledgeExtractor, open_steps};
use maci::TrainingMeans;
use unimodal::{Unimodal, UnimodalHeads, estimate_label};

use crate::{
    answer::{Answer, Explained, Predictor},
    layers::{BatchNorm, BatchStats, DropoutDraw, Linear, mean_weights, pool},
    shape::Shape,
};

/// The CUMDF network.
#[derive(Debug)]
pub struct Cumdf {
    extractor: KnowledgeExtractor,
    unimodal: UnimodalHeads,
    fusion: Option<LabelGuidedFusion>, // none in the ablation without LG-MMT
    head_norm: Option<BatchNorm>,
    head: Linear,
    means: TrainingMeans,
    cfg: ModelConfig,
}

/// The distribution over labels that guides LG-MMT. A true label comes with [`Targets`], which
/// only the training split can make.
#[derive(Debug, Clone, Copy)]
pub enum Guide<'a> {
    /// The model's own estimate, as at evaluation.
    Estimate,
    /// The true label of every sample: the teacher guiding a student.
    Oracle(&'a Targets),
    /// The true label where the mask `[B]` bool is true, the estimate elsewhere: teacher training.
    Mixed(&'a Targets, &'a Tensor),
}

/// One pass through the network, with what losses and counterfactuals read.
#[derive(Debug)]
pub struct Pass {
    /// Eq. 1-4.
    pub knowledge: Knowledge,
    /// `p_m = GAP(X~_m) [B, d]` per modality.
    pub pooled: [Tensor; 3],
    /// `g [B, C]`.
    pub guide: Tensor,
    /// `H [B, 3d]` (Eq. 9).
    pub fused: Tensor,
    /// `[B, C]` before softmax.
    pub logits: Tensor,
    /// `[B, 3]` bool: the modality has a seen frame.
    pub available: Tensor,
    unimodal: Unimodal,
    fusion: Option<Fusion>,
    head_stats: Option<BatchStats>,
    head_draw: DropoutDraw,
}

impl Pass {
    /// Uni-modal logits `[B, C]` per modality (Eq. 11).
    pub fn unimodal_logits(&self) -> &[Tensor; 3] {
        &self.unimodal.logits
    }

    /// `GAP(H_mn) [B, d]` of the pairs la, lv, av; none without LG-MMT.
    pub fn pairs(&self) -> Option<&[Tensor; 3]> {
        self.fusion.as_ref().map(|fusion| &fusion.pairs)
    }
}

impl Cumdf {
    /// Registers the variables under `vs`, the root of a store.
    ///
    /// # Errors
    /// When a size in `cfg` is impossible.
    pub fn new(vs: &Path, cfg: &ModelConfig, shape: &Shape) -> Result<Self> {
        let bad = cfg.problems();
        ensure!(bad.is_empty(), "{}", bad.join("\n  "));
        let head = vs / "head";
        Ok(Self {
            extractor: KnowledgeExtractor::new(&(vs / "mke"), cfg, shape),
            unimodal: UnimodalHeads::new(&(vs / "unimodal"), cfg, shape.n_classes()),
            fusion: cfg.lg_mmt.then(|| LabelGuidedFusion::new(vs, cfg, shape)),
            head_norm: (cfg.pool_norm == PoolNorm::Batch)
                .then(|| BatchNorm::new(&(&head / "norm"), 3 * cfg.hidden_dim)),
            head: Linear::new(&(&head / "linear"), cfg.head_dim(), shape.n_classes()),
            means: TrainingMeans::new(&(vs / "maci"), cfg.hidden_dim),
            cfg: cfg.clone(),
        })
    }

    /// One pass. `train` switches dropout and batch statistics on.
    pub fn forward(&self, inputs: &Inputs, guide: Guide, train: bool) -> Pass {
        let open = open_steps(inputs, self.cfg.mask_missing);
        let available = inputs.available();
        let knowledge = self.extractor.forward(inputs, &open, train);
        let valid_mean = mean_weights(&inputs.valid);
        let pooled: [Tensor; 3] = from_fn(|m| pool(&knowledge.combined[m], &valid_mean));
        let unimodal = self.unimodal.forward(&pooled, train);
        let guide = resolve(guide, estimate_label(&unimodal.logits, &available));
        let steps = Steps { valid: &inputs.valid, valid_mean: &valid_mean, open: &open };
        let fusion = self
            .fusion
            .as_ref()
            .map(|fusion| fusion.forward(&knowledge.combined, &guide, &steps, train));
        let fused = Tensor::cat(fusion.as_ref().map_or(&pooled, |fusion| &fusion.pairs), 1);
        let head_stats = self.head_norm.as_ref().map(|norm| norm.stats(&fused, train));
        let input = self.head_input(&fused, head_stats.as_ref(), &unimodal.normed);
        let head_draw = DropoutDraw::new(&input, self.cfg.dropout, train);
        let logits = self.head.forward(&head_draw.apply(&input));
        Pass {
            knowledge,
            pooled,
            guide,
            fused,
            logits,
            available,
            unimodal,
            fusion,
            head_stats,
            head_draw,
        }
    }

    /// Logits `[B, C]` without each modality in turn (Eq. 12), sharing all of `pass` up to `X~`.
    pub fn counterfactuals(&self, pass: &Pass) -> [Tensor; 3] {
        from_fn(|removed| {
            let mean = self.means.of(removed);
            let pooled_mean = mean.unsqueeze(0).expand_as(&pass.pooled[removed]);
            let pairs = match (&self.fusion, &pass.fusion) {
                (Some(network), Some(fusion)) => network.without(fusion, removed, mean),
                _ => replace(&pass.pooled, removed, &pooled_mean),
            };
            let normed = self.unimodal.normalise_as(&pass.unimodal, removed, &pooled_mean);
            let normed = replace(&pass.unimodal.normed, removed, &normed);
            let fused = Tensor::cat(&pairs, 1);
            let input = self.head_input(&fused, pass.head_stats.as_ref(), &normed);
            self.head.forward(&pass.head_draw.apply(&input))
        })
    }

    /// Effects `delta [B, 3]` of Eq. 13 under `target [B, C]`.
    pub fn effects(&self, pass: &Pass, target: &Tensor) -> Tensor {
        let without = self.counterfactuals(pass).map(|l| l.softmax(-1, Kind::Float));
        maci::effects(&pass.logits.softmax(-1, Kind::Float), &without, target, &pass.available)
    }

    /// Replaces the training averages of Eq. 12.
    pub fn set_training_means(&mut self, means: &[Tensor; 3]) {
        self.means.set(means);
    }

    /// Adds a complete training batch to what [`Cumdf::set_training_means`] will be given.
    pub fn accumulate_means(&self, inputs: &Inputs, sums: &mut MeanAccumulator) {
        let open = open_steps(inputs, self.cfg.mask_missing);
        let knowledge = self.extractor.forward(inputs, &open, false);
        sums.add(&knowledge.combined, &inputs.valid, &inputs.available());
    }

    /// An empty accumulator of this network's width and device.
    pub fn mean_accumulator(&self) -> MeanAccumulator {
        MeanAccumulator::new(self.means.of(0))
    }

    /// `|W_Q|^2`, `|W_K|^2`, `|W_V|^2` (Eq. 17), scalars; none without LG-MMT.
    pub fn squared_norms(&self) -> Option<[Tensor; 3]> {
        self.fusion.as_ref().map(LabelGuidedFusion::squared_norms)
    }

    /// The sizes and switches it was built with.
    pub fn config(&self) -> &ModelConfig {
        &self.cfg
    }

    fn head_input(
        &self,
        fused: &Tensor,
        stats: Option<&BatchStats>,
        normed: &[Tensor; 3],
    ) -> Tensor {
        let fused = match (&self.head_norm, stats) {
            (Some(norm), Some(stats)) => norm.apply(fused, stats),
            _ => fused.shallow_clone(),
        };
        if !self.cfg.head_pooled {
            return fused;
        }
        Tensor::cat(&[&fused, &normed[0], &normed[1], &normed[2]], 1)
    }
}

impl Predictor for Cumdf {
    fn predict(&self, inputs: &Inputs) -> Answer {
        let _guard = tch::no_grad_guard();
        let logits = self.forward(inputs, Guide::Estimate, false).logits;
        Answer::Classes(logits.softmax(-1, Kind::Float))
    }

    /// Without MACI nothing is attributed: there are no training averages to stand in for a
    /// modality.
    fn explain(&self, inputs: &Inputs) -> Explained {
        let _guard = tch::no_grad_guard();
        let pass = self.forward(inputs, Guide::Estimate, false);
        let probs = pass.logits.softmax(-1, Kind::Float);
        let attributions = self.cfg.maci.then(|| {
            // Unlabelled, so Eq. 13 looks at the predicted class.
            let predicted = probs.argmax(-1, true);
            let target = probs.zeros_like().scatter_value(1, &predicted, 1.0);
            maci::sample_shares(&self.effects(&pass, &target), &pass.available)
        });
        Explained { answer: Answer::Classes(probs), attributions }
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        self.cfg.floats_per_sample(steps, false)
    }
}

/// The guide's distribution `[B, C]`, given the model's own estimate.
fn resolve(guide: Guide, estimate: Tensor) -> Tensor {
    match guide {
        Guide::Estimate => estimate,
        Guide::Oracle(targets) => targets.distribution().shallow_clone(),
        Guide::Mixed(targets, oracle) => {
            targets.distribution().where_self(&oracle.unsqueeze(1), &estimate)
        }
    }
}

fn replace(tensors: &[Tensor; 3], at: usize, with: &Tensor) -> [Tensor; 3] {
    from_fn(|m| if m == at { with.shallow_clone() } else { tensors[m].shallow_clone() })
}
