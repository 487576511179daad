//! What each modality moved an answer by: exact Shapley values over the eight sets of modalities, of
//! any method. Shapley, "A Value for n-Person Games" (1953); of predictions: Lundberg and Lee, "A
//! Unified Approach to Interpreting Model Predictions" (NIPS 2017).
//!
//! The game's worth of a set is the answer to the sample with the other modalities hidden, as if they
//! were missing, and of the empty set the [`Prior`]: no average stands in for what is hidden, so the
//! three values sum to what the answer differs from the prior by, exactly. A modality that is not
//! there has 0.

use anyhow::Result;
use cumdf_data::{EvalSet, Inputs, Modality, ModalitySet, Task, View};
use cumdf_model::{Predictor, Prior};
use tch::Tensor;

use crate::{
    answers::{Answers, argmax},
    evaluate,
};

/// All sets of modalities, by their bits: language 1, audio 2, vision 4.
const SETS: usize = 8;

/// What each modality moved the answer to each sample of `split` under `view` by, `[N]` of language,
/// audio, vision, in file order: in units of the score, or of the probability of the emotion that is
/// the most probable with all there is.
///
/// # Errors
/// When the device fails.
pub fn values(
    predictor: &dyn Predictor,
    prior: &Prior,
    task: &Task,
    split: &EvalSet,
    view: &View,
) -> Result<Vec<[f64; 3]>> {
    let mut answers = Vec::new();
    for bits in 0..SETS {
        let shown = |inputs: &Inputs| only(inputs, bits);
        answers.push(evaluate::predict_shown(predictor, prior, split, view, shown)?.answers);
    }
    let whole = &answers[SETS - 1];
    let there: Vec<usize> = split
        .present()
        .iter()
        .map(|present| bits_of(present.intersection(view.condition)))
        .collect();
    let worth = |bits: usize, row: usize| match (&answers[bits], whole) {
        (
            Answers::Classes(rows) | Answers::Flags(rows),
            Answers::Classes(all) | Answers::Flags(all),
        ) if task.bin_scores().is_none() => f64::from(rows[row][argmax(&all[row])]),
        (own, _) => own.score(task, row),
    };
    let of_row = |(row, there): (usize, &usize)| {
        let game: Vec<f64> = (0..SETS).map(|bits| worth(bits & there, row)).collect();
        shapley(&game)
    };
    Ok(there.iter().enumerate().map(of_row).collect())
}

/// The bits of a set.
fn bits_of(set: ModalitySet) -> usize {
    Modality::ALL.into_iter().filter(|m| set.contains(*m)).map(|m| 1 << m.index()).sum()
}

/// The inputs with all but the modalities of `bits` hidden.
fn only(inputs: &Inputs, bits: usize) -> Inputs {
    let kept = Modality::ALL.map(|m| bits & (1 << m.index()) != 0);
    let flags = Tensor::from_slice(&kept).to_device(inputs.seen.device()).view([1, 3, 1]);
    Inputs {
        features: Modality::ALL.map(|m| match kept[m.index()] {
            true => inputs.features[m.index()].shallow_clone(),
            false => inputs.features[m.index()].zeros_like(),
        }),
        seen: inputs.seen.logical_and(&flags),
        valid: inputs.valid.shallow_clone(),
    }
}

/// The Shapley values of three players.
///
/// - `game`: the worth of every set, by its bits
fn shapley(game: &[f64]) -> [f64; 3] {
    std::array::from_fn(|player| {
        let own = 1 << player;
        let without = (0..SETS).filter(|set| set & own == 0);
        let share = |set: usize| match set.count_ones() {
            1 => 1.0 / 6.0, // 1! 1! / 3!
            _ => 1.0 / 3.0, // 0! 2! / 3! and 2! 0! / 3!
        };
        without.map(|set| share(set) * (game[set | own] - game[set])).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The glove game: player 0 has a left glove, 1 and 2 a right one each; a pair is worth 1.
    #[test]
    fn the_glove_game_is_solved_as_in_the_textbook() {
        let game: Vec<f64> =
            (0..SETS).map(|set| f64::from(u8::from(set & 1 == 1 && set > 1))).collect();
        let [left, right, other] = shapley(&game);
        for (got, want) in [(left, 2.0 / 3.0), (right, 1.0 / 6.0), (other, 1.0 / 6.0)] {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
    }

    #[test]
    fn values_sum_to_the_whole_and_who_changes_nothing_has_none() {
        let game: Vec<f64> = (0..SETS).map(|set| ((set & 0b101) as f64 * 1.7).sin()).collect();
        let values = shapley(&game);
        assert!((values.iter().sum::<f64>() - (game[7] - game[0])).abs() < 1e-12);
        assert_eq!(values[1].to_bits(), 0f64.to_bits());
    }
}
