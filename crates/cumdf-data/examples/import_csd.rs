//! Times the import of a folder of computational sequences.
//!
//! ```text
//! cargo run --release --example import_csd -- FOLDER OUT THREADS   imports, and says what it did
//! cargo run --release --example import_csd -- FOLDER read          reads and inflates, nothing else
//! ```
//!
//! `RUST_LOG=debug` says where the time went. `scripts/make_csd.py` makes a folder of CMU-MOSEI's
//! size. Reading alone uses one thread.

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use cumdf_data::import::{Given, Sequence, Sequences};
use indicatif::ProgressBar;

fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let folder = Path::new(args.first().context("no folder given")?);
    let out = args.get(1).context("no output file given")?;
    let mut sequences = Sequences::in_folder(folder, &Given::default())?;
    sequences.threads = args.get(2).map(|n| n.parse()).transpose()?;
    let start = Instant::now();
    let mut text = io::stdout().lock();
    if out == "read" {
        let (mut rows, mut values) = (0, 0);
        for path in
            [&sequences.language].into_iter().chain(&sequences.audio).chain(&sequences.vision)
        {
            let sequence = Sequence::open(path)?;
            for video in sequence.videos() {
                let track = sequence.read(video)?;
                rows += track.intervals.len();
                if let cumdf_data::import::Values::Numbers { values: numbers, .. } = track.values {
                    values += numbers.len();
                }
            }
        }
        writeln!(text, "{rows} rows, {values} values")?;
    } else {
        let summary = sequences.import(Path::new(out), &ProgressBar::hidden())?;
        writeln!(text, "{} {:?} {:?}", summary.name, summary.task, summary.splits)?;
        summary.ledger.write_text(&mut text)?;
    }
    writeln!(text, "{:.2} s", start.elapsed().as_secs_f64())?;
    Ok(())
}
