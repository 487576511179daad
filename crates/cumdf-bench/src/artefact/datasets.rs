//! The statistics of the data sets: what the paper's appendix has, and what readers ask for.

use std::path::PathBuf;

use anyhow::Result;
use cumdf_data::inspect::{ModalityReport, Report, SplitReport};
use cumdf_train::pipeline;

use crate::{
    grid::{self, About},
    paper,
    report::{
        self,
        plain::{self, Plain},
        provenance::{Data, Provenance},
    },
};

/// Arguments of `datasets`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// A data file in the native layout (docs/data.md); may be given several times. Default: the two
    /// synthetic corpora.
    #[arg(long, value_name = "FILE.h5")]
    pub data: Vec<PathBuf>,

    /// Where the table goes.
    #[arg(long, value_name = "DIR", default_value = "runs/table1")]
    pub out: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench datasets
  cumdf-bench datasets --data mosi.h5 --data iemocap.h5

What it writes to --out: datasets.csv, .md and .tex, a line per split; datasets.json has all that
`cumdf-data inspect` tells of each file.";

/// Makes the table.
///
/// # Errors
/// When a file cannot be read, or the table cannot be written.
pub fn run(args: &Args) -> Result<bool> {
    let files = match args.data.is_empty() {
        true => [About::Anything, About::Emotions]
            .map(|about| pipeline::data_file(&grid::embedded(about)?))
            .into_iter()
            .collect::<Result<Vec<_>>>()?,
        false => args.data.clone(),
    };
    let reports = files.iter().map(Report::of).collect::<Result<Vec<_>>>()?;
    let data = reports.iter().map(|report| Data {
        dataset: report.name.clone(),
        file: report.file.clone(),
        sha256: report.sha256.clone(),
    });
    let head = [
        "data set",
        "split",
        "samples",
        "in the paper",
        "doubles",
        "steps",
        "mean length",
        "language",
        "audio",
        "vision",
        "labels",
    ];
    let table = Plain {
        name: "datasets".to_owned(),
        title: "Data sets".to_owned(),
        head: head.map(str::to_owned).to_vec(),
        lines: reports.iter().flat_map(lines).collect(),
        notes: vec![
            "doubles: samples whose features all equal those of an earlier one, in this split or one \
             before it"
                .to_owned(),
            "language, audio, vision: features per step, and the share of samples without any"
                .to_owned(),
        ],
        provenance: Provenance::here(data.collect(), 0, vec![], "cpu"),
    };
    let files = plain::save(&table, &reports, &args.out)?;
    report::print(&plain::text(&table, report::width()))?;
    report::print(&report::written(&files))?;
    Ok(true)
}

fn lines(report: &Report) -> Vec<Vec<String>> {
    let printed = paper::sizes(&report.name);
    let line = |(i, split): (usize, &SplitReport)| {
        let modality = |m: &ModalityReport| match m.absent {
            1.0.. => "none".to_owned(),
            0.0 => m.dim.to_string(),
            absent => format!("{}, {:.1} % without", m.dim, 100.0 * absent),
        };
        let labels = split.classes.iter().map(|(name, n)| format!("{name}: {n}"));
        [
            report.name.clone(),
            split.split.to_string(),
            split.samples.to_string(),
            printed.map_or_else(String::new, |sizes| sizes[i].to_string()),
            split.duplicates.to_string(),
            report.steps.to_string(),
            format!("{:.1}", split.length.mean),
        ]
        .into_iter()
        .chain(split.modalities.iter().map(modality))
        .chain([labels.collect::<Vec<_>>().join(", ")])
        .collect()
    };
    report.splits.iter().enumerate().map(line).collect()
}
