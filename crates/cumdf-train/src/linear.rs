//! The floor `linear`: what a linear model of mean features reaches. A network is of use above it.
//!
//! - Features: the mean over a sample's seen frames, standardised by the training split; 0, which
//!   is that mean, for a modality that a sample lacks. A modality that training never had is left
//!   out.
//! - Model: ridge regression for scores, multinomial logistic regression for emotions, one per
//!   condition. Both as in scikit-learn, the intercept is not penalised. A sample with several
//!   emotions counts for each of them in equal shares.
//! - Strength: of [`RIDGE_STRENGTHS`] or [`LOGISTIC_STRENGTHS`] the one of smallest validation MAE or
//!   largest validation F1. The test split's labels are not read.
//!
//! Everything is f64 on the CPU and depends on nothing random: a run with as many threads gives the
//! same bytes. `scripts/linear_reference.py` is the
//! same in scikit-learn.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # let corpus: cumdf_data::Corpus = todo!();
//! use cumdf_data::ModalitySet;
//! use cumdf_train::{evaluate, linear::LinearFloor};
//!
//! let floor = LinearFloor::new(&corpus);
//! for condition in ModalitySet::CONDITIONS {
//!     let model = floor.fit(condition)?;
//!     let predicted = model.predict(&corpus.test, &evaluate::view(condition, 0.0))?;
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;

use anyhow::{Context as _, Result, ensure};
use cumdf_data::{Corpus, EvalSet, Labels, Modality, ModalitySet, Pooled, Split, Task, View};
use tch::{Device, Kind, Tensor};

use crate::{answers::Answers, metrics::Metric};

/// Strengths tried for scores: scikit-learn's `alpha`, the weight of the squared weights beside the
/// sum of squared errors. The strongest comes first and so wins a tie.
pub const RIDGE_STRENGTHS: [f64; 4] = [1e4, 1e3, 1e2, 1e1];

/// Strengths tried for emotions: scikit-learn's `1 / C`, the weight of half the squared weights
/// beside the summed cross-entropy.
pub const LOGISTIC_STRENGTHS: [f64; 4] = [1e3, 1e2, 1e1, 1e0];

/// A feature whose mean varies less is only centred; the data set's own rule for frames.
const LEAST_STD: f64 = 1e-6;
/// Logistic regression ends where no derivative of the mean cross-entropy is larger. Probabilities
/// are then within some 1e-5 of the optimum's, far below what a metric shows.
const GRADIENT_TOLERANCE: f64 = 1e-8;
/// Far more than a convex problem of standardised features needs.
const MAX_ITERATIONS: usize = 2000;
/// Steps that L-BFGS remembers, as in SciPy.
const MEMORY: usize = 10;

/// Features of `N` samples with their labels.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    /// `[N, D]` f64 on the CPU, standardised.
    pub features: &'a Tensor,
    /// `N` labels.
    pub labels: &'a Labels,
}

/// A fitted linear model.
#[derive(Debug)]
pub struct Linear {
    weights: Tensor,   // [D, 1] for scores, [D, C] for emotions
    intercept: Tensor, // [1] or [C]
    strength: f64,
    scores: bool,
}

impl Linear {
    /// Fits on `train` at each of `strengths` and keeps the model that is best on `valid`, the first
    /// of equals. With `D = 0` it answers the mean score or the shares of the emotions.
    ///
    /// # Errors
    /// When `strengths` is empty or labels are not of the task's kind.
    pub fn fit(
        task: &Task,
        train: Examples<'_>,
        valid: Examples<'_>,
        strengths: &[f64],
    ) -> Result<Self> {
        let of_task = |labels: &Labels| match task {
            Task::Sentiment { .. } => matches!(labels, Labels::Scores(_)),
            Task::Emotion { .. } => matches!(labels, Labels::Classes(_)),
        };
        ensure!(
            of_task(train.labels) && of_task(valid.labels),
            "the labels of training or validation are not of the task's kind: {task}"
        );
        let (scores, path) = match train.labels {
            Labels::Scores(y) => (true, ridge(train.features, y, strengths)?),
            Labels::Classes(rows) => (false, logistic(train.features, rows, strengths)),
        };
        let mut best: Option<(f64, Self)> = None;
        for (strength, (weights, intercept)) in strengths.iter().zip(path) {
            let model = Self { weights, intercept, strength: *strength, scores };
            let (metric, value) = quality(task, valid.labels, &model.predict(valid.features)?);
            tracing::debug!(strength, %metric, value, "linear floor on the validation split");
            if best.as_ref().is_none_or(|(most, _)| metric.is_better(value, *most)) {
                best = Some((value, model));
            }
        }
        Ok(best.context("no strength to choose from")?.1)
    }

    /// Predictions for `[N, D]` f64 features, standardised as those it was fitted on.
    ///
    /// # Errors
    /// When the features are not `D` wide.
    pub fn predict(&self, features: &Tensor) -> Result<Answers> {
        let answers = features.f_matmul(&self.weights)? + &self.intercept;
        Ok(match self.scores {
            true => Answers::Scores(Vec::try_from(answers.to_kind(Kind::Float).squeeze_dim(1))?),
            false => {
                let probs = answers.softmax(1, Kind::Double).to_kind(Kind::Float);
                Answers::Classes(Vec::try_from(probs)?)
            }
        })
    }

    /// The chosen strength, of the list that [`Linear::fit`] was given.
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// `[D, 1]` for scores, `[D, C]` for emotions; f64.
    pub fn weights(&self) -> &Tensor {
        &self.weights
    }

    /// `[1]` for scores, `[C]` for emotions; f64.
    pub fn intercept(&self) -> &Tensor {
        &self.intercept
    }
}

/// What the models of all conditions share: the mean features of a corpus.
#[derive(Debug)]
pub struct LinearFloor<'a> {
    corpus: &'a Corpus,
    scales: Scales,
    train: [Tensor; 3], // [N, d_m] f64, standardised
    valid: [Tensor; 3],
}

impl<'a> LinearFloor<'a> {
    /// Pools the training and the validation split.
    pub fn new(corpus: &'a Corpus) -> Self {
        let train = corpus.train.pooled();
        let scales = Scales::fit(corpus, &train);
        let valid = scales.apply(&corpus.valid.pooled(&View::COMPLETE));
        Self { corpus, train: scales.apply(&train), valid, scales }
    }

    /// The model of a condition, fitted on what training samples have of it.
    ///
    /// Where they have nothing of it, as [`Corpus::available`] tells, the model answers the same to
    /// everything: its figure is no floor.
    ///
    /// # Errors
    /// When the features cannot be solved for, which finite ones can.
    pub fn fit(&self, condition: ModalitySet) -> Result<ConditionModel> {
        let set = condition.intersection(self.corpus.stats.trained);
        let [train, valid] = [&self.train, &self.valid].map(|features| side_by_side(features, set));
        let labels = |split| self.corpus.labels(split);
        let strengths = match &self.corpus.task {
            Task::Sentiment { .. } => &RIDGE_STRENGTHS,
            Task::Emotion { .. } => &LOGISTIC_STRENGTHS,
        };
        let linear = Linear::fit(
            &self.corpus.task,
            Examples { features: &train, labels: labels(Split::Train) },
            Examples { features: &valid, labels: labels(Split::Valid) },
            strengths,
        )
        .with_context(|| format!("linear floor of {condition}"))?;
        Ok(ConditionModel { condition, set, scales: self.scales.clone(), linear })
    }
}

/// The linear model of one condition. Predicts without a label.
#[derive(Debug)]
pub struct ConditionModel {
    condition: ModalitySet,
    set: ModalitySet, // what of it was in training
    scales: Scales,
    linear: Linear,
}

impl ConditionModel {
    /// The condition it was fitted for.
    pub fn condition(&self) -> ModalitySet {
        self.condition
    }

    /// Weights, intercept and strength.
    pub fn linear(&self) -> &Linear {
        &self.linear
    }

    /// Predicts every sample of `split` from the frames that `view` leaves of it, in file order.
    ///
    /// # Errors
    /// When the split's features are not as wide as those of training.
    pub fn predict(&self, split: &EvalSet, view: &View) -> Result<Answers> {
        let features = self.scales.apply(&split.pooled(view));
        self.linear.predict(&side_by_side(&features, self.set))
    }
}

/// Mean and spread of each modality's mean features over the training samples that have it.
#[derive(Debug)]
struct Scales([Option<(Tensor, Tensor)>; 3]); // ([d_m], [d_m])

impl Scales {
    fn fit(corpus: &Corpus, train: &Pooled) -> Self {
        Self(Modality::ALL.map(|modality| {
            // A mean over many frames varies less than a frame, but single frames are standardised.
            if corpus.train.is_one_frame(modality) || !corpus.stats.trained.contains(modality) {
                return None;
            }
            let has = train.seen.select(1, modality.index() as i64).nonzero().squeeze_dim(1);
            let x = train.features[modality.index()].index_select(0, &has);
            let std = x.std_dim(Some([0i64].as_slice()), false, false);
            let std = std.where_self(&std.ge(LEAST_STD), &std.ones_like());
            Some((x.mean_dim(Some([0i64].as_slice()), false, Kind::Double), std))
        }))
    }

    /// Standardised features, 0 where nothing of a modality is seen.
    fn apply(&self, pooled: &Pooled) -> [Tensor; 3] {
        Modality::ALL.map(|modality| {
            let m = modality.index();
            match &self.0[m] {
                None => pooled.features[m].shallow_clone(),
                Some((mean, std)) => {
                    let unseen = pooled.seen.narrow(1, m as i64, 1).logical_not(); // [N, 1]
                    ((&pooled.features[m] - mean) / std).masked_fill(&unseen, 0.0)
                }
            }
        })
    }
}

impl Clone for Scales {
    fn clone(&self) -> Self {
        let copy = |(mean, std): &(Tensor, Tensor)| (mean.shallow_clone(), std.shallow_clone());
        Self(self.0.each_ref().map(|scale| scale.as_ref().map(copy)))
    }
}

/// `[N, D]`: the features of the members of `set`.
fn side_by_side(features: &[Tensor; 3], set: ModalitySet) -> Tensor {
    let none = features[0].narrow(1, 0, 0);
    let members = set.iter().map(|m| &features[m.index()]);
    Tensor::cat(&std::iter::once(&none).chain(members).collect::<Vec<_>>(), 1)
}

/// What the strength is chosen by, and its value.
fn quality(task: &Task, labels: &Labels, answers: &Answers) -> (Metric, f64) {
    let metric = match labels {
        Labels::Scores(_) => Metric::Mae,
        Labels::Classes(_) => Metric::F1,
    };
    let value = metric.value(task, labels, answers);
    (metric, value)
}

/// Weights `[D, K]` and intercept `[K]`.
type Fitted = (Tensor, Tensor);

/// Ridge regression at each strength `s`: the `w` that minimises `|y - X w - b|^2 + s |w|^2`.
///
/// Solved for the features or, if these outnumber the samples, for the samples (the dual form).
fn ridge(x: &Tensor, y: &[f32], strengths: &[f64]) -> Result<Vec<Fitted>> {
    let y = Tensor::from_slice(y).to_kind(Kind::Double).unsqueeze(1); // [N, 1]
    let centre = |t: &Tensor| t.mean_dim(Some([0i64].as_slice()), true, Kind::Double);
    let (x_mean, y_mean) = (centre(x), centre(&y));
    let (x, y) = (x - &x_mean, y - &y_mean);
    let (n, dim) = x.size2()?;
    let dual = dim > n;
    let gram = if dual { x.matmul(&x.tr()) } else { x.tr().matmul(&x) };
    let right = if dual { y } else { x.tr().matmul(&y) };
    let solve = |strength: &f64| -> Result<Fitted> {
        let penalty = gram.diagonal(0, 0, 1).full_like(*strength).diag(0);
        let factor = (&gram + penalty).f_linalg_cholesky(false)?;
        let solution = right.f_cholesky_solve(&factor, false)?;
        let weights = if dual { x.tr().matmul(&solution) } else { solution };
        let intercept = (&y_mean - x_mean.matmul(&weights)).squeeze_dim(0);
        Ok((weights, intercept))
    };
    strengths.iter().map(solve).collect()
}

/// Multinomial logistic regression at each strength `s`: the weights that minimise the summed
/// cross-entropy towards the true emotions in equal shares, plus `s / 2` times their squares.
fn logistic(x: &Tensor, rows: &[Vec<bool>], strengths: &[f64]) -> Vec<Fitted> {
    let shares = |row: &Vec<bool>| {
        let n_true = row.iter().filter(|flag| **flag).count().max(1) as f64;
        row.iter().map(|flag| f64::from(u8::from(*flag)) / n_true).collect::<Vec<_>>()
    };
    let n_classes = rows.first().map_or(0, Vec::len) as i64;
    let targets = Tensor::from_slice(&rows.iter().flat_map(shares).collect::<Vec<_>>());
    let targets = targets.reshape([-1, n_classes]); // [N, C]
    let n = rows.len().max(1) as f64;
    let (x_t, dim) = (x.tr(), x.size()[1]);

    let mut theta = Tensor::zeros([dim + 1, n_classes], (Kind::Double, Device::Cpu)); // intercept last
    let at = |strength: &f64| {
        // A strength starts where the one before ended.
        theta = minimise(&theta, |theta| {
            let (weights, intercept) = (theta.narrow(0, 0, dim), theta.narrow(0, dim, 1));
            let log_probs = (x.matmul(&weights) + intercept).log_softmax(1, Kind::Double);
            let penalty = weights.square().sum(Kind::Double) * (strength / 2.0);
            let loss = (penalty - (&targets * &log_probs).sum(Kind::Double)) / n;
            let excess = log_probs.exp() - &targets; // [N, C]
            let slope = x_t.matmul(&excess) + weights * *strength;
            let level = excess.sum_dim_intlist(0, true, Kind::Double);
            (loss.double_value(&[]), Tensor::cat(&[slope, level], 0) / n)
        });
        (theta.narrow(0, 0, dim), theta.get(dim))
    };
    strengths.iter().map(at).collect()
}

/// The minimum of a smooth convex function, by L-BFGS (Nocedal and Wright, Algorithm 7.5) with steps
/// halved until they descend enough. `objective` gives value and gradient.
///
/// Our own because `argmin`, the crate for it, brings 17 others, among them a second `rand`, and
/// keeps parameters as `Vec`s that would be copied to a tensor and back in each step.
fn minimise(start: &Tensor, objective: impl Fn(&Tensor) -> (f64, Tensor)) -> Tensor {
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
    let mut at = start.shallow_clone();
    let (mut value, mut gradient) = objective(&at);
    let mut memory: VecDeque<(Tensor, Tensor, f64)> = VecDeque::new(); // step, its change, 1 / product
    for _ in 0..MAX_ITERATIONS {
        if gradient.abs().max().double_value(&[]) <= GRADIENT_TOLERANCE {
            return at;
        }
        // The gradient times an estimate of the inverse curvature.
        let mut direction = gradient.copy();
        let mut shares = Vec::with_capacity(memory.len());
        for (step, change, inverse) in memory.iter().rev() {
            let share = inverse * dot(step, &direction);
            direction -= change * share;
            shares.push(share);
        }
        let scale = match memory.back() {
            Some((_, change, inverse)) => 1.0 / (inverse * dot(change, change)),
            None => 1.0 / dot(&gradient, &gradient).sqrt().max(1.0),
        };
        direction *= scale;
        for ((step, change, inverse), share) in memory.iter().zip(shares.iter().rev()) {
            direction += step * (share - inverse * dot(change, &direction));
        }

        let descent = dot(&direction, &gradient);
        let rounding = 8.0 * f64::EPSILON * value.abs(); // of the values that are compared
        let mut length = 1.0;
        let (next, next_value, next_gradient) = loop {
            let next = &at - &direction * length;
            let (next_value, next_gradient) = objective(&next);
            if next_value <= value - 1e-4 * length * descent + rounding {
                break (next, next_value, next_gradient);
            }
            length *= 0.5;
            if length < 1e-12 {
                return at; // nowhere lower: as exact as f64 allows
            }
        };
        let (step, change) = (&next - &at, &next_gradient - &gradient);
        let product = dot(&step, &change);
        if product > f64::EPSILON * dot(&change, &change) {
            memory.push_back((step, change, 1.0 / product));
            if memory.len() > MEMORY {
                memory.pop_front();
            }
        }
        (at, value, gradient) = (next, next_value, next_gradient);
    }
    let largest = gradient.abs().max().double_value(&[]);
    tracing::warn!(largest, "logistic regression stopped at {MAX_ITERATIONS} iterations");
    at
}
