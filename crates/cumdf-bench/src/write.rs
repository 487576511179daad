//! Writers of a [`Table`]: JSON and CSV in the long form, Markdown, LaTeX, and the terminal.
//!
//! All of them read the same table, and files appear whole or not at all.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use comfy_table::{Table as Grid, presets};
use cumdf_train::{metrics::Metric, run_dir::write_atomic};

use crate::table::{Estimate, Row, Section, Table, Value};

/// Columns that the terminal's tables and notes stay within: seven conditions with their spreads.
const WIDTH: usize = 108;

/// Writes `<name>.json`, `.csv`, `.md` and `.tex` into `dir` and returns their paths.
pub fn save(table: &Table, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("{}: cannot be created", dir.display()))?;
    let write = |ending: &str, text: String| {
        let path = dir.join(format!("{}.{ending}", table.name));
        write_atomic(&path, text.as_bytes())?;
        Ok(path)
    };
    vec![
        write("json", json(table)?),
        write("csv", csv(table)?),
        write("md", markdown(table)),
        write("tex", latex(table)),
    ]
    .into_iter()
    .collect()
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

/// A list of [`crate::table::Record`]s, one a line.
pub fn json(table: &Table) -> Result<String> {
    let lines: Vec<_> =
        table.records().iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

/// The same records with a head; what is missing is empty.
pub fn csv(table: &Table) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in table.records() {
        writer.serialize(record)?;
    }
    Ok(String::from_utf8(writer.into_inner().context("a Vec takes all bytes")?)?)
}

/// One table per data set and metric, all metrics; the best of a column in bold.
pub fn markdown(table: &Table) -> String {
    let mut out = format!("# {}\n", table.title);
    for section in &table.sections {
        let _ = write!(out, "\n## {}\n\n{}\n", section.dataset, section.summary);
        for (i, metric) in section.metrics.iter().enumerate() {
            let _ = writeln!(out, "\n### {}\n", caption(metric));
            let heads: Vec<_> = section.columns.iter().map(|c| format!("`{}`", c.label)).collect();
            let _ = writeln!(out, "| | {} |", heads.join(" | "));
            let _ = writeln!(out, "|---|{}", "---:|".repeat(heads.len()));
            for row in &section.rows {
                let cells = row.cells.iter().enumerate().map(|(c, cells)| {
                    let text = |e: &Estimate| {
                        let bold = if section.is_best(c, i, e) { "**" } else { "" };
                        let spread = e.std.map(|s| format!(" ± {}", metric.format(s)));
                        format!(
                            "{bold}{}{bold}{}",
                            metric.format(e.mean),
                            spread.unwrap_or_default()
                        )
                    };
                    missing_or(&cells[i].value, text)
                });
                let cells: Vec<_> = cells.collect();
                let _ = writeln!(out, "| {} | {} |", row.name, cells.join(" | "));
                if let Some(figures) = paper_cells(row, i, metric) {
                    let _ = writeln!(out, "| *{}, paper* | {} |", row.name, figures.join(" | "));
                }
            }
        }
        let notes: Vec<_> = notes(section).iter().map(|note| format!("- {note}\n")).collect();
        let _ = write!(out, "\n{}", notes.concat());
    }
    out
}

/// One `table*` per data set with the headline metrics side by side, as the paper sets it; needs
/// the package booktabs.
pub fn latex(table: &Table) -> String {
    let mut out = format!("% {}\n% \\usepackage{{booktabs}}\n", escape(&table.title));
    for section in &table.sections {
        let metrics = section.headline();
        let n = metrics.len();
        let heads: Vec<_> = section
            .columns
            .iter()
            .map(|c| format!("\\multicolumn{{{n}}}{{c}}{{{}}}", escape(&c.label)))
            .collect();
        let rules: Vec<_> = (0..section.columns.len())
            .map(|c| format!("\\cmidrule(lr){{{}-{}}}", 2 + c * n, 1 + (c + 1) * n))
            .collect();
        let names: Vec<_> = metrics.iter().map(|m| escape(&m.label())).collect();
        let mut notes = notes(section);
        if section.rows.iter().any(Row::is_reserved) {
            notes.push("--: not built yet".to_owned());
        }
        let notes: Vec<_> = notes.iter().map(|note| format!(" {}.", escape(note))).collect();
        let _ = write!(
            out,
            "\\begin{{table*}}\n\\centering\\footnotesize\n\\caption{{{}: {}.{}}}\n\
             \\begin{{tabular}}{{l*{{{}}}{{{}}}}}\n\\toprule\n & {} \\\\\n{}\nModel & {} \\\\\n\\midrule\n",
            escape(&table.title),
            escape(&section.dataset),
            notes.concat(),
            section.columns.len(),
            "r".repeat(n),
            heads.join(" & "),
            rules.join(""),
            vec![names.join(" & "); section.columns.len()].join(" & "),
        );
        for row in &section.rows {
            let cells = row.cells.iter().enumerate().flat_map(|(c, cells)| {
                metrics.iter().enumerate().map(move |(i, metric)| {
                    let text = |e: &Estimate| {
                        let mean = metric.format(e.mean);
                        let mean = match section.is_best(c, i, e) {
                            true => format!("\\textbf{{{mean}}}"),
                            false => mean,
                        };
                        let spread = e.std.map(|s| format!("{{\\tiny$\\pm${}}}", metric.format(s)));
                        mean + &spread.unwrap_or_default()
                    };
                    match &cells[i].value {
                        Value::NotYet => "--".to_owned(), // fourteen columns have no room for words
                        value => missing_or(value, text),
                    }
                })
            });
            let cells: Vec<_> = cells.collect();
            let _ = writeln!(out, "{} & {} \\\\", escape(&row.name), cells.join(" & "));
            let figures: Vec<_> = (0..n).filter_map(|i| paper_cells(row, i, &metrics[i])).collect();
            if figures.len() == n {
                let cells: Vec<_> = (0..section.columns.len())
                    .flat_map(|c| figures.iter().map(move |f| format!("\\textit{{{}}}", f[c])))
                    .collect();
                let _ = writeln!(out, "\\quad\\textit{{paper}} & {} \\\\", cells.join(" & "));
            }
        }
        out += "\\bottomrule\n\\end{tabular}\n\\end{table*}\n";
    }
    out
}

/// The headline metrics, narrow enough for `WIDTH`: rows are models, each followed by the
/// paper's figures. Reserved rows show those alone.
pub fn terminal(table: &Table, all_metrics: bool) -> String {
    let mut out = format!("{}\n", table.title);
    for section in &table.sections {
        let _ = writeln!(out, "\n{}: {}", section.dataset, section.summary);
        let metrics = if all_metrics { &section.metrics } else { section.headline() };
        for (i, metric) in metrics.iter().enumerate() {
            let _ = writeln!(out, "\n{}", grid(section, i, metric));
        }
        let mut notes = notes(section);
        let reserved: Vec<_> =
            section.rows.iter().filter(|r| r.is_reserved()).map(|r| r.name.as_str()).collect();
        if !reserved.is_empty() {
            notes.push(format!("not built yet: {}", reserved.join(", ")));
        }
        if metrics.len() < section.metrics.len() {
            let others: Vec<_> =
                section.metrics[metrics.len()..].iter().map(Metric::label).collect();
            notes.push(format!("in the files, or here with --verbose: {}", others.join(", ")));
        }
        let notes: Vec<_> = notes.iter().map(|note| wrap(note)).collect();
        let _ = write!(out, "\n{}", notes.concat());
    }
    out
}

/// A list item in lines of at most [`WIDTH`] characters, as far as its words allow.
fn wrap(note: &str) -> String {
    let mut out = String::from("-");
    let mut width = 1;
    for word in note.split_whitespace() {
        let length = word.chars().count();
        if width + 1 + length > WIDTH && width > 1 {
            out += "\n ";
            width = 1;
        }
        out.push(' ');
        out += word;
        width += 1 + length;
    }
    out + "\n"
}

fn grid(section: &Section, i: usize, metric: &Metric) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING);
    let heads = section.columns.iter().map(|column| column.label.clone());
    grid.set_header([caption(metric)].into_iter().chain(heads));
    for row in &section.rows {
        if !row.is_reserved() {
            let cells =
                row.cells.iter().map(|cells| missing_or(&cells[i].value, |e| compact(metric, e)));
            grid.add_row([row.name.clone()].into_iter().chain(cells));
        }
        if let Some(figures) = paper_cells(row, i, metric) {
            let name = match row.is_reserved() {
                true => format!("{}, paper", row.name),
                false => "  paper".to_owned(),
            };
            grid.add_row([name].into_iter().chain(figures));
        }
    }
    let widths = grid.column_iter_mut().enumerate();
    for (c, column) in widths {
        column.set_padding((0, if c == 0 { 3 } else { 2 }));
    }
    let text = grid.to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let (head, body) = lines.split_first().expect("a grid has a head");
    format!("{head}\n{}\n{}", "─".repeat(width), body.join("\n"))
}

/// Mean and spread in as few characters as they are read with: `1.203±.012`, `68.60±1.2`.
fn compact(metric: &Metric, estimate: &Estimate) -> String {
    let spread = estimate.std.map(|s| match metric.is_fraction() {
        true => format!("±{:.1}", 100.0 * s),
        false => format!("±{}", format!("{s:.3}").trim_start_matches('0')),
    });
    metric.format(estimate.mean) + &spread.unwrap_or_default()
}

fn caption(metric: &Metric) -> String {
    let direction = if metric.lower_is_better() { "lower is better" } else { "higher is better" };
    match metric.is_fraction() {
        true => format!("{}, %", metric.label()),
        false => format!("{} ({direction})", metric.label()),
    }
}

fn missing_or(value: &Value, text: impl Fn(&Estimate) -> String) -> String {
    match value {
        Value::Measured(estimate) => text(estimate),
        Value::NotAvailable(_) => "n/a".to_owned(),
        Value::NotYet => "not yet".to_owned(),
        Value::Failed(_) => "failed".to_owned(),
    }
}

fn paper_cells(row: &Row, i: usize, metric: &Metric) -> Option<Vec<String>> {
    let text = |figure: Option<f64>| figure.map_or_else(String::new, |v| metric.format(v));
    Some(row.paper(i)?.into_iter().map(text).collect())
}

/// The section's notes, then one for each reason why something was not measured.
fn notes(section: &Section) -> Vec<String> {
    let mut notes = section.notes.clone();
    for row in &section.rows {
        for cell in row.cells.iter().flatten() {
            let note = match &cell.value {
                Value::NotAvailable(reason) => format!("n/a: {reason}"),
                Value::Failed(reason) => format!("{} failed: {reason}", row.name),
                Value::Measured(_) | Value::NotYet => continue,
            };
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}

/// Text that LaTeX prints as it stands.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '±' => out += "$\\pm$",
            _ => out.push(c),
        }
    }
    out
}
