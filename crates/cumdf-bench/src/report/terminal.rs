//! A [`Table`] for the terminal: plain text that stays within its width.

use std::{env, fmt::Write as _, io, iter::once, ops::Range};

use comfy_table::{Table as Grid, presets};
use cumdf_train::metrics::Metric;

use super::{
    table::{Estimate, Row, Section, Table},
    words::{DIFFERENCE_HEADS, caption, differences, mark, notes, paper_cells, word},
};

/// The width where there is no terminal to ask.
const USUAL: usize = 80;
/// Narrower than this, nothing can be read.
const NARROWEST: usize = 40;

/// The characters a line of standard output may have: what `COLUMNS` says, else the terminal, else
/// 80.
pub fn width() -> usize {
    let said = env::var("COLUMNS").ok().and_then(|text| text.trim().parse().ok());
    let seen = || Some(usize::from(terminal_size::terminal_size_of(io::stdout())?.0.0));
    said.filter(|n| *n > 0).or_else(seen).unwrap_or(USUAL).max(NARROWEST)
}

/// One grid per data set and metric, the headline metrics or, with `verbose`, all of them, and what
/// the trainings cost: rows are models, each followed by the paper's figures.
///
/// Lines have at most `width` characters, as far as words and figures allow: columns that do not fit
/// beside each other continue in another grid below.
pub fn terminal(table: &Table, verbose: bool, width: usize) -> String {
    let mut out = wrap(&table.title, "", width);
    for section in &table.sections {
        let title = format!("{}: {}", section.dataset, section.summary);
        let _ = write!(out, "\n{}", wrap(&title, "", width));
        let metrics = if verbose { &section.metrics } else { section.headline() };
        for grid in grids(section, metrics, width) {
            let _ = writeln!(out, "\n{grid}");
        }
        for differences in differences(section) {
            let _ = write!(out, "\n{}", wrap(&differences.title, "", width));
            let head = DIFFERENCE_HEADS.map(str::to_owned);
            for grid in lines_of(&head, &differences.lines, width) {
                let _ = writeln!(out, "{grid}");
            }
        }
        let with_costs = verbose && section.rows.iter().any(|row| row.cost.is_some());
        if with_costs {
            let grid = |_, block| cost_grid(section, block);
            for grid in folded(1, COST_HEADS.len(), width, grid) {
                let _ = writeln!(out, "\n{grid}");
            }
        }
        let mut notes = notes(section);
        notes.extend(with_costs.then(|| COST_NOTE.to_owned()));
        if metrics.len() < section.metrics.len() {
            let others: Vec<_> =
                section.metrics[metrics.len()..].iter().map(Metric::label).collect();
            notes.push(format!("in the files, or here with --verbose: {}", others.join(", ")));
        }
        let notes: Vec<_> = notes.iter().map(|note| wrap(note, "- ", width)).collect();
        let _ = write!(out, "\n{}", notes.concat());
    }
    out
}

/// `text` after `lead` in lines of at most `width` characters, as far as its words allow; further
/// lines are set in below the first.
pub fn wrap(text: &str, lead: &str, width: usize) -> String {
    let mut out = lead.to_owned();
    let margin = lead.chars().count();
    let mut at = margin;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if at > margin && at + 1 + length > width {
            out += "\n";
            out += &" ".repeat(margin);
            at = margin;
        } else if at > margin {
            out.push(' ');
            at += 1;
        }
        out += word;
        at += length;
    }
    out + "\n"
}

/// One grid per metric, or several, of the same columns for every metric, where one would be too
/// wide.
fn grids(section: &Section, metrics: &[Metric], width: usize) -> Vec<String> {
    let grid = |i: usize, block| grid(section, i, block);
    folded(metrics.len(), section.columns.len(), width, grid)
}

/// `n` grids in as few blocks of their columns as are needed for lines of at most `width`
/// characters, if that can be.
fn folded(
    n: usize,
    n_columns: usize,
    width: usize,
    grid: impl Fn(usize, Range<usize>) -> String,
) -> Vec<String> {
    let most = n_columns.max(1);
    let folded = |n_blocks: usize| {
        let per_block = most.div_ceil(n_blocks);
        let blocks = move || {
            (0..n_columns)
                .step_by(per_block)
                .map(move |first| first..n_columns.min(first + per_block))
        };
        let grid = &grid;
        (0..n).flat_map(move |i| blocks().map(move |block| grid(i, block)))
    };
    let fits = |n_blocks: &usize| folded(*n_blocks).all(|grid| line_width(&grid) <= width);
    folded((1..=most).find(fits).unwrap_or(most)).collect()
}

fn line_width(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// The grid of one metric over some of the columns.
fn grid(section: &Section, i: usize, columns: Range<usize>) -> String {
    let metric = &section.metrics[i];
    let heads = columns.clone().map(|c| section.columns[c].label.clone());
    let mut lines = vec![once(caption(metric)).chain(heads).collect()];
    for row in &section.rows {
        let cells = columns.clone().map(|c| cell(section, row, c, i));
        lines.push(once(row.name.clone()).chain(cells).collect());
        if let Some(figures) = paper_cells(row, i, metric) {
            let figures = figures[columns.clone()].iter().cloned();
            lines.push(once("  paper".to_owned()).chain(figures).collect());
        }
    }
    lay_out(lines)
}

/// What the training of the rows cost, some of the columns.
fn cost_grid(section: &Section, columns: Range<usize>) -> String {
    let line = |name: &str, cells: [String; COST_HEADS.len()]| {
        once(name.to_owned()).chain(cells[columns.clone()].iter().cloned()).collect()
    };
    let row = |row: &Row| {
        let cost = row.cost?;
        let per_epoch = cost.seconds_per_epoch();
        let cells = [
            grouped(cost.parameters),
            format!("{:.1}", cost.seconds),
            format!("{:.1}", cost.epochs),
            format!("{per_epoch:.2}"),
        ];
        Some(line(&row.name, cells))
    };
    let head = line("Cost of training", COST_HEADS.map(str::to_owned));
    lay_out(once(head).chain(section.rows.iter().filter_map(row)).collect())
}

const COST_HEADS: [&str; 4] = ["parameters", "s per seed", "epochs", "s per epoch"];

const COST_NOTE: &str = "cost of training: parameters are those of the network that answers; seconds \
     and epochs are of all stages together, validation included, mean over seeds, each in a process \
     of one thread while others ran beside it";

/// Grids of lines whose first cell says what each is about, as few as fit the width.
pub(super) fn lines_of(head: &[String], lines: &[Vec<String>], width: usize) -> Vec<String> {
    let grid = |block: Range<usize>| {
        let line =
            |cells: &[String]| once(&cells[0]).chain(&cells[1..][block.clone()]).cloned().collect();
        lay_out(once(head).chain(lines.iter().map(Vec::as_slice)).map(line).collect())
    };
    let (mut grids, mut first) = (Vec::new(), 0);
    while first + 1 < head.len() {
        let fits = |end: &usize| line_width(&grid(first..*end)) <= width;
        let end = (first + 2..head.len()).take_while(fits).last().unwrap_or(first + 1);
        grids.push(grid(first..end));
        first = end;
    }
    grids
}

/// `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Lines of cells, the head first, as aligned columns.
fn lay_out(lines: Vec<Vec<String>>) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING);
    let mut lines = lines.into_iter();
    grid.set_header(lines.next().unwrap_or_default());
    grid.add_rows(lines);
    for (c, column) in grid.column_iter_mut().enumerate() {
        column.set_padding((0, if c == 0 { 3 } else { 2 }));
    }
    let text = grid.to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    let (head, body) = lines.split_first().expect("a grid has a head");
    let rule = "─".repeat(lines.iter().map(|line| line.chars().count()).max().unwrap_or(0));
    format!("{head}\n{rule}\n{}", body.join("\n"))
}

/// A [`figure`], with a mark when it is above or below the floor; or the word in its place.
fn cell(section: &Section, row: &Row, column: usize, i: usize) -> String {
    let value = &row.cells[column][i].value;
    let Some(estimate) = value.estimate() else {
        return word(value).unwrap_or_default().to_owned();
    };
    let mark = mark(section, row, column, i).map(String::from).unwrap_or_default();
    figure(&section.metrics[i], estimate) + &mark
}

/// Mean and spread in as few characters as they are read with: `1.203±.012`, `68.60±1.2`.
pub fn figure(metric: &Metric, estimate: &Estimate) -> String {
    let spread = estimate.std.map(|s| match metric.is_fraction() {
        true => format!("±{:.1}", metric.reported(s)),
        false => format!("±{}", format!("{s:.3}").trim_start_matches('0')),
    });
    format!("{}{}", metric.format(estimate.mean), spread.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_read_in_groups() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), text);
        }
    }

    #[test]
    fn notes_wrap_at_words_and_are_set_in() {
        assert_eq!(wrap("one two three", "- ", 9), "- one two\n  three\n");
        assert_eq!(wrap("one two three", "", 9), "one two\nthree\n");
        assert_eq!(wrap("/a/path/longer/than/that", "- ", 9), "- /a/path/longer/than/that\n");
        assert_eq!(wrap("", "- ", 9), "- \n");
    }
}
