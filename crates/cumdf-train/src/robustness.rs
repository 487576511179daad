//! A checkpoint under many views: what is left of it as more and more frames are hidden.

use anyhow::{Result, ensure};
use cumdf_data::{EvalSet, Labels, ModalitySet, Task, View};
use cumdf_model::{Predictor, Prior};

use crate::{
    chart::{Panel, Place, Series},
    evaluate::{self, EVAL_SEED},
    metrics::{self, Metric, Metrics},
    select::reported,
    telemetry,
};

/// Most drawings of the holes: far beyond what a mean needs.
const MOST_MASK_SEEDS: u64 = 1000;

/// Which views: every condition with every ratio, and the holes drawn several times.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// The modalities that may be seen.
    pub conditions: Vec<ModalitySet>,
    /// Probabilities in [0, 1] that a frame is hidden; at 1 all are, and the answer is the prior.
    pub drop_ratios: Vec<f64>,
    /// How often the holes are drawn.
    pub mask_seeds: u64,
}

/// What a checkpoint reached under one view.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The view.
    pub view: View,
    /// Its metrics.
    pub metrics: Metrics,
}

/// One metric of one condition against the drop ratio.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The modalities that may be seen.
    pub condition: ModalitySet,
    /// By rising drop ratio.
    pub places: Vec<Place>,
}

impl Grid {
    /// All views: conditions as given, ratios rising, each once. With a ratio of 0 or 1 nothing is
    /// drawn, so that one seed stands for all.
    ///
    /// # Errors
    /// Names what is empty or out of range.
    pub fn views(&self) -> Result<Vec<View>> {
        ensure!(!self.conditions.is_empty(), "--conditions is empty: name some, or all");
        ensure!(
            (1..=MOST_MASK_SEEDS).contains(&self.mask_seeds),
            "--mask-seeds {}: must lie between 1 and {MOST_MASK_SEEDS}",
            self.mask_seeds
        );
        let ratios = rising(&self.drop_ratios)?;
        let mut views = Vec::new();
        for (i, &condition) in self.conditions.iter().enumerate() {
            if self.conditions[..i].contains(&condition) {
                continue;
            }
            for &drop_ratio in &ratios {
                let draws = if drop_ratio > 0.0 && drop_ratio < 1.0 { self.mask_seeds } else { 1 };
                let seeds = EVAL_SEED..EVAL_SEED + draws;
                views.extend(
                    seeds.map(|seed| View { seed, ..evaluate::view(condition, drop_ratio) }),
                );
            }
        }
        Ok(views)
    }
}

/// Drop ratios in rising order, each once.
///
/// # Errors
/// When there is none, or one lies outside of [0, 1].
pub fn rising(ratios: &[f64]) -> Result<Vec<f64>> {
    ensure!(!ratios.is_empty(), "--drop-ratios is empty: name some, such as 0,0.5,1");
    for ratio in ratios {
        ensure!((0.0..=1.0).contains(ratio), "--drop-ratios has {ratio}: must lie in [0, 1]");
    }
    let mut ratios = ratios.to_vec();
    ratios.sort_by(f64::total_cmp);
    ratios.dedup();
    Ok(ratios)
}

/// Predicts `set` under every view and scores it.
///
/// # Errors
/// When the device fails.
pub fn measure(
    predictor: &dyn Predictor,
    prior: &Prior,
    task: &Task,
    (set, labels): (&EvalSet, &Labels),
    views: &[View],
) -> Result<Vec<Measured>> {
    let progress = telemetry::progress(views.len() as u64, "evaluate", "views");
    let one = |view: &View| {
        let predicted = evaluate::predict(predictor, prior, set, view)?;
        progress.inc(1);
        Ok(Measured { view: *view, metrics: metrics::score(task, labels, &predicted.answers) })
    };
    views.iter().map(one).collect()
}

/// `metric` of every condition, mean and sample standard deviation over the drawn holes. `measured`
/// is in the order of [`Grid::views`].
pub fn curves(measured: &[Measured], metric: &Metric) -> Vec<Curve> {
    let by_condition = measured.chunk_by(|a, b| a.view.condition == b.view.condition);
    by_condition
        .map(|same| Curve {
            condition: same[0].view.condition,
            places: same
                .chunk_by(|a, b| a.view.drop_ratio.total_cmp(&b.view.drop_ratio).is_eq())
                .map(|draws| {
                    let value =
                        |m: &Measured| metric.reported(m.metrics.get(metric).unwrap_or(f64::NAN));
                    Place::over(
                        draws[0].view.drop_ratio,
                        &draws.iter().map(value).collect::<Vec<_>>(),
                    )
                })
                .collect(),
        })
        .collect()
}

impl Curve {
    /// The area under the means; see [`area`].
    pub fn area(&self) -> f64 {
        area(&self.places.iter().map(|place| (place.x, place.mean)).collect::<Vec<_>>())
    }
}

/// The area under a curve by trapezoids, from its first to its last place. Over drop ratios from 0 to
/// 1 this is the AUILC ("area under indicators line chart") by which EMT-DLFR and others compare
/// methods under missing frames.
pub fn area(places: &[(f64, f64)]) -> f64 {
    let step = |pair: &[(f64, f64)]| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0;
    places.windows(2).map(step).sum()
}

/// A row per view, in the order of `measured`: condition, drop ratio, seed of the holes, and every
/// metric in the unit of all files.
///
/// # Errors
/// When a row cannot be written.
pub fn csv(measured: &[Measured]) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let names = |m: &Measured| reported(&m.metrics).into_iter().map(|(key, _)| key);
    let first = ["condition", "drop_ratio", "mask_seed"].map(str::to_owned);
    csv.write_record(first.into_iter().chain(measured.iter().take(1).flat_map(names)))?;
    for m in measured {
        let View { condition, drop_ratio, seed, .. } = m.view;
        let view = [condition.key(), drop_ratio.to_string(), seed.to_string()];
        let values = reported(&m.metrics).into_iter().map(|(_, value)| value.to_string());
        csv.write_record(view.into_iter().chain(values))?;
    }
    Ok(csv.into_inner()?)
}

/// A picture of `metric`: a curve per condition.
pub fn by_condition(measured: &[Measured], metric: &Metric, title: String) -> Panel {
    let series = |curve: Curve| Series { name: curve.condition.to_string(), places: curve.places };
    panel(title, metric, curves(measured, metric).into_iter().map(series).collect())
}

/// Curves of `metric`, in the unit of all files, against the drop ratio.
pub fn panel(title: String, metric: &Metric, series: Vec<Series>) -> Panel {
    let unit = if metric.is_fraction() { ", %" } else { "" };
    let y = format!("{}{unit}", metric.label());
    Panel { title, x: "share of frames hidden".to_owned(), y, series }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str) -> ModalitySet {
        key.parse().expect("a set")
    }

    fn grid() -> Grid {
        Grid {
            conditions: vec![set("la"), set("v"), set("la")],
            drop_ratios: vec![1.0, 0.0, 0.5, 0.5],
            mask_seeds: 3,
        }
    }

    #[test]
    fn every_view_is_there_once_and_holes_are_drawn_where_there_are_any() {
        let views = grid().views().expect("a grid");
        let shown: Vec<_> =
            views.iter().map(|v| (v.condition.key(), v.drop_ratio, v.seed)).collect();
        let of = |key: &str| {
            [(0.0, 0), (0.5, 0), (0.5, 1), (0.5, 2), (1.0, 0)].map(|(p, s)| (key.to_owned(), p, s))
        };
        assert_eq!(shown, [of("la"), of("v")].concat());
    }

    #[test]
    fn impossible_grids_are_named() {
        let problem = |grid: Grid| grid.views().expect_err("refused").to_string();
        assert!(problem(Grid { drop_ratios: vec![0.0, 1.1], ..grid() }).contains("1.1"));
        assert!(problem(Grid { drop_ratios: vec![f64::NAN], ..grid() }).contains("NaN"));
        assert!(problem(Grid { conditions: vec![], ..grid() }).contains("--conditions"));
        assert!(problem(Grid { mask_seeds: 0, ..grid() }).contains("--mask-seeds"));
        assert!(problem(Grid { mask_seeds: u64::MAX, ..grid() }).contains("1000"));
    }

    /// MAE 1 without holes, 1, 2, 3 at a half, 4 with nothing seen: the mean at a half is 2 with a
    /// deviation of 1, and the area (1 + 2) / 4 + (2 + 4) / 4.
    #[test]
    fn curves_and_their_areas_by_hand() {
        let grid = Grid { conditions: vec![set("la")], ..grid() };
        let values = [1.0, 1.0, 2.0, 3.0, 4.0];
        let measured: Vec<_> = grid
            .views()
            .expect("a grid")
            .into_iter()
            .zip(values)
            .map(|(view, mae)| Measured { view, metrics: Metrics(vec![(Metric::Mae, mae)]) })
            .collect();
        let [curve] = &curves(&measured, &Metric::Mae)[..] else { panic!("one curve") };
        let shown: Vec<_> = curve.places.iter().map(|p| (p.x, p.mean, p.spread)).collect();
        assert_eq!(shown, [(0.0, 1.0, 0.0), (0.5, 2.0, 1.0), (1.0, 4.0, 0.0)]);
        assert!((curve.area() - 2.25).abs() < 1e-12);
        let text = String::from_utf8(csv(&measured).expect("written")).expect("text");
        assert_eq!(text.lines().next(), Some("condition,drop_ratio,mask_seed,mae"));
        assert_eq!(text.lines().nth(4), Some("la,0.5,2,3.0"));
    }
}
