//! The step size at every step of a stage.

use serde::{Deserialize, Serialize};

use crate::policy::{Schedule, TrainConfig};

/// A better score must be better by this share of the best's size. `torch`'s ReduceLROnPlateau does
/// the same for positive scores; ours may be negative.
const PLATEAU_THRESHOLD: f64 = 1e-4;

/// What a schedule remembers from epoch to epoch; lies in the resume state.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plateau {
    factor: f64,
    best: Option<f64>,
    bad_epochs: u32,
}

impl Default for Plateau {
    fn default() -> Self {
        Self { factor: 1.0, best: None, bad_epochs: 0 }
    }
}

impl Plateau {
    /// Takes note of an epoch's validation score, lower is better.
    pub(crate) fn note(&mut self, schedule: Schedule, score: f64) {
        let Schedule::Plateau { factor, patience } = schedule else { return };
        match self.best {
            Some(best) if score >= best - best.abs() * PLATEAU_THRESHOLD => self.bad_epochs += 1,
            _ => (self.best, self.bad_epochs) = (Some(score), 0),
        }
        if self.bad_epochs > patience {
            (self.factor, self.bad_epochs) = (self.factor * factor, 0);
        }
    }
}

/// Step size at batch `done`, counted from 0 over the whole stage of `epochs` epochs of `n_batches`.
pub(crate) fn learning_rate(
    train: &TrainConfig,
    epochs: u32,
    n_batches: usize,
    plateau: &Plateau,
    done: usize,
) -> f64 {
    let warmup = train.warmup_epochs * n_batches as f64;
    let total = f64::from(epochs) * n_batches as f64;
    let epoch = (done / n_batches.max(1)) as u32; // from 0
    let done = done as f64;
    if done < warmup {
        return train.learning_rate * (done + 1.0) / (warmup + 1.0);
    }
    match train.schedule {
        Schedule::Constant => train.learning_rate,
        Schedule::Cosine => {
            let share = (done - warmup) / (total - warmup).max(1.0);
            train.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
        }
        Schedule::Step { epochs: every, factor } => {
            train.learning_rate * factor.powi((epoch / every) as i32)
        }
        Schedule::Linear { constant_epochs } => {
            let past = f64::from((epoch + 1).saturating_sub(constant_epochs));
            train.learning_rate
                * (1.0 - past / f64::from(epochs.saturating_sub(constant_epochs) + 1))
        }
        Schedule::Plateau { .. } => train.learning_rate * plateau.factor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn train(schedule: Schedule, warmup_epochs: f64) -> TrainConfig {
        let config = Config::resolve(None, None, None, &[]).unwrap();
        let mut train = config.method.stages().remove(0).train;
        (train.schedule, train.warmup_epochs, train.learning_rate) = (schedule, warmup_epochs, 0.5);
        train
    }

    fn at(train: &TrainConfig, epochs: u32, done: usize) -> f64 {
        learning_rate(train, epochs, 10, &Plateau::default(), done)
    }

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12, "{got} for {want}");
    }

    /// IF-MMIN's: 20 epochs constant, 20 of decline; epochs count from 0 here.
    #[test]
    fn the_late_decline_ends_one_epoch_short_of_zero() {
        let train = train(Schedule::Linear { constant_epochs: 20 }, 0.0);
        close(at(&train, 40, 0), 0.5);
        close(at(&train, 40, 19 * 10), 0.5);
        close(at(&train, 40, 20 * 10), 0.5 * 20.0 / 21.0);
        close(at(&train, 40, 39 * 10 + 9), 0.5 / 21.0);
    }

    #[test]
    fn steps_fall_every_so_many_epochs_and_a_cosine_falls_to_nothing() {
        let step = train(Schedule::Step { epochs: 3, factor: 0.1 }, 0.0);
        close(at(&step, 9, 29), 0.5);
        close(at(&step, 9, 30), 0.05);
        close(at(&step, 9, 89), 0.005);
        let cosine = train(Schedule::Cosine, 1.0);
        close(at(&cosine, 3, 4), 0.5 * 5.0 / 11.0); // warming up
        close(at(&cosine, 3, 20), 0.25); // half way
        assert!(at(&cosine, 3, 29) < 0.005);
    }

    #[test]
    fn a_plateau_of_more_than_its_patience_halves_the_rate() {
        let schedule = Schedule::Plateau { factor: 0.5, patience: 1 };
        let train = train(schedule, 0.0);
        let mut plateau = Plateau::default();
        let mut rates = Vec::new();
        for score in [1.0, 0.9, 0.9, 0.91, 0.89, 0.95, 0.96] {
            plateau.note(schedule, score);
            rates.push(learning_rate(&train, 9, 10, &plateau, 0));
        }
        assert_eq!(rates, [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]);
    }
}
