//! The student: the same network on incomplete data, guided by the frozen teacher (Eq. 10-19).

use std::array::from_fn;

use anyhow::{Context as _, Result, ensure};
use cumdf_data::{Inputs, Modality, Targets, TrainBatch, TrainSet};
use cumdf_model::{
    Predictor, checkpoint,
    cumdf::{Cumdf, Distance, Guide, PAIR_NAMES, Pass, SrdProjection, batch_shares},
    loss,
};
use tch::{
    Device, Kind, Tensor,
    nn::{Path, VarStore},
};

use super::{
    CumdfConfig, LossConfig,
    teacher::{bin_scores, common_terms, refresh_means},
};
use crate::{
    evaluate,
    learner::{Learner, LossTerms},
    method::{Context, Trained},
};

/// Trains the network on incomplete views, with counterfactual and distillation losses.
#[derive(Debug)]
pub struct Student {
    vs: VarStore,
    net: Cumdf,
    weights: LossConfig,
    bin_scores: Option<Tensor>,
    scratch: VarStore, // the projections of distillation
    distillation: Option<Distillation>,
}

impl Student {
    /// A fresh student; without `targets` it learns without a teacher.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(
        config: &CumdfConfig,
        cx: &Context,
        targets: Option<TeacherTargets>,
    ) -> Result<Self> {
        let vs = VarStore::new(cx.device);
        let shape = &cx.problem.shape;
        let net = Cumdf::new(&vs.root(), &config.model, shape)?;
        let scratch = VarStore::new(cx.device);
        let distillation = targets.map(|targets| {
            let projection = config.student.srd_projection;
            let root = scratch.root() / "distil";
            Distillation::new(&root, config.model.hidden_dim, projection, targets)
        });
        Ok(Self {
            net,
            weights: config.loss.clone(),
            bin_scores: bin_scores(shape, cx.device),
            scratch,
            distillation,
            vs,
        })
    }

    /// The network.
    pub fn net(&self) -> &Cumdf {
        &self.net
    }
}

impl Learner for Student {
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
        self.terms(&batch.shown(), batch.targets(), &batch.index)
    }

    /// The averages of Eq. 12, which the epoch's counterfactuals read.
    fn begin_epoch(&mut self, _epoch: u32, train: &TrainSet) {
        self.seal(train);
    }

    fn seal(&mut self, train: &TrainSet) {
        if self.net.config().maci {
            refresh_means(&mut self.net, train);
        }
    }

    fn floats_per_sample(&self, steps: i64) -> f64 {
        self.net.config().floats_per_sample(steps, true)
    }
}

impl Student {
    /// The terms of Eq. 19 on the view `inputs` of the training samples `index [B]`.
    pub fn terms(&self, inputs: &Inputs, targets: &Targets, index: &Tensor) -> LossTerms {
        let weights = &self.weights;
        let pass = self.net.forward(inputs, Guide::Estimate, true);
        let mut terms = LossTerms::default();
        common_terms(&mut terms, &self.net, &pass, targets, weights, self.bin_scores.as_ref());
        let weighs = self.distillation.is_some() && weights.srd * weights.srd_modalities != 0.0;
        let reads_shares = weights.cou != 0.0 || weighs;
        let shares = (self.net.config().maci && reads_shares).then(|| {
            batch_shares(&self.net.effects(&pass, targets.distribution())) // X_con [3]
        });
        if let Some(shares) = &shares {
            terms.add("cou", weights.cou, || loss::counterfactual(shares));
        }
        if let Some(distillation) = &self.distillation {
            distillation.add_terms(&mut terms, &pass, index, shares.as_ref(), weights);
        }
        terms
    }
}

/// What the frozen teacher says of every training sample, computed once: complete view, dropout
/// off, guided by the true label.
#[derive(Debug)]
pub struct TeacherTargets {
    /// `H [N, 3d]`.
    pub fused: Tensor,
    /// `GAP(H_mn) [N, d]` of the pairs la, lv, av; none without LG-MMT.
    pub pairs: Option<[Tensor; 3]>,
    /// `GAP(X~_m) [N, d]` per modality.
    pub modalities: [Tensor; 3],
}

impl TeacherTargets {
    /// Runs the teacher of a checkpoint over the training split.
    ///
    /// # Errors
    /// When it is no teacher, or was trained on other data, or differs in a size that Eq. 10
    /// compares.
    pub fn load(config: &CumdfConfig, teacher: &Trained, cx: &Context) -> Result<Self> {
        let read = || -> Result<Cumdf> {
            let (checkpoint, theirs) = teacher.open(super::ENTRY.name, cx)?;
            let theirs: CumdfConfig = theirs.settings()?;
            let (theirs, ours) = (theirs.model, &config.model);
            ensure!(
                (theirs.hidden_dim, theirs.lg_mmt) == (ours.hidden_dim, ours.lg_mmt),
                "{} has model.hidden_dim = {} and model.lg_mmt = {}, the student {} and {}: they \
                 must agree",
                teacher.path.display(),
                theirs.hidden_dim,
                theirs.lg_mmt,
                ours.hidden_dim,
                ours.lg_mmt
            );
            let vs = VarStore::new(cx.device);
            let net = Cumdf::new(&vs.root(), &theirs, &cx.problem.shape)?;
            checkpoint::restore(&vs, &checkpoint.tensors)
                .with_context(|| teacher.path.display().to_string())?;
            Ok(net)
        };
        let net = read().context("cannot use the teacher")?;
        Ok(Self::of(&net, cx.train))
    }

    /// Runs `teacher` over the training split.
    pub fn of(teacher: &Cumdf, train: &TrainSet) -> Self {
        let _guard = tch::no_grad_guard();
        let (mut rows, mut fused) = (Vec::new(), Vec::new());
        let mut modalities: [Vec<Tensor>; 3] = from_fn(|_| Vec::new());
        let mut pairs: [Vec<Tensor>; 3] = from_fn(|_| Vec::new());
        let batch_size = evaluate::batch_size(teacher, train.steps(), train.dims());
        for batch in train.complete_batches(batch_size) {
            let pass = teacher.forward(&batch.complete(), Guide::Oracle(batch.targets()), false);
            for (all, own) in pairs.iter_mut().zip(pass.pairs().into_iter().flatten()) {
                all.push(own.shallow_clone());
            }
            for (all, own) in modalities.iter_mut().zip(pass.pooled) {
                all.push(own);
            }
            fused.push(pass.fused);
            rows.push(batch.index);
        }
        let order = Tensor::cat(&rows, 0).argsort(0, false);
        let table = |parts: &Vec<Tensor>| Tensor::cat(parts, 0).index_select(0, &order);
        Self {
            fused: table(&fused),
            modalities: modalities.each_ref().map(table),
            pairs: (!pairs[0].is_empty()).then(|| pairs.each_ref().map(table)),
        }
    }
}

/// The levels of Similarity-based Representation Distillation (Eq. 10).
#[derive(Debug)]
struct Distillation {
    targets: TeacherTargets,
    fused: Distance,
    pairs: Option<[Distance; 3]>, // none without LG-MMT
    modalities: [Distance; 3],
}

impl Distillation {
    fn new(vs: &Path, dim: i64, which: SrdProjection, targets: TeacherTargets) -> Self {
        let at = |name: &str, dim: i64| Distance::new(&(vs / name), dim, which);
        Self {
            fused: at("fused", 3 * dim),
            pairs: targets.pairs.is_some().then(|| PAIR_NAMES.map(|name| at(name, dim))),
            targets,
            modalities: Modality::ALL.map(|m| at(m.name(), dim)),
        }
    }

    /// Adds the levels of `L_SRD`.
    fn add_terms(
        &self,
        terms: &mut LossTerms,
        pass: &Pass,
        index: &Tensor,
        shares: Option<&Tensor>,
        weights: &LossConfig,
    ) {
        let row = |table: &Tensor| table.index_select(0, index);
        let targets = &self.targets;
        terms.add("srd_fused", weights.srd * weights.srd_fused, || {
            self.fused.forward(&pass.fused, &row(&targets.fused)).mean(Kind::Float)
        });
        if let (Some(own), Some(student), Some(teacher)) =
            (&self.pairs, pass.pairs(), &targets.pairs)
        {
            terms.add("srd_pairs", weights.srd * weights.srd_pairs, || {
                let each = (0..3)
                    .map(|p| own[p].forward(&student[p], &row(&teacher[p])).mean(Kind::Float));
                each.reduce(|sum, term| sum + term).expect("three pairs")
            });
        }
        terms.add("srd_modalities", weights.srd * weights.srd_modalities, || {
            let present = pass.available.unbind(1);
            let means = from_fn::<_, 3, _>(|m| {
                let teacher = row(&targets.modalities[m]);
                loss::masked_mean(
                    &self.modalities[m].forward(&pass.pooled[m], &teacher),
                    &present[m],
                )
            });
            let weight = modality_weights(shares, pass.logits.device());
            (Tensor::stack(&means, 0) * weight).sum(Kind::Float)
        });
    }
}

/// `(1 - X_con,m) / sum (1 - X_con,m')`, `[3]`, gradient stopped: more weight to the modality that
/// is used less; equal without MACI.
fn modality_weights(shares: Option<&Tensor>, device: Device) -> Tensor {
    match shares {
        Some(shares) => {
            let unused: Tensor = 1.0 - shares.detach();
            let sum = unused.sum(Kind::Float);
            unused / sum
        }
        None => Tensor::full([3], 1.0 / 3.0, (Kind::Float, device)),
    }
}
