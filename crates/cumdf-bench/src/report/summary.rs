//! Columns that sum up the conditions of a row in one figure.

use cumdf_train::metrics::Metric;

/// What a column makes of the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// The mean over them.
    Mean,
    /// The worst of them: the largest of an error, the smallest of anything else.
    Worst,
}

impl Summary {
    /// All of them, in the order of columns.
    pub const ALL: [Self; 2] = [Self::Mean, Self::Worst];

    /// Name in JSON, CSV and a head.
    pub fn key(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Worst => "worst",
        }
    }

    /// What it makes of one value of `metric` per condition; `None` when there is none. NaN among
    /// them is not passed over.
    pub fn of(self, metric: &Metric, values: &[f64]) -> Option<f64> {
        match self {
            Self::Mean if values.is_empty() => None,
            Self::Mean => Some(values.iter().sum::<f64>() / values.len() as f64),
            Self::Worst => values.iter().copied().reduce(|worst, next| {
                let stays = worst.is_nan() || metric.is_better(next, worst);
                if stays { worst } else { next }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_the_largest_error_and_the_smallest_of_anything_else() {
        let values = [0.5, 0.75, 0.25];
        for (metric, worst) in [(Metric::Mae, 0.75), (Metric::F1, 0.25), (Metric::Corr, 0.25)] {
            assert_eq!(Summary::Worst.of(&metric, &values), Some(worst), "{metric:?}");
            assert_eq!(Summary::Mean.of(&metric, &values), Some(0.5), "{metric:?}");
        }
    }

    #[test]
    fn nothing_has_no_summary_and_what_is_no_number_makes_none() {
        for summary in Summary::ALL {
            assert_eq!(summary.of(&Metric::F1, &[]), None);
            for at in 0..3 {
                let mut values = [0.5, 0.75, 0.25];
                values[at] = f64::NAN;
                let got = summary.of(&Metric::F1, &values).unwrap();
                assert!(got.is_nan(), "{summary:?}, NaN at {at}: {got}");
            }
        }
    }
}
