//! Metrics of a split, and what a constant answer reaches on it.
//!
//! A metric is one block: its key, label, unit, direction and value, and the constant that suits
//! it, so that a table is a loop over metrics. Values are stored as fractions in [0, 1] or in units
//! of the score; [`Metric::reported`] gives the unit of every file and table, percent for F1 and
//! accuracies.
//!
//! Definitions follow the paper and, where it is silent, scikit-learn: every F1 is
//! `f1_score(truth, prediction, average="weighted")`, the classes' F1 weighted by how often each
//! is true. A value that is undefined on a split (a correlation with a constant, an F1 with no
//! sample left) is 0, so that tables and JSON hold numbers only.

use std::fmt;

use cumdf_data::{Labels, Task};

use crate::answers::Answers;

/// One figure of merit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Mean absolute difference of the predicted and the true score.
    Mae,
    /// Sentiment: weighted F1 of positive against negative, neutral truths left out.
    /// Emotion: weighted F1 over the classes.
    F1,
    /// Weighted F1 of non-negative against negative, over all samples.
    F1Nonneg,
    /// Accuracy of positive against negative, neutral truths left out.
    Acc2,
    /// Accuracy over the task's integer bins. Its key is `acc7` whatever their number, which only
    /// the label shows.
    AccBins {
        /// Number of bins, 7 for scores in [-3, 3].
        n_bins: usize,
    },
    /// Pearson's correlation of the predicted and the true score.
    Corr,
    /// Accuracy over the emotions.
    Acc,
    /// Weighted F1 of one emotion against the rest.
    F1Class(String),
}

impl Metric {
    /// The metrics of a task, in the order of tables; the paper's come first.
    pub fn of(task: &Task) -> Vec<Self> {
        match task {
            Task::Sentiment { .. } => vec![
                Self::Mae,
                Self::F1,
                Self::F1Nonneg,
                Self::Acc2,
                Self::AccBins { n_bins: task.n_classes() },
                Self::Corr,
            ],
            Task::Emotion { classes } => {
                let per_class = classes.iter().cloned().map(Self::F1Class);
                [Self::F1, Self::Acc].into_iter().chain(per_class).collect()
            }
        }
    }

    /// The name in JSON and CSV: `mae`, `f1`, `f1_nonneg`, `acc2`, `acc7`, `corr`, `acc` or
    /// `f1_<class>`.
    pub fn key(&self) -> String {
        match self {
            Self::Mae => "mae".into(),
            Self::F1 => "f1".into(),
            Self::F1Nonneg => "f1_nonneg".into(),
            Self::Acc2 => "acc2".into(),
            Self::AccBins { .. } => "acc7".into(),
            Self::Corr => "corr".into(),
            Self::Acc => "acc".into(),
            Self::F1Class(class) => format!("f1_{class}"),
        }
    }

    /// The name in a table's head.
    pub fn label(&self) -> String {
        match self {
            Self::Mae => "MAE".into(),
            Self::F1 => "F1".into(),
            Self::F1Nonneg => "F1 (neg/non-neg)".into(),
            Self::Acc2 => "Acc-2".into(),
            Self::AccBins { n_bins } => format!("Acc-{n_bins}"),
            Self::Corr => "Corr".into(),
            Self::Acc => "Acc".into(),
            Self::F1Class(class) => format!("F1 {class}"),
        }
    }

    /// Whether the value is a fraction that is printed in percent.
    pub fn is_fraction(&self) -> bool {
        !matches!(self, Self::Mae | Self::Corr)
    }

    /// A stored value in the unit in which the field reports it: F1 and accuracies in percent.
    ///
    /// Rounded far below what can be measured, so that 84.37 % stays 84.37.
    pub fn reported(&self, value: f64) -> f64 {
        match self.is_fraction() {
            true => (value * 1e10).round() / 1e8,
            false => value,
        }
    }

    /// Whether a smaller value is better.
    pub fn lower_is_better(&self) -> bool {
        matches!(self, Self::Mae)
    }

    /// Whether `a` is better than `b`; never when either is NaN.
    pub fn is_better(&self, a: f64, b: f64) -> bool {
        if self.lower_is_better() { a < b } else { a > b }
    }

    /// The value as printed: percent with two decimals, or three decimals.
    pub fn format(&self, value: f64) -> String {
        if self.is_fraction() { format!("{:.2}", 100.0 * value) } else { format!("{value:.3}") }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.key())
    }
}

/// What each sample adds to the sums that a metric is a function of: `[N, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tallies {
    width: usize,
    values: Vec<f64>,
}

impl Tallies {
    fn of<const K: usize>(rows: impl Iterator<Item = [f64; K]>) -> Self {
        Self { width: K, values: rows.flatten().collect() }
    }

    /// A true and a predicted class each, as one of `n_classes * n_classes` counts; nothing of a
    /// sample that is left out.
    fn counts(n_classes: usize, pairs: impl Iterator<Item = Option<[usize; 2]>>) -> Self {
        let width = n_classes * n_classes;
        let mut values = Vec::new();
        for pair in pairs {
            let at = values.len();
            values.resize(at + width, 0.0);
            if let Some([truth, said]) = pair {
                values[at + truth * n_classes + said] = 1.0;
            }
        }
        Self { width, values }
    }

    /// Numbers per sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Those of each sample.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.width)
    }

    /// The sums over all samples.
    pub fn sums(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.width];
        for row in self.rows() {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        sums
    }
}

/// The values of a task's metrics, in the order of [`Metric::of`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics(pub Vec<(Metric, f64)>);

impl Metrics {
    /// The value of `metric`, if the task has it.
    pub fn get(&self, metric: &Metric) -> Option<f64> {
        self.0.iter().find(|(m, _)| m == metric).map(|(_, value)| *value)
    }

    /// Metrics with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = &(Metric, f64)> {
        self.0.iter()
    }
}

/// As printed: `mae 1.203  f1 68.60  ...`.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<_> = self.iter().map(|(m, v)| format!("{m} {}", m.format(*v))).collect();
        f.pad(&pairs.join("  "))
    }
}

impl Metric {
    /// The value of `answers` to samples with `labels`.
    ///
    /// Sentiment: a score counts as positive only above the middle of the range. Emotion: the
    /// prediction is the most probable class; a sample with several true emotions counts as the
    /// predicted one if that is among them, else as the first of them. One emotion against the rest
    /// reads the answer's own decision on it where there is one ([`Answers::Flags`]).
    ///
    /// # Panics
    /// When `labels` are not of `task`'s kind, or not as many as the answers.
    pub fn value(&self, task: &Task, labels: &Labels, answers: &Answers) -> f64 {
        self.of_sums(&self.tallies(task, labels, answers).sums())
    }

    /// What each sample adds to the sums that the metric is a function of ([`Metric::of_sums`]). So
    /// any selection of samples is scored by a sum over it.
    ///
    /// # Panics
    /// As [`Metric::value`].
    pub fn tallies(&self, task: &Task, labels: &Labels, answers: &Answers) -> Tallies {
        assert_eq!(labels.len(), answers.len(), "one answer per label");
        match labels {
            Labels::Scores(truth) => self.tally_scores(task, truth, &answers.scores(task)),
            Labels::Classes(rows) => self.tally_emotions(task, rows, answers),
        }
    }

    /// The value over samples whose [`Tallies`] sum up to `sums`; 0 where it is undefined.
    pub fn of_sums(&self, sums: &[f64]) -> f64 {
        match self {
            Self::Mae | Self::Acc | Self::Acc2 | Self::AccBins { .. } => sums[1] / sums[0].max(1.0),
            Self::F1 | Self::F1Nonneg | Self::F1Class(_) => weighted_f1(sums),
            Self::Corr => pearson(sums),
        }
    }

    fn tally_scores(&self, task: &Task, truth: &[f32], predicted: &[f64]) -> Tallies {
        let neutral = task.neutral().expect("a sentiment task has a neutral score");
        let middle = f64::from(neutral);
        let pairs = || truth.iter().map(|t| f64::from(*t)).zip(predicted.iter().copied());
        let signs = |(t, p): (f64, f64), positive: fn(f64, f64) -> bool| {
            [positive(t, middle), positive(p, middle)].map(usize::from)
        };
        let above: fn(f64, f64) -> bool = |x, middle| x > middle;
        let is_polar = |(t, _): &(f64, f64)| is_polar(*t as f32, neutral);
        match self {
            Self::Mae => Tallies::of(pairs().map(|(t, p)| [1.0, (t - p).abs()])),
            Self::F1 => {
                let polar = pairs().map(|pair| is_polar(&pair).then(|| signs(pair, above)));
                Tallies::counts(2, polar)
            }
            Self::F1Nonneg => {
                Tallies::counts(2, pairs().map(|pair| Some(signs(pair, |x, middle| x >= middle))))
            }
            Self::Acc2 => Tallies::of(pairs().map(|pair| match is_polar(&pair) {
                true => {
                    let [t, p] = signs(pair, above);
                    [1.0, hit(t == p)]
                }
                false => [0.0; 2],
            })),
            Self::AccBins { .. } => {
                let same = |(t, p): (f64, f64)| task.bin(t as f32) == task.bin(p as f32);
                Tallies::of(pairs().map(|pair| [1.0, hit(same(pair))]))
            }
            Self::Corr => {
                // Around the means, so that little is lost in their differences.
                let [mt, mp] = [mean(pairs().map(|(t, _)| t)), mean(pairs().map(|(_, p)| p))];
                let moments = pairs().map(|(t, p)| (t - mt, p - mp));
                Tallies::of(moments.map(|(t, p)| [1.0, t, p, t * t, p * p, t * p]))
            }
            Self::Acc | Self::F1Class(_) => panic!("{self} is a metric of emotions"),
        }
    }

    fn tally_emotions(&self, task: &Task, rows: &[Vec<bool>], answers: &Answers) -> Tallies {
        if let Self::F1Class(name) = self {
            let names = task.class_names();
            let c = names.iter().position(|n| n == name).expect("an emotion of the task");
            let pairs = rows.iter().map(|row| row[c]).zip(answers.decisions(c));
            return Tallies::counts(2, pairs.map(|(t, p)| Some([t, p].map(usize::from))));
        }
        let pairs = rows.iter().zip(answers.classes()).map(|(row, p)| {
            let truth = if row[p] { p } else { row.iter().position(|t| *t).unwrap_or(0) };
            [truth, p]
        });
        match self {
            Self::F1 => Tallies::counts(task.n_classes(), pairs.map(Some)),
            Self::Acc => Tallies::of(pairs.map(|[t, p]| [1.0, hit(t == p)])),
            _ => panic!("{self} is a metric of scores"),
        }
    }

    /// The constant answer, chosen on the training labels, that suits this metric best:
    /// - `mae`, `corr`: the median score (the mean of the middle two when their number is even)
    /// - `f1`, `acc2` of sentiment: the commoner sign among scores that are not neutral
    /// - `f1_nonneg`: the commoner of negative and non-negative among all scores
    /// - `acc7`: the commonest bin
    /// - `f1`, `acc` of emotion: the commonest emotion
    /// - `f1_<class>`: the commoner of "it is" and "it is not", mostly the latter: a model can stay
    ///   below that with a reasonable four-class prediction
    ///
    /// A tie goes to the negative side, the lower bin, the first emotion, "it is not".
    ///
    /// - `n`: how many samples are answered
    ///
    /// # Panics
    /// When the labels are not of `task`'s kind.
    pub fn constant(&self, task: &Task, train: &Labels, n: usize) -> Answers {
        match (task, train) {
            (Task::Sentiment { lo, hi }, Labels::Scores(train)) => {
                let neutral = task.neutral().expect("a sentiment task has a neutral score");
                let n_positive = train.iter().filter(|s| **s > neutral).count();
                let n_negative = train.iter().filter(|s| **s < neutral).count();
                let side = |positive: bool| if positive { *hi as f32 } else { *lo as f32 };
                let score = match self {
                    Self::F1 | Self::Acc2 => side(n_positive > n_negative),
                    Self::F1Nonneg => side(train.len() - n_negative > n_negative),
                    Self::AccBins { .. } => {
                        let bins = train.iter().map(|s| task.bin(*s));
                        *lo as f32 + most_common(bins, task.n_classes()) as f32
                    }
                    _ => median(train),
                };
                Answers::Scores(vec![score; n])
            }
            (Task::Emotion { classes }, Labels::Classes(train)) => {
                let flag = |said: bool| if said { 1.0 } else { 0.0 };
                let row = match self {
                    Self::F1Class(_) => (0..classes.len())
                        .map(|c| flag(2 * train.iter().filter(|row| row[c]).count() > train.len()))
                        .collect(),
                    _ => {
                        let set =
                            train.iter().flat_map(|row| (0..classes.len()).filter(|c| row[*c]));
                        let commonest = most_common(set, classes.len());
                        (0..classes.len()).map(|c| flag(c == commonest)).collect()
                    }
                };
                Answers::Flags(vec![row; n])
            }
            _ => panic!("the labels are not of the task's kind: {task:?}"),
        }
    }
}

/// Mean of one or more values, and their sample standard deviation (divided by n - 1), which a
/// single value does not have.
pub fn mean_and_spread(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()))
}

/// All metrics of `answers` to the samples with `labels`.
///
/// # Panics
/// As [`Metric::value`].
pub fn score(task: &Task, labels: &Labels, answers: &Answers) -> Metrics {
    let value = |metric: Metric| {
        let value = metric.value(task, labels, answers);
        (metric, value)
    };
    Metrics(Metric::of(task).into_iter().map(value).collect())
}

/// What answering the same to every sample of `test` reaches, for each metric the constant that
/// suits it: a model is of use only above it.
///
/// # Panics
/// When the labels are not of `task`'s kind.
pub fn constant_floor(task: &Task, train: &Labels, test: &Labels) -> Metrics {
    let value = |metric: Metric| {
        let constant = metric.constant(task, train, test.len());
        let value = metric.value(task, test, &constant);
        (metric, value)
    };
    Metrics(Metric::of(task).into_iter().map(value).collect())
}

/// What a method's own loss on a split comes to, lower is better: the mean cross-entropy in nats
/// of the true bins, or of the true emotions in equal shares; for regressors the mean absolute
/// error; for a decision per emotion its mean binary cross-entropy.
///
/// The targets are the paper's, whatever a run is trained towards, so that runs can be compared. A
/// probability of 0 counts as the smallest positive `f32`.
///
/// # Panics
/// When `labels` are not of `task`'s kind, or not as many as the answers.
pub fn task_loss(task: &Task, labels: &Labels, answers: &Answers) -> f64 {
    assert_eq!(labels.len(), answers.len(), "one answer per label");
    let nats = |p: f32| -f64::from(p.max(f32::MIN_POSITIVE)).ln();
    match (labels, answers) {
        (_, Answers::Scores(_)) => Metric::Mae.value(task, labels, answers),
        (Labels::Scores(scores), Answers::Classes(probs)) => {
            mean(scores.iter().zip(probs).map(|(score, p)| nats(p[task.bin(*score)])))
        }
        (Labels::Classes(rows), Answers::Classes(probs)) => {
            mean(rows.iter().zip(probs).map(|(row, p)| {
                mean(row.iter().zip(p).filter(|(is_true, _)| **is_true).map(|(_, p)| nats(*p)))
            }))
        }
        (Labels::Classes(rows), Answers::Flags(probs)) => {
            let each = rows.iter().flatten().zip(probs.iter().flatten());
            mean(each.map(|(truth, p)| nats(if *truth { *p } else { 1.0 - *p })))
        }
        (Labels::Scores(_), Answers::Flags(_)) => panic!("flags do not answer a score"),
    }
}

/// F1 of every class, weighted by how often it is true; 0 for no sample.
///
/// - `counts`: `[C, C]`, of each true class how often each class was said
fn weighted_f1(counts: &[f64]) -> f64 {
    let n_classes = counts.len().isqrt();
    let f1 = |c: usize| {
        let n_true: f64 = counts[c * n_classes..][..n_classes].iter().sum();
        let n_said: f64 = counts[c..].iter().step_by(n_classes).sum();
        let n_both = counts[c * n_classes + c];
        // A class that is never true has no weight, so the denominator is not 0 where it matters.
        n_true * 2.0 * n_both / (n_true + n_said).max(1.0)
    };
    (0..n_classes).map(f1).sum::<f64>() / counts.iter().sum::<f64>().max(1.0)
}

/// Pearson's correlation; 0 where it is undefined because either side is constant.
///
/// - `sums`: number of samples; sums of truths, of predictions, of their squares, of their products
fn pearson(sums: &[f64]) -> f64 {
    let [n, t, p, tt, pp, tp] = sums.try_into().expect("six sums");
    let n_or_1 = n.max(1.0);
    let scale = ((tt - t * t / n_or_1).max(0.0) * (pp - p * p / n_or_1).max(0.0)).sqrt();
    // The mean of equal values may be a last digit off, hence not a comparison with 0.
    if scale <= f64::EPSILON * n { 0.0 } else { (tp - t * p / n_or_1) / scale }
}

fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
    }
}

/// The commonest of `classes`, the lowest of equals.
fn most_common(classes: impl Iterator<Item = usize>, n_classes: usize) -> usize {
    let mut counts = vec![0usize; n_classes];
    classes.for_each(|c| counts[c] += 1);
    (1..n_classes).fold(0, |best, c| if counts[c] > counts[best] { c } else { best })
}

/// Whether a score is positive or negative rather than exactly neutral.
fn is_polar(score: f32, neutral: f32) -> bool {
    (score - neutral).abs() > 0.0
}

fn hit(right: bool) -> f64 {
    f64::from(u8::from(right))
}

/// Arithmetic mean; 0 for no value.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
    sum / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOSI: Task = Task::Sentiment { lo: -3, hi: 3 };

    fn emotions() -> Task {
        Task::Emotion { classes: ["happy", "sad", "angry", "neutral"].map(String::from).to_vec() }
    }

    fn normalised<const C: usize>(counts: &[[u8; C]]) -> Answers {
        let row = |counts: &[u8; C]| {
            let sum: f32 = counts.iter().map(|n| f32::from(*n)).sum();
            counts.iter().map(|n| f32::from(*n) / sum).collect()
        };
        Answers::Classes(counts.iter().map(row).collect())
    }

    fn flags<const C: usize>(rows: &[[u8; C]]) -> Labels {
        Labels::Classes(rows.iter().map(|row| row.iter().map(|f| *f == 1).collect()).collect())
    }

    fn assert_metrics(measured: &Metrics, expected: &[(&str, f64)]) {
        let keys: Vec<_> = measured.iter().map(|(m, _)| m.key()).collect();
        assert_eq!(keys, expected.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        for ((metric, value), (_, expected)) in measured.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{metric} is {value}, should be {expected}");
        }
    }

    /// scikit-learn 1.9.1, with `truth` and the counts `p` as below:
    /// ```python
    /// p = p.astype("f4"); p /= p.sum(1, keepdims=True)
    /// score = p.astype("f8") @ np.arange(-3, 4); on = truth != 0
    /// np.abs(score - truth).mean()
    /// f1_score(truth[on] > 0, score[on] > 0, average="weighted")
    /// f1_score(truth >= 0, score >= 0, average="weighted")
    /// accuracy_score(truth[on] > 0, score[on] > 0)
    /// accuracy_score(np.round(truth), np.round(score))
    /// np.corrcoef(truth, score)[0, 1]
    /// ```
    #[test]
    fn sentiment_agrees_with_scikit_learn() {
        let truth = [-3.0, -1.6, -0.5, 0.0, 0.0, 0.4, 0.5, 1.0, 1.5, 2.4, 3.0, -2.5];
        let p = normalised(&[
            [8, 2, 1, 1, 0, 0, 0],
            [1, 1, 1, 6, 4, 1, 0], // exactly neutral: not positive, but non-negative
            [0, 1, 3, 3, 2, 1, 0],
            [0, 0, 1, 5, 4, 0, 0],
            [0, 2, 4, 2, 0, 0, 0],
            [0, 0, 1, 4, 3, 0, 0],
            [0, 1, 3, 2, 0, 0, 0],
            [1, 0, 0, 2, 3, 3, 1],
            [0, 0, 0, 1, 2, 6, 1],
            [0, 0, 1, 1, 2, 4, 8],
            [0, 0, 0, 0, 0, 2, 6],
            [1, 5, 2, 1, 0, 0, 1],
        ]);
        let expected = [
            ("mae", 0.6295138951390982),
            ("f1", 0.901010101010101),
            ("f1_nonneg", 0.7555555555555555),
            ("acc2", 0.9),
            ("acc7", 0.5833333333333334),
            ("corr", 0.8902989282671152),
        ];
        assert_metrics(&score(&MOSI, &Labels::Scores(truth.to_vec()), &p), &expected);
    }

    /// scikit-learn 1.9.1, with the flags `rows` and the counts `q` as below:
    /// ```python
    /// pred = q.argmax(1)
    /// t = np.array([k if r[k] else r.argmax() for r, k in zip(rows, pred)])
    /// f1_score(t, pred, average="weighted"), accuracy_score(t, pred)
    /// [f1_score(rows[:, c], pred == c, average="weighted") for c in range(4)]
    /// ```
    #[test]
    fn emotion_agrees_with_scikit_learn_on_multi_hot_truths() {
        let rows = flags(&[
            [1, 0, 0, 0],
            [1, 0, 1, 0],
            [0, 1, 0, 0],
            [0, 0, 1, 0],
            [0, 0, 0, 1],
            [0, 1, 0, 1],
            [0, 0, 0, 1],
            [0, 0, 1, 0],
        ]);
        let q = normalised(&[
            [5, 2, 1, 1],
            [1, 2, 5, 1],
            [1, 6, 2, 0],
            [4, 1, 3, 1],
            [0, 1, 2, 6],
            [3, 2, 2, 1],
            [1, 5, 1, 2],
            [0, 0, 9, 1],
        ]);
        let expected = [
            ("f1", 0.6541666666666667),
            ("acc", 0.625),
            ("f1_happy", 0.6454545454545454),
            ("f1_sad", 0.75),
            ("f1_angry", 0.8681818181818182),
            ("f1_neutral", 0.7083333333333334),
        ];
        assert_metrics(&score(&emotions(), &rows, &q), &expected);
    }

    /// `np.abs(test - np.median(train)).mean()`, then as above with constant predictions.
    #[test]
    fn the_constant_of_every_metric_comes_from_train() {
        let train = Labels::Scores(vec![-2.0, -1.0, 0.0, 0.0, 0.5, 1.0, 3.0, 2.6]); // median 0.25
        let test = Labels::Scores(vec![-1.0, 0.0, 1.0, 2.0]);
        let expected = [
            ("mae", (1.25 + 0.25 + 0.75 + 1.75) / 4.0),
            ("f1", 2.0 / 3.0 * 0.8), // positive: precision 2/3, recall 1
            ("f1_nonneg", 0.75 * 6.0 / 7.0), // non-negative: precision 3/4, recall 1
            ("acc2", 2.0 / 3.0),
            ("acc7", 0.25), // bin 0, which holds 0.5 too
            ("corr", 0.0),
        ];
        assert_metrics(&constant_floor(&MOSI, &train, &test), &expected);

        let train = flags(&[[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]]);
        let test = flags(&[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]);
        let expected = [
            ("f1", 0.1), // happy: precision 1/4, recall 1, F1 0.4, weight 1/4
            ("acc", 0.25),
            ("f1_happy", 0.1),            // "it is", for 3 of 5 in train
            ("f1_sad", 0.75 * 6.0 / 7.0), // "it is not" from here on
            ("f1_angry", 1.0),
            ("f1_neutral", 0.5 * 2.0 / 3.0),
        ];
        assert_metrics(&constant_floor(&emotions(), &train, &test), &expected);
    }

    #[test]
    fn undefined_values_are_zero() {
        let flat = normalised(&[[1u8; 7], [1; 7]]);
        let metrics = score(&MOSI, &Labels::Scores(vec![0.0, 0.0]), &flat);
        assert_metrics(
            &metrics,
            &[
                ("mae", 0.0),
                ("f1", 0.0),
                ("f1_nonneg", 1.0),
                ("acc2", 0.0),
                ("acc7", 1.0),
                ("corr", 0.0),
            ],
        );
        let varied = Labels::Scores(vec![-1.3, 2.1]);
        assert_eq!(score(&MOSI, &varied, &flat).get(&Metric::Corr), Some(0.0));
    }

    #[test]
    fn the_task_loss_is_that_of_the_true_bins_or_emotions() {
        let p = Answers::Classes(vec![vec![0.5, 0.25, 0.25], vec![0.25, 0.75, 0.0]]);
        let range = Task::Sentiment { lo: -1, hi: 1 };
        let measured = task_loss(&range, &Labels::Scores(vec![-0.9, 0.2]), &p);
        assert!((measured - (2f64.ln() + (4.0f64 / 3.0).ln()) / 2.0).abs() < 1e-7, "{measured}");
        let classes = Task::Emotion { classes: ["a", "b", "c"].map(String::from).to_vec() };
        let labels = flags(&[[1, 1, 0], [0, 1, 0]]);
        let measured = task_loss(&classes, &labels, &p);
        let first = (2f64.ln() + 4f64.ln()) / 2.0;
        assert!((measured - (first + (4.0f64 / 3.0).ln()) / 2.0).abs() < 1e-7, "{measured}");
        let impossible = task_loss(&range, &Labels::Scores(vec![0.0, 1.0]), &p);
        assert!(impossible.is_finite() && impossible > 40.0, "{impossible}");
        let decisions = Answers::Flags(vec![vec![0.5, 0.5, 0.5], vec![0.25, 0.5, 0.5]]);
        let measured = task_loss(&classes, &labels, &decisions);
        let expected = (5.0 * 2f64.ln() + (4.0f64 / 3.0).ln()) / 6.0;
        assert!((measured - expected).abs() < 1e-7, "{measured}");
        let scores = Answers::Scores(vec![-0.4, 0.4]);
        let measured = task_loss(&range, &Labels::Scores(vec![-0.9, 0.2]), &scores);
        assert!((measured - 0.35).abs() < 1e-6, "{measured}");
    }

    #[test]
    fn a_decision_per_emotion_counts_for_itself_and_the_likeliest_for_the_whole() {
        let answers = Answers::Flags(vec![vec![0.9, 0.6, 0.1, 0.2], vec![0.1, 0.4, 0.3, 0.2]]);
        let truth = flags(&[[1, 1, 0, 0], [0, 1, 0, 0]]);
        let measured = score(&emotions(), &truth, &answers);
        assert_metrics(
            &measured,
            &[
                ("f1", 1.0),
                ("acc", 1.0),
                ("f1_happy", 1.0),
                ("f1_sad", 2.0 / 3.0), // one of the two is said
                ("f1_angry", 1.0),
                ("f1_neutral", 1.0),
            ],
        );
    }

    /// Every second sample scored by itself, and by the sums over its tallies.
    #[test]
    fn a_selection_of_samples_is_scored_by_its_sums() {
        let truth: Vec<f32> = (0..40).map(|i| ((i * 7) % 13) as f32 / 2.0 - 3.0).collect();
        let said: Vec<f32> = (0..40).map(|i| ((i * 5) % 11) as f32 / 2.0 - 2.5).collect();
        let rows: Vec<Vec<bool>> =
            (0..40).map(|i| (0..4).map(|c| c == i % 4 || (i * c) % 5 == 4).collect()).collect();
        let p: Vec<Vec<f32>> = (0..40)
            .map(|i| (0..4).map(|c| ((i * 3 + c * 7) % 10) as f32 / 10.0).collect())
            .collect();
        fn half<T: Clone>(all: &[T]) -> Vec<T> {
            all.iter().step_by(2).cloned().collect()
        }
        let cases = [
            (
                MOSI,
                [Labels::Scores(truth.clone()), Labels::Scores(half(&truth))],
                [Answers::Scores(said.clone()), Answers::Scores(half(&said))],
            ),
            (
                emotions(),
                [Labels::Classes(rows.clone()), Labels::Classes(half(&rows))],
                [Answers::Flags(p.clone()), Answers::Flags(half(&p))],
            ),
        ];
        for (task, [labels, half_labels], [answers, half_answers]) in cases {
            for metric in Metric::of(&task) {
                let tallies = metric.tallies(&task, &labels, &answers);
                assert_eq!(tallies.rows().len(), 40);
                let mut sums = vec![0.0; tallies.width()];
                for row in tallies.rows().step_by(2) {
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
                let alone = metric.value(&task, &half_labels, &half_answers);
                let summed = metric.of_sums(&sums);
                assert!((alone - summed).abs() < 1e-12, "{metric}: {alone}, {summed}");
                assert!(alone.abs() > 1e-3, "{metric}: {alone}");
            }
        }
    }

    #[test]
    fn values_print_in_their_unit() {
        let metrics = Metrics(vec![(Metric::Mae, 1.20345), (Metric::F1, 0.68604)]);
        assert_eq!(metrics.to_string(), "mae 1.203  f1 68.60");
        assert_eq!(Metric::AccBins { n_bins: 5 }.label(), "Acc-5");
        assert!(Metric::Mae.is_better(1.0, 1.1) && Metric::F1.is_better(0.7, 0.6));
        assert!(!Metric::F1.is_better(f64::NAN, 0.6) && !Metric::F1.is_better(0.6, f64::NAN));
    }
}
