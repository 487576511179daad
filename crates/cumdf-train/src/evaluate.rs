//! Prediction on a split under a view. Nothing here can see a label.

use anyhow::Result;
use cumdf_data::{EvalSet, Inputs, ModalitySet, View};
use cumdf_model::{Answer, Explained, Predictor, Prior};
use tch::Tensor;

use crate::{
    answers::{Answers, sorted},
    memory,
};

/// Seed of every evaluation mask: all models, seeds and devices see the same holes.
pub const EVAL_SEED: u64 = 0;

/// Most samples predicted at once.
const MOST: i64 = 256;

/// What a whole split's prediction may need, in bytes, where that much is free.
const BUDGET: f64 = 2e9;

/// Predictions for a whole split, in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// The answers.
    pub answers: Answers,
    /// Shares of language, audio, vision, `[N]`; `None` from a model that attributes nothing.
    pub attributions: Option<Vec<[f32; 3]>>,
}

/// The view of a split in which `condition` is present and frames are dropped with `drop_ratio`.
pub fn view(condition: ModalitySet, drop_ratio: f64) -> View {
    View { condition, drop_ratio, seed: EVAL_SEED }
}

/// Samples of `steps` steps that are predicted at once: fewer where sequences are long, and where
/// little memory is free. It changes no result beyond the rounding of sums.
pub fn batch_size(predictor: &dyn Predictor, steps: i64) -> i64 {
    let bytes = 4.0 * predictor.floats_per_sample(steps);
    let budget = BUDGET.min(memory::free().unwrap_or(f64::INFINITY) / 4.0);
    let most = if bytes > 0.0 { (budget / bytes) as i64 } else { MOST };
    // A power of two, so that a little more or less of free memory changes nothing.
    1 << most.clamp(1, MOST).ilog2()
}

/// Predicts every sample of `split` under `view`, without attributions. A sample of which nothing
/// is seen gets `prior`.
///
/// # Errors
/// When the device fails.
pub fn predict(
    predictor: &dyn Predictor,
    prior: &Prior,
    split: &EvalSet,
    view: &View,
) -> Result<Predictions> {
    let batches = split.batches(view, batch_size(predictor, split.steps()));
    over(batches, prior, |inputs| plain(predictor.predict(inputs)))
}

/// The same with attributions, where the model has them.
///
/// # Errors
/// When the device fails.
pub fn explain(
    predictor: &dyn Predictor,
    prior: &Prior,
    split: &EvalSet,
    view: &View,
) -> Result<Predictions> {
    let batches = split.batches(view, batch_size(predictor, split.steps()));
    over(batches, prior, |inputs| predictor.explain(inputs))
}

pub(crate) fn plain(answer: Answer) -> Explained {
    Explained { answer, attributions: None }
}

/// Puts the answers to all batches into file order.
pub(crate) fn over(
    batches: impl Iterator<Item = (Vec<usize>, Inputs)>,
    prior: &Prior,
    predict: impl Fn(&Inputs) -> Explained,
) -> Result<Predictions> {
    let (mut rows, mut answers, mut attributions) = (Vec::new(), Vec::new(), Vec::new());
    for (batch_rows, inputs) in batches {
        let explained = predict(&inputs);
        let seen = inputs.available().any_dim(1, false); // [B]
        rows.extend(batch_rows);
        answers.push(explained.answer.or_prior(&seen, prior));
        attributions.extend(explained.attributions);
    }
    let attributions = match attributions.is_empty() {
        true => None,
        false => {
            let all = Tensor::f_cat(&attributions, 0)?.to_device(tch::Device::Cpu);
            let all: Vec<Vec<f32>> = Vec::try_from(all)?;
            let shares = all.iter().map(|s| [s[0], s[1], s[2]]).collect();
            Some(sorted(&rows, shares))
        }
    };
    Ok(Predictions { answers: Answers::in_order(&rows, &answers)?, attributions })
}
