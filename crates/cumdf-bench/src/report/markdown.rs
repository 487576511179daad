//! A [`Table`] as Markdown.

use std::fmt::Write as _;

use super::{
    table::{Row, Section, Table},
    words::{BOLD_NOTE, DIFFERENCE_HEADS, caption, differences, mark, notes, paper_cells, word},
};

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
                let cells: Vec<_> = (0..heads.len()).map(|c| cell(section, row, c, i)).collect();
                let _ = writeln!(out, "| {} | {} |", row.name, cells.join(" | "));
                if let Some(figures) = paper_cells(row, i, metric) {
                    let _ = writeln!(out, "| *{}, paper* | {} |", row.name, figures.join(" | "));
                }
            }
        }
        for differences in differences(section) {
            let _ = writeln!(out, "\n### {}\n", differences.title);
            let _ = writeln!(out, "| {} |", DIFFERENCE_HEADS.join(" | "));
            let _ = writeln!(out, "|---|{}---|", "---:|".repeat(4));
            for line in &differences.lines {
                let _ = writeln!(out, "| {} |", line.join(" | "));
            }
        }
        let mut notes = notes(section);
        notes.push(BOLD_NOTE.to_owned());
        let notes: Vec<_> = notes.iter().map(|note| format!("- {}\n", escape(note))).collect();
        let _ = write!(out, "\n{}", notes.concat());
    }
    let _ = writeln!(out, "\n## Where it comes from\n");
    for (name, value) in table.provenance.lines() {
        let _ = writeln!(out, "- {name}: {}", escape(&value));
    }
    out
}

fn cell(section: &Section, row: &Row, column: usize, i: usize) -> String {
    let value = &row.cells[column][i].value;
    let Some(estimate) = value.estimate() else {
        return word(value).unwrap_or_default().to_owned();
    };
    let metric = &section.metrics[i];
    let bold = if section.is_best(row, column, i) { "**" } else { "" };
    let spread = estimate.std.map(|s| format!(" ± {}", metric.format(s))).unwrap_or_default();
    let mark = mark(section, row, column, i).map(|m| format!(" {}", escape(&m.to_string())));
    let mark = mark.unwrap_or_default();
    format!("{bold}{}{bold}{spread}{mark}", metric.format(estimate.mean))
}

/// A note whose asterisk is one.
fn escape(note: &str) -> String {
    note.replace('*', "\\*")
}
