//! The rows of the comparison tables, in the paper's order.

use anyhow::{Result, bail};

use crate::report::table::Kind;

/// A row of a comparison table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// Name on the command line, in JSON, CSV and the paper's figures.
    pub key: &'static str,
    /// Name in a table.
    pub name: &'static str,
    /// Whether it is trained, a floor, or kept for a model that is not built yet.
    pub kind: Kind,
}

/// All rows.
pub const MODELS: [Model; 10] = [
    Model { key: "self-mm", name: "Self-MM", kind: Kind::Reserved },
    Model { key: "cubemlp", name: "CubeMLP", kind: Kind::Reserved },
    Model { key: "dmd", name: "DMD", kind: Kind::Reserved },
    Model { key: "mctn", name: "MCTN", kind: Kind::Reserved },
    Model { key: "emt", name: "EMT", kind: Kind::Reserved },
    Model { key: "if-mmin", name: "IF-MMIN", kind: Kind::Reserved },
    Model { key: "transm", name: "TransM", kind: Kind::Reserved },
    Model { key: "cumdf", name: "CUMDF", kind: Kind::Trained },
    Model { key: "cumdf-no-distillation", name: "CUMDF w/o distillation", kind: Kind::Trained },
    Model { key: "constant", name: "constant (floor)", kind: Kind::Floor },
];

/// The rows with the given keys, in the order of [`MODELS`]; all of them when no key is given.
///
/// Floors are always among them: they cost little and every other row is read against them.
pub fn select(keys: &[String]) -> Result<Vec<Model>> {
    for key in keys {
        match MODELS.iter().find(|m| m.key == key) {
            None => bail!("--models {key}: no such model; known are {}", known(|_| true)),
            Some(m) if m.kind == Kind::Reserved => bail!(
                "--models {key}: {} is not built yet; its row is reserved, and {} can be run",
                m.name,
                known(|m| m.kind == Kind::Trained)
            ),
            Some(_) => {}
        }
    }
    let chosen =
        |m: &Model| keys.is_empty() || m.kind == Kind::Floor || keys.iter().any(|k| k == m.key);
    Ok(MODELS.into_iter().filter(chosen).collect())
}

fn known(wanted: impl Fn(&Model) -> bool) -> String {
    let keys: Vec<_> = MODELS.iter().filter(|m| wanted(m)).map(|m| m.key).collect();
    keys.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(wanted: &[&str]) -> Result<Vec<&'static str>> {
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        Ok(select(&wanted)?.into_iter().map(|m| m.key).collect())
    }

    #[test]
    fn rows_are_chosen_by_key_and_the_floor_stays() {
        assert_eq!(keys(&[]).unwrap().len(), 10);
        assert_eq!(keys(&["cumdf"]).unwrap(), ["cumdf", "constant"]);
        let err = keys(&["cumdf", "dmd"]).unwrap_err().to_string();
        assert!(err.contains("DMD is not built yet"), "{err}");
        let err = keys(&["cumdv"]).unwrap_err().to_string();
        assert!(err.contains("known are self-mm, cubemlp"), "{err}");
    }
}
