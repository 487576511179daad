//! From a table's folder to what the page shows.
//!
//! True labels are read here, for three things: the confusion of a model's answers, whether they
//! mean what they say, and the cases. They come from the data files that the cells name, and go
//! nowhere else.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Result, ensure};
use cumdf_data::{ModalitySet, Split};
use cumdf_train::{
    answers::Answers,
    evaluate,
    metrics::{Metric, mean_and_spread, score},
};

use super::{
    cases::{self, Said, Spoken, Truth},
    cells::{self, Found, Group, model_name},
    data::{
        Attribution, Cases, Cost, FileCard, Judged, JudgedModel, MetricInfo, Report, Table, rounded,
    },
    judge,
    tables::{self, Figure},
};
use crate::{
    artefact::table1,
    grid::{
        Measured, Run, Tested,
        source::{self, Source},
        store,
        variants::{self, COMPARISON, Work},
    },
    report,
};

/// A mean in a file and one of stored predictions are the same when they differ by less.
const SAME: f64 = 1e-6;

/// What is told of every table by its name.
const TITLES: [(&str, &str, &str); 3] = [
    (
        SO_FAR,
        "So far",
        "Made from the finished cells in the folder, as there is no table yet that has them all",
    ),
    (
        "table1",
        "Table 1: models under missing modalities",
        "Test split; columns say which modalities are present. mean and worst sum up the conditions",
    ),
    (
        "figure3",
        "Figure 3: models against the share of hidden frames",
        "Test split; columns are the probability that a frame is hidden. At 1 the modality is gone. \
         area: under the curve, by trapezoids",
    ),
];

/// The table that is made of the cells.
const SO_FAR: &str = "so-far";

/// The row that the page is about.
const OWN: &str = "cumdf";

/// Gathers again and again, and opens a data file only when it is new.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    /// Files that were looked at: path, time of change, and what is in it or why it is unknown.
    opened: Vec<(PathBuf, Option<SystemTime>, Result<Source, String>)>,
}

/// A data set of the folder.
struct Set {
    slug: String,
    name: String,
    /// Its labels, or why there are none.
    source: Result<usize, String>,
}

impl Gatherer {
    /// All that lies in `out`.
    ///
    /// - `data`: where data files may be that have moved
    /// - `may_be_empty`: whether a folder without any result is no error
    ///
    /// # Errors
    /// When there is no result, or a table's file is damaged.
    pub(super) fn gather(
        &mut self,
        out: &Path,
        data: &[PathBuf],
        may_be_empty: bool,
    ) -> Result<Report> {
        let mut cells = cells::find(out);
        let mut read = Vec::new(); // (name, file)
        for name in tables::names(out) {
            read.extend(tables::read(out, &name)?.map(|file| (name, file)));
        }
        ensure!(
            may_be_empty || !cells.is_empty() || !read.is_empty(),
            "{}: there is neither a table nor a cell; name the --out folder of a table, or make one \
             with `cumdf-bench table1 --out {0}`",
            out.display()
        );
        let figures: Vec<Figure> =
            read.iter().flat_map(|(_, file)| file.figures.iter().cloned()).collect();
        let sets = self.sets(&cells, &figures, data);
        for set in &sets {
            let Some(source) = self.source(set) else { continue };
            let is_of = |c: &&mut Found| c.slug == set.slug && c.sha256() == source.sha256;
            for cell in cells.iter_mut().filter(is_of) {
                cell.scored = scored(cell, source);
            }
        }
        if let Some(json) = self.so_far(&sets, &cells, &figures)? {
            let mut file: tables::File = serde_json::from_str(&json)?;
            file.drop_empty_rows();
            read.insert(0, (SO_FAR.to_owned(), file));
        }
        let figures: Vec<Figure> =
            read.iter().flat_map(|(_, file)| file.figures.iter().cloned()).collect();
        let mut files: Vec<_> = read
            .iter()
            .filter(|(name, _)| name != SO_FAR)
            .map(|(name, _)| FileCard {
                path: out.join(format!("{name}.json")).display().to_string(),
                what: "a table's figures".to_owned(),
                sha256: String::new(),
            })
            .collect();
        let sources = sets.iter().filter_map(|set| self.source(set));
        files.extend(sources.map(|source| FileCard {
            path: source.file.display().to_string(),
            what: format!("data of {}: {}", source.name, source.summary()),
            sha256: source.sha256.clone(),
        }));
        let mut tables: Vec<_> = read.into_iter().map(|(name, file)| titled(file, &name)).collect();
        keep_new_costs(&mut tables);
        let datasets = figures.iter().map(|f| &f.dataset).chain(sets.iter().map(|set| &set.name));
        let name = |slug: &str| sets.iter().find(|set| set.slug == slug).map(|set| &set.name);
        Ok(Report {
            folder: out.display().to_string(),
            program: env!("CARGO_PKG_VERSION"),
            made: httpdate::fmt_http_date(SystemTime::now()),
            state: None,
            datasets: tables::distinct(datasets),
            metrics: self.metrics(&sets, &figures),
            judged: sets.iter().map(|set| self.judge(set, &cells, &figures)).collect(),
            attributions: sets
                .iter()
                .flat_map(|set| self.attributions(set, &cells, &figures))
                .collect(),
            tables,
            cells: cells
                .iter()
                .map(|cell| cell.card(out, name(&cell.slug).unwrap_or(&cell.slug)))
                .collect(),
            files,
        })
    }

    /// The data sets of the cells.
    fn sets(&mut self, cells: &[Found], figures: &[Figure], data: &[PathBuf]) -> Vec<Set> {
        let slugs = tables::distinct(cells.iter().map(|cell| &cell.slug));
        let set = |slug: String| {
            let of: Vec<_> = cells.iter().filter(|cell| cell.slug == slug).collect();
            let source = self.open(&of, data);
            let in_table = figures.iter().find(|f| source::slug(&f.dataset) == slug);
            let name = match (&source, in_table) {
                (Ok(at), _) => self.opened[*at].2.as_ref().map(|source| source.name.clone()).ok(),
                (Err(_), figure) => figure.map(|figure| figure.dataset.clone()),
            };
            Set { name: name.unwrap_or_else(|| slug.clone()), slug, source }
        };
        slugs.into_iter().map(set).collect()
    }

    /// The position of the first file that is there and holds the data of one of `cells`.
    fn open(&mut self, cells: &[&Found], data: &[PathBuf]) -> Result<usize, String> {
        let mut files: Vec<_> = cells.iter().rev().filter_map(|cell| cell.data_file()).collect();
        files.dedup();
        let mut problem =
            "no cell says where its data is; give the file with --data FILE.h5".to_owned();
        for file in files.iter().chain(data) {
            let changed = file.metadata().and_then(|m| m.modified()).ok();
            let known = self.opened.iter().position(|(f, when, _)| f == file && *when == changed);
            let at = known.unwrap_or_else(|| {
                let opened = source::open_all(&[], std::slice::from_ref(file), &[], Split::Test);
                let opened = opened.map(|mut sources| sources.swap_remove(0));
                let opened = opened.map_err(|err| format!("{err:#}"));
                self.opened.push((file.clone(), changed, opened));
                self.opened.len() - 1
            });
            match &self.opened[at].2 {
                Ok(source) if cells.iter().any(|cell| cell.sha256() == source.sha256) => {
                    return Ok(at);
                }
                Ok(_) if data.contains(file) => {}
                Ok(_) => {
                    problem = format!(
                        "{} is not the file of these cells any more; give theirs with --data FILE.h5",
                        file.display()
                    );
                }
                Err(err) => {
                    problem = format!("{err}; give the file with --data FILE.h5 if it has moved");
                }
            }
        }
        Err(problem)
    }

    fn source(&self, set: &Set) -> Option<&Source> {
        self.opened[*set.source.as_ref().ok()?].2.as_ref().ok()
    }

    /// Table 1 of the finished cells, as JSON, where the folder has no table with all of them.
    fn so_far(&self, sets: &[Set], cells: &[Found], figures: &[Figure]) -> Result<Option<String>> {
        let mut measured = Measured {
            sources: Vec::new(),
            runs: Vec::new(),
            changed: Vec::new(),
            shortened: Vec::new(),
            n_seeds: 1,
            device: "cpu".to_owned(),
        };
        let mut is_news = false;
        for set in sets {
            let Some(source) = self.source(set) else { continue };
            let s = measured.sources.len();
            for variant in COMPARISON {
                let group = tested(cells, set, variant.key).into_iter().next();
                let Some(Group(cells)) = group else { continue };
                is_news |= !figures
                    .iter()
                    .any(|f| f.dataset == set.name && f.model == variant.key && f.mean.is_some());
                measured.n_seeds = measured.n_seeds.max(cells.len());
                measured.runs.extend(cells.into_iter().map(|cell| Run {
                    source: s,
                    variant: variant.key,
                    seed: cell.seed(),
                    recipe: Some(cell.text("recipe")).filter(|recipe| !recipe.is_empty()),
                    outcome: Ok(cell.scored.clone()),
                    cost: None,
                    dir: cell.dir.clone(),
                }));
            }
            measured.sources.push(source.clone());
            measured.changed.push(vec![]);
            measured.shortened.push(vec![]);
        }
        if !is_news {
            return Ok(None);
        }
        let is_there = |v: &variants::Variant| {
            matches!(v.work(), Work::Constant) || measured.runs.iter().any(|r| r.variant == v.key)
        };
        let rows: Vec<_> = COMPARISON.into_iter().filter(is_there).collect();
        let table = table1::table(&measured, &rows)?;
        Ok(Some(report::json(&table)?.replace("\"failed: \"", "\"not yet\"")))
    }

    /// All metrics, those that come first in a table first.
    fn metrics(&self, sets: &[Set], figures: &[Figure]) -> Vec<MetricInfo> {
        let known: Vec<_> =
            sets.iter().filter_map(|s| self.source(s)).flat_map(|s| Metric::of(&s.task)).collect();
        let info = |key: String| {
            let known = known.iter().find(|metric| metric.key() == key);
            let label = known.map(Metric::label);
            let info = tables::metric(&key);
            MetricInfo { label: label.unwrap_or(info.label.clone()), ..info }
        };
        tables::distinct(figures.iter().map(|f| &f.metric)).into_iter().map(info).collect()
    }

    fn judge(&self, set: &Set, cells: &[Found], figures: &[Figure]) -> Judged {
        let mut judged = Judged {
            dataset: set.name.clone(),
            summary: String::new(),
            problem: set.source.as_ref().err().cloned(),
            classes: vec![],
            conditions: vec![],
            models: vec![],
            cases: Cases::default(),
        };
        let Some(source) = self.source(set) else { return judged };
        let conditions = source.conditions();
        judged.summary = source.summary();
        judged.classes = source.task.class_names();
        judged.conditions = conditions.iter().map(|c| (c.key(), c.to_string())).collect();
        let mut spoken = Vec::new(); // (key, what the first seed says)
        for model in cells::rows_of(cells, &set.slug) {
            let Some((group, is_of_table)) = chosen(cells, set, &model, source, figures) else {
                continue;
            };
            let answers = |cell: &Found, condition: &ModalitySet| {
                let view = evaluate::view(*condition, 0.0);
                let read = store::read(&views_of(cell), &view, &source.task, source.ids());
                read.inspect_err(|err| tracing::debug!("{err:#}")).ok()
            };
            let mut probabilities = "";
            let of = |condition: &ModalitySet| {
                let all: Option<Vec<Answers>> =
                    group.0.iter().map(|cell| answers(cell, condition)).collect();
                let all = all.filter(|all| !all.is_empty())?;
                probabilities = judge::meaning(&source.task, &all[0]);
                Some(judge::verdict(&source.task, source.labels(), &all))
            };
            judged.models.push(JudgedModel {
                name: model_name(&model),
                seeds: group.0.len(),
                is_of_table,
                conditions: conditions.iter().map(of).collect(),
                probabilities,
                model: model.clone(),
            });
            let first = group.0[0];
            let view = |condition: &ModalitySet| {
                let view = evaluate::view(*condition, 0.0);
                let shares = store::read_attributions(&views_of(first), &view, source.ids());
                let shares = shares.ok().flatten();
                Some(Said { condition: *condition, answers: answers(first, condition)?, shares })
            };
            let views = conditions.iter().filter_map(view).collect();
            spoken.push((model.clone(), Spoken { name: model_name(&model), views }));
        }
        judged.cases = cases_of(set, source, &spoken, figures);
        judged
    }

    /// Mean shares of each model and condition, where they were stored.
    fn attributions(&self, set: &Set, cells: &[Found], figures: &[Figure]) -> Vec<Attribution> {
        let mut found = Vec::new();
        for model in cells::rows_of(cells, &set.slug) {
            let group = match self.source(set) {
                Some(source) => chosen(cells, set, &model, source, figures).map(|(group, _)| group),
                None => Group::of_row(cells, &set.slug, &model).into_iter().next(),
            };
            let Some(Group(group)) = group else { continue };
            for condition in ModalitySet::CONDITIONS {
                let view = evaluate::view(condition, 0.0);
                let shares = group.iter().filter_map(|cell| {
                    let ids = store::ids(&views_of(cell), &view).ok()?;
                    let read = store::read_attributions(&views_of(cell), &view, &ids);
                    read.inspect_err(|err| tracing::warn!("{err:#}")).ok().flatten()
                });
                let shares: Vec<_> = shares.flatten().collect();
                if shares.is_empty() {
                    continue;
                }
                let of = |m: usize| {
                    let shares: Vec<_> = shares.iter().map(|s| f64::from(s[m])).collect();
                    let (mean, std) = mean_and_spread(&shares);
                    (rounded(mean, 4), rounded(std.unwrap_or(0.0), 4))
                };
                let both = [0, 1, 2].map(of);
                found.push(Attribution {
                    dataset: set.name.clone(),
                    name: model_name(&model),
                    condition: condition.to_string(),
                    n: shares.len(),
                    mean: both.map(|(mean, _)| mean),
                    std: both.map(|(_, std)| std),
                });
            }
        }
        found
    }
}

/// A table with its title.
fn titled(file: tables::File, name: &str) -> Table {
    let known = TITLES.iter().find(|(key, ..)| *key == name);
    let (title, note) = match known {
        Some((_, title, note)) => ((*title).to_owned(), (*note).to_owned()),
        None => {
            let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
            let (word, number) = name.split_at(digits);
            let word = if word == "figure" { "Figure" } else { "Table" };
            (format!("{word} {number}"), "Test split".to_owned())
        }
    };
    file.table(name, title, note)
}

/// Leaves out costs that were told before: tables that share trainings say the same, and a figure says
/// it for each of its parts.
fn keep_new_costs(tables: &mut [Table]) {
    let mut told: Vec<Cost> = Vec::new();
    for table in tables {
        table.costs.retain(|cost| {
            let is_new = !told.contains(cost);
            told.extend(is_new.then(|| cost.clone()));
            is_new
        });
    }
}

/// The groups of a row with data that is at hand and predictions that can be read.
fn tested<'a>(cells: &'a [Found], set: &Set, model: &str) -> Vec<Group<'a>> {
    let mut groups = Group::of_row(cells, &set.slug, model);
    for Group(cells) in &mut groups {
        cells.retain(|cell| !cell.scored.is_empty());
    }
    groups.retain(|group| !group.0.is_empty());
    groups
}

/// The folder of a cell's predictions of the test split.
fn views_of(cell: &Found) -> PathBuf {
    store::folder(&cell.dir, Split::Test)
}

/// The metrics of a cell under each condition that it was tested under.
fn scored(cell: &Found, source: &Source) -> Vec<Tested> {
    let of = |condition: &ModalitySet| {
        let view = evaluate::view(*condition, 0.0);
        let answers = store::read(&views_of(cell), &view, &source.task, source.ids()).ok()?;
        let metrics = score(&source.task, source.labels(), &answers);
        Some(Tested { view, answers, metrics })
    };
    cell.tested.iter().filter_map(of).collect()
}

/// The cells that the figures of a row in a table come from, and whether they do: the group whose
/// predictions give the table's mean; else that which was prepared last.
fn chosen<'a>(
    cells: &'a [Found],
    set: &Set,
    model: &str,
    source: &Source,
    figures: &[Figure],
) -> Option<(Group<'a>, Option<bool>)> {
    let mut groups = tested(cells, set, model);
    let metric = Metric::of(&source.task).into_iter().next()?;
    let figure = figures.iter().find(|f| {
        f.dataset == set.name
            && f.model == model
            && f.metric == metric.key()
            && f.mean.is_some()
            && f.condition.parse::<ModalitySet>().is_ok()
    });
    let Some(figure) = figure else {
        let newest = (!groups.is_empty()).then(|| groups.swap_remove(0));
        return newest.map(|group| (group, None));
    };
    let view = evaluate::view(figure.condition.parse().ok()?, 0.0);
    for group in &mut groups {
        let values = group.0.iter().take(figure.seeds).filter_map(|cell| {
            let tested = cell.scored.iter().find(|tested| tested.view == view)?;
            Some(metric.reported(tested.metrics.get(&metric)?))
        });
        let values: Vec<_> = values.collect();
        let mean = (!values.is_empty()).then(|| mean_and_spread(&values).0);
        if figure.mean.zip(mean).is_some_and(|(a, b)| (a - b).abs() < SAME) {
            group.0.truncate(figure.seeds);
            return Some((group.clone(), Some(true)));
        }
    }
    let newest = (!groups.is_empty()).then(|| groups.swap_remove(0));
    newest.map(|group| (group, Some(false)))
}

/// The cases of CUMDF against the best other model of the table.
fn cases_of(set: &Set, source: &Source, spoken: &[(String, Spoken)], figures: &[Figure]) -> Cases {
    let none = |rule: &str| Cases { rule: rule.to_owned(), list: vec![] };
    let Some((_, own)) = spoken.iter().find(|(key, _)| key == OWN) else {
        return none(
            "None: cases compare CUMDF with another model, and no cell of CUMDF is tested",
        );
    };
    let Some(metric) = Metric::of(&source.task).into_iter().next() else { return none("None") };
    let full = own.views.last().map_or(ModalitySet::ALL, |said| said.condition);
    let figure = |key: &str| {
        let is = |f: &&Figure| {
            f.dataset == set.name
                && f.model == key
                && f.metric == metric.key()
                && f.condition == full.key()
        };
        figures.iter().find(is)?.mean
    };
    let is_model = |key: &str| {
        let variant = COMPARISON.iter().find(|v| v.key == key);
        variant.is_some_and(|v| v.kind == report::table::Kind::Trained && v.method != OWN)
    };
    let best = |wanted: &dyn Fn(&str) -> bool| {
        let others = spoken.iter().filter(|(key, _)| wanted(key));
        others
            .filter_map(|(key, spoken)| Some((figure(key)?, spoken)))
            .reduce(|best, next| if metric.is_better(next.0, best.0) { next } else { best })
    };
    let floor = |key: &str| !is_model(key) && key != OWN;
    let by = format!("by {} under {full}", metric.label());
    let (other, why) = match (best(&is_model), best(&floor)) {
        (Some((_, other)), _) => (other, format!("the best other model of the table {by}")),
        (None, Some((_, floor))) => (floor, format!("the best other row of the table {by}")),
        (None, None) => {
            return none("None: cases compare CUMDF with another model, and no other is tested");
        }
    };
    let truth = Truth { task: &source.task, ids: source.ids(), labels: source.labels() };
    cases::choose(truth, own, other, &why)
}
