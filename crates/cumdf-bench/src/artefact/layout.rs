//! What all tables and figures share: a row is a variant, a column says what is read of each of its
//! runs, and pairs of rows are compared wherever a reader compares them.

use std::collections::HashMap;

use anyhow::Result;
use cumdf_data::{ModalitySet, View};
use cumdf_train::{
    answers::Answers,
    metrics::{Metric, Tallies},
    robustness,
};

use super::notes;
use crate::{
    difference::{
        Difference, OverSeeds,
        bootstrap::{self, Draws},
        holm,
    },
    grid::{
        self, Measured, Run,
        source::Source,
        variants::{Variant, Work},
    },
    report::{
        summary::Summary,
        table::{Cell, Column, Comparison, Cost, Kind, Question, Row, Section, Value},
    },
};

/// What a column shows of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    /// Its figure under a view.
    At(View),
    /// What sums up its figures under several.
    Over(Summary, Vec<View>),
    /// The area under the curve of its figures over these places, which rise.
    Area(Vec<(f64, View)>),
}

impl Reading {
    /// The views that it reads.
    pub(super) fn views(&self) -> Vec<View> {
        match self {
            Self::At(view) => vec![*view],
            Self::Over(_, views) => views.clone(),
            Self::Area(places) => places.iter().map(|(_, view)| *view).collect(),
        }
    }

    /// What it makes of the figures under [`Reading::views`], in their order.
    fn of(&self, metric: &Metric, figures: &[f64]) -> Option<f64> {
        match self {
            Self::At(_) => figures.first().copied(),
            Self::Over(summary, _) => summary.of(metric, figures),
            Self::Area(places) => {
                let x = places.iter().map(|(x, _)| *x);
                let curve: Vec<_> = x.zip(figures.iter().copied()).collect();
                Some(robustness::area(&curve))
            }
        }
    }

    /// What it makes of a run; `None` when that failed.
    fn of_run(&self, run: &Run, metric: &Metric) -> Option<f64> {
        let figures = self.views().into_iter().map(|view| run.figure(&view, metric));
        self.of(metric, &figures.collect::<Option<Vec<_>>>()?)
    }
}

/// A column, and what it shows of a run or why it shows nothing.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub column: Column,
    pub reading: Result<Reading, String>,
}

/// How a data set is laid out.
pub(super) struct Layout<'a> {
    /// Above the columns.
    pub summary: String,
    pub columns: Vec<Shown>,
    /// In order; the first `n_headline` of them are shown in the terminal and in LaTeX.
    pub metrics: Vec<Metric>,
    pub n_headline: usize,
    /// Those in which beaten floors are counted.
    pub counted: Vec<Metric>,
    /// The row that the others are compared with.
    pub reference: &'static str,
    /// The paper's figure of a row in a column, in the unit of the metric as stored.
    pub paper: &'a dyn Fn(&Variant, &Column, &Metric) -> Option<f64>,
}

/// A data set's part of a table, with a note on its data, its seeds and what failed.
///
/// # Errors
/// When memory runs out.
pub(super) fn section(
    measured: &Measured,
    s: usize,
    rows: &[Variant],
    layout: &Layout,
) -> Result<Section> {
    let source = &measured.sources[s];
    let row = |variant: &Variant| {
        let runs: Vec<_> = measured.runs_of(s, variant.key).collect();
        let cell = |shown: &Shown, metric: &Metric| Cell {
            value: value(source, variant, &runs, shown, metric),
            paper: (layout.paper)(variant, &shown.column, metric),
        };
        let cells = |shown| layout.metrics.iter().map(|metric| cell(shown, metric)).collect();
        Row {
            model: variant.key.to_owned(),
            name: variant.name.to_owned(),
            kind: variant.kind,
            cells: layout.columns.iter().map(cells).collect(),
            cost: cost(&runs),
        }
    };
    let mut section = Section {
        dataset: source.dataset.clone(),
        summary: layout.summary.clone(),
        columns: layout.columns.iter().map(|shown| shown.column.clone()).collect(),
        metrics: layout.metrics.clone(),
        n_headline: layout.n_headline,
        counted: layout.counted.clone(),
        rows: rows.iter().map(row).collect(),
        comparisons: Vec::new(),
        notes: vec![notes::data(measured, s, rows), notes::seeds(measured.n_seeds)],
    };
    let draws = Draws::new(source.ids());
    section.comparisons = compare(measured, s, rows, layout, &section, &draws)?;
    section.notes.push(notes::compared(&section, &draws, source.split));
    section.notes.extend(notes::first_look(&measured.shortened[s]));
    section.notes.extend(rows.iter().filter_map(|v| notes::partly_failed(measured, s, v)));
    Ok(section)
}

/// The figure of a row in a column: mean and spread over its runs.
pub(super) fn value(
    source: &Source,
    variant: &Variant,
    runs: &[&Run],
    shown: &Shown,
    metric: &Metric,
) -> Value {
    let reading = match &shown.reading {
        Ok(reading) => reading,
        Err(reason) => return Value::NotAvailable(reason.clone()),
    };
    match variant.work() {
        Work::Constant => {
            let figure = Answering::Constant(source).figure(reading, metric);
            Value::of(&[figure.unwrap_or(f64::NAN)])
        }
        Work::Train(_) | Work::Fit(_) => grid::value(runs, |run| reading.of_run(run, metric)),
    }
}

/// What the training of a row cost, from its `runs`.
fn cost(runs: &[&Run]) -> Option<Cost> {
    let costs: Vec<_> = runs.iter().filter_map(|run| run.cost).collect();
    let n = costs.len() as f64;
    Some(Cost {
        parameters: costs.first()?.parameters,
        seeds: costs.len(),
        seconds: costs.iter().map(|cost| cost.seconds).sum::<f64>() / n,
        epochs: costs.iter().map(|cost| cost.epochs as f64).sum::<f64>() / n,
    })
}

/// What answers in a row: a run that did not fail, or a constant.
#[derive(Clone, Copy)]
enum Answering<'a> {
    Constant(&'a Source),
    Run(&'a Run),
}

impl<'a> Answering<'a> {
    /// Those of a row that answer under all `views`.
    fn of(measured: &'a Measured, s: usize, variant: &Variant, views: &[View]) -> Vec<Self> {
        match variant.work() {
            Work::Constant => vec![Self::Constant(&measured.sources[s])],
            Work::Train(_) | Work::Fit(_) => {
                let runs = measured.runs_of(s, variant.key);
                let tested = |run: &&Run| views.iter().all(|view| run.tested(view).is_some());
                runs.filter(tested).map(Self::Run).collect()
            }
        }
    }

    fn seed(self) -> Option<u64> {
        match self {
            Self::Constant(_) => None,
            Self::Run(run) => run.seed,
        }
    }

    /// Its answers under a view; a constant is chosen for each metric.
    fn answers(self, view: &View, metric: &Metric) -> &'a Answers {
        match self {
            Self::Constant(source) => source.constant_answers(metric),
            Self::Run(run) => &run.tested(view).expect("it was asked for all views").answers,
        }
    }

    fn figure(self, reading: &Reading, metric: &Metric) -> Option<f64> {
        match self {
            Self::Constant(source) => {
                let figure = source.constant.get(metric)?;
                reading.of(metric, &vec![figure; reading.views().len()])
            }
            Self::Run(run) => reading.of_run(run, metric),
        }
    }
}

/// All comparisons of a data set, in the metrics that are shown first or counted.
fn compare(
    measured: &Measured,
    s: usize,
    rows: &[Variant],
    layout: &Layout,
    section: &Section,
    draws: &Draws,
) -> Result<Vec<Comparison>> {
    let source = &measured.sources[s];
    let columns: Vec<_> = layout
        .columns
        .iter()
        .enumerate()
        .filter(|(_, shown)| shown.column.same_as.is_none())
        .filter_map(|(c, shown)| Some((c, shown.reading.as_ref().ok()?)))
        .collect();
    let mut views: Vec<View> = columns.iter().flat_map(|(_, reading)| reading.views()).collect();
    views.sort_by_key(grid::store::key);
    views.dedup();
    let all: Vec<_> = rows.iter().map(|v| Answering::of(measured, s, v, &views)).collect();
    let mut comparisons = Vec::new();
    for (m, metric) in layout.metrics.iter().enumerate() {
        if m >= layout.n_headline && !layout.counted.contains(metric) {
            continue;
        }
        // Of each view: of each row: of each of its runs the values over all draws.
        let mut drawn = HashMap::new();
        for view in &views {
            let tally = |run: &Answering| {
                metric.tallies(&source.task, source.labels(), run.answers(view, metric))
            };
            let tallies: Vec<Tallies> = all.iter().flatten().map(tally).collect();
            let mut values = draws.values(metric, &tallies)?.into_iter();
            let by_row: Vec<Vec<Vec<f64>>> =
                all.iter().map(|runs| values.by_ref().take(runs.len()).collect()).collect();
            drawn.insert(grid::store::key(view), by_row);
        }
        let mut of_metric = Vec::new();
        for (c, reading) in &columns {
            let under: Vec<_> =
                reading.views().iter().map(|view| &drawn[&grid::store::key(view)]).collect();
            let replicates: Vec<Option<Vec<f64>>> = (0..rows.len())
                .map(|r| mean_over_runs(reading, metric, r, all[r].len(), &under))
                .collect();
            for (question, r, other) in pairs(section, layout.reference, *c, m) {
                let (Some(own), Some(others)) = (&replicates[r], &replicates[other]) else {
                    continue;
                };
                let less: Vec<_> = own.iter().zip(others).map(|(a, b)| a - b).collect();
                let (interval, p) = bootstrap::interval(&less);
                let mean = |r: usize| section.rows[r].estimate(*c, m).map_or(f64::NAN, |e| e.mean);
                let figures = |r: usize| by_seed(&all[r], reading, metric);
                let seeds = OverSeeds::of(&paired(&figures(r), &figures(other)));
                of_metric.push(Comparison {
                    question,
                    column: *c,
                    metric: m,
                    model: rows[r].key.to_owned(),
                    other: rows[other].key.to_owned(),
                    difference: Difference {
                        mean: mean(r) - mean(other),
                        interval,
                        p,
                        adjusted: p,
                        seeds,
                    },
                });
            }
        }
        for question in Question::ALL {
            let family: Vec<_> =
                (0..of_metric.len()).filter(|i| of_metric[*i].question == question).collect();
            let p: Vec<_> = family.iter().map(|i| of_metric[*i].difference.p).collect();
            for (i, adjusted) in family.into_iter().zip(holm(&p)) {
                of_metric[i].difference.adjusted = adjusted;
            }
        }
        comparisons.extend(of_metric);
    }
    Ok(comparisons)
}

/// The values of a row over all draws, mean over its runs; `None` without a run.
///
/// - `under`: of each view of the reading: of each row: of each run
fn mean_over_runs(
    reading: &Reading,
    metric: &Metric,
    row: usize,
    n_runs: usize,
    under: &[&Vec<Vec<Vec<f64>>>],
) -> Option<Vec<f64>> {
    let n_draws = under.first()?.get(row)?.first()?.len();
    let mut figures = vec![0.0; under.len()];
    let of_draw = |draw: usize| {
        let mut sum = 0.0;
        for run in 0..n_runs {
            for (figure, rows) in figures.iter_mut().zip(under) {
                *figure = rows[row][run][draw];
            }
            sum += reading.of(metric, &figures)?;
        }
        Some(sum / n_runs as f64)
    };
    (0..n_draws).map(of_draw).collect()
}

/// Which rows of a column are compared: the best with all others; what is trained with the best
/// floor; and the reference with whatever else is trained.
fn pairs(
    section: &Section,
    reference: &str,
    column: usize,
    metric: usize,
) -> Vec<(Question, usize, usize)> {
    let there: Vec<_> = (0..section.rows.len())
        .filter(|r| section.rows[*r].estimate(column, metric).is_some())
        .collect();
    let is_trained = |r: &usize| section.rows[*r].kind == Kind::Trained;
    let place = |model: &str| section.rows.iter().position(|row| row.model == model);
    let mut pairs = Vec::new();
    if let Some(best) = section.best(column, metric).and_then(|row| place(&row.model)) {
        let others = there.iter().filter(|r| **r != best);
        pairs.extend(others.map(|other| (Question::Best, best, *other)));
    }
    if let Some(floor) = section.floor(column, metric).and_then(|floor| place(&floor.row.model)) {
        let trained = there.iter().filter(|r| is_trained(r));
        pairs.extend(trained.map(|r| (Question::Floor, *r, floor)));
    }
    if let Some(reference) = place(reference).filter(|r| there.contains(r)) {
        let others = there.iter().filter(|r| **r != reference && is_trained(r));
        pairs.extend(others.map(|other| (Question::Reference, reference, *other)));
    }
    pairs
}

/// A row's figures with their seeds.
fn by_seed(row: &[Answering], reading: &Reading, metric: &Metric) -> Vec<(Option<u64>, f64)> {
    row.iter().filter_map(|run| Some((run.seed(), run.figure(reading, metric)?))).collect()
}

/// Differences of figures of the same seed; what has no seed stands beside each of the other's.
fn paired(own: &[(Option<u64>, f64)], other: &[(Option<u64>, f64)]) -> Vec<f64> {
    let matches = |a: Option<u64>, b: Option<u64>| a == b || a.is_none() || b.is_none();
    let pairs = own.iter().flat_map(|a| other.iter().map(move |b| (a, b)));
    pairs.filter(|(a, b)| matches(a.0, b.0)).map(|(a, b)| a.1 - b.1).collect()
}

/// The seven conditions at a drop ratio, then what sums them up.
///
/// What sums up is taken of each run by itself, over the conditions that differ.
pub(super) fn conditions(source: &Source, view: impl Fn(ModalitySet) -> View) -> Vec<Shown> {
    let condition = |condition: ModalitySet| Shown {
        column: Column {
            key: grid::store::key(&view(condition)),
            label: condition.to_string(),
            same_as: source.same_as(condition).map(|same| grid::store::key(&view(same))),
            sums_up: false,
        },
        reading: match source.not_available(condition) {
            Some(reason) => Err(reason),
            None => Ok(Reading::At(view(condition))),
        },
    };
    let distinct = source.distinct();
    let summary = |summary: Summary| Shown {
        column: Column {
            key: summary.key().to_owned(),
            label: summary.key().to_owned(),
            same_as: None,
            sums_up: true,
        },
        reading: match distinct.is_empty() {
            true => Err(source.not_available(ModalitySet::ALL).unwrap_or_default()),
            false => Ok(Reading::Over(summary, distinct.iter().map(|c| view(*c)).collect())),
        },
    };
    ModalitySet::CONDITIONS.map(condition).into_iter().chain(Summary::ALL.map(summary)).collect()
}

/// The views that columns read.
pub(super) fn views(columns: &[Shown]) -> Vec<View> {
    let readings = columns.iter().filter_map(|shown| shown.reading.as_ref().ok());
    let mut views: Vec<_> = readings.flat_map(Reading::views).collect();
    views.sort_by_key(grid::store::key);
    views.dedup();
    views
}

#[cfg(test)]
mod tests {
    use cumdf_train::evaluate;

    use super::*;

    #[test]
    fn figures_are_paired_by_seed_and_what_has_none_stands_beside_each() {
        let own = [(Some(1), 0.5), (Some(2), 0.75), (Some(4), 9.0)];
        let other = [(Some(2), 0.5), (Some(1), 0.5)];
        assert_eq!(paired(&own, &other), [0.0, 0.25]);
        assert_eq!(paired(&own[..2], &[(None, 0.25)]), [0.25, 0.5]);
    }

    #[test]
    fn a_reading_makes_one_figure_of_several() {
        let view = |ratio: f64| evaluate::view(ModalitySet::ALL, ratio);
        let views = vec![view(0.0), view(0.5), view(1.0)];
        let over = |summary| Reading::Over(summary, views.clone());
        let figures = [1.0, 2.0, 6.0];
        assert_eq!(Reading::At(view(0.0)).of(&Metric::Mae, &figures[..1]), Some(1.0));
        assert_eq!(over(Summary::Mean).of(&Metric::Mae, &figures), Some(3.0));
        assert_eq!(over(Summary::Worst).of(&Metric::F1, &figures), Some(1.0));
        let places = [0.0, 0.5, 1.0].into_iter().zip(views.clone()).collect();
        assert_eq!(Reading::Area(places).of(&Metric::Mae, &figures), Some(2.75));
    }
}
