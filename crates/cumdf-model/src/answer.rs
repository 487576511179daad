//! What a network answers, how evaluation sees it, and what it answers when it sees nothing.

use cumdf_data::{Inputs, Labels, Task};
use serde::{Deserialize, Serialize};
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

    /// Numbers alive at once per sample of `steps` steps in [`Predictor::predict`], about; 0 from
    /// a network whose needs grow no faster than its inputs.
    fn floats_per_sample(&self, _steps: i64) -> f64 {
        0.0
    }
}

impl Answer {
    /// The tensor, whatever it means.
    pub fn tensor(&self) -> &Tensor {
        match self {
            Self::Classes(t) | Self::Score(t) | Self::Flags(t) => t,
        }
    }

    /// The tensor, whatever it meant.
    pub fn into_tensor(self) -> Tensor {
        match self {
            Self::Classes(t) | Self::Score(t) | Self::Flags(t) => t,
        }
    }

    /// The same answer with `prior` in the rows where `seen [B]` bool is false: content and length
    /// of what cannot be seen play no part there.
    pub fn or_prior(self, seen: &Tensor, prior: &Prior) -> Self {
        let row = |values: &[f32], like: &Tensor| {
            Tensor::from_slice(values).to_device(like.device()).to_kind(like.kind())
        };
        match self {
            Self::Classes(p) => {
                Self::Classes(p.where_self(&seen.unsqueeze(1), &row(&prior.classes, &p)))
            }
            Self::Flags(p) => Self::Flags(p.where_self(&seen.unsqueeze(1), &row(&prior.flags, &p))),
            Self::Score(s) => {
                let prior = Tensor::full([], f64::from(prior.score), (s.kind(), s.device()));
                Self::Score(s.where_self(seen, &prior))
            }
        }
    }
}

/// What the training labels say before anything is seen: the answer for a sample of which no frame
/// of a trained modality is there. Taken from the training split, stored in the checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prior {
    /// Share of each class `[C]` among the training labels, summing to 1; several emotions of one
    /// sample share its mass.
    pub classes: Vec<f32>,
    /// Share of the training samples that have each emotion `[C]`; of no use for scores.
    pub flags: Vec<f32>,
    /// The median training score; 0 for emotions.
    pub score: f32,
}

impl Prior {
    /// The prior of training labels.
    ///
    /// # Panics
    /// When the labels are not of `task`'s kind.
    pub fn of(task: &Task, labels: &Labels) -> Self {
        let n = labels.len().max(1) as f64;
        let mut classes = vec![0f64; task.n_classes()];
        let mut flags = vec![0f64; task.n_classes()];
        let mut score = 0.0;
        match labels {
            Labels::Scores(scores) => {
                for s in scores {
                    classes[task.bin(*s)] += 1.0 / n;
                }
                flags.clear();
                score = median(scores);
            }
            Labels::Classes(rows) => {
                for row in rows {
                    let count = row.iter().filter(|flag| **flag).count().max(1) as f64;
                    for (c, _) in row.iter().enumerate().filter(|(_, flag)| **flag) {
                        classes[c] += 1.0 / (count * n);
                        flags[c] += 1.0 / n;
                    }
                }
            }
        }
        let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        Self { classes: single(classes), flags: single(flags), score }
    }
}

/// The middle value, the mean of the middle two when their number is even; 0 of nothing.
fn median(scores: &[f32]) -> f32 {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (n, half) if n % 2 == 1 => sorted[half],
        (_, half) => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prior_is_what_the_training_labels_say() {
        let mosi = Task::Sentiment { lo: -1, hi: 1 };
        let prior = Prior::of(&mosi, &Labels::Scores(vec![-1.0, 0.2, 0.4, 1.0]));
        assert_eq!(prior.classes, [0.25, 0.5, 0.25]);
        assert!((prior.score - 0.3).abs() < 1e-6);
        let task = Task::Emotion { classes: vec!["sad".into(), "glad".into()] };
        let prior = Prior::of(&task, &Labels::Classes(vec![vec![true, true], vec![false, true]]));
        assert_eq!((prior.classes, prior.flags), (vec![0.25, 0.75], vec![0.5, 1.0]));
    }

    #[test]
    fn only_a_row_that_saw_nothing_gets_the_prior() {
        let prior = Prior { classes: vec![0.1, 0.9], flags: vec![0.3, 0.4], score: 7.0 };
        let seen = Tensor::from_slice(&[1i64, 0]).eq(1);
        let rows = || Tensor::from_slice(&[0.5f32, 0.5, f32::NAN, f32::NAN]).view([2, 2]);
        let list = |t: &Tensor| Vec::<f32>::try_from(t.flatten(0, -1)).unwrap();
        let classes = Answer::Classes(rows()).or_prior(&seen, &prior);
        assert_eq!(list(classes.tensor()), [0.5, 0.5, 0.1, 0.9]);
        let flags = Answer::Flags(rows()).or_prior(&seen, &prior);
        assert_eq!(list(flags.tensor()), [0.5, 0.5, 0.3, 0.4]);
        let score = Answer::Score(Tensor::from_slice(&[1f32, f32::NAN])).or_prior(&seen, &prior);
        assert_eq!(list(score.tensor()), [1.0, 7.0]);
    }
}
