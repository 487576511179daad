//! Validation: what chooses a stage's checkpoint. The test split is not in reach.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use cumdf_data::{Inputs, Labels, ModalitySet, Split, Task, View};
use cumdf_model::{Predictor, Prior};
use serde_json::{Map, Value, json};

use crate::{
    answers::Answers,
    evaluate::{self, EVAL_SEED, batch_size, plain},
    fit::TrainingData,
    metrics::{self, Metric, Metrics},
    policy::Selection,
    stage::{Judged, conditions},
};

/// Key of the view that one draw of MRMS makes.
const DRAWN: &str = "mrms";

/// Figures of the validation split, by view.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Validation(BTreeMap<String, Judgement>);

/// Figures under one view.
#[derive(Debug, Clone, PartialEq)]
struct Judgement {
    metrics: Metrics,
    loss: f64,
}

/// Predicts the validation split under the views that `judged` names.
///
/// # Errors
/// When a prediction is not finite, or there is no view.
pub(crate) fn validate(
    predictor: &dyn Predictor,
    judged: &Judged,
    data: &TrainingData,
) -> Result<Validation> {
    let views = match judged {
        Judged::Complete => vec![data.corpus.available(Split::Valid)],
        Judged::Conditions => conditions(data.corpus.available(Split::Valid)),
        Judged::Drawn(masks) => {
            let batch_size = batch_size(predictor, data.valid().steps(), data.valid().dims());
            let batches = data.valid().drawn_batches(masks, EVAL_SEED, batch_size);
            let drawn = answers(predictor, &data.problem.prior, batches)?;
            let judgement = judge(data.task(), data.valid_labels(), DRAWN, &drawn)?;
            return Ok(Validation(BTreeMap::from([(DRAWN.to_owned(), judgement)])));
        }
    };
    ensure!(!views.is_empty(), "the validation split has no modality that training has seen");
    let under = |condition: ModalitySet| {
        Ok((condition.key(), judge_view(predictor, &evaluate::view(condition, 0.0), data)?))
    };
    views.into_iter().map(under).collect::<Result<_>>().map(Validation)
}

/// The task's loss of the validation split under each of `views`, over all its samples: `None` where
/// not one of them has anything to see.
///
/// # Errors
/// When a prediction is not finite.
pub(crate) fn errors(
    predictor: &dyn Predictor,
    views: &[View],
    data: &TrainingData,
) -> Result<Vec<Option<f64>>> {
    let available = data.corpus.available(Split::Valid);
    let error = |view: &View| {
        let seen = !available.intersection(view.condition).is_empty();
        let judged = seen.then(|| judge_view(predictor, view, data));
        Ok(judged.transpose()?.map(|judgement| judgement.loss))
    };
    views.iter().map(error).collect()
}

fn judge_view(predictor: &dyn Predictor, view: &View, data: &TrainingData) -> Result<Judgement> {
    let batch_size = batch_size(predictor, data.valid().steps(), data.valid().dims());
    let batches = data.valid().batches(view, batch_size);
    let predicted = answers(predictor, &data.problem.prior, batches)?;
    judge(data.task(), data.valid_labels(), &view.condition.to_string(), &predicted)
}

fn answers(
    predictor: &dyn Predictor,
    prior: &Prior,
    batches: impl Iterator<Item = (Vec<usize>, Inputs)>,
) -> Result<Answers> {
    Ok(evaluate::over(batches, prior, |inputs| plain(predictor.predict(inputs)))?.answers)
}

fn judge(task: &Task, labels: &Labels, view: &str, answers: &Answers) -> Result<Judgement> {
    ensure!(
        answers.is_finite(),
        "the network predicts values that are not finite under {view}; lower \
         train.learning_rate, or set train.clip"
    );
    Ok(Judgement {
        metrics: metrics::score(task, labels, answers),
        loss: metrics::task_loss(task, labels, answers),
    })
}

impl Validation {
    /// The validation score: the mean over views of what `selection` names, lower is better.
    pub(crate) fn score(&self, selection: Selection, task: &Task) -> f64 {
        self.mean(|judgement| {
            let of = |metric: Metric| judgement.metrics.get(&metric).expect("a metric of the task");
            match (selection, task) {
                (Selection::Loss, _) => judgement.loss,
                (Selection::Metric, Task::Sentiment { .. }) => {
                    of(Metric::Mae) - of(Metric::F1) - 0.5 * of(Metric::Corr)
                }
                (Selection::Metric, Task::Emotion { .. }) => -of(Metric::F1),
            }
        })
    }

    /// The figure that readers know, mean over views: `MAE 1.203` or `F1 61.20`.
    pub(crate) fn headline(&self, task: &Task) -> String {
        let metric = match task {
            Task::Sentiment { .. } => Metric::Mae,
            Task::Emotion { .. } => Metric::F1,
        };
        let mean = self.mean(|judgement| judgement.metrics.get(&metric).unwrap_or(f64::NAN));
        format!("{} {}", metric.label(), metric.format(mean))
    }

    /// View to metric to value, F1 and accuracies in percent, the task's loss as `loss`.
    pub(crate) fn to_json(&self) -> Value {
        let view = |(key, judgement): (&String, &Judgement)| {
            let mut values = reported(&judgement.metrics);
            values.insert("loss".into(), json!(judgement.loss));
            (key.clone(), Value::Object(values))
        };
        Value::Object(self.0.iter().map(view).collect())
    }

    fn mean(&self, of: impl Fn(&Judgement) -> f64) -> f64 {
        self.0.values().map(of).sum::<f64>() / self.0.len() as f64
    }
}

/// Metrics by key, in the units of every file: F1 and accuracies in percent.
pub fn reported(metrics: &Metrics) -> Map<String, Value> {
    metrics.iter().map(|(m, value)| (m.key(), json!(m.reported(*value)))).collect()
}
