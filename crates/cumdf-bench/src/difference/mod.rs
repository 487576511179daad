//! Is a difference between two rows real? Three answers to three questions.
//!
//! - [`bootstrap`]: would it be there on other test samples? Both rows answered the same samples, so
//!   samples are drawn for both at once; whole videos, where ids tell them, because utterances of a
//!   video resemble each other.
//! - [`OverSeeds`]: would it be there with other seeds? An interval for the mean of the paired
//!   differences, and Wilcoxon's test where there are enough.
//! - [`holm`]: how many differences of a table would look real by chance?

pub mod bootstrap;

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// A probability below which chance is not believed in.
pub const LEVEL: f64 = 0.05;
/// Fewer pairs cannot reach [`LEVEL`] in Wilcoxon's test, whatever they are: 2 / 2^5 > 0.05.
const FEWEST_FOR_WILCOXON: usize = 6;

/// What is known of the difference of two rows in one figure, in the unit of the metric as stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The first row's mean less the other's.
    pub mean: f64,
    /// The middle 95 % of the differences over drawn test samples.
    pub interval: [f64; 2],
    /// Two-sided probability of so large a difference by chance in the test samples.
    pub p: f64,
    /// `p` after [`holm`].
    pub adjusted: f64,
    /// The same over seeds, where both rows have two or more of the same, or one has none.
    pub seeds: Option<OverSeeds>,
}

/// What the seeds say of a difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OverSeeds {
    /// Number of pairs.
    pub n: usize,
    /// 95 % interval of the mean difference, by Student's t.
    pub interval: [f64; 2],
    /// Wilcoxon's exact signed-rank test, two-sided; from six pairs on.
    pub wilcoxon: Option<f64>,
}

impl Difference {
    /// Whether it is more than chance: in the test samples, among all that were compared, and, where
    /// there are several seeds, over them.
    pub fn is_real(&self) -> bool {
        let agrees = |seeds: &OverSeeds| match self.mean > 0.0 {
            true => seeds.interval[0] > 0.0,
            false => seeds.interval[1] < 0.0,
        };
        self.adjusted <= LEVEL && self.seeds.as_ref().is_none_or(agrees)
    }
}

impl OverSeeds {
    /// `None` for fewer than two differences.
    pub fn of(differences: &[f64]) -> Option<Self> {
        let n = differences.len();
        let (mean, spread) = cumdf_train::metrics::mean_and_spread(differences);
        let t = StudentsT::new(0.0, 1.0, (n.max(2) - 1) as f64).expect("one or more degrees");
        let reach = t.inverse_cdf(1.0 - LEVEL / 2.0) * spread? / (n as f64).sqrt();
        let wilcoxon = (n >= FEWEST_FOR_WILCOXON).then(|| wilcoxon(differences));
        Some(Self { n, interval: [mean - reach, mean + reach], wilcoxon })
    }
}

/// Wilcoxon's signed-rank test that differences are symmetric around 0: the two-sided probability, by
/// the exact distribution of the rank sum. Zeros are left out, equal sizes share their mean rank.
pub fn wilcoxon(differences: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = differences.iter().copied().filter(|d| d.abs() > 0.0).collect();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Twice the ranks, so that mean ranks are whole.
    let mut ranks: Vec<(usize, bool)> = Vec::with_capacity(sorted.len());
    for same in sorted.chunk_by(|a, b| a.abs().total_cmp(&b.abs()).is_eq()) {
        let twice = 2 * ranks.len() + 1 + same.len();
        ranks.extend(same.iter().map(|d| (twice, *d > 0.0)));
    }
    let total: usize = ranks.iter().map(|(rank, _)| rank).sum();
    let positive: usize = ranks.iter().filter(|(_, up)| *up).map(|(rank, _)| rank).sum();
    // The share of all signs whose positive ranks sum up to so much.
    let mut share = vec![0.0; total + 1];
    share[0] = 1.0;
    for (rank, _) in &ranks {
        for sum in (0..=total).rev() {
            let with = sum.checked_sub(*rank).map_or(0.0, |before| share[before]);
            share[sum] = (share[sum] + with) / 2.0;
        }
    }
    let smaller = positive.min(total - positive);
    (2.0 * share[..=smaller].iter().sum::<f64>()).min(1.0)
}

/// Holm's correction: each probability as it must be read where all of `p` are looked at.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<_> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest: f64 = 0.0;
    for (rank, at) in order.into_iter().enumerate() {
        largest = largest.max((p[at] * (p.len() - rank) as f64).min(1.0));
        adjusted[at] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SciPy and statsmodels give for the same numbers: `scripts/difference_reference.py`.
    #[test]
    fn seeds_and_corrections_agree_with_scipy_and_statsmodels() {
        let golden = include_str!("../../tests/golden/difference.json");
        let golden: serde_json::Value = serde_json::from_str(golden).expect("JSON");
        let list = |value: &serde_json::Value| -> Vec<f64> {
            value.as_array().expect("a list").iter().filter_map(serde_json::Value::as_f64).collect()
        };
        let cases = golden["seeds"].as_array().expect("a list");
        assert!(cases.len() >= 5);
        for case in cases {
            let differences = list(&case["differences"]);
            let found = OverSeeds::of(&differences).expect("two or more");
            for (found, expected) in found.interval.iter().zip(list(&case["interval"])) {
                assert!((found - expected).abs() < 1e-9, "{case}: {found}");
            }
            if let Some(expected) = case["wilcoxon"].as_f64() {
                let found = wilcoxon(&differences);
                assert!((found - expected).abs() < 1e-12, "{case}: {found}");
            }
        }
        for case in golden["holm"].as_array().expect("a list") {
            for (found, expected) in holm(&list(&case["p"])).iter().zip(list(&case["adjusted"])) {
                assert!((found - expected).abs() < 1e-12, "{case}: {found}");
            }
        }
    }

    #[test]
    fn few_seeds_have_no_test_and_one_has_no_interval() {
        assert_eq!(OverSeeds::of(&[0.3]), None);
        assert_eq!(OverSeeds::of(&[0.3, 0.4, 0.5, 0.2, 0.4]).and_then(|s| s.wilcoxon), None);
        let six = OverSeeds::of(&[0.3, 0.4, 0.5, 0.2, 0.35, 0.1]).and_then(|s| s.wilcoxon);
        assert_eq!(six, Some(2.0 / 64.0));
        assert!((wilcoxon(&[0.0; 6]) - 1.0).abs() < 1e-12, "no difference at all");
    }

    #[test]
    fn a_difference_is_real_where_samples_and_seeds_agree() {
        let found = Difference {
            mean: -0.1,
            interval: [-0.2, -0.05],
            p: 0.001,
            adjusted: 0.04,
            seeds: None,
        };
        let with = |low, high| Difference {
            seeds: Some(OverSeeds { n: 3, interval: [low, high], wilcoxon: None }),
            ..found
        };
        assert!(found.is_real() && with(-0.2, -0.01).is_real());
        assert!(!with(-0.3, 0.1).is_real(), "seeds vary");
        assert!(!with(0.01, 0.2).is_real(), "another direction");
        assert!(!Difference { adjusted: 0.06, ..found }.is_real(), "many were compared");
    }
}
