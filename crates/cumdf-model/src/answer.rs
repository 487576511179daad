//! What a network answers, and how evaluation sees it.

use cumdf_data::Inputs;
use tch::Tensor;

/// The answer for `B` samples, in whichever form a method gives it.
#[derive(Debug)]
pub enum Answer {
    /// A distribution over the task's classes (bins or emotions), `[B, C]`, rows summing to 1.
    Classes(Tensor),
    /// A score in the units of the labels, `[B]`: a regressor on a sentiment task.
    Score(Tensor),
    /// One probability per emotion, `[B, C]`, each in [0, 1]: a binary decision for each.
    Flags(Tensor),
}

/// An answer with what it rests on.
#[derive(Debug)]
pub struct Explained {
    /// The answer itself.
    pub answer: Answer,
    /// Shares of the modalities in each answer `[B, 3]`, rows summing to 1; `None` from a network
    /// that attributes nothing.
    pub attributions: Option<Tensor>,
}

/// A trained network, as evaluation sees it. No label can reach it: [`Inputs`] has none.
pub trait Predictor: Send {
    /// Answers in evaluation mode, without gradients.
    fn predict(&self, inputs: &Inputs) -> Answer;

    /// The same with attributions, which may cost more.
    fn explain(&self, inputs: &Inputs) -> Explained {
        Explained { answer: self.predict(inputs), attributions: None }
    }
}
