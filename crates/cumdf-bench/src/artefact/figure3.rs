//! Figure 3: every model against the share of frames that are hidden, from none to all: of all
//! modalities at once, and of one at a time.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use cumdf_data::{Modality, ModalitySet, View};
use cumdf_train::{
    chart::{self, Panel, Place, Series},
    evaluate,
    metrics::Metric,
    robustness::{self, area},
    run_dir::write_atomic,
};

use super::{notes, table1};
use crate::{
    grid::{
        self, Measured, Run,
        source::Source,
        store,
        variants::{self, Variant, Work},
    },
    report::{
        self,
        table::{Cell, Column, Row, Section, Table, Value},
    },
};

/// Arguments of `figure3`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// What is run, and how.
    #[command(flatten)]
    pub grid: grid::Args,

    /// Shares of hidden frames, in [0, 1]; at 1 the modality is gone.
    #[arg(
        long,
        value_name = "PS",
        value_delimiter = ',',
        default_value = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"
    )]
    pub drop_ratios: Vec<f64>,

    /// Where the figure goes. By default the folder of table1, whose trainings it shares.
    #[arg(long, value_name = "DIR", default_value = "runs/table1")]
    pub out: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench figure3
      all models on the synthetic sentiment corpus, with the trainings of `table1`
  cumdf-bench figure3 --data mosi.h5 --data iemocap.h5 --seeds 5 --models cumdf,emt

What it writes to --out:
  figure3-<data set>.svg     a row of panels per metric (the task's first two); the first panel hides
                             frames of all modalities, the others of one; a band of one standard
                             deviation over seeds on either side of a curve
  figure3.json, .csv         one line per data set, model, view and metric. A view is named lav-p0.3
                             where 30 % of all frames are hidden, lav-p0.3-ha where of audio alone,
                             and lv where audio is gone; area, area-ha: the area under the curve by
                             trapezoids, from 0 to 1 the AUILC of EMT-DLFR's protocol. A view that
                             several curves share has a line for each
  figure3.md, figure3.tex    the same as tables

The trainings are those of `table1` with the same arguments and folder: what is there is only tested.";

/// Makes the figure; whether no cell failed.
///
/// # Errors
/// When the arguments cannot be followed, or a file cannot be written.
pub fn run(args: &Args) -> Result<bool> {
    let (ratios, rows) = (ratios(args)?, rows(args)?);
    let wanted = |source: &Source| views(source, &ratios);
    let Some(measured) = grid::measure(&args.grid, &args.out, &rows, wanted, |_, _, _| {})? else {
        tracing::info!("nothing was done");
        return Ok(false);
    };
    let figure = Figure { measured: &measured, rows: &rows, ratios: &ratios };
    let all = measured.sources.iter().enumerate();
    let table = Table {
        name: "figure3".to_owned(),
        title: "Figure 3: models against the share of hidden frames (test split)".to_owned(),
        sections: all
            .clone()
            .flat_map(|(s, source)| sweeps(source).into_iter().map(move |sweep| (s, sweep)))
            .map(|(s, sweep)| figure.section(s, &sweep, args.grid.n_seeds()))
            .collect(),
    };
    let mut files = report::save(&table, &args.out)?;
    for (s, source) in all {
        let file = args.out.join(format!("figure3-{}.svg", source.slug));
        figure.draw(s, &file)?;
        files.push(file);
    }
    super::show(&table, &files, args.grid.verbose, &measured)
}

/// The cells that it rests on, with their views: see [`grid::plan`].
pub(super) fn plan(args: &Args, out: &Path) -> Result<Vec<(grid::cell::Cell, Vec<View>)>> {
    let ratios = ratios(args)?;
    grid::plan(&args.grid, out, &rows(args)?, |source| views(source, &ratios))
}

fn ratios(args: &Args) -> Result<Vec<f64>> {
    let ratios = robustness::rising(&args.drop_ratios)?;
    ensure!(ratios.len() >= 2, "--drop-ratios: a curve needs two or more, such as 0,0.5,1");
    Ok(ratios)
}

fn rows(args: &Args) -> Result<Vec<Variant>> {
    variants::select(&variants::COMPARISON, &args.grid.models, args.grid.fair)
}

/// The views of all curves, each once.
fn views(source: &Source, ratios: &[f64]) -> Vec<View> {
    let mut views: Vec<_> =
        sweeps(source).into_iter().flat_map(|sweep| sweep.views(ratios)).collect();
    views.sort_by_key(store::key);
    views.dedup();
    views
}

/// What loses frames.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sweep {
    /// Everything that the file has.
    shown: ModalitySet,
    /// What loses frames of it.
    holes: ModalitySet,
}

/// All modalities at once; then, where there are several, one at a time.
fn sweeps(source: &Source) -> Vec<Sweep> {
    let shown = source.available();
    let alone = Modality::ALL.into_iter().filter(|m| shown.contains(*m) && shown.len() > 1);
    let alone = alone.map(|m| ModalitySet::of([m]));
    [ModalitySet::ALL].into_iter().chain(alone).map(|holes| Sweep { shown, holes }).collect()
}

impl Sweep {
    /// Its view at a ratio. Where nothing is hidden, or a modality is gone, this is a view of table1.
    fn view(&self, ratio: f64) -> View {
        let left = self.shown.without(self.holes);
        match ratio {
            0.0 => evaluate::view(self.shown, 0.0),
            1.0 if !left.is_empty() => evaluate::view(left, 0.0),
            _ => View { holes: self.holes, ..evaluate::view(self.shown, ratio) },
        }
    }

    fn views(&self, ratios: &[f64]) -> Vec<View> {
        ratios.iter().map(|ratio| self.view(*ratio)).collect()
    }

    fn title(&self) -> String {
        match self.holes {
            ModalitySet::ALL => "frames of all modalities hidden".to_owned(),
            one => {
                let names: Vec<_> = one.iter().map(Modality::name).collect();
                format!("frames of {} hidden", names.join(" and "))
            }
        }
    }
}

struct Figure<'a> {
    measured: &'a Measured,
    rows: &'a [Variant],
    ratios: &'a [f64],
}

impl Figure<'_> {
    /// A table of one sweep: a column per ratio, then the area.
    fn section(&self, s: usize, sweep: &Sweep, n_seeds: usize) -> Section {
        let source = &self.measured.sources[s];
        let metrics = Metric::of(&source.task);
        let column = |ratio: &f64| Column {
            key: store::key(&sweep.view(*ratio)),
            label: ratio.to_string(),
            ..Column::default()
        };
        let key = match sweep.holes {
            ModalitySet::ALL => "area".to_owned(),
            one => format!("area-h{}", one.key()),
        };
        let area = Column { key, label: "area".to_owned(), same_as: None, sums_up: true };
        let row = |variant: &Variant| {
            let runs: Vec<_> = self.measured.runs_of(s, variant.key).collect();
            Row {
                model: variant.key.to_owned(),
                name: variant.name.to_owned(),
                kind: variant.kind,
                cells: self.cells(source, variant, sweep, &runs, &metrics),
                cost: table1::cost(&runs),
            }
        };
        let mut section = Section {
            dataset: source.dataset.clone(),
            summary: format!("{}; {}", sweep.title(), source.summary()),
            columns: self.ratios.iter().map(column).chain([area]).collect(),
            counted: table1::counted(&source.task),
            n_headline: 2,
            rows: self.rows.iter().map(row).collect(),
            metrics: metrics.clone(),
            notes: vec![notes::data(self.measured, s, self.rows), notes::seeds(n_seeds)],
        };
        section.notes.push(
            "columns: probability that a frame is hidden; at 1 the modality is gone, and where all \
             are, the answer is what the training labels say. area: under the curve, by trapezoids"
                .to_owned(),
        );
        section.notes.extend(notes::first_look(&self.measured.shortened[s]));
        section
            .notes
            .extend(self.rows.iter().filter_map(|v| notes::partly_failed(self.measured, s, v)));
        section
    }

    fn cells(
        &self,
        source: &Source,
        variant: &Variant,
        sweep: &Sweep,
        runs: &[&Run],
        metrics: &[Metric],
    ) -> Vec<Vec<Cell>> {
        let of = |metric: &Metric, figure: &dyn Fn(&Run) -> Option<f64>, width: f64| {
            let value = match (variant.work(), table1::constant(&source.constant, metric)) {
                (Work::Constant, Value::Measured(mut estimate)) => {
                    estimate.mean *= width;
                    Value::Measured(estimate)
                }
                (Work::Constant, value) => value,
                (Work::Train(_) | Work::Fit(_), _) => grid::value(runs, figure),
            };
            Cell { value, paper: None }
        };
        let at = |ratio: &f64| {
            let view = sweep.view(*ratio);
            metrics.iter().map(|m| of(m, &|run| run.figure(&view, m), 1.0)).collect()
        };
        let width = self.ratios[self.ratios.len() - 1] - self.ratios[0];
        let under = |metric: &Metric| {
            let area = |run: &Run| {
                let place = |ratio: &f64| Some((*ratio, run.figure(&sweep.view(*ratio), metric)?));
                Some(area(&self.ratios.iter().map(place).collect::<Option<Vec<_>>>()?))
            };
            of(metric, &area, width)
        };
        let areas = metrics.iter().map(under).collect();
        self.ratios.iter().map(at).chain([areas]).collect()
    }

    /// A row of panels per metric, a panel per sweep.
    fn draw(&self, s: usize, file: &Path) -> Result<()> {
        let source = &self.measured.sources[s];
        let sweeps = sweeps(source);
        let mut panels = Vec::new();
        for metric in Metric::of(&source.task).iter().take(2) {
            panels.extend(sweeps.iter().map(|sweep| self.panel(s, sweep, metric)));
        }
        write_atomic(file, chart::svg(&panels, sweeps.len())?.as_bytes())
    }

    fn panel(&self, s: usize, sweep: &Sweep, metric: &Metric) -> Panel {
        let source = &self.measured.sources[s];
        let series = |variant: &Variant| {
            let runs: Vec<_> = self.measured.runs_of(s, variant.key).collect();
            let cells = self.cells(source, variant, sweep, &runs, std::slice::from_ref(metric));
            let places = self.ratios.iter().zip(&cells).filter_map(|(ratio, cell)| {
                let found = cell[0].value.estimate()?;
                let (mean, std) = (found.mean, found.std.unwrap_or(0.0));
                Some(Place { x: *ratio, mean: metric.reported(mean), spread: metric.reported(std) })
            });
            Series { name: variant.name.to_owned(), places: places.collect() }
        };
        let series = self.rows.iter().map(series).filter(|s| !s.places.is_empty()).collect();
        let title = format!("{}: {}", source.dataset, sweep.title());
        robustness::panel(title, metric, series)
    }
}
