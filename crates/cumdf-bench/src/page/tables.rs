//! The tables that lie in a folder, read back from their JSON.
//!
//! Whatever table it is: its columns, metrics and rows are those of its records, in their order. What
//! this program does not know about a file is shown as it is.

use std::{collections::HashSet, fs, path::Path};

use anyhow::{Context as _, Result};
use cumdf_data::{Modality, ModalitySet};
use cumdf_train::metrics::Metric;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    cells::model_name,
    data::{Cell, Column, Cost, Difference, Floor, MetricInfo, Part, Row, Table, rounded},
};
pub(super) use crate::report::kept::Figure;
use crate::{
    grid::{store, variants},
    report::{
        kept::Comparison,
        table::{Kind, Question},
    },
};

/// A table's file.
#[derive(Debug, Deserialize)]
pub(super) struct File {
    /// The figures, in the order of the table.
    pub(super) figures: Vec<Figure>,
    #[serde(default)]
    costs: Vec<CostRecord>,
    #[serde(default)]
    comparisons: Vec<Comparison>,
    #[serde(default)]
    title: Option<String>,
    /// What else it says.
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct CostRecord {
    dataset: String,
    model: String,
    parameters: u64,
    seeds: usize,
    seconds: f64,
    epochs: f64,
}

/// The names of the files in `dir` that may be tables, in the order of the page: tables, then figures.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = files
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .filter(|name| name.starts_with("table") || name.starts_with("figure"))
        .collect();
    names.sort_by_key(|name| (name.starts_with("figure"), name.clone()));
    names
}

/// Reads `<dir>/<name>.json`; `None` for a file of another form.
///
/// # Errors
/// When it cannot be read, or its records are damaged.
pub(super) fn read(dir: &Path, name: &str) -> Result<Option<File>> {
    let path = dir.join(format!("{name}.json"));
    let read = || {
        let json: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let is_table = json["figures"].is_array();
        Ok::<_, anyhow::Error>(is_table.then(|| serde_json::from_value(json)).transpose()?)
    };
    read().with_context(|| format!("{}: it is damaged; make the table again", path.display()))
}

/// What a metric is called, by its key in the files; a key that is none of ours is its own name.
pub(super) fn metric(key: &str) -> MetricInfo {
    let known =
        [Metric::Mae, Metric::F1, Metric::F1Nonneg, Metric::Acc2, Metric::Corr, Metric::Acc]
            .into_iter()
            .chain([Metric::AccBins { n_bins: 7 }])
            .find(|metric| metric.key() == key)
            .or_else(|| key.strip_prefix("f1_").map(|class| Metric::F1Class(class.to_owned())));
    let is_fraction = known.as_ref().is_some_and(Metric::is_fraction);
    MetricInfo {
        key: key.to_owned(),
        label: known.as_ref().map_or_else(|| key.to_owned(), Metric::label),
        lower: known.as_ref().is_some_and(Metric::lower_is_better),
        digits: if is_fraction { 2 } else { 3 },
        unit: if is_fraction { "%" } else { "" },
    }
}

impl File {
    /// Leaves out the rows of a data set of which nothing was measured.
    pub(super) fn drop_empty_rows(&mut self) {
        let row = |figure: &Figure| (figure.dataset.clone(), figure.model.clone());
        let measured: HashSet<_> =
            self.figures.iter().filter(|f| f.mean.is_some()).map(row).collect();
        self.figures.retain(|figure| measured.contains(&row(figure)));
    }

    /// The table as the page shows it, under its own title where it has one.
    pub(super) fn table(self, name: &str, title: String, note: String) -> Table {
        let title = self.title.unwrap_or(title);
        let is_curves = name.starts_with("figure");
        let mut parts = Vec::new();
        for dataset in distinct(self.figures.iter().map(|f| &f.dataset)) {
            let of = self.figures.iter().filter(|f| f.dataset == dataset);
            parts.extend(parts_of(&dataset, &of.collect::<Vec<_>>(), is_curves));
        }
        let cost = |record: CostRecord| Cost {
            dataset: record.dataset,
            name: model_name(&record.model),
            parameters: record.parameters,
            seeds: record.seeds,
            seconds: rounded(record.seconds, 1),
            epochs: rounded(record.epochs, 1),
        };
        let difference = |record: Comparison| Difference {
            dataset: record.dataset,
            metric: metric(&record.metric).label,
            column: record
                .condition
                .parse::<ModalitySet>()
                .map_or(record.condition, |set| set.to_string()),
            name: model_name(&record.model),
            other: model_name(&record.other),
            difference: record.difference,
            interval: [record.low, record.high],
            p_holm: record.p_holm,
            seeds: record.seeds,
            over_seeds: record.seeds_low.zip(record.seeds_high),
            is_real: record.real,
        };
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
        Table {
            name: name.to_owned(),
            short: title.split(':').next().unwrap_or_default().to_owned(),
            title,
            note,
            is_curves,
            parts,
            costs: self.costs.into_iter().map(cost).collect(),
            differences: self
                .comparisons
                .into_iter()
                .filter(|record| record.question == Question::Reference.key())
                .map(difference)
                .collect(),
            more: self.more.iter().map(|(key, value)| (key.clone(), pretty(value))).collect(),
        }
    }
}

/// The different ones, in the order of their first appearance.
pub(super) fn distinct<'a>(values: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for value in values {
        if !found.contains(value) {
            found.push(value.clone());
        }
    }
    found
}

/// A table has one part per data set; a figure one per kind of holes, each closed by its area.
fn parts_of(dataset: &str, figures: &[&Figure], is_curves: bool) -> Vec<Part> {
    let Some(first) = figures.first() else { return vec![] };
    let metrics = distinct(figures.iter().map(|f| &f.metric));
    let models = distinct(figures.iter().map(|f| &f.model));
    let series = |model: &str, metric: &str| -> Vec<&Figure> {
        figures.iter().copied().filter(|f| f.model == model && f.metric == metric).collect()
    };
    let heads = series(&first.model, &first.metric);
    let ends = (1..=heads.len())
        .filter(|i| *i == heads.len() || is_curves && heads[i - 1].condition.starts_with("area"));
    let mut start = 0;
    let mut parts = Vec::new();
    for end in ends {
        let range = start..end;
        let row = |model: &String, metric: &String| -> Vec<Option<&Figure>> {
            let figures = series(model, metric);
            // A view that is in two parts of a figure is told by its place.
            let at = |i: usize| figures.get(i).filter(|f| f.condition == heads[i].condition);
            let called = |i: usize| figures.iter().find(|f| f.condition == heads[i].condition);
            range.clone().map(|i| at(i).or_else(|| called(i)).copied()).collect()
        };
        let all: Vec<Vec<_>> =
            metrics.iter().map(|m| models.iter().map(|model| row(model, m)).collect()).collect();
        parts.push(part(dataset, &heads[range.clone()], &metrics, &models, &all, is_curves));
        start = end;
    }
    parts
}

/// - `all`: `[metric][row][column]`
fn part(
    dataset: &str,
    heads: &[&Figure],
    metrics: &[String],
    models: &[String],
    all: &[Vec<Vec<Option<&Figure>>>],
    is_curves: bool,
) -> Part {
    let floors_of = |figures: &Vec<Vec<Option<&Figure>>>, column: usize| {
        let figure = figures.iter().find_map(|row| row[column].filter(|f| f.floor.is_some()))?;
        let of = figure.floor_of.as_deref().map(model_name).unwrap_or_default();
        Some(Floor { mean: rounded(figure.floor?, 5), of })
    };
    let is_floor = |model: &String| match variants::find(model) {
        Some(variant) => variant.kind == Kind::Floor,
        None => {
            let mut figures = all.iter().flatten().flatten().flatten();
            figures.any(|figure| figure.floor_of.as_ref() == Some(model))
        }
    };
    let rows: Vec<_> = models
        .iter()
        .map(|model| Row { model: model.clone(), name: model_name(model), floor: is_floor(model) })
        .collect();
    let cells = |figures: &Vec<Vec<Option<&Figure>>>| {
        let cell = |figure: &Figure| Cell {
            mean: figure.mean.map(|v| rounded(v, 5)),
            std: figure.std.map(|v| rounded(v, 5)),
            paper: figure.paper,
            standing: figure.standing.clone(),
            best: figure.best,
            note: figure.note.clone(),
        };
        let missing = || Cell { note: Some("not in this table".to_owned()), ..Cell::default() };
        let row = |row: &Vec<Option<&Figure>>| {
            row.iter().map(|figure| figure.map_or_else(missing, &cell)).collect()
        };
        figures.iter().map(row).collect()
    };
    let keys: Vec<_> = heads.iter().map(|head| head.condition.as_str()).collect();
    Part {
        dataset: dataset.to_owned(),
        title: if is_curves { holes(&keys) } else { String::new() },
        columns: columns(heads, is_curves),
        metrics: metrics.to_vec(),
        floors: all
            .iter()
            .map(|figures| (0..heads.len()).map(|c| floors_of(figures, c)).collect())
            .collect(),
        cells: all.iter().map(cells).collect(),
        rows,
    }
}

/// Which frames a part of a figure hides, by its views, and by the key of its area where no view says.
fn holes(keys: &[&str]) -> String {
    let of = |key: &&str| match key.strip_prefix("area-h") {
        Some(holes) => holes.parse().ok(),
        None => Some(store::parse_key(key).ok()?.holes).filter(|holes| *holes != ModalitySet::ALL),
    };
    match keys.iter().find_map(of) {
        None => "frames of all modalities hidden".to_owned(),
        Some(set) => {
            let names: Vec<_> = set.iter().map(Modality::name).collect();
            format!("frames of {} hidden", names.join(" and "))
        }
    }
}

fn columns(heads: &[&Figure], is_curves: bool) -> Vec<Column> {
    let view = |head: &&Figure| store::parse_key(&head.condition).ok();
    // What is shown when nothing is hidden: a view without a drop ratio that shows less hides all
    // of a modality.
    let shown = heads
        .iter()
        .filter_map(view)
        .fold(ModalitySet::EMPTY, |all, view| all.union(view.condition));
    let column = |head: &&Figure| {
        let view = view(head);
        let x = view.filter(|_| is_curves).map(|view| match view.drop_ratio {
            ratio if ratio > 0.0 => ratio,
            _ if view.condition == shown => 0.0,
            _ => 1.0,
        });
        let label = match (x, view) {
            (Some(x), _) => x.to_string(),
            (None, Some(view)) if view.drop_ratio <= 0.0 => view.condition.to_string(),
            _ if is_curves && head.condition.starts_with("area") => "area".to_owned(),
            _ => head.condition.clone(),
        };
        Column { key: head.condition.clone(), label, x, same_as: head.same_as.clone() }
    };
    heads.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(figures: &[(&str, &str, f64)]) -> File {
        let figure = |(model, condition, mean): &(&str, &str, f64)| {
            json!({
                "dataset": "d", "model": model, "condition": condition, "metric": "mae",
                "mean": mean, "std": null, "seeds": 1, "floor": 1.0, "floor_of": "constant",
                "standing": if *model == "new" { "above" } else { "near" }, "best": *model == "new",
            })
        };
        let figures: Vec<_> = figures.iter().map(figure).collect();
        serde_json::from_value(json!({ "figures": figures, "provenance": { "git": "abc" } }))
            .unwrap()
    }

    #[test]
    fn a_table_is_read_with_what_it_says_beside_its_figures() {
        let figures = [
            ("cumdf", "l", 0.9),
            ("cumdf", "mean", 1.2),
            ("new", "l", 0.8),
            ("constant", "l", 1.0),
        ];
        let table = file(&figures).table("table9", String::new(), String::new());
        let part = &table.parts[0];
        let labels: Vec<_> = part.columns.iter().map(|c| c.label.as_str()).collect();
        assert_eq!(labels, ["{l}", "mean"]);
        assert_eq!(
            part.rows.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(),
            ["CUMDF", "new", "constant (floor)"]
        );
        let standings: Vec<_> =
            part.cells[0].iter().map(|row| row[0].standing.as_deref()).collect();
        assert_eq!(standings, [Some("near"), Some("above"), Some("near")]);
        assert!(part.cells[0][1][0].best && !part.cells[0][0][0].best);
        assert_eq!(part.cells[0][1][1].mean, None, "what a row lacks is not invented");
        assert_eq!(table.more[0].0, "provenance");
    }

    #[test]
    fn a_figure_falls_into_its_sweeps_and_a_view_of_two_of_them_is_in_both() {
        let keys = ["lav", "lav-p0.5", "lav-p1", "area", "lav", "lav-p0.5-ha", "lv", "area-ha"];
        let figures: Vec<_> = keys.iter().map(|key| ("cumdf", *key, 1.0)).collect();
        let table = file(&figures).table("figure3", String::new(), String::new());
        let titles: Vec<_> = table.parts.iter().map(|part| part.title.as_str()).collect();
        assert_eq!(titles, ["frames of all modalities hidden", "frames of audio hidden"]);
        for part in &table.parts {
            let xs: Vec<_> = part.columns.iter().map(|c| c.x).collect();
            assert_eq!(xs, [Some(0.0), Some(0.5), Some(1.0), None]);
        }
    }
}
