//! The teacher: the network on complete data, guided by true labels part of the time; or several of
//! them, each of which never sees its own part of the training split.

use anyhow::Result;
use cumdf_data::{Folds, Targets, TrainBatch, TrainSet};
use cumdf_model::{
    Predictor, Shape,
    cumdf::{Committee, Cumdf, Guide, Pass},
    loss,
};
use tch::{Device, Kind, Tensor, nn::VarStore};

use super::{CumdfConfig, LossConfig};
use crate::{
    evaluate,
    learner::{Learner, LossTerms},
    method::Context,
};

/// The most networks that one teacher can be.
pub(super) const MOST_FOLDS: usize = 16;

/// Trains the network on complete views (Eq. 18, and Eq. 17's penalty), one for each fold.
#[derive(Debug)]
pub struct Teacher {
    vs: VarStore,
    nets: Committee,
    folds: Folds,
    oracle_rate: f64,
    weights: LossConfig,
    bin_scores: Option<Tensor>, // [C], sentiment only
}

impl Teacher {
    /// A fresh teacher; its weights come from libtorch's generator.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(config: &CumdfConfig, cx: &Context) -> Result<Self> {
        let vs = VarStore::new(cx.device);
        let (shape, n) = (&cx.problem.shape, config.teacher.folds as usize);
        let nets = Committee::new(&vs.root(), n, &config.model, shape)?;
        Ok(Self {
            nets,
            folds: Folds::draw(cx.train.ids(), n, cx.seed),
            oracle_rate: config.teacher.oracle_rate,
            weights: config.loss.clone(),
            bin_scores: bin_scores(shape, cx.device),
            vs,
        })
    }

    /// The network, or the networks of all folds.
    pub fn nets(&self) -> &Committee {
        &self.nets
    }

    /// The part of the training split that each network does not see.
    pub fn folds(&self) -> &Folds {
        &self.folds
    }

    fn terms(&self, net: &Cumdf, batch: &TrainBatch) -> LossTerms {
        let targets = batch.targets();
        let oracle = Tensor::rand([batch.len()], (Kind::Float, self.vs.device()));
        let oracle = oracle.lt(self.oracle_rate);
        let pass = net.forward(&batch.complete(), Guide::Mixed(targets, &oracle), true);
        let mut terms = LossTerms::default();
        common_terms(&mut terms, net, &pass, targets, &self.weights, self.bin_scores.as_ref());
        terms
    }
}

/// The bins' scores `[C]` of a sentiment task.
pub(super) fn bin_scores(shape: &Shape, device: Device) -> Option<Tensor> {
    shape.task.bin_scores().map(|scores| Tensor::from_slice(&scores).to_device(device))
}

impl Learner for Teacher {
    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn network(&self, variable: &str) -> usize {
        Committee::member_of(variable)
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.nets
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        if let [alone] = self.nets.members() {
            return self.terms(alone, batch);
        }
        let members = self.nets.members().iter().enumerate();
        let seen =
            members.filter_map(|(k, net)| Some((net, batch.only(|row| self.folds.of(row) != k)?)));
        LossTerms::together(seen.map(|(net, batch)| self.terms(net, &batch)).collect())
    }

    fn seal(&mut self, train: &TrainSet) {
        self.nets.members_mut().iter_mut().for_each(|net| refresh_means(net, train));
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        let each = |net: &Cumdf| net.config().floats_per_sample(steps, true);
        self.nets.members().iter().map(each).sum()
    }
}

/// The terms that teacher and student share: task, score, uni-modal, regularisation.
pub(super) fn common_terms(
    terms: &mut LossTerms,
    net: &Cumdf,
    pass: &Pass,
    targets: &Targets,
    weights: &LossConfig,
    bin_scores: Option<&Tensor>,
) {
    let target = targets.distribution();
    terms.add("task", 1.0, || loss::cross_entropy(&pass.logits, target));
    if let (Some(bins), Some(score)) = (bin_scores, targets.score()) {
        terms.add("score", weights.score, || loss::expected_score(&pass.logits, bins, score));
    }
    terms.add("uni", weights.uni, || {
        loss::unimodal(pass.unimodal_logits(), target, &pass.available)
    });
    if let Some(norms) = net.squared_norms() {
        terms.add("reg", weights.reg, || {
            let weighted = norms.iter().zip(weights.norms).map(|(norm, lambda)| norm * lambda);
            weighted.reduce(|sum, norm| sum + norm).expect("three norms")
        });
    }
}

/// Recomputes the training averages of Eq. 12 on complete views.
pub(super) fn refresh_means(net: &mut Cumdf, train: &TrainSet) {
    let _guard = tch::no_grad_guard();
    let mut sums = net.mean_accumulator();
    let batch_size = evaluate::batch_size(net, train.steps(), train.dims());
    for batch in train.complete_batches(batch_size) {
        net.accumulate_means(&batch.complete(), &mut sums);
    }
    net.set_training_means(&sums.means());
}
