//! Every writer on one small table, against files in `tests/golden`; `UPDATE_GOLDEN=1` rewrites them.
//! And what a table says of its rows: who is best, what beats the floor.

use std::{env, fs, path::Path};

use cumdf_bench::{
    difference::{Difference, OverSeeds},
    report::{
        self,
        plain::{self, Plain},
        provenance::{Data, Provenance},
        standing::{Standing, beaten_lines},
        summary::Summary,
        table::{
            Cell, Column, Comparison, Cost, Estimate, Kind, Question, Row, Section, Table, Value,
        },
    },
};
use cumdf_train::metrics::Metric;

fn measured(values: &[f64], paper: Option<f64>) -> Cell {
    Cell { value: Value::Measured(Estimate::of(values).expect("there are values")), paper }
}

fn row(kind: Kind, model: &str, name: &str, cells: Vec<Vec<Cell>>) -> Row {
    Row { model: model.into(), name: name.into(), kind, cells, cost: None }
}

fn column(key: &str, label: &str) -> Column {
    Column { key: key.into(), label: label.into(), ..Column::default() }
}

fn summing(summary: Summary) -> Column {
    Column { sums_up: true, ..column(summary.key(), summary.key()) }
}

/// Of two rows, real or not.
fn comparison(
    question: Question,
    (column, metric): (usize, usize),
    [model, other]: [&str; 2],
    mean: f64,
    is_real: bool,
) -> Comparison {
    let adjusted = if is_real { 0.0012 } else { 0.5 };
    Comparison {
        question,
        column,
        metric,
        model: model.into(),
        other: other.into(),
        difference: Difference {
            mean,
            interval: [mean - 0.01, mean + 0.01],
            p: adjusted / 2.0,
            adjusted,
            seeds: OverSeeds::of(&[mean - 0.0001, mean + 0.0001]),
        },
    }
}

fn provenance() -> Provenance {
    Provenance {
        version: "0.1.0".into(),
        commit: "0123456789ab".into(),
        command: "cumdf-bench table1 --data 'my data.h5'".into(),
        machine: "linux x86_64, 2 cores, cpu".into(),
        seeds: 2,
        overrides: vec!["loss.reg=0.5 (not for mlp)".into()],
        data: vec![Data {
            dataset: "CMU-MOSI".into(),
            file: "my data.h5".into(),
            sha256: "ab".repeat(32),
        }],
    }
}

/// Two data sets: one with the paper's figures, two floors, no vision, audio that is never trained
/// and two columns that sum up; one with a failure, one seed and a difference that may be chance.
fn table() -> Table {
    let no_vision = |paper| {
        let value = || Value::NotAvailable("the test split has no vision".into());
        [paper, None].map(|paper| Cell { value: value(), paper }).to_vec()
    };
    let cells = |mae: &[f64], f1: &[f64]| vec![measured(mae, None), measured(f1, None)];
    let cumdf = || vec![measured(&[1.18, 1.21], Some(0.766)), measured(&[0.69, 0.71], None)];
    let linear = || cells(&[1.21], &[0.702]);
    let constant = || cells(&[1.456], &[0.2507]);
    let mosi = Section {
        dataset: "CMU-MOSI".into(),
        summary: "1284 / 229 / 686 samples, scores from -3 to 3".into(),
        columns: vec![
            column("l", "{l}"),
            column("v", "{v}"),
            Column { same_as: Some("l".into()), ..column("la", "{l,a}") },
            summing(Summary::Mean),
            summing(Summary::Worst),
        ],
        metrics: vec![Metric::Mae, Metric::F1],
        n_headline: 2,
        counted: vec![Metric::Mae, Metric::F1],
        rows: vec![
            Row {
                cost: Some(Cost { parameters: 123_456, seeds: 2, seconds: 90.0, epochs: 37.5 }),
                ..row(
                    Kind::Trained,
                    "cumdf",
                    "CUMDF",
                    vec![cumdf(), no_vision(Some(0.726)), cumdf(), cumdf(), cumdf()],
                )
            },
            row(
                Kind::Floor,
                "linear",
                "linear (floor)",
                vec![linear(), no_vision(None), linear(), linear(), linear()],
            ),
            row(
                Kind::Floor,
                "constant",
                "constant (floor)",
                vec![constant(), no_vision(None), constant(), constant(), constant()],
            ),
        ],
        comparisons: [0, 3, 4]
            .into_iter()
            .flat_map(|c| {
                let real = |question, m, pair, mean| comparison(question, (c, m), pair, mean, true);
                [
                    comparison(Question::Best, (c, 0), ["cumdf", "linear"], -0.015, c == 3),
                    real(Question::Best, 0, ["cumdf", "constant"], -0.26),
                    real(Question::Best, 1, ["linear", "cumdf"], 0.002),
                    real(Question::Best, 1, ["linear", "constant"], 0.45),
                    comparison(Question::Floor, (c, 0), ["cumdf", "linear"], -0.015, c != 4),
                    real(Question::Floor, 1, ["cumdf", "linear"], -0.002),
                    real(Question::Reference, 0, ["cumdf", "constant"], -0.26),
                ]
            })
            .collect(),
        notes: vec!["paper: Table 1".into()],
    };
    let failed = || Value::Failed("seed 0: loss `task` became NaN in step 3".into());
    let emotions = Section {
        dataset: "toy_emotions".into(),
        summary: "40 / 10 / 10 samples, 2 emotions".into(),
        columns: vec![column("lav", "{l,a,v}")],
        metrics: vec![Metric::F1, Metric::Acc, Metric::F1Class("sad".into())],
        n_headline: 2,
        counted: vec![Metric::F1],
        rows: vec![
            row(
                Kind::Trained,
                "cumdf",
                "CUMDF",
                vec![vec![Cell { value: failed(), paper: None }; 3]],
            ),
            row(
                Kind::Floor,
                "constant",
                "constant (floor)",
                vec![vec![measured(&[0.5], None), measured(&[0.6], None), measured(&[0.7], None)]],
            ),
        ],
        comparisons: vec![comparison(
            Question::Reference,
            (0, 0),
            ["constant", "cumdf"],
            0.0123,
            false,
        )],
        notes: vec![],
    };
    Table {
        name: "table1".into(),
        title: "Table 1: what a test lets through".into(),
        sections: vec![mosi, emotions],
        provenance: provenance(),
    }
}

/// One column and metric, MAE; rows with the values of their seeds.
fn maes(rows: &[(Kind, &str, &[f64])]) -> Section {
    Section {
        dataset: "toy".into(),
        summary: String::new(),
        columns: vec![column("l", "{l}")],
        metrics: vec![Metric::Mae],
        n_headline: 1,
        counted: vec![Metric::Mae],
        rows: rows
            .iter()
            .map(|(kind, name, values)| row(*kind, name, name, vec![vec![measured(values, None)]]))
            .collect(),
        comparisons: vec![],
        notes: vec![],
    }
}

fn best(section: &Section) -> Vec<&str> {
    let best = |row: &&Row| section.is_best(row, 0, 0);
    section.rows.iter().filter(best).map(|row| row.model.as_str()).collect()
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).expect("the golden folder can be written");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name} changed: if it should, run with UPDATE_GOLDEN=1");
}

#[test]
fn every_writer_gives_its_golden_file() {
    let table = table();
    golden("table.json", &report::json(&table).unwrap());
    golden("table.csv", &report::csv(&table).unwrap());
    golden("table-comparisons.csv", &report::comparisons_csv(&table).unwrap());
    golden("table.md", &report::markdown(&table));
    golden("table.tex", &report::latex(&table));
    golden("table.txt", &report::terminal(&table, false, 80));
    golden("table.verbose.txt", &report::terminal(&table, true, 44));
}

/// With a real LaTeX, where there is one.
#[test]
fn latex_takes_what_is_written_for_it_and_it_fits_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let plain = Plain {
        name: "plain".into(),
        title: "What a_table & others 100 % hold #1".into(),
        head: (0..12).map(|i| format!("column {i}")).collect(),
        lines: vec![(0..12).map(|i| format!("{i}_a^b~{{c}} \\ $2 ±†")).collect(); 3],
        notes: vec!["mean ± spread".into()],
        provenance: provenance(),
    };
    plain::save(&plain, &[1, 2, 3], dir.path()).unwrap();
    let seven: Vec<_> = (0..9).map(|i| column(&i.to_string(), "{l,a,v}")).collect();
    let cells = || seven.iter().map(|_| vec![measured(&[1.18, 1.21], Some(0.766))]).collect();
    let wide = Section {
        columns: seven.clone(),
        rows: vec![row(Kind::Trained, "cumdf-no-distillation", "CUMDF w/o distillation", cells())],
        ..maes(&[])
    };
    report::save(&Table { sections: vec![wide], name: "wide".into(), ..table() }, dir.path())
        .unwrap();
    report::save(&table(), dir.path()).unwrap();
    for name in ["plain", "wide", "table1"] {
        let document = format!(
            "\\documentclass[10pt,twocolumn]{{article}}\n\\usepackage[letterpaper,margin=0.75in]{{geometry}}\n\
             \\usepackage{{booktabs,graphicx}}\n\\begin{{document}}\n\\input{{{name}.tex}}\n\\end{{document}}\n"
        );
        fs::write(dir.path().join("document.tex"), document).unwrap();
        let mut latex = std::process::Command::new("pdflatex");
        latex.args(["-interaction=nonstopmode", "document.tex"]).current_dir(dir.path());
        let Ok(output) = latex.output() else {
            return eprintln!("skipped: there is no pdflatex (Debian: texlive-latex-recommended)");
        };
        let log = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {log}");
        assert!(!log.contains("Overfull \\hbox"), "{name} is too wide: {log}");
    }
}

#[test]
fn the_floor_of_a_column_is_its_best_floor_row() {
    let section = maes(&[
        (Kind::Trained, "model", &[1.0, 1.1]),
        (Kind::Floor, "constant", &[1.4]),
        (Kind::Floor, "mlp", &[1.1, 1.2]),
        (Kind::Floor, "linear", &[1.2]),
    ]);
    let floor = section.floor(0, 0).unwrap();
    assert_eq!(floor.row.model, "mlp");
    assert_eq!(section.best(0, 0).unwrap().model, "model");
    let rounding =
        maes(&[(Kind::Floor, "linear", &[0.1]), (Kind::Floor, "mlp", &[0.1, 0.1, 0.1 - 1e-13])]);
    assert_eq!(rounding.floor(0, 0).unwrap().row.model, "linear", "rounding is no gain");
}

/// A difference counts where it is more than chance, whatever the means say.
#[test]
fn marks_and_bold_print_follow_the_comparisons() {
    let rows: [(Kind, &str, &[f64]); 4] = [
        (Kind::Trained, "best", &[0.9, 1.1]),
        (Kind::Trained, "near", &[1.1]),
        (Kind::Trained, "worse", &[1.6]),
        (Kind::Floor, "linear", &[1.2]),
    ];
    let with = |comparisons| Section { comparisons, ..maes(&rows) };
    let among = |question, pair, mean, real| comparison(question, (0, 0), pair, mean, real);
    let best_of = |near: bool| {
        with(vec![
            among(Question::Best, ["best", "near"], -0.1, near),
            among(Question::Best, ["best", "worse"], -0.6, true),
            among(Question::Best, ["best", "linear"], -0.2, true),
        ])
    };
    assert_eq!(best(&best_of(true)), ["best"]);
    assert!(best(&best_of(false)).is_empty(), "one other may be as good");
    assert!(best(&with(vec![])).is_empty(), "nothing was compared");

    let section = with(vec![
        among(Question::Floor, ["best", "linear"], -0.2, true),
        among(Question::Floor, ["near", "linear"], -0.1, false),
        among(Question::Floor, ["worse", "linear"], 0.4, true),
    ]);
    let standings: Vec<_> = section.rows.iter().map(|row| section.standing(row, 0, 0)).collect();
    let [above, near, below] = [Standing::Above, Standing::Near, Standing::Below];
    assert_eq!(standings, [Some(above), Some(near), Some(below), None]);
    let text = report::terminal(&Table { sections: vec![section], ..table() }, false, 80);
    for cell in ["1.000±.141*", "1.100 ", "1.600†"] {
        assert!(text.replace('\n', " \n").contains(cell), "{cell}: {text}");
    }
}

#[test]
fn beaten_floors_count_a_repeated_column_once_and_a_missing_one_or_a_sum_not_at_all() {
    let table = table();
    let [mosi, emotions] = &table.sections[..] else { panic!("two sections") };
    let count = mosi.beaten(&mosi.rows[0]);
    assert_eq!((count.above, count.below, count.total), (1, 1, 2));
    let above = Some(Standing::Above);
    assert_eq!(mosi.standing(&mosi.rows[0], 2, 0), above, "the mark is there all the same");
    assert_eq!(mosi.standing(&mosi.rows[0], 3, 0), above, "the mark is there all the same");
    assert!(mosi.is_best(&mosi.rows[0], 3, 0) && !mosi.is_best(&mosi.rows[0], 4, 0));
    assert_eq!(count.per_metric, [(Metric::Mae, 1, 1), (Metric::F1, 0, 1)]);
    assert_eq!(
        beaten_lines(mosi),
        ["CUMDF is above the best floor in 1 of 2 figures (MAE 1 of 1, F1 0 of 1), below it in 1"]
    );
    assert_eq!(emotions.beaten(&emotions.rows[0]).total, 0);
    assert!(beaten_lines(emotions).is_empty(), "what failed has beaten nothing and missed nothing");
}

#[test]
fn files_report_percent_wherever_a_figure_stands() {
    let table = table();
    let records = table.records();
    let of = |model: &str| records.iter().find(|r| r.model == model && r.metric == "f1").unwrap();
    let cumdf = of("cumdf");
    assert!((cumdf.mean.unwrap() - 70.0).abs() < 1e-6, "{cumdf:?}");
    assert!((cumdf.std.unwrap() - 100.0 * 0.0002f64.sqrt()).abs() < 1e-6, "{cumdf:?}");
    assert!((cumdf.floor.unwrap() - 70.2).abs() < 1e-6, "{cumdf:?}");
    assert_eq!(cumdf.floor_of, Some("linear"));
    assert_eq!(of("linear").floor_of, Some("linear"));
    for text in [report::markdown(&table), report::latex(&table)] {
        assert!(text.contains("70.20") && !text.contains("0.702"), "{text}");
    }
    assert!(report::terminal(&table, true, 80).contains("70.00±1.4"));
}

/// Seven conditions with spreads, as in the paper's Table 1, and what sums them up.
#[test]
fn a_table_wider_than_the_terminal_folds_and_keeps_its_figures() {
    let keys = ["l", "a", "v", "la", "lv", "av", "lav"];
    let columns = keys.map(|key| {
        let letters: Vec<_> = key.chars().map(String::from).collect();
        column(key, &format!("{{{}}}", letters.join(",")))
    });
    let columns: Vec<_> = columns.into_iter().chain(Summary::ALL.map(summing)).collect();
    let cells = || columns.iter().map(|_| vec![measured(&[1.18, 1.21], Some(0.766))]).collect();
    let section = Section {
        summary: "1284 / 229 / 686 samples, scores from -3 to 3".into(),
        columns: columns.clone(),
        rows: vec![
            row(Kind::Trained, "cumdf-no-distillation", "CUMDF w/o distillation", cells()),
            row(Kind::Floor, "constant", "constant (floor)", cells()),
        ],
        notes: vec![
            "a note that is much longer than any terminal is wide, so that it wraps".into(),
        ],
        ..maes(&[])
    };
    let table = Table { sections: vec![section], ..table() };
    for (width, n_grids) in [(140, 1), (120, 2), (80, 3), (60, 3), (50, 5), (40, 9)] {
        let text = report::terminal(&table, false, width);
        let too_wide: Vec<_> = text.lines().filter(|line| line.chars().count() > width).collect();
        assert!(too_wide.is_empty(), "{width}: {too_wide:?}");
        assert_eq!(text.matches("MAE (lower is better)").count(), n_grids, "{width}:\n{text}");
        assert_eq!(text.matches("1.195±.021").count(), 18, "{width}:\n{text}");
    }
    let text = report::terminal(&table, false, 80);
    let heads: Vec<_> = text.lines().filter(|line| line.starts_with("MAE")).collect();
    let labels = |head: &str| head.split_whitespace().skip(4).map(String::from).collect::<Vec<_>>();
    assert_eq!(labels(heads[0]), ["{l}", "{a}", "{v}"]);
    assert_eq!(labels(heads[1]), ["{l,a}", "{l,v}", "{a,v}"]);
    assert_eq!(labels(heads[2]), ["{l,a,v}", "mean", "worst"]);
}
