//! The student: the same network on incomplete data, guided by the frozen teacher (Eq. 10-19).

use std::array::from_fn;

use anyhow::{Context as _, Result, bail, ensure};
use cumdf_data::{Folds, Inputs, Modality, Targets, TrainBatch, TrainSet};
use cumdf_model::{
    Predictor, checkpoint,
    cumdf::{Committee, Cumdf, Distance, Guide, PAIR_NAMES, Pass, Srd, batch_shares},
    loss,
};
use tch::{
    Kind, Tensor,
    nn::{Path, VarStore},
};

use super::{
    CumdfConfig, GuideOfTargets, LossConfig,
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
    labels: Option<Targets>, // of all samples, mixed with the teacher's answers
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
        let bin_scores = bin_scores(shape, cx.device);
        let share = config.student.teacher_share;
        let labels = targets.as_ref().filter(|_| share > 0.0).map(|targets| {
            cx.train.all_targets().mixed(share, &targets.probs, bin_scores.as_ref())
        });
        let compares = config.loss.srd != 0.0;
        let distillation = targets.filter(|_| compares).map(|targets| {
            let root = scratch.root() / "distil";
            Distillation::new(&root, config, targets)
        });
        Ok(Self {
            net,
            weights: config.loss.clone(),
            bin_scores,
            scratch,
            distillation,
            labels,
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
        let mixed = self.labels.as_ref().map(|labels| labels.at(index));
        let taught = mixed.as_ref().unwrap_or(targets);
        common_terms(&mut terms, &self.net, &pass, taught, weights, self.bin_scores.as_ref());
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

/// What the frozen teacher says of every training sample, computed once: complete view, dropout off.
/// Where the teacher is several networks, a sample's is the one that never saw it.
#[derive(Debug)]
pub struct TeacherTargets {
    /// `y^ [N, C]`.
    pub probs: Tensor,
    /// `H [N, 3d]`.
    pub fused: Tensor,
    /// `GAP(H_mn) [N, d]` of the pairs la, lv, av; none without LG-MMT.
    pub pairs: Option<[Tensor; 3]>,
    /// `GAP(X~_m) [N, d]` per modality.
    pub modalities: [Tensor; 3],
    /// Which network each sample has, `[N]` i64.
    pub fold: Tensor,
}

impl TeacherTargets {
    /// Runs the teacher of a checkpoint over the training split.
    ///
    /// # Errors
    /// When it is no teacher, or was trained on other data, or differs in a size that Eq. 10
    /// compares, or is several networks whose vectors are to be compared with the student's.
    pub fn load(config: &CumdfConfig, teacher: &Trained, cx: &Context) -> Result<Self> {
        let read = || -> Result<(Committee, Folds)> {
            let (checkpoint, theirs) = teacher.open(super::ENTRY.name, cx)?;
            let seed = theirs.seed;
            let theirs: CumdfConfig = theirs.settings()?;
            let (model, ours) = (&theirs.model, &config.model);
            ensure!(
                (model.hidden_dim, model.lg_mmt) == (ours.hidden_dim, ours.lg_mmt),
                "{} has model.hidden_dim = {} and model.lg_mmt = {}, the student {} and {}: they \
                 must agree",
                teacher.path.display(),
                model.hidden_dim,
                model.lg_mmt,
                ours.hidden_dim,
                ours.lg_mmt
            );
            let n = theirs.teacher.folds as usize;
            if let Some(problem) = config.vectors_of_several(n) {
                bail!("{}: {problem}", teacher.path.display());
            }
            let vs = VarStore::new(cx.device);
            let nets = Committee::new(&vs.root(), n, model, &cx.problem.shape)?;
            checkpoint::restore(&vs, &checkpoint.tensors)
                .with_context(|| teacher.path.display().to_string())?;
            Ok((nets, Folds::draw(cx.train.ids(), n, seed)))
        };
        let (nets, folds) = read().context("cannot use the teacher")?;
        Ok(Self::of(&nets, &folds, config.student.teacher_guide, cx.train))
    }

    /// Runs `teacher` over the training split.
    ///
    /// - `folds`: the part of the split that each of its networks never saw
    pub fn of(teacher: &Committee, folds: &Folds, guide: GuideOfTargets, train: &TrainSet) -> Self {
        let _guard = tch::no_grad_guard();
        let (mut rows, mut probs, mut fused, mut fold) = (vec![], vec![], vec![], vec![]);
        let mut modalities: [Vec<Tensor>; 3] = from_fn(|_| Vec::new());
        let mut pairs: [Vec<Tensor>; 3] = from_fn(|_| Vec::new());
        let batch_size = evaluate::batch_size(teacher, train.steps(), train.dims());
        for batch in train.complete_batches(batch_size) {
            for (k, net) in teacher.members().iter().enumerate() {
                let Some(own) = batch.only(|row| folds.of(row) == k) else { continue };
                let guide = match guide {
                    GuideOfTargets::Label => Guide::Oracle(own.targets()),
                    GuideOfTargets::Estimate => Guide::Estimate,
                };
                let pass = net.forward(&own.complete(), guide, false);
                for (all, own) in pairs.iter_mut().zip(pass.pairs().into_iter().flatten()) {
                    all.push(own.shallow_clone());
                }
                for (all, own) in modalities.iter_mut().zip(pass.pooled) {
                    all.push(own);
                }
                probs.push(pass.logits.softmax(-1, Kind::Float));
                fused.push(pass.fused);
                fold.push(own.index.full_like(k as i64));
                rows.push(own.index);
            }
        }
        let order = Tensor::cat(&rows, 0).argsort(0, false);
        let table = |parts: &Vec<Tensor>| Tensor::cat(parts, 0).index_select(0, &order);
        Self {
            probs: table(&probs),
            fused: table(&fused),
            modalities: modalities.each_ref().map(table),
            pairs: (!pairs[0].is_empty()).then(|| pairs.each_ref().map(table)),
            fold: table(&fold),
        }
    }

    /// The vectors of each network less their mean over its own samples.
    fn centred(self) -> Self {
        let n = self.fold.max().int64_value(&[]) + 1;
        let of = self.fold.one_hot(n).to_kind(Kind::Float); // [N, K]
        let counts = of.sum_dim_intlist([0i64].as_slice(), false, Kind::Float).clamp_min(1.0);
        let centre = |x: &Tensor| {
            let means = of.transpose(0, 1).matmul(x) / counts.unsqueeze(1); // [K, d]
            x - of.matmul(&means)
        };
        Self {
            fused: centre(&self.fused),
            pairs: self.pairs.as_ref().map(|pairs| pairs.each_ref().map(centre)),
            modalities: self.modalities.each_ref().map(centre),
            ..self
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
    fn new(vs: &Path, config: &CumdfConfig, targets: TeacherTargets) -> Self {
        let (dim, student) = (config.model.hidden_dim, &config.student);
        let at =
            |name: &str, dim| Distance::new(&(vs / name), dim, student.srd, student.srd_projection);
        Self {
            fused: at("fused", 3 * dim),
            pairs: targets.pairs.is_some().then(|| PAIR_NAMES.map(|name| at(name, dim))),
            modalities: Modality::ALL.map(|m| at(m.name(), dim)),
            targets: match student.srd {
                Srd::Cosine => targets,
                Srd::Relation => targets.centred(),
            },
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
        let (targets, fold) = (&self.targets, row(&self.targets.fold));
        terms.add("srd_fused", weights.srd * weights.srd_fused, || {
            self.fused.forward(&pass.fused, &row(&targets.fused), &fold, None)
        });
        if let (Some(own), Some(student), Some(teacher)) =
            (&self.pairs, pass.pairs(), &targets.pairs)
        {
            terms.add("srd_pairs", weights.srd * weights.srd_pairs, || {
                let each =
                    (0..3).map(|p| own[p].forward(&student[p], &row(&teacher[p]), &fold, None));
                each.reduce(|sum, term| sum + term).expect("three pairs")
            });
        }
        terms.add("srd_modalities", weights.srd * weights.srd_modalities, || {
            let present = pass.available.unbind(1);
            let means = from_fn::<_, 3, _>(|m| {
                let teacher = row(&targets.modalities[m]);
                let level = &self.modalities[m];
                level.forward(&pass.pooled[m], &teacher, &fold, Some(&present[m]))
            });
            let weight = modality_weights(shares, &pass.available);
            (Tensor::stack(&means, 0) * weight).sum(Kind::Float)
        });
    }
}

/// `(1 - X_con,m) / sum (1 - X_con,m')` over the modalities that are there in the batch, `[3]`,
/// gradient stopped: more weight to the modality that is used less; equal without MACI.
///
/// - `available`: `[B, 3]` bool
fn modality_weights(shares: Option<&Tensor>, available: &Tensor) -> Tensor {
    let there = available.any_dim(0, false).to_kind(Kind::Float); // [3]
    let unused = match shares {
        Some(shares) => shares.detach().neg().g_add_scalar(1.0).clamp_min(1e-6) * there, // one may have all
        None => there,
    };
    let sum = unused.sum(Kind::Float);
    unused / sum
}
