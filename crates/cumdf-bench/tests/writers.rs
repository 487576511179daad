//! Every writer on one small table, against files in `tests/golden`; `UPDATE_GOLDEN=1` rewrites them.

use std::{env, fs, path::Path};

use cumdf_bench::{
    table::{Cell, Column, Estimate, Row, Section, Table, Value},
    write,
};
use cumdf_train::metrics::Metric;

fn measured(values: &[f64], paper: Option<f64>) -> Cell {
    Cell { value: Value::Measured(Estimate::of(values).expect("there are values")), paper }
}

/// Two data sets: one with the paper's figures and no vision, one with a failure and one seed.
fn table() -> Table {
    let column = |key: &str, label: &str| Column { key: key.into(), label: label.into() };
    let no_vision = || Value::NotAvailable("the test split has no vision".into());
    let row =
        |model: &str, name: &str, cells| Row { model: model.into(), name: name.into(), cells };
    let mosi = Section {
        dataset: "CMU-MOSI".into(),
        summary: "1284 / 229 / 686 samples, scores from -3 to 3".into(),
        columns: vec![column("l", "{l}"), column("v", "{v}")],
        metrics: vec![Metric::Mae, Metric::F1, Metric::Corr],
        n_headline: 2,
        rows: vec![
            row(
                "dmd",
                "DMD",
                vec![
                    vec![
                        Cell { value: Value::NotYet, paper: Some(0.795) },
                        Cell { value: Value::NotYet, paper: Some(0.6745) },
                        Cell { value: Value::NotYet, paper: None },
                    ],
                    vec![
                        Cell { value: no_vision(), paper: Some(0.761) },
                        Cell { value: no_vision(), paper: Some(0.4290) },
                        Cell { value: no_vision(), paper: None },
                    ],
                ],
            ),
            row(
                "cumdf",
                "CUMDF",
                vec![
                    vec![
                        measured(&[1.18, 1.21], Some(0.766)),
                        measured(&[0.69, 0.71], Some(0.8193)),
                        measured(&[0.4, 0.5], None),
                    ],
                    vec![
                        Cell { value: no_vision(), paper: Some(0.726) },
                        Cell { value: no_vision(), paper: Some(0.6048) },
                        Cell { value: no_vision(), paper: None },
                    ],
                ],
            ),
            row(
                "constant",
                "constant (floor)",
                vec![
                    vec![
                        measured(&[1.456], None),
                        measured(&[0.2507], None),
                        measured(&[0.0], None),
                    ],
                    vec![
                        Cell { value: no_vision(), paper: None },
                        Cell { value: no_vision(), paper: None },
                        Cell { value: no_vision(), paper: None },
                    ],
                ],
            ),
        ],
        floor: vec![1.456, 0.2507, 0.0],
        notes: vec!["paper: Table 1".into()],
    };
    let failed = || Value::Failed("seed 0: loss `task` became NaN in step 3".into());
    let emotions = Section {
        dataset: "toy_emotions".into(),
        summary: "40 / 10 / 10 samples, 2 emotions".into(),
        columns: vec![column("lav", "{l,a,v}")],
        metrics: vec![Metric::F1, Metric::Acc, Metric::F1Class("sad".into())],
        n_headline: 2,
        rows: vec![
            row("cumdf", "CUMDF", vec![vec![Cell { value: failed(), paper: None }; 3]]),
            row(
                "constant",
                "constant (floor)",
                vec![vec![measured(&[0.5], None), measured(&[0.6], None), measured(&[0.7], None)]],
            ),
        ],
        floor: vec![0.5, 0.6, 0.7],
        notes: vec![],
    };
    Table {
        name: "table1".into(),
        title: "Table 1: what a test lets through".into(),
        sections: vec![mosi, emotions],
    }
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
    golden("table.json", &write::json(&table).unwrap());
    golden("table.csv", &write::csv(&table).unwrap());
    golden("table.md", &write::markdown(&table));
    golden("table.tex", &write::latex(&table));
    golden("table.txt", &write::terminal(&table, false));
    golden("table.verbose.txt", &write::terminal(&table, true));
}
