//! The range that a data set's scores lie in.

use anyhow::{Result, bail, ensure};

use crate::Task;

/// How far past the end of its range a score may lie and still mean the end.
const ROUNDING: f64 = 1e-4;
/// Ranges in use, of CH-SIMS, CMU-MOSI, ICT-MMMO and others; the first that holds all scores is
/// taken.
const IN_USE: [[i64; 2]; 4] = [[-1, 1], [-3, 3], [1, 5], [0, 5]];

/// The task of these scores, in the range that is given or else the narrowest in use.
pub(crate) fn settle(given: Option<[i64; 2]>, scores: impl Iterator<Item = f64>) -> Result<Task> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for score in scores.filter(|score| score.is_finite()) {
        (low, high) = (low.min(score), high.max(score));
    }
    let holds = |[lo, hi]: [i64; 2]| low >= lo as f64 - ROUNDING && high <= hi as f64 + ROUNDING;
    let [lo, hi] = match given {
        Some([lo, hi]) => {
            ensure!(lo < hi, "the range of scores is [{lo}, {hi}]; the first must be the lower");
            ensure!(
                holds([lo, hi]),
                "scores lie between {low} and {high}, outside the range [{lo}, {hi}]"
            );
            [lo, hi]
        }
        None => match IN_USE.into_iter().find(|range| holds(*range)) {
            Some(range) => range,
            None => bail!(
                "scores lie between {low} and {high}, in none of the usual ranges {IN_USE:?}; \
                 name theirs with --range LO,HI"
            ),
        },
    };
    Ok(Task::Sentiment { lo, hi })
}

/// A score moved to the end of the range that it means.
pub(crate) fn clamp(score: f64, task: &Task) -> f32 {
    match task {
        Task::Sentiment { lo, hi } => score.clamp(*lo as f64, *hi as f64) as f32,
        Task::Emotion { .. } => score as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_range_in_use_is_taken() {
        let task = |scores: &[f64], given| settle(given, scores.iter().copied());
        assert_eq!(task(&[-0.8, 1.0], None).unwrap(), Task::Sentiment { lo: -1, hi: 1 });
        assert_eq!(task(&[5.0, 1.0], None).unwrap(), Task::Sentiment { lo: 1, hi: 5 });
        let rounded = task(&[-3.00001, 1.0, f64::NAN], None).unwrap();
        assert_eq!(rounded, Task::Sentiment { lo: -3, hi: 3 });
        assert_eq!(clamp(-3.00001, &rounded).to_bits(), (-3f32).to_bits());
        assert_eq!(task(&[2.0, 1.0], Some([0, 9])).unwrap(), Task::Sentiment { lo: 0, hi: 9 });
        let error = task(&[-7.0, 1.0], None).unwrap_err().to_string();
        assert!(error.contains("between -7 and 1") && error.contains("--range"), "{error}");
        let error = task(&[-2.0, 1.0], Some([0, 9])).unwrap_err().to_string();
        assert!(error.contains("outside the range [0, 9]"), "{error}");
        assert!(task(&[1.0], Some([3, 3])).is_err());
    }
}
