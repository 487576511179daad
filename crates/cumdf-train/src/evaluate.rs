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

/// What a batch may need, in bytes.
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
    View { condition, drop_ratio, holes: ModalitySet::ALL, seed: EVAL_SEED }
}

/// Samples of `steps` steps and `dims` features per step that go through a network at once: fewer
/// where sequences are long. It is a function of sizes alone, as what enters training must be: the
/// last bits of a sum depend on it.
pub fn batch_size(predictor: &dyn Predictor, steps: i64, dims: [i64; 3]) -> i64 {
    fitting(predictor, steps, dims, BUDGET)
}

/// The same, and fewer where little memory is free.
fn batch_size_now(predictor: &dyn Predictor, split: &EvalSet) -> i64 {
    let free = if split.is_on_cpu() { memory::free() } else { None };
    let budget = free.map_or(BUDGET, |free| BUDGET.min(free / 4.0));
    fitting(predictor, split.steps(), split.dims(), budget)
}

/// The largest power of two of samples that `budget` bytes hold, at most [`MOST`] and at least 1.
fn fitting(predictor: &dyn Predictor, steps: i64, dims: [i64; 3], budget: f64) -> i64 {
    let floats = predictor.floats_per_sample(steps) + memory::input_floats(steps, dims);
    let most = (budget / (4.0 * floats.max(1.0))) as i64;
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
    let batches = split.batches(view, batch_size_now(predictor, split));
    over(batches, prior, |inputs| plain(predictor.predict(inputs)))
}

/// The same of what `shown` leaves of the inputs.
pub(crate) fn predict_shown(
    predictor: &dyn Predictor,
    prior: &Prior,
    split: &EvalSet,
    view: &View,
    shown: impl Fn(&Inputs) -> Inputs,
) -> Result<Predictions> {
    let batches = split.batches(view, batch_size_now(predictor, split));
    let batches = batches.map(|(rows, inputs)| (rows, shown(&inputs)));
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
    let batches = split.batches(view, batch_size_now(predictor, split));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs `0` numbers per pair of steps.
    struct Needs(f64);

    impl Predictor for Needs {
        fn predict(&self, _: &Inputs) -> Answer {
            unreachable!("only its needs are asked for")
        }

        fn floats_per_sample(&self, steps: i64) -> f64 {
            self.0 * (steps * steps) as f64
        }
    }

    #[test]
    fn long_sequences_and_little_memory_make_small_batches() {
        let dims = [24, 12, 16];
        assert_eq!(batch_size(&Needs(13.0), 20, dims), 256);
        // 13 numbers of 4 bytes per pair of 1500 steps are 117 MB: 16 of them are 1.9 GB.
        assert_eq!(batch_size(&Needs(13.0), 1500, dims), 16);
        assert_eq!(fitting(&Needs(13.0), 1500, dims, 5e8), 4);
        assert_eq!(fitting(&Needs(13.0), 1500, dims, 1.0), 1);
        // The inputs alone: 3 * 1500 * 1398 numbers are 25 MB.
        assert_eq!(batch_size(&Needs(0.0), 1500, [300, 74, 1024]), 64);
    }
}
