//! What is written below Table 1: what its rows rest on, and what to think of when reading them.

use cumdf_data::{ModalitySet, Split};
use cumdf_train::metrics::{Metric, Metrics};

use crate::{
    difference::{
        LEVEL,
        bootstrap::{DRAWS, Draws},
    },
    grid::{
        Measured, Run,
        source::Source,
        variants::{self, Variant},
    },
    paper,
    report::table::Section,
};

/// The paper's number of seeds.
const PAPER_SEEDS: usize = 5;

/// What a first look makes of the recipes, if anything.
pub(super) fn first_look(shortened: &[String]) -> Option<String> {
    (!shortened.is_empty()).then(|| {
        let rows = shortened.join("; ");
        format!("first look: {rows} (give --models all for the recipes' own)")
    })
}

/// What the floors are, by the keys of their rows.
const FLOOR_NOTES: [(&str, &str); 3] = [
    (
        "constant",
        "constant: the same answer for every sample, chosen on the training split for each metric \
         (median score, commoner sign, commonest class)",
    ),
    (
        "linear",
        "linear: a linear model of mean features, one per condition (ridge regression for scores, \
         multinomial logistic regression for emotions); it depends on no seed",
    ),
    (
        "mlp",
        "MLP: one hidden layer on mean features, trained with missing modalities, one for all \
         conditions",
    ),
];

/// What the columns that sum up others are over.
///
/// - `printed`: whether the paper's figures stand beside them
fn summaries(source: &Source, printed: bool) -> String {
    let (n, distinct) = (ModalitySet::CONDITIONS.len(), source.distinct());
    let over = match distinct.len() {
        all if all == n => format!("all {n} conditions"),
        some => {
            let names: Vec<_> = distinct.iter().map(ToString::to_string).collect();
            let paper =
                if printed { format!("; the paper's: over all {n}") } else { String::new() };
            format!(
                "the {some} conditions that this file answers, equal columns once: {}{paper}",
                names.join(" ")
            )
        }
    };
    format!("mean, worst: of each seed by itself, then the mean over seeds; over {over}")
}

/// What all tables over conditions have to say: of the columns, the floors and other rows, and of
/// modalities that are never trained.
pub(super) fn of_conditions(source: &Source, rows: &[Variant], printed: bool) -> Vec<String> {
    let summaries = [summaries(source, printed)].into_iter();
    summaries.chain(floors(rows)).chain(fair(rows)).chain(source.untrained()).collect()
}

/// A note for each floor among `rows`.
fn floors(rows: &[Variant]) -> impl Iterator<Item = String> {
    let is_there = |key: &&(&str, &str)| rows.iter().any(|v| v.key == key.0);
    FLOOR_NOTES.iter().filter(is_there).map(|(_, note)| (*note).to_owned())
}

/// What the rows are that are there only when asked for.
fn fair(rows: &[Variant]) -> Option<String> {
    rows.iter().any(|v| v.extra).then(|| {
        "(MRMS): the same recipe, trained under missing modalities as CUMDF is and chosen on them. \
         What it gains on the row above is owed to the augmentation; what CUMDF is ahead of it, to \
         the method"
            .to_owned()
    })
}

/// The file, the recipes of the rows, and what the command line changed in them.
pub(super) fn data(measured: &Measured, s: usize, rows: &[Variant]) -> String {
    let recipe = |v: &Variant| {
        let recipe = measured.runs_of(s, v.key).find_map(|run| run.recipe.clone())?;
        Some((v.key, recipe))
    };
    let recipes: Vec<_> = rows.iter().filter_map(recipe).collect();
    let mut note = format!("data: {}", measured.sources[s].file.display());
    match recipes.as_slice() {
        [] => {}
        [(_, first), others @ ..] if others.iter().all(|(_, other)| other == first) => {
            note += &format!("; recipe: {first}");
        }
        all => {
            let all: Vec<_> = all.iter().map(|(key, recipe)| format!("{key}: {recipe}")).collect();
            note += &format!("; recipes: {}", all.join(", "));
        }
    }
    if !measured.changed[s].is_empty() {
        note += &format!("; changed: {}", measured.changed[s].join(", "));
    }
    note
}

pub(super) fn seeds(n_seeds: usize) -> String {
    match n_seeds {
        1 => format!("a single seed (the paper: {PAPER_SEEDS}), so there is no standard deviation"),
        PAPER_SEEDS => format!("mean ± sample standard deviation over {n_seeds} seeds"),
        n => format!("mean ± sample standard deviation over {n} seeds (the paper: {PAPER_SEEDS})"),
    }
}

/// How rows were compared.
pub(super) fn compared(section: &Section, draws: &Draws, split: Split) -> String {
    let metrics = section.comparisons.iter().map(|c| section.metrics[c.metric].label());
    let mut metrics: Vec<_> = metrics.collect();
    metrics.dedup();
    let groups = match draws.groups() {
        (true, n) => format!("{n} videos, drawn whole"),
        (false, n) => format!("{n} samples"),
    };
    let seeds = match section.comparisons.iter().any(|c| c.difference.seeds.is_some()) {
        true => "and, over seeds, the 95 % t interval of the paired differences leaves out 0",
        false => "for these trainings: one seed does not tell what another would give",
    };
    format!(
        "more than chance ({}): a paired bootstrap of the {split} split ({groups}, {DRAWS} times) has p \
         of at most {LEVEL} after Holm's correction over all such pairs of the metric, {seeds}",
        metrics.join(", ")
    )
}

/// What to know of a row of which some seeds failed and others did not.
pub(super) fn partly_failed(measured: &Measured, s: usize, variant: &Variant) -> Option<String> {
    let (good, failed): (Vec<&Run>, Vec<&Run>) =
        measured.runs_of(s, variant.key).partition(|run| run.outcome.is_ok());
    let seeds: Vec<_> = failed.iter().filter_map(|run| Some(run.seed?.to_string())).collect();
    (!good.is_empty() && !seeds.is_empty()).then(|| {
        format!(
            "{}: mean of {} seeds only, because seed {} failed",
            variant.key,
            good.len(),
            seeds.join(", ")
        )
    })
}

/// Where the paper's figures are from, and what to think of when reading them.
pub(super) fn paper(printed: &paper::Source, section: &Section, constant: &Metrics) -> Vec<String> {
    let mut note = format!("paper: its Table {}, {}, 5 seeds", printed.table, printed.dataset);
    if !printed.differences.is_empty() {
        note += "; this file is not the paper's data: ";
        note += &printed.differences.join("; ");
    }
    let mut notes = vec![note];
    for (i, metric) in section.metrics.iter().enumerate() {
        let figures: Vec<_> = variants::COMPARISON
            .iter()
            .flat_map(|m| ModalitySet::CONDITIONS.into_iter().enumerate().map(|c| (c, m.key)))
            .filter_map(|((c, set), model)| {
                Some((c, set, paper::figure(printed, model, &set.key(), metric)?))
            })
            .collect();
        let verdicts: Vec<_> = figures
            .iter()
            .filter_map(|(c, _, figure)| Some((section.floor(*c, i)?.estimate.mean, *figure)))
            .map(|(floor, figure)| metric.is_better(floor, figure))
            .collect();
        let worse = verdicts.iter().filter(|worse| **worse).count();
        if worse > 0 {
            notes.push(format!(
                "{worse} of the paper's {} figures of {} are worse than the best floor on this file",
                verdicts.len(),
                metric.label()
            ));
        }
        let alone = figures.iter().filter(|(_, set, _)| set.len() == 1);
        let worst = alone.map(|(_, _, figure)| *figure).fold(f64::NAN, f64::max);
        let constant = constant.get(metric).unwrap_or(f64::NAN);
        if *metric == Metric::Mae && worst < 0.7 * constant {
            notes.push(format!(
                "with a single modality the paper's MAE is never worse than {}, while a constant \
                 answer has {} on this file: audio or vision alone rarely says that much about a \
                 score, so read these figures with care",
                metric.format(worst),
                metric.format(constant)
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::{Cell, Column, Estimate, Kind, Row, Value};

    /// A section with one floor row that has `floor` in every column.
    fn section(metric: Metric, floor: f64) -> Section {
        let value = || Value::Measured(Estimate { mean: floor, std: None, seeds: 1 });
        let cell = || vec![Cell { value: value(), paper: None }];
        let columns = ModalitySet::CONDITIONS.map(|c| Column {
            key: c.key(),
            label: c.to_string(),
            ..Column::default()
        });
        Section {
            dataset: String::new(),
            summary: String::new(),
            columns: columns.into(),
            metrics: vec![metric],
            n_headline: 1,
            counted: vec![],
            rows: vec![Row {
                model: "constant".into(),
                name: "constant (floor)".into(),
                kind: Kind::Floor,
                cells: ModalitySet::CONDITIONS.map(|_| cell()).into(),
                cost: None,
            }],
            comparisons: vec![],
            notes: vec![],
        }
    }

    #[test]
    fn a_first_look_says_what_it_shortens_and_how_to_have_it_whole() {
        assert_eq!(first_look(&[]), None);
        let row = "DMD trains 8 epochs instead of its recipe's 50".to_owned();
        assert_eq!(
            first_look(&[row]).unwrap(),
            "first look: DMD trains 8 epochs instead of its recipe's 50 (give --models all for the \
             recipes' own)"
        );
    }

    #[test]
    fn the_papers_oddities_are_told() {
        let mosi = paper::source("CMU-MOSI (bc-LSTM features)", [1284, 229, 686], [100, 73, 100]);
        let constant = Metrics(vec![(Metric::Mae, 1.377)]);
        let notes = paper(&mosi.unwrap(), &section(Metric::Mae, 1.377), &constant);
        assert_eq!(
            notes[0],
            "paper: its Table 1, MOSI, 5 seeds; this file is not the paper's data: language has 100 \
             features per step, the paper's 300; audio has 73 features per step, the paper's 74; \
             vision has 100 features per step, the paper's 1024"
        );
        let start = "with a single modality the paper's MAE is never worse than 0.857";
        assert!(notes[1].starts_with(start), "{notes:?}");
        assert_eq!(notes.len(), 2);

        let iemocap = paper::source("IEMOCAP", [2717, 798, 938], [300, 74, 1024]).unwrap();
        let happy = Metric::F1Class("happy".into());
        let notes = paper(&iemocap, &section(happy, 0.79), &Metrics::default());
        let claim =
            "36 of the paper's 56 figures of F1 happy are worse than the best floor on this file";
        assert_eq!(notes, ["paper: its Table 2, IEMOCAP, 5 seeds", claim]);
    }
}
