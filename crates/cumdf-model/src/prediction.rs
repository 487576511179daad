//! What every model answers.

use tch::Tensor;

/// Predictions for `B` samples.
#[derive(Debug)]
pub struct Prediction {
    /// Class probabilities `[B, C]`, rows summing to 1.
    pub probs: Tensor,
    /// Shares of the modalities in each prediction `[B, 3]`, rows summing to 1; `None` from a
    /// model that attributes nothing.
    pub attributions: Option<Tensor>,
}

/// A trained model, as evaluation sees it. No label can reach it: [`cumdf_data::Inputs`] has none.
pub trait Predictor: Send {
    /// Predicts in evaluation mode, without gradients.
    fn predict(&self, inputs: &cumdf_data::Inputs) -> Prediction;
}
