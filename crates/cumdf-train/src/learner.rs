//! What the trainer asks of anything it trains. A new model adds a [`Learner`], never a loop.

use cumdf_data::{TrainBatch, TrainSet};
use cumdf_model::Predictor;
use tch::{Kind, Tensor, nn::VarStore};

use crate::{
    config::TrainConfig,
    optim::{Group, WeightDecay},
};

/// A model in one stage of its training: the network, its losses, and what it keeps between
/// batches.
pub trait Learner {
    /// Name of the stage, for example `teacher`: in logs, checkpoints and seeds.
    fn stage(&self) -> &'static str;

    /// Variables and buffers of the network itself, which a checkpoint holds.
    fn store(&self) -> &VarStore;

    /// Variables that only training needs, such as projections of a distillation loss.
    fn auxiliary(&self) -> Option<&VarStore> {
        None
    }

    /// Which parameters are stepped how; by default all alike, as the run is configured.
    fn groups(&self, settings: &TrainConfig) -> Vec<Group> {
        let decay =
            WeightDecay { strength: settings.weight_decay, decoupled: settings.decoupled_decay };
        vec![Group::all([Some(self.store()), self.auxiliary()].into_iter().flatten(), decay)]
    }

    /// The network as evaluation sees it.
    fn predictor(&self) -> &dyn Predictor;

    /// The losses of one training batch. The view that it reads (complete, incomplete or both) is
    /// made when it asks for it.
    fn loss(&mut self, batch: &TrainBatch) -> LossTerms;

    /// Called after each optimizer step, with the batch it was made on.
    fn end_batch(&mut self, _batch: &TrainBatch) {}

    /// Called before the first epoch and after each, for what the next epoch's losses read of the
    /// whole training split.
    fn end_epoch(&mut self, _train: &TrainSet) {}

    /// Called before a checkpoint is written, for what only a finished model needs.
    fn complete(&mut self, _train: &TrainSet) {}
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

    /// The unweighted value of a term, if it is there.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|term| term.name == name).map(|term| &term.value)
    }

    /// Names, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|term| term.name).collect()
    }

    /// The unweighted values `[terms]`, detached, still on the device.
    pub fn values(&self) -> Tensor {
        let values: Vec<_> =
            self.0.iter().map(|term| term.value.detach().to_kind(Kind::Float)).collect();
        Tensor::stack(&values, 0)
    }
}
