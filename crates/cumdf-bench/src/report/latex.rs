//! A [`Table`] as LaTeX, for a paper.

use std::{fmt::Write as _, ops::Range};

use super::{
    table::{Row, Section, Table},
    words::{BOLD_NOTE, mark, notes, word},
};

/// More columns than this do not fit beside each other on a page of two columns.
const MOST_COLUMNS: usize = 14;

/// Makes what follows, up to a closing brace, no wider than the page.
pub(super) const FIT: &str =
    "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%";

/// One `table*` per data set with the headline metrics side by side, as the paper sets it, or below
/// each other where that would be too wide; needs the packages booktabs and graphicx.
pub fn latex(table: &Table) -> String {
    let mut out = format!("% {}\n% \\usepackage{{booktabs,graphicx}}\n", escape(&table.title));
    for (name, value) in table.provenance.lines() {
        let _ = writeln!(out, "% {name}: {}", value.replace('\n', " "));
    }
    for section in &table.sections {
        let _ = write!(
            out,
            "\\begin{{table*}}\n\\centering\\footnotesize\\setlength{{\\tabcolsep}}{{3pt}}\n\\caption{{{}: {}.}}\n",
            escape(&table.title),
            escape(&section.dataset),
        );
        let n = section.headline().len();
        let beside = if n * section.columns.len() <= MOST_COLUMNS { n } else { 1 };
        let parts = (0..n).step_by(beside.max(1)).map(|first| first..n.min(first + beside));
        let parts: Vec<_> = parts.map(|metrics| tabular(section, metrics)).collect();
        out += &parts.join("\n\\medskip\n");
        let _ = write!(
            out,
            "\n\\smallskip\n\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{}\\end{{minipage}}\n\
             \\end{{table*}}\n",
            footnotes(section),
        );
    }
    out
}

/// Some of the metrics, side by side under each column.
fn tabular(section: &Section, metrics: Range<usize>) -> String {
    let (n, n_columns) = (metrics.len(), section.columns.len());
    let heads: Vec<_> = section
        .columns
        .iter()
        .map(|c| format!("\\multicolumn{{{n}}}{{c}}{{{}}}", escape(&c.label)))
        .collect();
    let rules: Vec<_> = (0..n_columns)
        .map(|c| format!("\\cmidrule(lr){{{}-{}}}", 2 + c * n, 1 + (c + 1) * n))
        .collect();
    let names: Vec<_> =
        section.metrics[metrics.clone()].iter().map(|m| escape(&m.label())).collect();
    let mut out = format!(
        "{FIT}\n\\begin{{tabular}}{{l*{{{n_columns}}}{{{}}}}}\n\\toprule\n & {} \\\\\n{}\nModel & {} \\\\\n\
         \\midrule\n",
        "r".repeat(n),
        heads.join(" & "),
        rules.join(""),
        vec![names.join(" & "); n_columns].join(" & "),
    );
    let of_all = |cell: &dyn Fn(usize, usize) -> String| {
        let places = (0..n_columns).flat_map(|c| metrics.clone().map(move |i| (c, i)));
        places.map(|(c, i)| cell(c, i)).collect::<Vec<_>>().join(" & ")
    };
    for row in &section.rows {
        let cells = of_all(&|c, i| cell(section, row, c, i));
        let _ = writeln!(out, "{} & {cells} \\\\", escape(&row.name));
        if metrics.clone().any(|i| row.paper(i).is_some()) {
            let printed = of_all(&|c, i| match row.cells[c][i].paper {
                Some(figure) => format!("\\textit{{{}}}", section.metrics[i].format(figure)),
                None => String::new(),
            });
            let _ = writeln!(out, "\\quad\\textit{{paper}} & {printed} \\\\");
        }
    }
    out + "\\bottomrule\n\\end{tabular}}\n"
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
pub(super) fn escape(text: &str) -> String {
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
