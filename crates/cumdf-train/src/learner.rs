//! What the trainer asks of anything it trains. A new method adds a [`Learner`], never a loop.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use cumdf_data::{TrainBatch, TrainSet, View};
use cumdf_model::{Predictor, checkpoint};
use tch::{Kind, Tensor, nn::VarStore};

use crate::{
    optim::{Group, WeightDecay},
    policy::TrainConfig,
};

/// The group of parameters that have no other.
pub const REST: &str = "rest";

/// A network in one stage of its training: its losses, and what it keeps between batches.
pub trait Learner {
    /// Variables and buffers of the network itself, which a checkpoint holds.
    fn store(&self) -> &VarStore;

    /// What only training needs, such as projections of a loss or labels of its own making: saved
    /// to resume from, never shipped.
    fn scratch(&self) -> Option<&VarStore> {
        None
    }

    /// The group of a trainable variable, for step sizes, decays and clipping per group.
    fn group(&self, _variable: &str) -> &'static str {
        REST
    }

    /// The network that a trainable variable belongs to, of several that are trained side by side: each
    /// is clipped by itself.
    fn network(&self, _variable: &str) -> usize {
        0
    }

    /// The network as evaluation sees it.
    fn predictor(&self) -> &dyn Predictor;

    /// The losses of one training batch. The view that it reads (complete, incomplete or both) is
    /// made when it asks for it. It may update buffers of its own, detached.
    fn loss(&mut self, batch: &TrainBatch) -> LossTerms;

    /// Called before each epoch, counted from 1, also after a resume: for what the epoch's losses
    /// read of the whole training split.
    fn begin_epoch(&mut self, _epoch: u32, _train: &TrainSet) {}

    /// Called before a checkpoint is written, for what only a finished network needs.
    fn seal(&mut self, _train: &TrainSet) {}

    /// The views of the validation split whose errors the network keeps in buffers of its own, to
    /// weigh its parts by when it answers.
    fn weighed_by(&self) -> Vec<View> {
        Vec::new()
    }

    /// Called after each epoch and before its validation, where [`Learner::weighed_by`] names views:
    /// the task's loss under each of them, `None` where no validation sample has anything to see.
    fn weigh(&mut self, _errors: &[Option<f64>]) {}

    /// Numbers that training keeps at once per sample of `steps` steps, about; 0 where they grow no
    /// faster than the inputs.
    fn floats_per_sample(&self, _steps: i64) -> f64 {
        0.0
    }
}

/// The trainable variables of a learner in groups, with the step sizes and decays of `train`. The
/// order is that of the variables' names, the network's before the scratch's.
///
/// # Errors
/// When `train.groups` names a group that the learner does not have.
pub fn groups(learner: &dyn Learner, train: &TrainConfig) -> Result<Vec<Group>> {
    let stores = [Some(learner.store()), learner.scratch()];
    let variables = stores.into_iter().flatten().flat_map(checkpoint::variables);
    let mut groups: Vec<((&'static str, usize), Vec<Tensor>)> = Vec::new();
    for (name, tensor) in variables.filter(|(_, tensor)| tensor.requires_grad()) {
        let own = (learner.group(&name), learner.network(&name));
        match groups.iter_mut().find(|(group, _)| *group == own) {
            Some((_, params)) => params.push(tensor),
            None => groups.push((own, vec![tensor])),
        }
    }
    let mut known: Vec<_> = groups.iter().map(|((name, _), _)| *name).collect();
    known.dedup();
    if let Some(unknown) = train.groups.keys().find(|name| !known.contains(&name.as_str())) {
        bail!("train.groups names `{unknown}`: its parameters are in {}", known.join(", "));
    }
    let group = |((name, _), params): ((&str, usize), _)| {
        let own = train.groups.get(name);
        let rate = own.map_or(train.learning_rate, |own| own.learning_rate);
        let strength = own.map_or(train.weight_decay, |own| own.weight_decay);
        Group {
            params,
            rate_factor: rate / train.learning_rate,
            decay: WeightDecay { strength, decoupled: train.decoupled_decay },
        }
    };
    Ok(groups.into_iter().map(group).collect())
}

/// Named loss terms with their weights: the total and the log come from the same list.
#[derive(Debug, Default)]
pub struct LossTerms(Vec<Term>);

#[derive(Debug)]
struct Term {
    name: &'static str,
    weight: f64,
    value: Tensor,
}

impl LossTerms {
    /// Adds a scalar term; one of weight 0 is left out altogether.
    pub fn add(&mut self, name: &'static str, weight: f64, value: impl FnOnce() -> Tensor) {
        if weight != 0.0 {
            self.0.push(Term { name, weight, value: value() });
        }
    }

    /// The weighted sum, a scalar.
    ///
    /// # Panics
    /// Without a term, as nothing could be trained.
    pub fn total(&self) -> Tensor {
        let weighted = self.0.iter().map(|term| &term.value * term.weight);
        weighted.reduce(|sum, term| sum + term).expect("a learner has at least one loss term")
    }

    /// The losses of networks that train side by side: each value is the mean of theirs, and the total
    /// the sum, so that each has the gradient that it would have alone.
    pub fn together(all: Vec<Self>) -> Self {
        let n = all.len() as f64;
        let mut terms: Vec<Term> = Vec::new();
        for term in all.into_iter().flat_map(|own| own.0) {
            let value = &term.value / n;
            match terms.iter_mut().find(|sum| sum.name == term.name) {
                Some(sum) => sum.value = &sum.value + value,
                None => terms.push(Term { name: term.name, weight: term.weight * n, value }),
            }
        }
        Self(terms)
    }

    /// The unweighted values by name, detached scalars, still on the device.
    pub fn values(&self) -> BTreeMap<&'static str, Tensor> {
        let value = |term: &Term| (term.name, term.value.detach().to_kind(Kind::Float));
        self.0.iter().map(value).collect()
    }
}
