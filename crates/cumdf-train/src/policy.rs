//! How a stage is optimised, as data: step sizes and their course, clipping, accumulation, groups,
//! patience. Every method's configuration holds these tables; the values are in its recipe.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Optimisation of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Samples per batch, at least 2.
    pub batch_size: i64,
    /// Batches whose gradients are summed before a step; what is left at an epoch's end is a step.
    pub accumulate: usize,
    /// Batches per window inside which samples are sorted by length, which saves padding; 1 sorts
    /// nothing.
    pub bucket: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Course of the step size over a stage.
    pub schedule: Schedule,
    /// Epochs over which the step size rises linearly from 0, before the schedule.
    pub warmup_epochs: f64,
    /// Adam's decay rates of the two running averages, each in [0, 1).
    pub betas: [f64; 2],
    /// Weight decay per step.
    pub weight_decay: f64,
    /// Whether the decay acts on the weights (AdamW) instead of the gradient (L2 in Adam).
    pub decoupled_decay: bool,
    /// What is done to a long gradient.
    pub clip: Clip,
    /// Groups of parameters that differ from the rest, by name.
    #[serde(default)]
    pub groups: BTreeMap<String, GroupConfig>,
    /// Epochs without a better validation score before a stage ends.
    pub patience: u32,
    /// What chooses the checkpoint, always on the validation split.
    pub selection: Selection,
}

/// What a group of parameters has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Its step size.
    pub learning_rate: f64,
    /// Its weight decay per step.
    pub weight_decay: f64,
}

/// What is done to a long gradient before a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clip {
    /// Nothing.
    None,
    /// The gradient of all parameters is scaled down to this Euclidean norm.
    Norm(f64),
    /// The gradient of each group is scaled down to this norm.
    NormPerGroup(f64),
    /// Each number is cut to plus and minus this.
    Value(f64),
}

/// Course of the step size over a stage. Epochs count from the stage's first, the warm-up included;
/// only the cosine begins after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The same throughout.
    Constant,
    /// Half a cosine down to 0 at the last step (Loshchilov and Hutter, ICLR 2017).
    Cosine,
    /// Times `factor` after every `epochs`.
    Step {
        /// Epochs between two changes.
        epochs: u32,
        /// What the step size is multiplied by.
        factor: f64,
    },
    /// Constant for `constant_epochs`, then linear towards 0, which the epoch after the last one
    /// would reach.
    Linear {
        /// Epochs before the decline; where the stage has no more, there is none.
        constant_epochs: u32,
    },
    /// Times `factor` after more than `patience` epochs without a better validation score.
    Plateau {
        /// What the step size is multiplied by.
        factor: f64,
        /// Epochs without improvement that are borne.
        patience: u32,
    },
}

/// What chooses the checkpoint: the mean over the stage's validation views of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// The loss of the task itself, lower is better: cross-entropy, or for regressors the MAE.
    Loss,
    /// For scores `MAE - F1 - corr / 2`, F1 as a fraction, so that a small validation split weighs
    /// three views of its few samples; for emotions minus the weighted F1.
    Metric,
}

/// Seeds, epochs and sizes beyond this are slips of the keyboard.
const MANY: f64 = 1e6;

impl TrainConfig {
    /// What is wrong with these values, each with its key; `at` is the table's name.
    ///
    /// - `epochs`: of the shortest stage that is optimised so
    pub fn problems(&self, at: &str, epochs: u32) -> Vec<String> {
        let mut bad = Vec::new();
        let mut check = |good: bool, key: &str, value: String, want: &str| {
            if !good {
                bad.push(format!("{at}.{key} = {value}: must {want}"));
            }
        };
        let count = |n: usize| (1..=MANY as usize).contains(&n);
        check(
            (2..=MANY as i64).contains(&self.batch_size),
            "batch_size",
            self.batch_size.to_string(),
            "be at least 2",
        );
        check(count(self.accumulate), "accumulate", self.accumulate.to_string(), "be at least 1");
        check(count(self.bucket), "bucket", self.bucket.to_string(), "be at least 1");
        let rate = |x: f64| x > 0.0 && x <= 1.0;
        let decay = |x: f64| (0.0..=1e3).contains(&x);
        let (eta, lambda) = (self.learning_rate, self.weight_decay);
        check(rate(eta), "learning_rate", eta.to_string(), "lie in (0, 1]");
        check(decay(lambda), "weight_decay", lambda.to_string(), "lie in 0 to 1000");
        check(
            (0.0..=f64::from(epochs)).contains(&self.warmup_epochs),
            "warmup_epochs",
            self.warmup_epochs.to_string(),
            &format!("lie in 0 to the {epochs} epochs of training"),
        );
        let betas = self.betas.iter().all(|beta| (0.0..1.0).contains(beta));
        check(betas, "betas", format!("{:?}", self.betas), "lie in [0, 1)");
        check(self.patience >= 1, "patience", "0".into(), "be at least 1");
        if let Clip::Norm(most) | Clip::NormPerGroup(most) | Clip::Value(most) = self.clip {
            let good = most > 0.0 && most <= MANY;
            check(good, "clip", most.to_string(), "be above 0; `none` clips nothing");
        }
        let factor = |x: f64| x > 0.0 && x < 1.0;
        match self.schedule {
            Schedule::Constant | Schedule::Cosine | Schedule::Linear { .. } => {}
            Schedule::Step { epochs, factor: f } => {
                check(epochs >= 1, "schedule.step.epochs", epochs.to_string(), "be at least 1");
                check(factor(f), "schedule.step.factor", f.to_string(), "lie in (0, 1)");
            }
            Schedule::Plateau { factor: f, .. } => {
                check(factor(f), "schedule.plateau.factor", f.to_string(), "lie in (0, 1)");
            }
        }
        for (name, group) in &self.groups {
            let (eta, lambda) = (group.learning_rate, group.weight_decay);
            let key = |what: &str| format!("groups.{name}.{what}");
            check(rate(eta), &key("learning_rate"), eta.to_string(), "lie in (0, 1]");
            check(decay(lambda), &key("weight_decay"), lambda.to_string(), "lie in 0 to 1000");
        }
        bad
    }
}

/// Refuses a number of epochs that trains nothing, or never ends.
pub fn epochs_problem(key: &str, epochs: u32) -> Option<String> {
    match epochs {
        0 => Some(format!("{key} = 0: nothing would be trained")),
        1..=1_000_000 => None,
        _ => Some(format!("{key} = {epochs}: must be at most 1000000")),
    }
}

/// Refuses weights of loss terms that are negative, or beyond all sense.
///
/// - `weights`: by their keys in the table `loss`
pub fn loss_weight_problems(weights: &[(&str, f64)]) -> Vec<String> {
    let wrong = weights.iter().filter(|(_, weight)| !(0.0..=MANY).contains(weight));
    let problem =
        |(key, weight): &(&str, f64)| format!("loss.{key} = {weight}: must lie in 0 to {MANY}");
    wrong.map(problem).collect()
}
