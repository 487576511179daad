//! Tables of results, and how they are written: JSON and CSV for programs, Markdown, LaTeX and the
//! terminal for people.
//!
//! All writers read the same [`table::Table`], report F1 and accuracies in percent, and agree on what
//! a floor is ([`standing`]). Files appear whole or not at all.

pub mod cases;
pub mod kept;
mod latex;
mod markdown;
pub mod plain;
pub mod provenance;
mod records;
pub mod standing;
pub mod summary;
pub mod table;
mod terminal;
mod words;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cumdf_train::{
    chart::{self, Drawing},
    run_dir::write_atomic,
};

pub use self::{
    latex::latex,
    markdown::markdown,
    records::{ComparisonRecord, CostRecord, Record, comparisons_csv, csv, json},
    terminal::{figure, grouped, terminal, width, wrap},
};
use self::{provenance::Provenance, table::Table};

/// Writes `<name>.json`, `.csv`, `.md`, `.tex` and `<name>-comparisons.csv` into `dir` and returns their
/// paths.
pub fn save(table: &Table, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("{}: cannot be created", dir.display()))?;
    let write = |ending: &str, text: String| {
        let path = dir.join(format!("{}{ending}", table.name));
        write_atomic(&path, text.as_bytes())?;
        Ok(path)
    };
    vec![
        write(".json", json(table)?),
        write(".csv", csv(table)?),
        write("-comparisons.csv", comparisons_csv(table)?),
        write(".md", markdown(table)),
        write(".tex", latex(table)),
    ]
    .into_iter()
    .collect()
}

/// Writes a drawing as `<name>.svg` and `<name>.png` into `dir` and returns their paths; both say where
/// they come from.
pub fn save_picture(
    drawing: &impl Drawing,
    provenance: &Provenance,
    dir: &Path,
    name: &str,
) -> Result<Vec<PathBuf>> {
    let about: Vec<_> =
        provenance.lines().into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let about = about.join("\n");
    let [svg, png] = ["svg", "png"].map(|ending| dir.join(format!("{name}.{ending}")));
    write_atomic(&svg, chart::svg(drawing, &about)?.as_bytes())?;
    write_atomic(&png, &chart::png(drawing, &about)?)?;
    Ok(vec![svg, png])
}

/// The names of files that were written, as a line for the terminal.
pub fn written(files: &[PathBuf]) -> String {
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    format!("\n{}", wrap(&files.join(", "), "written: ", width()))
}

/// The one place that prints to standard output.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `table1 | head` is no failure.
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output: cannot be written"),
    }
}
