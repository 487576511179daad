//! A [`Table`] as LaTeX, for a paper.

use std::fmt::Write as _;

use super::{
    table::{Row, Section, Table},
    words::{BOLD_NOTE, mark, notes, paper_cells, word},
};

/// One `table*` per data set with the headline metrics side by side, as the paper sets it; needs
/// the package booktabs.
pub fn latex(table: &Table) -> String {
    let mut out = format!("% {}\n% \\usepackage{{booktabs}}\n", escape(&table.title));
    for (name, value) in table.provenance.lines() {
        let _ = writeln!(out, "% {name}: {}", value.replace('\n', " "));
    }
    for section in &table.sections {
        let _ = write!(
            out,
            "\\begin{{table*}}\n\\centering\\footnotesize\n\\caption{{{}: {}.}}\n",
            escape(&table.title),
            escape(&section.dataset),
        );
        out += &tabular(section);
        let _ = write!(
            out,
            "\n\\smallskip\n\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{}\\end{{minipage}}\n\
             \\end{{table*}}\n",
            footnotes(section),
        );
    }
    out
}

fn tabular(section: &Section) -> String {
    let metrics = section.headline();
    let (n, n_columns) = (metrics.len(), section.columns.len());
    let heads: Vec<_> = section
        .columns
        .iter()
        .map(|c| format!("\\multicolumn{{{n}}}{{c}}{{{}}}", escape(&c.label)))
        .collect();
    let rules: Vec<_> = (0..n_columns)
        .map(|c| format!("\\cmidrule(lr){{{}-{}}}", 2 + c * n, 1 + (c + 1) * n))
        .collect();
    let names: Vec<_> = metrics.iter().map(|m| escape(&m.label())).collect();
    let mut out = format!(
        "\\begin{{tabular}}{{l*{{{n_columns}}}{{{}}}}}\n\\toprule\n & {} \\\\\n{}\nModel & {} \\\\\n\
         \\midrule\n",
        "r".repeat(n),
        heads.join(" & "),
        rules.join(""),
        vec![names.join(" & "); n_columns].join(" & "),
    );
    for row in &section.rows {
        let cells: Vec<_> = (0..n_columns)
            .flat_map(|c| (0..n).map(move |i| (c, i)))
            .map(|(c, i)| cell(section, row, c, i))
            .collect();
        let _ = writeln!(out, "{} & {} \\\\", escape(&row.name), cells.join(" & "));
        let figures: Vec<_> = (0..n).map(|i| paper_cells(row, i, &metrics[i])).collect();
        if figures.iter().any(Option::is_some) {
            let figure = |c: usize, i: usize| match figures[i].as_ref().map(|f| f[c].as_str()) {
                Some("") | None => String::new(),
                Some(figure) => format!("\\textit{{{figure}}}"),
            };
            let cells: Vec<_> = (0..n_columns)
                .flat_map(|c| (0..n).map(move |i| (c, i)))
                .map(|(c, i)| figure(c, i))
                .collect();
            let _ = writeln!(out, "\\quad\\textit{{paper}} & {} \\\\", cells.join(" & "));
        }
    }
    out + "\\bottomrule\n\\end{tabular}\n"
}

fn cell(section: &Section, row: &Row, column: usize, i: usize) -> String {
    let value = &row.cells[column][i].value;
    let Some(estimate) = value.estimate() else {
        return word(value).unwrap_or_default().to_owned();
    };
    let metric = &section.metrics[i];
    let mean = match (metric.format(estimate.mean), section.is_best(row, column, i)) {
        (mean, true) => format!("\\textbf{{{mean}}}"),
        (mean, false) => mean,
    };
    let spread = estimate.std.map(|s| format!("{{\\tiny$\\pm${}}}", metric.format(s)));
    let mark = match mark(section, row, column, i) {
        Some('†') => "$^{\\dagger}$",
        Some(_) => "$^{*}$",
        None => "",
    };
    format!("{mean}{}{mark}", spread.unwrap_or_default())
}

fn footnotes(section: &Section) -> String {
    let mut notes = notes(section);
    notes.push(BOLD_NOTE.to_owned());
    notes.iter().map(|note| format!("{}.\n", escape(note))).collect()
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
            '†' => out += "$\\dagger$",
            _ => out.push(c),
        }
    }
    out
}
