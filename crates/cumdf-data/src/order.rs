//! The order of samples and how it is cut into batches.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::mrms::below;

/// The order of one epoch, a pure function of these and the sample lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochOrder {
    /// Seed of the run; of the epoch's masks too.
    pub seed: u64,
    /// Which epoch. Training counts from 1; 0 is a value like any other.
    pub epoch: u64,
    /// Samples in a batch, at least 1.
    pub batch_size: i64,
    /// Batches in a window. Inside a window samples are sorted by length before they are cut into
    /// batches, which saves padding; the batches are then shuffled. 1 is a plain shuffle.
    pub bucket: usize,
}

/// Samples in the order they are visited, and the batches as ranges of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) order: Vec<usize>,
    pub(crate) cuts: Vec<Range<usize>>,
}

impl EpochOrder {
    /// Shuffles and cuts samples of the given lengths.
    pub(crate) fn plan(&self, lengths: &[i64]) -> Plan {
        let mut hasher = Sha256::new();
        hasher.update(b"cumdf epoch order");
        hasher.update(self.seed.to_le_bytes());
        hasher.update(self.epoch.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(hasher.finalize().into());

        let mut order: Vec<usize> = (0..lengths.len()).collect();
        shuffle(&mut rng, &mut order);
        let cuts = cut(order.len(), self.batch_size, true);
        if self.bucket <= 1 {
            return Plan { order, cuts };
        }
        for window in cuts.chunks(self.bucket) {
            let range = window[0].start..window[window.len() - 1].end;
            order[range].sort_by_key(|sample| lengths[*sample]); // stable: ties stay shuffled
        }
        let mut batches: Vec<&[usize]> = cuts.iter().map(|range| &order[range.clone()]).collect();
        shuffle(&mut rng, &mut batches);
        let cuts = ranges(batches.iter().map(|batch| batch.len()));
        Plan { order: batches.concat(), cuts }
    }
}

/// Samples sorted by length, for passes whose order does not matter.
pub(crate) fn by_length(lengths: &[i64], batch_size: i64) -> Plan {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|sample| lengths[*sample]);
    Plan { cuts: cut(order.len(), batch_size, false), order }
}

/// Number of batches of a training pass over `n` samples.
pub(crate) fn n_batches(n: usize, batch_size: i64) -> usize {
    cut(n, batch_size, true).len()
}

/// Cuts `n` samples into batches. A training pass leaves no last batch of one sample, which batch
/// normalisation cannot train on: it joins the batch before.
fn cut(n: usize, batch_size: i64, training: bool) -> Vec<Range<usize>> {
    let size = usize::try_from(batch_size).unwrap_or(0).max(1);
    let mut cuts: Vec<_> = (0..n).step_by(size).map(|a| a..n.min(a + size)).collect();
    if training && size > 1 && cuts.len() > 1 && n % size == 1 {
        cuts.pop();
        if let Some(last) = cuts.last_mut() {
            last.end = n;
        }
    }
    cuts
}

fn ranges(lens: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    lens.scan(0, |end, len| {
        let start = *end;
        *end += len;
        Some(start..*end)
    })
    .collect()
}

/// Fisher-Yates.
pub(crate) fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(n: usize, batch_size: i64, bucket: usize, epoch: u64) -> Plan {
        let lengths: Vec<i64> = (0..n as i64).map(|i| 1 + i * 7 % 20).collect();
        EpochOrder { seed: 3, epoch, batch_size, bucket }.plan(&lengths)
    }

    #[test]
    fn every_sample_is_visited_once_and_no_batch_holds_one_sample() {
        for (n, size) in [(1, 4), (2, 4), (4, 4), (5, 4), (9, 4), (64, 32), (65, 32), (100, 1)] {
            for bucket in [0, 1, 2, 8] {
                let Plan { mut order, cuts } = plan(n, size, bucket, 0);
                let lens: Vec<_> = cuts.iter().map(|range| range.len()).collect();
                assert_eq!(lens.iter().sum::<usize>(), n);
                assert_eq!(cuts.len(), n_batches(n, size));
                assert!(n == 1 || size == 1 || !lens.contains(&1), "{n} by {size}: {lens:?}");
                order.sort_unstable();
                assert!(order.into_iter().eq(0..n));
            }
        }
    }

    #[test]
    fn epochs_differ_and_repeat() {
        assert_eq!(plan(100, 8, 4, 1), plan(100, 8, 4, 1));
        assert_ne!(plan(100, 8, 4, 1), plan(100, 8, 4, 2));
        // Pinned, so that a change of the generator is seen: it would change every run.
        assert_eq!(plan(8, 8, 1, 0).order, [1, 6, 5, 7, 0, 2, 3, 4]);
    }

    #[test]
    fn buckets_spare_padding() {
        let lengths: Vec<i64> = (0..1000).map(|i| 1 + i * 7 % 20).collect();
        let padded = |plan: Plan| -> i64 {
            let longest =
                |cut: &Range<usize>| plan.order[cut.clone()].iter().map(|s| lengths[*s]).max();
            plan.cuts.iter().map(|cut| cut.len() as i64 * longest(cut).unwrap()).sum()
        };
        let order = |bucket| EpochOrder { seed: 3, epoch: 0, batch_size: 32, bucket };
        let real: i64 = lengths.iter().sum();
        assert!(padded(order(1).plan(&lengths)) > real * 18 / 10);
        assert!(padded(order(8).plan(&lengths)) < real * 12 / 10);
        assert!(padded(by_length(&lengths, 32)) < real * 11 / 10);
    }
}
