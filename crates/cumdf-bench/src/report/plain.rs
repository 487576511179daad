//! Tables that are no comparison of models: a head and lines of text for people, any records for
//! programs.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use cumdf_train::run_dir::write_atomic;
use serde::Serialize;
use serde_json::json;

use super::{
    latex::{FIT, escape},
    provenance::Provenance,
    terminal,
};

/// A head, lines, and what to know of them. The first column names what a line is about.
#[derive(Debug, Clone)]
pub struct Plain {
    /// File name without ending.
    pub name: String,
    /// What it shows, one line.
    pub title: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// As many cells as the head has.
    pub lines: Vec<Vec<String>>,
    /// Footnotes.
    pub notes: Vec<String>,
    /// What it rests on.
    pub provenance: Provenance,
}

/// Writes `<name>.json`, `.csv`, `.md` and `.tex` into `dir` and returns their paths.
///
/// - `records`: what the table is made of, for programs; it must be a list
///
/// # Errors
/// When a file cannot be written.
pub fn save(table: &Plain, records: &impl Serialize, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("{}: cannot be created", dir.display()))?;
    let json = json!({
        "title": table.title,
        "provenance": table.provenance,
        "records": records,
    });
    let texts = [
        ("json", serde_json::to_string_pretty(&json)? + "\n"),
        ("csv", csv(table)?),
        ("md", markdown(table)),
        ("tex", latex(table)),
    ];
    let write = |(ending, text): (&str, String)| {
        let path = dir.join(format!("{}.{ending}", table.name));
        write_atomic(&path, text.as_bytes())?;
        Ok(path)
    };
    texts.into_iter().map(write).collect()
}

fn csv(table: &Plain) -> Result<String> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let origin = table.provenance.columns(None).named()?;
    let (names, values): (Vec<_>, Vec<_>) = origin.into_iter().unzip();
    csv.write_record(table.head.iter().chain(&names))?;
    for line in &table.lines {
        csv.write_record(line.iter().chain(&values))?;
    }
    Ok(String::from_utf8(csv.into_inner().context("a Vec takes all bytes")?)?)
}

/// For the terminal, in lines of at most `width` characters as far as its words allow.
pub fn text(table: &Plain, width: usize) -> String {
    let mut out = terminal::wrap(&table.title, "", width);
    for grid in terminal::lines_of(&table.head, &table.lines, width) {
        let _ = writeln!(out, "\n{grid}");
    }
    let notes: Vec<_> = table.notes.iter().map(|n| terminal::wrap(n, "- ", width)).collect();
    if !notes.is_empty() {
        let _ = write!(out, "\n{}", notes.concat());
    }
    out
}

fn markdown(table: &Plain) -> String {
    let mut out = format!("# {}\n\n", table.title);
    let _ = writeln!(out, "| {} |", table.head.join(" | "));
    let _ = writeln!(out, "|---|{}", "---:|".repeat(table.head.len().saturating_sub(1)));
    for line in &table.lines {
        let _ = writeln!(out, "| {} |", line.join(" | "));
    }
    let _ = writeln!(out);
    for note in &table.notes {
        let _ = writeln!(out, "- {note}");
    }
    let _ = writeln!(out, "\n## Where it comes from\n");
    for (name, value) in table.provenance.lines() {
        let _ = writeln!(out, "- {name}: {value}");
    }
    out
}

fn latex(table: &Plain) -> String {
    let mut out = format!("% {}\n% \\usepackage{{booktabs,graphicx}}\n", escape(&table.title));
    for (name, value) in table.provenance.lines() {
        let _ = writeln!(out, "% {name}: {}", value.replace('\n', " "));
    }
    let row = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| escape(cell)).collect();
        format!("{} \\\\\n", cells.join(" & "))
    };
    let columns = "r".repeat(table.head.len().saturating_sub(1));
    let _ = write!(
        out,
        "\\begin{{table*}}\n\\centering\\footnotesize\\setlength{{\\tabcolsep}}{{3pt}}\n\
         \\caption{{{}.}}\n{FIT}\n\
         \\begin{{tabular}}{{l{columns}}}\n\\toprule\n{}\\midrule\n",
        escape(&table.title),
        row(&table.head)
    );
    table.lines.iter().for_each(|line| out += &row(line));
    let notes: String = table.notes.iter().map(|note| format!("{}.\n", escape(note))).collect();
    out + "\\bottomrule\n\\end{tabular}}\n\n\\smallskip\n\\begin{minipage}{\\linewidth}\\footnotesize\n"
        + &notes
        + "\\end{minipage}\n\\end{table*}\n"
}
