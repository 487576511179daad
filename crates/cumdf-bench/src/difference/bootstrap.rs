//! The paired bootstrap over test samples: what a figure would be on other samples of the kind.
//!
//! Every metric is a function of sums over samples ([`Tallies`]), so a draw of samples is a vector
//! of counts, all draws are one matrix `[B, G]`, and the sums of all draws are its product with the
//! tallies. The same draws serve every row, which is what pairs them.

use anyhow::Result;
use cumdf_data::videos;
use cumdf_train::metrics::{Metric, Tallies};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use tch::{Kind, Tensor};

/// How often samples are drawn.
pub const DRAWS: usize = 10_000;
/// All tables draw alike.
const SEED: u64 = 0;

/// Draws of test samples, in the groups that are drawn whole.
#[derive(Debug)]
pub struct Draws {
    /// Of each sample.
    group: Vec<usize>,
    n_groups: usize,
    /// How often each group was drawn, `[B, G]`.
    counts: Tensor,
}

impl Draws {
    /// Draws among samples with these names.
    pub fn new(ids: &[String]) -> Self {
        let (group, n_groups) = videos(ids);
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut counts = vec![0f64; DRAWS * n_groups];
        for draw in counts.chunks_exact_mut(n_groups.max(1)) {
            for _ in 0..n_groups {
                // The product's upper half is as good as uniform: n_groups is tiny beside 2^32.
                draw[((u64::from(rng.next_u32()) * n_groups as u64) >> 32) as usize] += 1.0;
            }
        }
        let shape = [DRAWS as i64, n_groups as i64];
        Self { group, n_groups, counts: Tensor::from_slice(&counts).reshape(shape) }
    }

    /// Whether whole videos are drawn, and how many there are; else the number of samples.
    pub fn groups(&self) -> (bool, usize) {
        (self.n_groups < self.group.len(), self.n_groups)
    }

    /// The values of a metric over each draw, `[B]`, for each of `all`, whose samples are those of
    /// [`Draws::new`].
    ///
    /// # Errors
    /// When memory runs out.
    pub fn values(&self, metric: &Metric, all: &[Tallies]) -> Result<Vec<Vec<f64>>> {
        let Some(width) = all.first().map(Tallies::width) else { return Ok(vec![]) };
        let mut by_group = vec![0f64; self.n_groups * all.len() * width];
        for (i, tallies) in all.iter().enumerate() {
            for (row, group) in tallies.rows().zip(&self.group) {
                let at = (group * all.len() + i) * width;
                by_group[at..at + width].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
        let shape = [self.n_groups as i64, (all.len() * width) as i64];
        let sums = self.counts.f_matmul(&Tensor::f_from_slice(&by_group)?.f_reshape(shape)?)?;
        let sums: Vec<f64> = Vec::try_from(sums.f_reshape([-1])?.to_kind(Kind::Double))?;
        let of = |i: usize| {
            let draws = sums.chunks_exact(all.len() * width);
            draws.map(|sums| metric.of_sums(&sums[i * width..][..width])).collect()
        };
        Ok((0..all.len()).map(of).collect())
    }
}

/// The middle 95 % of `values`, and the two-sided probability that their like lie around 0.
///
/// - `values`: differences over all draws
pub fn interval(values: &[f64]) -> ([f64; 2], f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let tail = super::LEVEL / 2.0;
    let below = values.iter().filter(|d| **d <= 0.0).count();
    let above = values.iter().filter(|d| **d >= 0.0).count();
    let p = 2.0 * (below.min(above) + 1) as f64 / (values.len() + 1) as f64;
    ([quantile(&sorted, tail), quantile(&sorted, 1.0 - tail)], p.min(1.0))
}

/// Between the two values beside it, as NumPy's `quantile` does.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len().max(1) - 1) as f64;
    let value = |i: usize| sorted.get(i).or(sorted.last()).copied().unwrap_or(f64::NAN);
    let below = at.floor();
    value(below as usize) + (at - below) * (value(below as usize + 1) - value(below as usize))
}

#[cfg(test)]
mod tests {
    use cumdf_data::{Labels, Task};
    use cumdf_train::{answers::Answers, metrics::mean_and_spread};

    use super::*;

    const TASK: Task = Task::Sentiment { lo: -3, hi: 3 };

    fn ids(names: impl Iterator<Item = String>) -> Vec<String> {
        names.collect()
    }

    /// The mean absolute error of n samples has the standard error s / sqrt(n); with videos of
    /// two equal samples each, of their n / 2.
    #[test]
    fn the_spread_of_draws_is_the_standard_error() {
        let n = 240;
        let noise = |i: usize| ((i * 7919) % 997) as f32 / 997.0;
        for (pairs, name) in [(1, "alone"), (2, "in pairs")] {
            let said: Vec<f32> = (0..n).map(|i| noise(i / pairs)).collect();
            let names = (0..n).map(|i| format!("v{}_{}", i / pairs, i));
            let draws = Draws::new(&ids(names));
            assert_eq!(draws.groups(), (pairs == 2, n / pairs));
            let labels = Labels::Scores(vec![0.0; n]);
            let tallies = Metric::Mae.tallies(&TASK, &labels, &Answers::Scores(said.clone()));
            let found = &draws.values(&Metric::Mae, &[tallies]).expect("memory")[0];
            assert_eq!(found.len(), DRAWS);
            let errors: Vec<f64> = said.iter().step_by(pairs).map(|e| f64::from(e.abs())).collect();
            let (mean, spread) = mean_and_spread(&errors);
            let expected = spread.expect("many") / (errors.len() as f64).sqrt();
            let (found_mean, found_spread) = mean_and_spread(found);
            assert!((found_mean - mean).abs() < 0.05 * expected, "{name}: {found_mean}, {mean}");
            let ratio = found_spread.expect("many") / expected;
            assert!((ratio - 1.0).abs() < 0.03, "{name}: {ratio}");
        }
    }

    /// Two rows whose errors differ by a constant differ by it in every draw; equal rows in none.
    #[test]
    fn rows_are_compared_on_the_same_draws() {
        let n = 50;
        let labels = Labels::Scores(vec![0.0; n]);
        let said = |more: f32| {
            let scores = (0..n).map(|i| i as f32 / 25.0 + more).collect();
            Metric::Mae.tallies(&TASK, &labels, &Answers::Scores(scores))
        };
        let draws = Draws::new(&ids((0..n).map(|i| i.to_string())));
        let values =
            draws.values(&Metric::Mae, &[said(0.0), said(0.25), said(0.0)]).expect("memory");
        let less = |a: usize, b: usize| -> Vec<f64> {
            values[a].iter().zip(&values[b]).map(|(a, b)| a - b).collect()
        };
        let ([low, high], p) = interval(&less(1, 0));
        assert!((low - 0.25).abs() < 1e-6 && (high - 0.25).abs() < 1e-6, "{low} {high}");
        assert!((p - 2.0 / (DRAWS + 1) as f64).abs() < 1e-12);
        assert_eq!(interval(&less(2, 0)), ([0.0, 0.0], 1.0));
    }

    /// `np.quantile(np.arange(11) ** 2, [0.025, 0.975])` is `[0.25, 95.25]`.
    #[test]
    fn quantiles_lie_between_values() {
        let squares: Vec<f64> = (0..11).map(|i| f64::from(i * i)).collect();
        let ([low, high], _) = interval(&squares);
        assert!((low - 0.25).abs() < 1e-12 && (high - 95.25).abs() < 1e-12, "{low} {high}");
    }
}
