//! Which of the settings on the command line are whose: a table has rows of several methods, each
//! with keys of its own.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use cumdf_train::{
    config::{Config, LARGEST_SEED},
    method::Entry,
};
use serde_json::Value;

use super::{source::Source, variants::Variant};

/// Largest number of seeds: more is a slip.
const MOST_SEEDS: usize = 1000;

/// The configuration that says where a data set lies and how it is read, whatever the method.
///
/// # Errors
/// As [`Config::resolve`].
pub(super) fn base(config: Option<&Path>, data: Option<&Path>, sets: &[String]) -> Result<Config> {
    let of_data = |set: &&String| key(set).starts_with("data.");
    let sets: Vec<_> = sets.iter().filter(of_data).cloned().collect();
    Config::resolve(None, config, data, &sets)
}

/// The configurations of trained variants on one data set.
#[derive(Debug)]
pub(super) struct Resolved {
    /// One per variant, in order.
    pub configs: Vec<Config>,
    /// The settings of the command line in words, for a note: `train.batch_size=8 (no key of mlp)`.
    pub changed: Vec<String>,
    /// What a first look makes of the recipes, one for each change: `DMD trains 8 epochs instead of
    /// its recipe's 50`, `CUMDF, w/o MKE: each trains ..`.
    pub shortened: Vec<String>,
}

/// How settings are taken.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How {
    /// Whether variants take their quick settings, unless the command line has the key.
    pub first_look: bool,
    /// Whether a setting is passed over that no variant has.
    pub lenient: bool,
}

impl From<&super::Args> for How {
    fn from(args: &super::Args) -> Self {
        Self { first_look: args.is_first_look(), lenient: args.lenient }
    }
}

/// Resolves the configurations of `variants` on `source`. Each gets those of `sets` whose key it
/// has; what makes a variant what it is comes last.
///
/// # Errors
/// When no variant has a key, or values are out of range.
pub(super) fn resolve(
    source: &Source,
    variants: &[(Variant, &'static Entry)],
    sets: &[String],
    how: How,
) -> Result<Resolved> {
    let mut configs = Vec::new();
    let mut shorter: Vec<(String, Vec<&str>)> = Vec::new(); // a change, and the variants that have it
    let mut with: Vec<Vec<&str>> = vec![Vec::new(); sets.len()]; // keys of the variants that have it
    for (variant, entry) in variants {
        let recipe = variant.recipe.filter(|_| source.config(entry.name).is_none());
        let recipe = recipe.map(|name| format!("recipe={name}"));
        let plain: Vec<_> = recipe.iter().cloned().collect();
        let table = source.resolve(entry, &plain)?.to_json();
        let mut own = plain;
        for (set, with) in sets.iter().zip(&mut with) {
            if is_for(set, variant, entry, &table) {
                own.push(set.clone());
                with.push(variant.key);
            }
        }
        if how.first_look {
            let quick: Vec<_> = quick(variant, sets).collect();
            if let Some(change) = in_words(&quick, &table) {
                match shorter.iter_mut().find(|(known, _)| *known == change) {
                    Some((_, names)) => names.push(variant.name),
                    None => shorter.push((change, vec![variant.name])),
                }
            }
            own.extend(quick.into_iter().map(str::to_owned));
        }
        own.extend(variant.set.iter().map(ToString::to_string));
        let config = source.resolve(entry, &own).with_context(|| variant.key.to_owned())?;
        configs.push(config);
    }
    let mut changed = Vec::new();
    for (set, with) in sets.iter().zip(&with) {
        let without: Vec<_> =
            variants.iter().map(|(v, _)| v.key).filter(|key| !with.contains(key)).collect();
        match (with.is_empty(), without.is_empty()) {
            (true, _) if key(set).starts_with("data.") && variants.is_empty() => {}
            (true, _) if how.lenient => {}
            (true, _) => return Err(nobody_has(set, source, variants)),
            (false, true) => changed.push(set.clone()),
            (false, false) => changed.push(format!("{set} (not for {})", without.join(", "))),
        }
    }
    let in_words = |(change, names): (String, Vec<&str>)| match names.as_slice() {
        [name] => format!("{name} {change}"),
        all => format!("{}: each {change}", all.join(", ")),
    };
    let shortened = shorter.into_iter().map(in_words).collect();
    Ok(Resolved { configs, changed, shortened })
}

/// The quick settings of a variant whose keys, or the tables that hold them, are not among `sets`.
fn quick<'a>(variant: &Variant, sets: &'a [String]) -> impl Iterator<Item = &'static str> + 'a {
    let is_given = move |quick: &str| {
        sets.iter().any(|set| {
            let rest = key(quick).strip_prefix(key(set));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    variant.quick.iter().copied().filter(move |quick| !is_given(quick))
}

/// What settings change in a recipe; `None` when there are none.
///
/// - `recipe`: its resolved table
fn in_words(sets: &[&str], recipe: &Value) -> Option<String> {
    let part = |set: &&str| {
        let (key, value) = set.split_once('=').unwrap_or((set, ""));
        let own = recipe.pointer(&format!("/{}", key.replace('.', "/")))?;
        Some(match key.rsplit_once('.') {
            _ if key == "epochs" => format!("trains {value} epochs instead of its recipe's {own}"),
            Some((stage, "epochs")) => {
                format!("trains {value} epochs of its {stage} instead of its recipe's {own}")
            }
            _ => format!("has {key} = {value} instead of its recipe's {own}"),
        })
    };
    let parts: Vec<_> = sets.iter().filter_map(part).collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

/// Whether a setting is one of a variant's, and not one that the variant itself decides.
fn is_for(set: &str, variant: &Variant, entry: &Entry, table: &Value) -> bool {
    let name = key(set);
    if name == "recipe" {
        let value = set.split_once('=').map_or("", |(_, value)| value).trim().trim_matches('"');
        return entry.recipes.iter().any(|recipe| recipe.name == value);
    }
    has(table, name) && !variant.set.iter().any(|own| key(own) == name)
}

/// Whether a resolved configuration has a key. Groups of parameters have names of their own, which
/// no table lists.
fn has(table: &Value, name: &str) -> bool {
    let mut at = table;
    for part in name.split('.') {
        match at.get(part) {
            Some(_) if part == "groups" => return true,
            Some(inner) => at = inner,
            None => return false,
        }
    }
    true
}

pub(super) fn key(set: &str) -> &str {
    set.split_once('=').map_or(set, |(key, _)| key).trim()
}

/// Why a setting is refused that none of the rows can follow.
fn nobody_has(set: &str, source: &Source, variants: &[(Variant, &'static Entry)]) -> anyhow::Error {
    let Some((_, entry)) = variants.first() else {
        return anyhow!("--set {set}: none of the chosen rows is trained");
    };
    if let Some((variant, _)) =
        variants.iter().find(|(v, _)| v.set.iter().any(|own| key(own) == key(set)))
    {
        return anyhow!(
            "--set {set}: the rows of this table decide {} themselves ({} has {}); choose rows \
             with --models",
            key(set),
            variant.key,
            variant.set.join(", ")
        );
    }
    // The trainer's own words, with a key that may be meant.
    match source.resolve(entry, &[set.to_owned()]) {
        Err(err) => err,
        Ok(_) => anyhow!("--set {set}: no row of this table has that key"),
    }
}

/// Reads `--seeds`.
///
/// # Errors
/// In plain words.
pub(super) fn parse_seeds(text: &str) -> Result<usize, String> {
    let n = text.parse().ok().filter(|n| (1..=MOST_SEEDS).contains(n));
    n.ok_or_else(|| format!("the number of seeds is a whole number from 1 to {MOST_SEEDS}"))
}

/// The seeds `first`, `first + 1`, ..: `n` of them.
///
/// # Errors
/// When the last one would be too large to be exact everywhere.
pub(super) fn seeds(first: u64, n: usize) -> Result<Vec<u64>> {
    let last = first.checked_add(n as u64 - 1).filter(|last| *last <= LARGEST_SEED);
    let Some(last) = last else {
        bail!(
            "--seeds {n}: counted up from seed = {first}, they would exceed {LARGEST_SEED}, the \
             largest seed; choose a smaller --set seed=.."
        );
    };
    ensure!(n > 0, "--seeds 0: there is nothing to do");
    Ok((first..=last).collect())
}

#[cfg(test)]
mod tests {
    use cumdf_data::Modality;

    use super::*;
    use crate::grid::variants::{ABLATION, COMPARISON, Work};

    #[test]
    fn the_number_of_seeds_is_told_in_plain_words() {
        assert_eq!(parse_seeds("5"), Ok(5));
        for bad in ["0", "-1", "1.5", "x", "", "1001", "99999999999999999999"] {
            let err = parse_seeds(bad).unwrap_err();
            assert_eq!(err, "the number of seeds is a whole number from 1 to 1000", "{bad}");
        }
    }

    #[test]
    fn seeds_beyond_the_largest_are_refused_and_do_not_panic() {
        assert_eq!(seeds(7, 3).unwrap(), [7, 8, 9]);
        assert_eq!(seeds(LARGEST_SEED, 1).unwrap(), [LARGEST_SEED]);
        for first in [LARGEST_SEED, i64::MAX as u64, u64::MAX] {
            let err = seeds(first, 2).unwrap_err().to_string();
            assert!(err.contains("the largest seed"), "{err}");
        }
    }

    fn row(key: &str) -> (Variant, &'static Entry) {
        let variant = COMPARISON.into_iter().find(|v| v.key == key).unwrap();
        let Work::Train(entry) = variant.work() else { panic!("{key} is not trained") };
        (variant, entry)
    }

    #[test]
    fn a_first_look_is_short_where_nothing_else_is_said_and_says_so() {
        let all = [Modality::Language, Modality::Audio, Modality::Vision];
        let source = Source::of_nothing(&all, &all);
        let rows = ["cumdf", "if-mmin"].map(row);
        let [cumdf, if_mmin] = &rows;
        assert!(cumdf.0.quick.is_empty());
        assert_eq!(if_mmin.0.quick, ["teacher.epochs=10", "student.epochs=20"]);
        let resolved = |sets: &[&str], first_look: bool| {
            let sets: Vec<_> = sets.iter().map(ToString::to_string).collect();
            let how = How { first_look, lenient: false };
            let resolved = resolve(&source, &rows, &sets, how).unwrap();
            let epochs = |config: &Config| {
                let stages = config.method.stages();
                stages.iter().map(|stage| stage.epochs).collect::<Vec<_>>()
            };
            let epochs: Vec<_> = resolved.configs.iter().map(epochs).collect();
            (epochs, resolved.shortened)
        };
        let unknown = ["nobody.has=1".to_owned()];
        let taken = |lenient| resolve(&source, &rows, &unknown, How { first_look: false, lenient });
        assert!(taken(false).is_err() && taken(true).unwrap().changed.is_empty());
        assert_eq!(resolved(&[], false), (vec![vec![10, 20], vec![20, 40]], vec![]));
        let note = "IF-MMIN trains 10 epochs of its teacher instead of its recipe's 20 and trains 20 \
                    epochs of its student instead of its recipe's 40";
        assert_eq!(resolved(&[], true), (vec![vec![10, 20], vec![10, 20]], vec![note.to_owned()]));
        // What several rows have in common is said once.
        let entry = rows[0].1;
        let alike: Vec<_> = ABLATION[..2].iter().map(|variant| (*variant, entry)).collect();
        let how = How { first_look: true, lenient: false };
        assert_eq!(
            resolve(&source, &alike, &[], how).unwrap().shortened,
            ["CUMDF, w/o MKE: each trains 5 epochs of its teacher instead of its recipe's 10 and \
                 trains 10 epochs of its student instead of its recipe's 20"]
        );
        let (epochs, shortened) = resolved(&["student.epochs=30"], true);
        assert_eq!(epochs, [[10, 30], [10, 30]]);
        assert!(!shortened[0].contains("student"), "{shortened:?}");
        let both = ["student.epochs=30", "teacher.epochs=12"];
        assert_eq!(resolved(&both, true), (vec![vec![12, 30], vec![12, 30]], vec![]));
    }

    #[test]
    fn a_table_that_is_set_whole_overrides_its_quick_keys_and_a_longer_name_does_not() {
        let variant = Variant { quick: &["train.epochs=3", "epochs=8"], ..row("cumdf").0 };
        let left = |sets: &[&str]| {
            let sets: Vec<_> = sets.iter().map(ToString::to_string).collect();
            quick(&variant, &sets).collect::<Vec<_>>()
        };
        assert_eq!(left(&["train={epochs=1}"]), ["epochs=8"]);
        assert_eq!(left(&["epochs = 9"]), ["train.epochs=3"]);
        assert_eq!(left(&["train.epochs_more=1", "epoch=1"]), ["train.epochs=3", "epochs=8"]);
        let table = serde_json::json!({ "epochs": 50, "train": { "patience": 9 } });
        assert_eq!(
            in_words(&["epochs=8", "train.patience=2"], &table).unwrap(),
            "trains 8 epochs instead of its recipe's 50 and has train.patience = 2 instead of \
             its recipe's 9"
        );
    }

    #[test]
    fn a_key_is_found_by_its_path_and_groups_have_names_of_their_own() {
        let table =
            serde_json::json!({ "seed": 1, "train": { "clip": { "norm": 1.0 }, "groups": {} } });
        for known in ["seed", "train", "train.clip.norm", "train.groups.audio.learning_rate"] {
            assert!(has(&table, known), "{known}");
        }
        for unknown in ["epochs", "train.epochs", "seed.x", "train.clip.value"] {
            assert!(!has(&table, unknown), "{unknown}");
        }
    }
}
