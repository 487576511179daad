//! The rows that tables choose from, as data. Which of them can be run is asked of the trainer's
//! registry at run time: a method's line there brings its row to life.

use anyhow::{Result, bail};
use cumdf_train::{
    method::Entry,
    registry::{self, METHODS},
};

use super::fitted::{self, Fitted};
use crate::report::table::Kind;

/// A row: a method, with what is changed in its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// Name on the command line, in JSON, CSV, folders and the paper's figures.
    pub key: &'static str,
    /// Name in a table.
    pub name: &'static str,
    /// The method's name in the registry, or that of a floor that needs no training.
    pub method: &'static str,
    /// The recipe to start from, where no configuration says otherwise; `None` is the method's
    /// default for the labels.
    pub recipe: Option<&'static str>,
    /// Settings that make this row what it is, as after `--set`; nothing overrides them.
    pub set: &'static [&'static str],
    /// [`Kind::Trained`] or [`Kind::Floor`], whether or not it is built yet.
    pub kind: Kind,
}

/// How the figures of a row come about.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// By training, once per seed.
    Train(&'static Entry),
    /// By solving for them: no seed plays a part.
    Fit(&'static Fitted),
    /// From the labels alone: the constant answer.
    Constant,
}

/// The method of the constant answer.
const CONSTANT: &str = "constant";

/// The rows of the comparison tables, in the paper's order, then the floors.
pub const COMPARISON: [Variant; 12] = [
    model("self-mm", "Self-MM"),
    model("cubemlp", "CubeMLP"),
    model("dmd", "DMD"),
    model("mctn", "MCTN"),
    model("emt", "EMT"),
    model("if-mmin", "IF-MMIN"),
    model("transm", "TransM"),
    Variant { set: &["student.distillation=true"], ..model("cumdf", "CUMDF") },
    Variant {
        method: "cumdf",
        set: &["student.distillation=false"],
        ..model("cumdf-no-distillation", "CUMDF w/o distillation")
    },
    floor(CONSTANT, "constant (floor)"),
    floor("linear", "linear (floor)"),
    floor("mlp", "MLP (floor)"),
];

/// A row of the method of that name, as it is.
const fn model(key: &'static str, name: &'static str) -> Variant {
    Variant { key, name, method: key, recipe: None, set: &[], kind: Kind::Trained }
}

const fn floor(key: &'static str, name: &'static str) -> Variant {
    Variant { kind: Kind::Floor, ..model(key, name) }
}

/// Rows that a first look leaves out, because it is to take about two minutes on two cores.
const NOT_AT_FIRST: [&str; 1] = ["if-mmin"]; // takes as long as both rows of CUMDF

/// Whether a row is built, and left out of a first look.
pub fn is_costly(variant: &Variant) -> bool {
    variant.work().is_some() && NOT_AT_FIRST.contains(&variant.key)
}

/// What stands for all rows on the command line.
const ALL: &str = "all";

impl Variant {
    /// How its figures come about; `None` while its method is not built.
    pub fn work(&self) -> Option<Work> {
        if self.method == CONSTANT {
            return Some(Work::Constant);
        }
        let fitted = fitted::find(self.method).map(Work::Fit);
        fitted.or_else(|| {
            let known = METHODS.iter().any(|entry| entry.name == self.method);
            known.then(|| Work::Train(registry::find(self.method).expect("it is in the registry")))
        })
    }

    /// Its kind in a table: reserved while its method is not built.
    pub fn row_kind(&self) -> Kind {
        if self.work().is_some() { self.kind } else { Kind::Reserved }
    }
}

/// The rows with the given keys, in the order of `all`. Without a key, or with the key `all`: all
/// that are built, and those that are reserved.
///
/// The floors that there are always come along: every other row is read against them.
///
/// - `first_look`: whether costly rows are left out that are not named
///
/// # Errors
/// When a key is unknown, or its row not built yet.
pub fn select(all: &[Variant], keys: &[String], first_look: bool) -> Result<Vec<Variant>> {
    let known = |wanted: &dyn Fn(&Variant) -> bool| {
        let keys: Vec<_> = all.iter().filter(|v| wanted(v)).map(|v| v.key).collect();
        keys.join(", ")
    };
    for key in keys.iter().filter(|key| *key != ALL) {
        match all.iter().find(|v| v.key == key) {
            None => bail!("--models {key}: no such model; known are {}, all", known(&|_| true)),
            Some(v) if v.work().is_none() => bail!(
                "--models {key}: {} is not built yet; its row is reserved, and {} can be run",
                v.name,
                known(&|v| v.work().is_some())
            ),
            Some(_) => {}
        }
    }
    let named = |name: &str| keys.iter().any(|key| key == name);
    let whole = keys.is_empty() || named(ALL);
    let left_out = |v: &Variant| keys.is_empty() && first_look && is_costly(v);
    let chosen = |v: &&Variant| match v.row_kind() {
        Kind::Floor => true,
        Kind::Reserved => whole,
        Kind::Trained => named(v.key) || (whole && !left_out(v)),
    };
    Ok(all.iter().filter(chosen).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(wanted: &[&str]) -> Result<Vec<&'static str>> {
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        Ok(select(&COMPARISON, &wanted, false)?.into_iter().map(|v| v.key).collect())
    }

    #[test]
    fn rows_are_chosen_by_key_and_the_floors_stay() {
        assert_eq!(keys(&[]).unwrap().len(), COMPARISON.len());
        assert_eq!(keys(&["all"]).unwrap().len(), COMPARISON.len());
        let chosen = keys(&["cumdf"]).unwrap();
        assert_eq!(chosen[..2], ["cumdf", "constant"]);
        assert!(chosen.iter().all(|key| ["cumdf", "constant", "linear", "mlp"].contains(key)));
        let err = keys(&["cumdv"]).unwrap_err().to_string();
        assert!(err.contains("known are self-mm, cubemlp"), "{err}");
        let at_first = select(&COMPARISON, &[], true).unwrap();
        for key in NOT_AT_FIRST {
            let live = COMPARISON.iter().any(|v| v.key == key && v.work().is_some());
            assert_eq!(at_first.iter().any(|v| v.key == key), !live, "{key}");
        }
    }

    #[test]
    fn a_row_lives_when_the_registry_has_its_method() {
        for variant in COMPARISON {
            let built = METHODS.iter().any(|entry| entry.name == variant.method)
                || fitted::find(variant.method).is_some()
                || variant.method == CONSTANT;
            assert_eq!(variant.work().is_some(), built, "{}", variant.key);
            assert_eq!(variant.row_kind() == Kind::Reserved, !built, "{}", variant.key);
            if !built {
                let err = keys(&[variant.key]).unwrap_err().to_string();
                assert!(err.contains(&format!("{} is not built yet", variant.name)), "{err}");
            }
        }
        for entry in METHODS {
            assert!(COMPARISON.iter().any(|v| v.method == entry.name), "{}: no row", entry.name);
        }
    }
}
