//! What every model answers.

use cumdf_data::Inputs;
use tch::Tensor;

/// Predictions for `B` samples, with what they rest on.
#[derive(Debug)]
pub struct Prediction {
    /// Class probabilities `[B, C]`, rows summing to 1.
    pub probs: Tensor,
    /// Shares of the modalities in each prediction `[B, 3]`, rows summing to 1; `None` from a
    /// model that attributes nothing.
    pub attributions: Option<Tensor>,
}

/// A trained model, as evaluation sees it. No label can reach it: [`Inputs`] has none.
pub trait Predictor: Send {
    /// Class probabilities `[B, C]`, rows summing to 1; in evaluation mode, without gradients.
    fn predict(&self, inputs: &Inputs) -> Tensor;

    /// The same with attributions, which may cost more.
    fn explain(&self, inputs: &Inputs) -> Prediction {
        Prediction { probs: self.predict(inputs), attributions: None }
    }
}
