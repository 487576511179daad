//! What an epoch leaves to read: the means of its loss terms, and a line in each log.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::Value;
use tch::Tensor;

use crate::{learner::LossTerms, tensorboard::EventWriter};

/// Steps between two looks at the losses, each of which waits for the device.
const LOOK_EVERY: usize = 20;

/// Loss values of an epoch, read from the device once in a while. A term may be missing in some
/// batches: its mean is over those that had it.
#[derive(Debug, Default)]
pub(crate) struct LossLog {
    pending: Vec<BTreeMap<&'static str, Tensor>>,
    sums: BTreeMap<&'static str, (f64, usize)>,
    n_batches: usize,
}

impl LossLog {
    /// Notes the terms of the next batch, and looks at what is pending once in a while.
    ///
    /// # Errors
    /// As [`LossLog::look`].
    pub(crate) fn add(&mut self, terms: &LossTerms) -> Result<()> {
        self.pending.push(terms.values());
        if self.pending.len() >= LOOK_EVERY { self.look() } else { Ok(()) }
    }

    /// Reads what is pending.
    ///
    /// # Errors
    /// Names the first batch and term that is not finite.
    pub(crate) fn look(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let all: Vec<_> = pending.iter().flat_map(BTreeMap::values).collect();
        let values: Vec<f32> = Vec::try_from(Tensor::stack(&all, 0))?; // one wait for all
        let mut values = values.into_iter();
        for batch in pending {
            self.n_batches += 1;
            for name in batch.into_keys() {
                let value = values.next().expect("one value per term");
                if !value.is_finite() {
                    bail!(
                        "the loss term `{name}` became {value} at batch {} of the epoch; lower \
                         train.learning_rate, or set train.clip",
                        self.n_batches
                    );
                }
                let (sum, n) = self.sums.entry(name).or_default();
                *sum += f64::from(value);
                *n += 1;
            }
        }
        Ok(())
    }

    /// Mean of each term over the batches that had it.
    pub(crate) fn means(&self) -> BTreeMap<&'static str, f64> {
        self.sums.iter().map(|(name, (sum, n))| (*name, sum / *n as f64)).collect()
    }
}

/// Writes an epoch's figures as TensorBoard scalars.
///
/// - `valid`: view to metric to value
pub(crate) fn log_events(
    events: &mut EventWriter,
    losses: &LossLog,
    valid: &Value,
    score: f64,
    epoch: usize,
) -> Result<()> {
    for (name, value) in losses.means() {
        events.scalar(&format!("loss/{name}"), epoch, value)?;
    }
    for (view, metrics) in valid.as_object().into_iter().flatten() {
        for (name, value) in metrics.as_object().into_iter().flatten() {
            let value = value.as_f64().unwrap_or(f64::NAN);
            events.scalar(&format!("valid_{name}/{view}"), epoch, value)?;
        }
    }
    events.scalar("valid/score", epoch, score)?;
    events.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_some_batches_lack_is_averaged_over_the_others() {
        let mut log = LossLog::default();
        for (a, b) in [(1.0, Some(4.0)), (3.0, None)] {
            let mut terms = LossTerms::default();
            terms.add("a", 1.0, || Tensor::from(a as f32));
            if let Some(b) = b {
                terms.add("b", 1.0, || Tensor::from(b as f32));
            }
            log.add(&terms).unwrap();
        }
        log.look().unwrap();
        assert_eq!(log.means(), BTreeMap::from([("a", 2.0), ("b", 4.0)]));
    }
}
