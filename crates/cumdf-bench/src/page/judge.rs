//! Stored answers against true labels: confusion, and whether probabilities and scores mean what
//! they say.

use cumdf_data::{Labels, Task};
use cumdf_train::answers::{Answers, argmax};

use super::data::{Bin, Reliability, Verdict, rounded};

/// Bins of a probability.
const N_BINS: usize = 10;

/// The answers of several seeds under one condition against the truth, counted together.
pub(super) fn verdict(task: &Task, labels: &Labels, seeds: &[Answers]) -> Verdict {
    let n = task.n_classes();
    let mut confusion = vec![vec![0; n]; n];
    for answers in seeds {
        for (truth, said) in classes(task, labels, answers) {
            confusion[truth][said] += 1;
        }
    }
    let said: Vec<_> = seeds.iter().flat_map(|a| probabilities(task, labels, a)).collect();
    Verdict {
        confusion,
        reliability: (!said.is_empty()).then(|| reliability(&said)),
        scores: scores(task, labels, seeds),
    }
}

/// What the probabilities of a model's answers are.
pub(super) fn meaning(task: &Task, answers: &Answers) -> &'static str {
    match (answers, task) {
        (Answers::Scores(_), _) => "",
        (Answers::Classes(_), Task::Sentiment { .. }) => "probability of the likeliest score",
        (Answers::Classes(_), Task::Emotion { .. }) => "probability of the likeliest emotion",
        (Answers::Flags(_), _) => "probability of each emotion, all emotions together",
    }
}

/// True and said class of every sample. Of several true emotions it is the said one if that is among
/// them, else the first, as for the metrics.
fn classes(task: &Task, labels: &Labels, answers: &Answers) -> Vec<(usize, usize)> {
    match labels {
        Labels::Scores(truth) => {
            let said = answers.scores(task);
            truth.iter().zip(said).map(|(t, s)| (task.bin(*t), task.bin(s as f32))).collect()
        }
        Labels::Classes(rows) => {
            let truth = |row: &Vec<bool>, said: usize| match row[said] {
                true => said,
                false => row.iter().position(|is| *is).unwrap_or(0),
            };
            rows.iter().zip(answers.classes()).map(|(row, said)| (truth(row, said), said)).collect()
        }
    }
}

/// Every probability that is put to the test, and whether it came true.
fn probabilities(task: &Task, labels: &Labels, answers: &Answers) -> Vec<(f64, bool)> {
    let is_true = |sample: usize, class: usize| match labels {
        Labels::Scores(truth) => task.bin(truth[sample]) == class,
        Labels::Classes(rows) => rows[sample][class],
    };
    match answers {
        Answers::Scores(_) => vec![],
        Answers::Classes(rows) => {
            let top = |(i, p): (usize, &Vec<f32>)| {
                let class = argmax(p);
                (f64::from(p[class]), is_true(i, class))
            };
            rows.iter().enumerate().map(top).collect()
        }
        Answers::Flags(rows) => {
            let each = |(i, p): (usize, &Vec<f32>)| {
                p.iter()
                    .enumerate()
                    .map(|(c, p)| (f64::from(*p), is_true(i, c)))
                    .collect::<Vec<_>>()
            };
            rows.iter().enumerate().flat_map(each).collect()
        }
    }
}

fn reliability(said: &[(f64, bool)]) -> Reliability {
    let hit = |is_true: bool| if is_true { 1.0 } else { 0.0 };
    let pairs = said.iter().map(|(p, is_true)| (*p, hit(*is_true)));
    let bins = binned(pairs, N_BINS, |p| (p * N_BINS as f64) as usize);
    let gap = |bin: &Bin| f64::from(bin.n) * (bin.said - bin.was).abs();
    let ece = bins.iter().map(gap).sum::<f64>() / said.len() as f64;
    let short = |bin: Bin| Bin { said: rounded(bin.said, 4), was: rounded(bin.was, 4), ..bin };
    Reliability { ece: rounded(ece, 4), bins: bins.into_iter().map(short).collect() }
}

/// Predicted scores against true ones, by the integer that the prediction rounds to.
fn scores(task: &Task, labels: &Labels, seeds: &[Answers]) -> Option<Vec<Bin>> {
    let Labels::Scores(truth) = labels else { return None };
    let pairs = seeds.iter().flat_map(|answers| {
        answers.scores(task).into_iter().zip(truth.iter().map(|t| f64::from(*t)))
    });
    let bins = binned(pairs, task.n_classes(), |score| task.bin(score as f32));
    let short = |bin: Bin| Bin { said: rounded(bin.said, 3), was: rounded(bin.was, 3), ..bin };
    Some(bins.into_iter().map(short).collect())
}

/// Means of (said, true) per bin of what was said, without the empty bins.
fn binned(
    pairs: impl Iterator<Item = (f64, f64)>,
    n_bins: usize,
    bin: impl Fn(f64) -> usize,
) -> Vec<Bin> {
    let mut bins = vec![Bin { n: 0, said: 0.0, was: 0.0 }; n_bins];
    for (said, was) in pairs {
        let bin = &mut bins[bin(said).min(n_bins - 1)];
        bin.n += 1;
        bin.said += said;
        bin.was += was;
    }
    bins.retain(|bin| bin.n > 0);
    for bin in &mut bins {
        bin.said /= f64::from(bin.n);
        bin.was /= f64::from(bin.n);
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_held_against_how_often_its_top_class_is_true() {
        let task = Task::Sentiment { lo: 0, hi: 1 };
        let labels = Labels::Scores(vec![0.0, 0.0, 1.0, 1.0]);
        let p = |p: f32| vec![p, 1.0 - p];
        let answers = Answers::Classes(vec![p(0.95), p(0.95), p(0.95), p(0.3)]);
        let verdict = verdict(&task, &labels, &[answers]);
        assert_eq!(verdict.confusion, [[2, 0], [1, 1]]);
        let reliability = verdict.reliability.unwrap();
        let bins: Vec<_> = reliability.bins.iter().map(|b| (b.n, b.said, b.was)).collect();
        assert_eq!(bins, [(1, 0.7, 1.0), (3, 0.95, 0.6667)]);
        // (1 * 0.3 + 3 * 0.28333) / 4
        assert!((reliability.ece - 0.2875).abs() < 1e-9, "{}", reliability.ece);
        let scores = verdict.scores.unwrap();
        let scores: Vec<_> = scores.iter().map(|b| (b.n, b.said, b.was)).collect();
        assert_eq!(scores, [(3, 0.05, 0.333), (1, 0.7, 1.0)]);
    }

    #[test]
    fn a_decision_per_emotion_is_held_against_each_and_two_truths_count_once() {
        let task = Task::Emotion { classes: ["a", "b"].map(String::from).to_vec() };
        let labels = Labels::Classes(vec![vec![true, true], vec![false, true]]);
        let answers = Answers::Flags(vec![vec![0.2, 1.0], vec![0.8, 0.6]]);
        let verdict = verdict(&task, &labels, &[answers.clone(), answers]);
        assert_eq!(verdict.confusion, [[0, 0], [2, 2]], "two seeds are counted together");
        assert_eq!(verdict.scores, None);
        let n: u32 = verdict.reliability.unwrap().bins.iter().map(|bin| bin.n).sum();
        assert_eq!(n, 8);
    }
}
