//! Figure 3: every model against the share of frames that are hidden, from none to all: of all
//! modalities at once, and of one at a time.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use cumdf_data::{Modality, ModalitySet, View};
use cumdf_train::{
    chart::{Panel, Panels, Place, Series},
    evaluate,
    metrics::Metric,
    robustness,
};

use super::{
    Wanted,
    layout::{self, Layout, Reading, Shown},
    table1,
};
use crate::{
    grid::{
        self, Measured,
        source::Source,
        store,
        variants::{self, Variant},
    },
    report::{
        self,
        table::{Column, Row, Section, Table},
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
        default_values_t = usual_ratios()
    )]
    pub drop_ratios: Vec<f64>,

    /// Where the figure goes. By default the folder of table1, whose trainings it shares.
    #[arg(long, value_name = "DIR", default_value = "runs/table1")]
    pub out: PathBuf,
}

/// Tenths, from nothing hidden to everything.
pub(super) fn usual_ratios() -> Vec<f64> {
    (0..=10).map(|tenth| f64::from(tenth) / 10.0).collect()
}

/// More panels than this are small where a page shows them.
const MOST_ACROSS: usize = 2;

const EXAMPLES: &str = "\
Examples:
  cumdf-bench figure3
      all models on the synthetic sentiment corpus, with the trainings of `table1`
  cumdf-bench figure3 --data mosi.h5 --data iemocap.h5 --seeds 5 --models cumdf,emt

What it writes to --out:
  figure3-<data set>.svg, .png  panels of the task's first two metrics; the first of each hides frames of
                             all modalities, the others of one; a band of one standard
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
    let (ratios, wanted) = (ratios(args)?, wanted(args)?);
    let rows = &wanted.rows;
    let Some(measured) = wanted.measure(&args.out, |_, _, _| {})? else { return Ok(false) };
    let mut sections = Vec::new();
    let mut panels = Vec::new();
    for (s, source) in measured.sources.iter().enumerate() {
        let parts = sweeps(source)
            .into_iter()
            .map(|sweep| Ok((sweep, section(&measured, s, rows, &sweep, &ratios)?)));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        panels.push((source, panels_of(&parts, &ratios)));
        sections.extend(parts.into_iter().map(|(_, section)| section));
    }
    let table = Table {
        name: "figure3".to_owned(),
        title: "Figure 3: models against the share of hidden frames (test split)".to_owned(),
        sections,
        provenance: measured.provenance(),
    };
    let mut files = report::save(&table, &args.out)?;
    for (source, (panels, across)) in panels {
        let name = format!("figure3-{}", source.slug);
        let drawing = Panels { panels: &panels, across };
        files.extend(report::save_picture(&drawing, &table.provenance, &args.out, &name)?);
    }
    super::show(&table, &files, args.grid.verbose, &measured)
}

pub(super) fn wanted(args: &Args) -> Result<Wanted> {
    let ratios = ratios(args)?;
    Ok(Wanted {
        grid: args.grid.clone(),
        rows: variants::select(&variants::COMPARISON, &args.grid.models, args.grid.fair)?,
        views: Box::new(move |source| {
            let columns = |sweep: Sweep| sweep.columns(&ratios);
            layout::views(&sweeps(source).into_iter().flat_map(columns).collect::<Vec<_>>())
        }),
    })
}

fn ratios(args: &Args) -> Result<Vec<f64>> {
    let ratios = robustness::rising(&args.drop_ratios)?;
    ensure!(ratios.len() >= 2, "--drop-ratios: a curve needs two or more, such as 0,0.5,1");
    Ok(ratios)
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

    /// A column per ratio, then the area under the curve.
    fn columns(&self, ratios: &[f64]) -> Vec<Shown> {
        let at = |ratio: &f64| Shown {
            column: Column {
                key: store::key(&self.view(*ratio)),
                label: ratio.to_string(),
                ..Column::default()
            },
            reading: Ok(Reading::At(self.view(*ratio))),
        };
        let key = match self.holes {
            ModalitySet::ALL => "area".to_owned(),
            one => format!("area-h{}", one.key()),
        };
        let places = ratios.iter().map(|ratio| (*ratio, self.view(*ratio))).collect();
        let area = Shown {
            column: Column { key, label: "area".to_owned(), same_as: None, sums_up: true },
            reading: Ok(Reading::Area(places)),
        };
        ratios.iter().map(at).chain([area]).collect()
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

/// A table of one sweep.
fn section(
    measured: &Measured,
    s: usize,
    rows: &[Variant],
    sweep: &Sweep,
    ratios: &[f64],
) -> Result<Section> {
    let source = &measured.sources[s];
    let layout = Layout {
        summary: format!("{}; {}", sweep.title(), source.summary()),
        columns: sweep.columns(ratios),
        metrics: Metric::of(&source.task),
        n_headline: 2,
        counted: table1::counted(&source.task),
        reference: "cumdf",
        paper: &|_, _, _| None,
    };
    let mut section = layout::section(measured, s, rows, &layout)?;
    section.notes.push(
        "columns: probability that a frame is hidden; at 1 the modality is gone, and where all \
         are, the answer is what the training labels say. area: under the curve, by trapezoids"
            .to_owned(),
    );
    Ok(section)
}

/// Panels of each headline metric, one per sweep; and how many are beside each other.
fn panels_of(parts: &[(Sweep, Section)], ratios: &[f64]) -> (Vec<Panel>, usize) {
    let n_metrics = parts.first().map_or(0, |(_, section)| section.headline().len());
    let panel = |m: usize, (sweep, section): &(Sweep, Section)| {
        let metric = &section.metrics[m];
        let place = |row: &Row, c: usize, ratio: f64| {
            let found = row.estimate(c, m)?;
            let [mean, spread] = [found.mean, found.std.unwrap_or(0.0)].map(|x| metric.reported(x));
            Some(Place { x: ratio, mean, spread })
        };
        let series = |row: &Row| {
            let places = ratios.iter().enumerate().filter_map(|(c, ratio)| place(row, c, *ratio));
            Series { name: row.name.clone(), places: places.collect() }
        };
        let series = section.rows.iter().map(series).filter(|s| !s.places.is_empty()).collect();
        let title = format!("{}: {}", section.dataset, sweep.title());
        robustness::panel(title, metric, series)
    };
    let panels = (0..n_metrics).flat_map(|m| parts.iter().map(move |part| panel(m, part)));
    (panels.collect(), parts.len().min(MOST_ACROSS))
}
