//! The student: the same network on incomplete data, guided by the frozen teacher (Eq. 10-19).

use std::array::from_fn;

use anyhow::Result;
use cumdf_data::{Inputs, Modality, Targets, TrainBatch, TrainSet};
use cumdf_model::{Cumdf, DataShape, Guide, PAIR_NAMES, Pass, Predictor, batch_shares, loss};
use tch::{
    Device, Kind, Tensor,
    nn::{Init, Path, VarStore},
};

use crate::{
    config::{Config, LossConfig, SrdProjection},
    evaluate::EVAL_BATCH,
    learner::{Learner, LossTerms},
    teacher::{common_terms, refresh_means},
};

/// Trains the network on incomplete views, with counterfactual and distillation losses.
#[derive(Debug)]
pub struct Student {
    vs: VarStore,
    net: Cumdf,
    weights: LossConfig,
    bin_scores: Option<Tensor>,
    auxiliary: VarStore, // the projections of distillation
    distillation: Option<Distillation>,
}

impl Student {
    /// A fresh student; without `targets` it learns without a teacher.
    ///
    /// # Errors
    /// When the configured sizes are impossible.
    pub fn new(
        config: &Config,
        shape: &DataShape,
        bin_scores: Option<&[f32]>,
        device: Device,
        targets: Option<TeacherTargets>,
    ) -> Result<Self> {
        let vs = VarStore::new(device);
        let net = Cumdf::new(&vs.root(), &config.model, shape)?;
        let auxiliary = VarStore::new(device);
        let distillation = targets.map(|targets| {
            let projection = config.student.srd_projection;
            let root = auxiliary.root() / "distil";
            Distillation::new(&root, config.model.hidden_dim, projection, targets)
        });
        Ok(Self {
            net,
            weights: config.loss.clone(),
            bin_scores: bin_scores.map(|s| Tensor::from_slice(s).to_device(device)),
            auxiliary,
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
    fn stage(&self) -> &'static str {
        "student"
    }

    fn store(&self) -> &VarStore {
        &self.vs
    }

    fn auxiliary(&self) -> Option<&VarStore> {
        Some(&self.auxiliary)
    }

    fn predictor(&self) -> &dyn Predictor {
        &self.net
    }

    fn loss(&mut self, batch: &TrainBatch) -> LossTerms {
        self.terms(&batch.incomplete(), batch.targets(), &batch.index)
    }

    fn end_epoch(&mut self, train: &TrainSet) {
        if self.net.config().maci {
            refresh_means(&mut self.net, train);
        }
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
    /// Runs `teacher` over the training split.
    pub fn of(teacher: &Cumdf, train: &TrainSet) -> Self {
        let _guard = tch::no_grad_guard();
        let mut parts: Vec<Vec<Tensor>> = Vec::new(); // a batch's tables, in the order below
        for batch in train.complete_batches(EVAL_BATCH) {
            let pass = teacher.forward(&batch.complete(), Guide::Oracle(batch.targets()), false);
            let pairs: Vec<_> =
                pass.pairs().into_iter().flatten().map(Tensor::shallow_clone).collect();
            let tables = [batch.index, pass.fused].into_iter().chain(pass.pooled).chain(pairs);
            parts.push(tables.collect());
        }
        let table =
            |at: usize| Tensor::cat(&parts.iter().map(|part| &part[at]).collect::<Vec<_>>(), 0);
        let order = table(0).argsort(0, false);
        let sorted = |at: usize| table(at).index_select(0, &order);
        Self {
            fused: sorted(1),
            modalities: [2, 3, 4].map(sorted),
            pairs: (parts[0].len() > 5).then(|| [5, 6, 7].map(sorted)),
        }
    }
}

/// Similarity-based Representation Distillation (Eq. 10). The printed numerator mixes student and
/// teacher with the wrong projections; here each goes through its own.
#[derive(Debug)]
struct Distillation {
    targets: TeacherTargets,
    fused: Projections,
    pairs: Option<[Projections; 3]>, // none without LG-MMT
    modalities: [Projections; 3],
}

/// `W_s` and `W_t` of one level, bias-free, as configured.
#[derive(Debug)]
struct Projections {
    student: Option<Tensor>,
    teacher: Option<Tensor>,
}

impl Projections {
    fn new(vs: &Path, dim: i64, which: SrdProjection) -> Self {
        let bound = 1.0 / (dim as f64).sqrt();
        let matrix = |side: &str| {
            (vs / side).var("weight", &[dim, dim], Init::Uniform { lo: -bound, up: bound })
        };
        Self {
            student: (which != SrdProjection::None).then(|| matrix("student")),
            teacher: (which == SrdProjection::Both).then(|| matrix("teacher")),
        }
    }

    /// `1 - cos` per sample, `[B]`.
    fn distance(&self, student: &Tensor, teacher: &Tensor) -> Tensor {
        let project = |x: &Tensor, w: &Option<Tensor>| match w {
            Some(w) => x.linear::<Tensor>(w, None),
            None => x.shallow_clone(),
        };
        loss::cosine_distance(&project(student, &self.student), &project(teacher, &self.teacher))
    }
}

impl Distillation {
    fn new(vs: &Path, dim: i64, which: SrdProjection, targets: TeacherTargets) -> Self {
        let at = |name: &str, dim: i64| Projections::new(&(vs / name), dim, which);
        Self {
            fused: at("fused", 3 * dim),
            pairs: targets.pairs.is_some().then(|| PAIR_NAMES.map(|name| at(name, dim))),
            targets,
            modalities: Modality::ALL.map(|m| at(m.name(), dim)),
        }
    }

    /// Adds the levels of `L_SRD`, and the divergence of predictions if it has a weight.
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
            self.fused.distance(&pass.fused, &row(&targets.fused)).mean(Kind::Float)
        });
        if let (Some(own), Some(student), Some(teacher)) =
            (&self.pairs, pass.pairs(), &targets.pairs)
        {
            terms.add("srd_pairs", weights.srd * weights.srd_pairs, || {
                let each = (0..3)
                    .map(|p| own[p].distance(&student[p], &row(&teacher[p])).mean(Kind::Float));
                each.reduce(|sum, term| sum + term).expect("three pairs")
            });
        }
        terms.add("srd_modalities", weights.srd * weights.srd_modalities, || {
            let present = pass.available.unbind(1);
            let means = from_fn::<_, 3, _>(|m| {
                let teacher = row(&targets.modalities[m]);
                loss::masked_mean(
                    &self.modalities[m].distance(&pass.pooled[m], &teacher),
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
