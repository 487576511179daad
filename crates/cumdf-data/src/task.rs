//! What a label means: a sentiment score cut into integer bins, or a set of emotions.

use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// More bins or emotions than this are a mistake, not a label set.
pub(crate) const MOST_CLASSES: i128 = 1000;

/// The kind of label a data set carries. Everything in it comes from the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A real score per utterance, binned to the integers `lo..=hi`.
    Sentiment {
        /// Lowest score, for example -3.
        lo: i64,
        /// Highest score, for example 3.
        hi: i64,
    },
    /// One or more of these emotions per utterance.
    Emotion {
        /// Names, in the order of the label's columns.
        classes: Vec<String>,
    },
}

impl Task {
    /// The number of classes of a task that was read from somewhere.
    ///
    /// # Errors
    /// When the range is empty or absurdly wide, or there are no emotions.
    pub fn checked_classes(&self) -> Result<usize> {
        match self {
            Self::Sentiment { lo, hi } => {
                let bins = i128::from(*hi) - i128::from(*lo) + 1;
                ensure!((2..=MOST_CLASSES).contains(&bins), "scores in [{lo}, {hi}]");
            }
            Self::Emotion { classes } => {
                ensure!(
                    (1..=MOST_CLASSES).contains(&(classes.len() as i128)),
                    "{} emotions",
                    classes.len()
                );
            }
        }
        Ok(self.n_classes())
    }

    /// Number of classes `C` of the output head: integer bins or emotions.
    pub fn n_classes(&self) -> usize {
        match self {
            Self::Sentiment { lo, hi } => (hi - lo + 1) as usize,
            Self::Emotion { classes } => classes.len(),
        }
    }

    /// Name of every class: the integer score of a bin, or the emotion.
    pub fn class_names(&self) -> Vec<String> {
        match self {
            Self::Sentiment { lo, hi } => (*lo..=*hi).map(|bin| bin.to_string()).collect(),
            Self::Emotion { classes } => classes.clone(),
        }
    }

    /// The bins' scores `lo..=hi`, for the expectation over bins; `None` for emotions.
    pub fn bin_scores(&self) -> Option<Vec<f32>> {
        match self {
            Self::Sentiment { lo, hi } => Some((*lo..=*hi).map(|bin| bin as f32).collect()),
            Self::Emotion { .. } => None,
        }
    }

    /// The score between positive and negative, the middle of the range; `None` for emotions.
    pub fn neutral(&self) -> Option<f32> {
        match self {
            Self::Sentiment { lo, hi } => Some((lo + hi) as f32 / 2.0),
            Self::Emotion { .. } => None,
        }
    }

    /// Class of a score: the nearest integer, half to even, clamped to the range.
    ///
    /// # Panics
    /// On an emotion task, which has no scores.
    pub fn bin(&self, score: f32) -> usize {
        match self {
            Self::Sentiment { lo, hi } => {
                (score.clamp(*lo as f32, *hi as f32).round_ties_even() as i64 - lo) as usize
            }
            Self::Emotion { .. } => unreachable!("emotions have no scores to bin"),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sentiment { lo, hi } => write!(f, "sentiment, scores in [{lo}, {hi}]"),
            Self::Emotion { classes } => write!(f, "emotion, {}", classes.join(" / ")),
        }
    }
}

/// The labels of one split, in sample order.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// One score per sample, inside the task's range.
    Scores(Vec<f32>),
    /// One multi-hot row of `C` flags per sample, at least one set.
    Classes(Vec<Vec<bool>>),
}

impl Labels {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Scores(scores) => scores.len(),
            Self::Classes(rows) => rows.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_bin_to_the_nearest_integer_half_to_even() {
        let mosi = Task::Sentiment { lo: -3, hi: 3 };
        let bins = [-3.0, -2.5, -0.5, 0.5, 1.5, 2.6, 9.0].map(|s| mosi.bin(s));
        assert_eq!(bins, [0, 1, 3, 3, 5, 6, 6]);
        assert_eq!(Task::Sentiment { lo: 1, hi: 5 }.neutral(), Some(3.0));
    }
}
