//! Samples worth a look, as the paper's figure 4 has them, chosen by a rule from stored answers.

use cumdf_data::{Labels, ModalitySet, Task};
use cumdf_train::answers::Answers;

use super::data::{Case, CaseAnswer, Cases, rounded};

/// Samples of each kind.
const N_EACH: usize = 2;

/// A model's answers to the test split under some conditions.
#[derive(Debug, Clone)]
pub(super) struct Spoken {
    /// The model's name.
    pub(super) name: String,
    /// What it says under each condition.
    pub(super) views: Vec<Said>,
}

/// A model's answers to the test split under one condition.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// The condition.
    pub(super) condition: ModalitySet,
    /// The answers.
    pub(super) answers: Answers,
    /// What each is owed to, where that is known.
    pub(super) shares: Option<Vec<[f32; 3]>>,
}

/// What is known of the test split.
#[derive(Debug, Clone, Copy)]
pub(super) struct Truth<'a> {
    /// What the labels mean.
    pub(super) task: &'a Task,
    /// Names of the samples.
    pub(super) ids: &'a [String],
    /// Their labels.
    pub(super) labels: &'a Labels,
}

/// The largest gains and losses of `own` on `other` under each condition, and the largest spreads of
/// `own` between conditions.
pub(super) fn choose(truth: Truth, own: &Spoken, other: &Spoken, why_other: &str) -> Cases {
    let (what, gap) = match truth.task {
        Task::Sentiment { .. } => ("absolute error", "the difference of its scores"),
        Task::Emotion { .. } => (
            "probability that is missing to a true emotion",
            "half the summed difference of its probabilities",
        ),
    };
    let rule = format!(
        "{} against {}, {why_other}. Per condition: the {N_EACH} samples where {} gains most, and \
         where it loses most, by {what}; and the {N_EACH} where its answers differ most between two \
         conditions, by {gap}. Both models with their first seed",
        own.name, other.name, own.name
    );
    let mut list = Vec::new();
    for mine in &own.views {
        let Some(theirs) = other.views.iter().find(|said| said.condition == mine.condition) else {
            continue;
        };
        let error = |said: &Said, i: usize| truth.error(&said.answers, i);
        let gain = |i: usize| error(theirs, i) - error(mine, i);
        let mut order: Vec<_> = (0..truth.ids.len()).collect();
        order.sort_by(|a, b| gain(*b).total_cmp(&gain(*a))); // stable: the first of equals
        let gains = order.iter().take(N_EACH).filter(|i| gain(**i) > 0.0).map(|i| ("gain", *i));
        let losses =
            order.iter().rev().take(N_EACH).filter(|i| gain(**i) < 0.0).map(|i| ("loss", *i));
        for (kind, i) in gains.chain(losses) {
            let [a, b] = [error(mine, i), error(theirs, i)];
            let why = format!("{what}: {} {a:.2}, {} {b:.2}", own.name, other.name);
            let answers =
                vec![truth.answer(&own.name, mine, i), truth.answer(&other.name, theirs, i)];
            list.push(truth.case(mine.condition.key(), kind, why, i, answers));
        }
    }
    let spread = |i: usize| {
        let pairs = own.views.iter().flat_map(|a| own.views.iter().map(move |b| (a, b)));
        pairs.map(|(a, b)| truth.distance(&a.answers, &b.answers, i)).fold(0.0, f64::max)
    };
    let mut spreads: Vec<_> = (0..truth.ids.len()).map(|i| (i, spread(i))).collect();
    spreads.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (i, spread) in spreads.into_iter().take(N_EACH).filter(|(_, spread)| *spread > 0.0) {
        let why = format!("largest difference between two conditions: {spread:.2}");
        let answers = own.views.iter().map(|said| truth.answer(&own.name, said, i)).collect();
        list.push(truth.case(String::new(), "spread", why, i, answers));
    }
    Cases { rule, list }
}

impl Truth<'_> {
    /// How wrong the answer to a sample is: the absolute error of its score, or what is missing to
    /// certainty in the true emotion that it believes most.
    fn error(&self, answers: &Answers, i: usize) -> f64 {
        match (self.labels, answers) {
            (Labels::Scores(truth), _) => (self.score(answers, i) - f64::from(truth[i])).abs(),
            (Labels::Classes(rows), Answers::Classes(p) | Answers::Flags(p)) => {
                let true_ones = p[i].iter().zip(&rows[i]).filter(|(_, is_true)| **is_true);
                1.0 - true_ones.map(|(p, _)| f64::from(*p)).fold(0.0, f64::max)
            }
            (Labels::Classes(_), Answers::Scores(_)) => f64::NAN,
        }
    }

    /// How far two answers to a sample lie apart.
    fn distance(&self, a: &Answers, b: &Answers, i: usize) -> f64 {
        match (self.task, a, b) {
            (
                Task::Emotion { .. },
                Answers::Classes(a) | Answers::Flags(a),
                Answers::Classes(b) | Answers::Flags(b),
            ) => a[i].iter().zip(&b[i]).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / 2.0,
            _ => (self.score(a, i) - self.score(b, i)).abs(),
        }
    }

    /// The score that the answer to one sample stands for.
    fn score(&self, answers: &Answers, i: usize) -> f64 {
        one(answers, i).scores(self.task)[0]
    }

    fn case(
        &self,
        condition: String,
        kind: &'static str,
        why: String,
        i: usize,
        answers: Vec<CaseAnswer>,
    ) -> Case {
        let names = self.task.class_names();
        let (text, score, classes) = match self.labels {
            Labels::Scores(truth) => (
                format!("{:.2}", truth[i]),
                Some(f64::from(truth[i])),
                vec![self.task.bin(truth[i])],
            ),
            Labels::Classes(rows) => {
                let classes: Vec<_> = (0..names.len()).filter(|c| rows[i][*c]).collect();
                let said: Vec<_> = classes.iter().map(|c| names[*c].as_str()).collect();
                (said.join(" + "), None, classes)
            }
        };
        let score = score.map(|score| rounded(score, 3));
        let id = self.ids[i].clone();
        Case { condition, kind, why, id, truth: text, score, classes, answers }
    }

    fn answer(&self, name: &str, said: &Said, i: usize) -> CaseAnswer {
        let Said { condition, answers, shares } = said;
        let score = matches!(self.task, Task::Sentiment { .. }).then(|| self.score(answers, i));
        let said = match score {
            Some(score) => format!("{score:.2}"),
            None => self.task.class_names().swap_remove(one(answers, i).classes()[0]),
        };
        let probabilities = match answers {
            Answers::Scores(_) => None,
            Answers::Classes(rows) | Answers::Flags(rows) => {
                Some(rows[i].iter().map(|p| rounded(f64::from(*p), 3)).collect())
            }
        };
        CaseAnswer {
            name: name.to_owned(),
            condition: condition.to_string(),
            said,
            score: score.map(|score| rounded(score, 3)),
            probabilities,
            shares: shares.as_ref().map(|all| all[i].map(|share| rounded(f64::from(share), 3))),
        }
    }
}

/// The answer to one sample.
fn one(answers: &Answers, i: usize) -> Answers {
    match answers {
        Answers::Scores(scores) => Answers::Scores(vec![scores[i]]),
        Answers::Classes(rows) => Answers::Classes(vec![rows[i].clone()]),
        Answers::Flags(rows) => Answers::Flags(vec![rows[i].clone()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(name: &str, views: &[(&str, Answers)]) -> Spoken {
        let view = |(key, answers): &(&str, Answers)| Said {
            condition: key.parse().unwrap(),
            answers: answers.clone(),
            shares: None,
        };
        Spoken { name: name.to_owned(), views: views.iter().map(view).collect() }
    }

    #[test]
    fn the_largest_gain_loss_and_spread_are_chosen() {
        let task = Task::Sentiment { lo: -3, hi: 3 };
        let ids = ["a", "b", "c"].map(String::from);
        let labels = Labels::Scores(vec![1.0, -2.0, 0.0]);
        let truth = Truth { task: &task, ids: &ids, labels: &labels };
        let scores = |s: [f32; 3]| Answers::Scores(s.to_vec());
        let own = spoken("own", &[("l", scores([1.0, 2.0, 0.0])), ("a", scores([0.5, 2.0, 0.0]))]);
        let other = spoken("other", &[("l", scores([-1.0, -2.0, 0.0]))]);
        let cases = choose(truth, &own, &other, "for a test");
        let found: Vec<_> =
            cases.list.iter().map(|c| (c.kind, c.id.as_str(), c.condition.as_str())).collect();
        assert_eq!(found, [("gain", "a", "l"), ("loss", "b", "l"), ("spread", "a", "")]);
        assert_eq!(cases.list[0].why, "absolute error: own 0.00, other 2.00");
        assert_eq!(cases.list[2].answers.len(), 2);
        assert!(cases.rule.contains("own against other, for a test"), "{}", cases.rule);
    }

    #[test]
    fn of_several_true_emotions_the_one_that_is_believed_most_counts() {
        let task = Task::Emotion { classes: ["x", "y", "z"].map(String::from).to_vec() };
        let ids = ["a".to_owned()];
        let labels = Labels::Classes(vec![vec![true, false, true]]);
        let truth = Truth { task: &task, ids: &ids, labels: &labels };
        let flags = |p: [f32; 3]| Answers::Flags(vec![p.to_vec()]);
        assert!((truth.error(&flags([0.25, 1.0, 0.5]), 0) - 0.5).abs() < 1e-6);
        let apart = truth.distance(&flags([1.0, 0.0, 0.0]), &flags([0.0, 1.0, 0.0]), 0);
        assert!((apart - 1.0).abs() < 1e-6);
        let cases = choose(
            truth,
            &spoken("own", &[("l", flags([0.5, 0.5, 0.0]))]),
            &spoken("other", &[("l", flags([0.0, 1.0, 0.25]))]),
            "",
        );
        assert_eq!(cases.list[0].truth, "x + z");
        assert_eq!(cases.list[0].answers[1].said, "y");
    }
}
