//! The rows that tables choose from, as data.

use anyhow::{Result, bail};
use cumdf_train::{method::Entry, registry};

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
    /// What it is there for.
    pub kind: Kind,
    /// Whether it is in a table only when it is asked for: by its key, or by `--fair` beside the row
    /// of the same method.
    pub extra: bool,
    /// Settings of a first look, as after `--set`, of what takes long by its recipe: a first look is
    /// to be over in ten minutes on two cores. What the command line sets overrides them.
    pub quick: &'static [&'static str],
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

/// Both rows of CubeMLP, and of DMD, and all of the ablation, in a first look.
const QUICK_CUBEMLP: &[&str] = &["epochs=8"];
const QUICK_DMD: &[&str] = &["epochs=5"];
const QUICK_CUMDF: &[&str] = &["teacher.epochs=5", "student.epochs=10"];

/// The rows of the comparison tables, in the paper's order, then the floors. Methods that are
/// published for complete data have a second row below their own, trained as CUMDF's student is.
pub const COMPARISON: [Variant; 15] = [
    model("self-mm", "Self-MM"),
    masked("self-mm-mrms", "Self-MM (MRMS)", "self-mm"),
    Variant { quick: QUICK_CUBEMLP, ..model("cubemlp", "CubeMLP") },
    Variant { quick: QUICK_CUBEMLP, ..masked("cubemlp-mrms", "CubeMLP (MRMS)", "cubemlp") },
    Variant { quick: QUICK_DMD, ..model("dmd", "DMD") },
    Variant { quick: QUICK_DMD, ..masked("dmd-mrms", "DMD (MRMS)", "dmd") },
    Variant { quick: &["epochs=12"], ..model("mctn", "MCTN") },
    Variant { quick: &["epochs=5"], ..model("emt", "EMT") },
    // As many epochs as its recipe keeps the step size constant.
    Variant { quick: &["teacher.epochs=10", "student.epochs=20"], ..model("if-mmin", "IF-MMIN") },
    // Its recipe's warm-up alone would take longer.
    Variant { quick: &["epochs=5", "train.warmup_epochs=1.0"], ..model("transm", "TransM") },
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

/// The rows of the ablation: CUMDF, what is left of it without a part, what each departure of the
/// recipe `recommended` from the print is worth (the row has the print's value and all others of the
/// recipe), and the floors.
pub const ABLATION: [Variant; 21] = [
    without("cumdf", "CUMDF", &["student.distillation=true"]),
    without("cumdf-no-mke", "w/o MKE", &["model.mke=false"]),
    without("cumdf-no-lg-mmt", "w/o LG-MMT", &["model.lg_mmt=false"]),
    without("cumdf-no-maci", "w/o MACI", &["model.maci=false"]),
    without(
        "cumdf-bare",
        "w/o all three",
        &["model.mke=false", "model.lg_mmt=false", "model.maci=false"],
    ),
    without("cumdf-no-distillation", "w/o distillation", &["student.distillation=false"]),
    without("cumdf-hard-labels", "paper: hard labels", &["data.soft_labels=false"]),
    without(
        "cumdf-more-holes",
        "paper: holes up to 0.7",
        &["masks.drop_ratios=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]"],
    ),
    without("cumdf-kernels", "all kernels of 3", &["model.kernel_sizes=[3, 3, 3]"]),
    without("cumdf-linear-conv", "paper: no ReLU", &["model.conv_activation='none'"]),
    without("cumdf-no-pool-norm", "paper: no pool norm", &["model.pool_norm='none'"]),
    without("cumdf-fused-head", "paper: head on H alone", &["model.head_pooled=false"]),
    without("cumdf-zeros", "paper: zeros where missing", &["model.missing_embedding=false"]),
    without("cumdf-constant-rate", "paper: constant rate", &["train.schedule='constant'"]),
    without(
        "cumdf-no-decay",
        "paper: no weight decay",
        &["train.weight_decay=0.0", "train.decoupled_decay=false"],
    ),
    without("cumdf-no-score-loss", "paper: no score loss", &["loss.score=0.0"]),
    without(
        "cumdf-paper-teacher",
        "paper: teacher and SRD",
        &[
            "teacher.folds=1",
            "teacher.oracle_rate=0.5",
            "student.teacher_guide='label'",
            "student.teacher_share=0.0",
            "student.srd='cosine'",
            "student.srd_projection='both'",
            "loss.srd=0.1",
        ],
    ),
    Variant {
        extra: true, // it takes many times as long
        ..without(
            "cumdf-wide",
            "paper: d = 300",
            &["model.hidden_dim=300", "model.ffn_dim=600", "model.n_heads=6"],
        )
    },
    floor(CONSTANT, "constant (floor)"),
    floor("linear", "linear (floor)"),
    floor("mlp", "MLP (floor)"),
];

/// A row of CUMDF with other settings. There are many, so that a first look is shorter than the
/// comparison's: the row `cumdf` of the two is another training then.
const fn without(key: &'static str, name: &'static str, set: &'static [&'static str]) -> Variant {
    Variant { method: "cumdf", set, quick: QUICK_CUMDF, ..model(key, name) }
}

/// A row of the method of that name, as it is.
const fn model(key: &'static str, name: &'static str) -> Variant {
    Variant {
        key,
        name,
        method: key,
        recipe: None,
        set: &[],
        kind: Kind::Trained,
        extra: false,
        quick: &[],
    }
}

/// A row of a method that sees complete data by its recipe: here it sees data with missing
/// modalities in training, and is chosen on such.
const fn masked(key: &'static str, name: &'static str, method: &'static str) -> Variant {
    Variant { method, set: &["sees='masked'"], extra: true, ..model(key, name) }
}

const fn floor(key: &'static str, name: &'static str) -> Variant {
    Variant { kind: Kind::Floor, ..model(key, name) }
}

/// The keys in the order in which rows are run: CUMDF and the floors, then the others as they cost.
const RUN_ORDER: [&str; 15] = [
    "cumdf",
    "cumdf-no-distillation",
    CONSTANT,
    "linear",
    "mlp",
    "self-mm",
    "self-mm-mrms",
    "cubemlp",
    "cubemlp-mrms",
    "emt",
    "transm",
    "if-mmin",
    "dmd",
    "dmd-mrms",
    "mctn",
];

/// What stands for all rows on the command line.
pub const ALL: &str = "all";

impl Variant {
    /// How its figures come about.
    pub fn work(&self) -> Work {
        if self.method == CONSTANT {
            return Work::Constant;
        }
        match fitted::find(self.method) {
            Some(fitted) => Work::Fit(fitted),
            None => Work::Train(
                registry::find(self.method)
                    .expect("every row's method is in the registry: a test asks for each"),
            ),
        }
    }

    /// Its place in the order in which rows are run; those of the ablation come last.
    pub fn turn(&self) -> usize {
        RUN_ORDER.iter().position(|key| *key == self.key).unwrap_or(RUN_ORDER.len())
    }
}

/// The row of that key, of whatever table.
pub fn find(key: &str) -> Option<&'static Variant> {
    static ALL: [&[Variant]; 2] = [&COMPARISON, &ABLATION];
    ALL.into_iter().flatten().find(|v| v.key == key)
}

/// The rows with the given keys, in the order of `all`. Without a key, or with the key `all`: all but
/// those that must be asked for.
///
/// The floors always come along: every other row is read against them.
///
/// - `fair`: whether the rows that are there only when asked for stand below those of their methods
///
/// # Errors
/// When a key is unknown, or `fair` finds no row to add.
pub fn select(all: &[Variant], keys: &[String], fair: bool) -> Result<Vec<Variant>> {
    for key in keys.iter().filter(|key| *key != ALL) {
        if all.iter().all(|v| v.key != key) {
            let known: Vec<_> = all.iter().map(|v| v.key).collect();
            bail!("--models {key}: no such model; known are {}, all", known.join(", "));
        }
    }
    let named = |name: &str| keys.iter().any(|key| key == name);
    let whole = keys.is_empty() || named(ALL);
    let beside = |v: &Variant| fair && (whole || named(v.method));
    if fair && !all.iter().any(|v| v.extra && (named(v.key) || beside(v))) {
        let have: Vec<_> = all.iter().filter(|v| v.extra).map(|v| v.method).collect();
        bail!(
            "--fair: none of the chosen rows has an (MRMS) row to go with it; those of {} have",
            have.join(", ")
        );
    }
    let chosen = |v: &&Variant| match v.kind {
        Kind::Floor => true,
        Kind::Trained if v.extra => named(v.key) || beside(v),
        Kind::Trained => whole || named(v.key),
    };
    Ok(all.iter().filter(chosen).copied().collect())
}

#[cfg(test)]
mod tests {
    use cumdf_train::{config::Config, registry::METHODS};

    use super::*;

    fn keys(wanted: &[&str]) -> Result<Vec<&'static str>> {
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        Ok(select(&COMPARISON, &wanted, false)?.into_iter().map(|v| v.key).collect())
    }

    #[test]
    fn rows_are_chosen_by_key_and_the_floors_stay() {
        let plain: Vec<_> = COMPARISON.iter().filter(|v| !v.extra).map(|v| v.key).collect();
        assert_eq!(plain.len(), 12);
        assert_eq!(keys(&[]).unwrap(), plain);
        assert_eq!(keys(&["all"]).unwrap(), plain);
        let chosen = keys(&["cumdf"]).unwrap();
        assert_eq!(chosen[..2], ["cumdf", "constant"]);
        assert!(chosen.iter().all(|key| ["cumdf", "constant", "linear", "mlp"].contains(key)));
        let err = keys(&["cumdv"]).unwrap_err().to_string();
        assert!(err.contains("known are self-mm, self-mm-mrms, cubemlp"), "{err}");
    }

    #[test]
    fn the_rows_that_are_asked_for_stand_below_those_of_their_methods() {
        let fair = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
            let rows = select(&COMPARISON, &wanted, true)?;
            Ok::<Vec<_>, anyhow::Error>(rows.into_iter().map(|v| v.key).collect())
        };
        assert_eq!(fair(&["self-mm"]).unwrap()[..3], ["self-mm", "self-mm-mrms", "constant"]);
        for alone in [keys(&["self-mm-mrms"]), fair(&["self-mm-mrms"])] {
            assert_eq!(alone.unwrap()[..2], ["self-mm-mrms", "constant"]);
        }
        for all in [fair(&[]).unwrap(), fair(&["all"]).unwrap()] {
            for v in COMPARISON.iter().filter(|v| v.extra) {
                let at = all.iter().position(|key| *key == v.key);
                assert!(at.is_some_and(|at| all[at - 1] == v.method), "{}: {all:?}", v.key);
            }
        }
        let err = fair(&["cumdf"]).unwrap_err().to_string();
        assert!(err.starts_with("--fair: none of the chosen rows"), "{err}");
        assert!(err.contains("those of self-mm, cubemlp, dmd have"), "{err}");
    }

    #[test]
    fn every_row_has_one_place_in_the_order_of_running() {
        let mut places = COMPARISON.map(|v| v.turn());
        places.sort_unstable();
        assert!(places.iter().copied().eq(0..COMPARISON.len()), "{places:?}");
    }

    /// The resolved settings of a row's method with `sets`.
    fn resolve(v: &Variant, sets: &[&str]) -> serde_json::Value {
        let sets: Vec<_> = sets.iter().map(ToString::to_string).collect();
        let config = Config::resolve(Some(v.method), None, None, &sets);
        config.unwrap_or_else(|err| panic!("{}: {err:#}", v.key)).to_json()
    }

    #[test]
    fn a_row_that_is_asked_for_differs_from_its_methods_in_what_training_sees_alone() {
        for v in COMPARISON.iter().filter(|v| v.extra) {
            let (mut own, masked) = (resolve(v, &[]), resolve(v, v.set));
            assert_eq!([&own["sees"], &masked["sees"]], ["complete", "masked"], "{}", v.key);
            own["sees"] = "masked".into();
            assert_eq!(own, masked, "{}", v.key);
        }
    }

    /// Every key is the method's, and every value less than the recipe's.
    #[test]
    fn a_first_look_shortens_what_takes_long_and_nothing_else() {
        for v in COMPARISON.iter().chain(&ABLATION).filter(|v| !v.quick.is_empty()) {
            let (recipe, quick) = (resolve(v, &[]), resolve(v, v.quick));
            for set in v.quick {
                let at = format!("/{}", set.split('=').next().unwrap().replace('.', "/"));
                let [own, less] = [&recipe, &quick].map(|table| table.pointer(&at).unwrap());
                assert!(less.as_f64() < own.as_f64(), "{}: {set}, and its recipe {own}", v.key);
            }
        }
    }

    /// A row `paper: ..` has the recipe `paper`'s values of its keys, which are not `recommended`'s.
    #[test]
    fn rows_of_the_ablation_take_one_thing_back_to_the_print() {
        let value = |table: &serde_json::Value, set: &str| {
            let at = format!("/{}", set.split('=').next().unwrap().replace('.', "/"));
            table.pointer(&at).unwrap_or_else(|| panic!("{set}: no such key")).clone()
        };
        let rows = ABLATION.iter().filter(|v| v.kind == Kind::Trained);
        let keys: std::collections::BTreeSet<_> = rows.clone().map(|v| v.key).collect();
        assert_eq!(keys.len(), rows.clone().count(), "a key stands twice");
        for v in rows {
            let recommended = resolve(v, &["recipe=recommended"]);
            let changed = resolve(v, &[&["recipe=recommended"], v.set].concat());
            assert_eq!(recommended == changed, v.key == "cumdf", "{}", v.key);
            if v.name.starts_with("paper: ") {
                let paper = resolve(v, &["recipe=paper"]);
                for set in v.set {
                    assert_eq!(value(&changed, set), value(&paper, set), "{}: {set}", v.key);
                    assert_ne!(value(&changed, set), value(&recommended, set), "{}: {set}", v.key);
                }
            }
        }
    }

    #[test]
    fn every_row_has_a_method_and_every_method_a_row() {
        for variant in COMPARISON {
            match variant.work() {
                Work::Train(entry) => assert_eq!(entry.name, variant.method),
                Work::Fit(_) | Work::Constant => assert_eq!(variant.kind, Kind::Floor),
            }
        }
        for entry in METHODS {
            assert!(COMPARISON.iter().any(|v| v.method == entry.name), "{}: no row", entry.name);
        }
    }
}
