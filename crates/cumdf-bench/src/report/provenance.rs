//! Where figures come from: what somebody needs to make them again.

use std::{env, fs};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The commit that this program was built from, `-dirty` where files had changed since; `unknown`
/// where there was no repository.
const COMMIT: &str = env!("CUMDF_COMMIT");

/// What figures rest on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the program.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// The command line, as for a POSIX shell.
    pub command: String,
    /// System, processor and its cores, device.
    pub machine: String,
    /// Number of seeds.
    pub seeds: usize,
    /// Settings of the command line, with the rows that they are not for.
    pub overrides: Vec<String>,
    /// The data files.
    pub data: Vec<Data>,
}

/// A data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// [`Section::dataset`](super::table::Section::dataset).
    pub dataset: String,
    /// Its path.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
}

/// Where a line of a CSV file comes from: no comment lines, which not every reader of CSV passes over.
#[derive(Debug, Serialize)]
pub(super) struct Columns<'a> {
    /// [`Data::sha256`]; of several files with blanks between.
    pub data_sha256: String,
    /// [`Provenance::commit`].
    pub commit: &'a str,
    /// [`Provenance::seeds`]: as many as the command asked for.
    pub seeds_asked: usize,
    /// [`Provenance::overrides`] with commas between.
    pub overrides: String,
    /// [`Provenance::machine`].
    pub machine: &'a str,
    /// [`Provenance::command`].
    pub command: &'a str,
}

impl Columns<'_> {
    /// Names and values, for lines that are no records.
    pub(super) fn named(&self) -> Result<Vec<(String, String)>> {
        let columns: Map<String, Value> = serde_json::from_value(serde_json::to_value(self)?)?;
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(columns.into_iter().map(|(name, value)| (name, text(value))).collect())
    }
}

impl Provenance {
    /// Of figures that this process makes on this machine.
    ///
    /// - `device`: the kind of device that trains and tests
    pub fn here(data: Vec<Data>, seeds: usize, overrides: Vec<String>, device: &str) -> Self {
        let args = env::args().skip(1).map(|arg| quoted(&arg));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let (system, kind) = (env::consts::OS, env::consts::ARCH);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: COMMIT.to_owned(),
            command: ["cumdf-bench".to_owned()]
                .into_iter()
                .chain(args)
                .collect::<Vec<_>>()
                .join(" "),
            machine: format!("{system} {kind}, {}{cores} cores, {device}", processor()),
            seeds,
            overrides,
            data,
        }
    }

    /// The same as the last columns of every line of a CSV file, of one data set or of all.
    pub(super) fn columns(&self, dataset: Option<&str>) -> Columns<'_> {
        let own = self.data.iter().filter(|data| dataset.is_none_or(|name| data.dataset == name));
        Columns {
            data_sha256: own.map(|data| data.sha256.as_str()).collect::<Vec<_>>().join(" "),
            commit: &self.commit,
            seeds_asked: self.seeds,
            overrides: self.overrides.join(", "),
            machine: &self.machine,
            command: &self.command,
        }
    }

    /// Names and values, for people.
    pub fn lines(&self) -> Vec<(String, String)> {
        let line = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut lines = vec![
            line("command", &self.command),
            line("program", &format!("cumdf-bench {}, commit {}", self.version, self.commit)),
            line("machine", &self.machine),
            line("seeds", &self.seeds.to_string()),
        ];
        if !self.overrides.is_empty() {
            lines.push(line("overrides", &self.overrides.join(", ")));
        }
        let data = self.data.iter();
        lines.extend(data.map(|d| line(&d.dataset, &format!("{}, SHA-256 {}", d.file, d.sha256))));
        lines
    }
}

/// An argument as a POSIX shell reads it.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match !arg.is_empty() && arg.chars().all(plain) {
        true => arg.to_owned(),
        false => format!("'{}'", arg.replace('\'', r"'\''")),
    }
}

/// The processor's name with a comma behind it, where the system tells it.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map(|(_, name)| format!("{}, ", name.trim())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_where_a_shell_would_part_them() {
        for (arg, expected) in [
            ("--seeds", "--seeds"),
            ("loss.reg=0.5", "loss.reg=0.5"),
            ("my data.h5", "'my data.h5'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("clip={ norm = 1.0 }", "'clip={ norm = 1.0 }'"),
        ] {
            assert_eq!(quoted(arg), expected);
        }
    }

    #[test]
    fn everything_that_makes_figures_again_is_told() {
        let data = Data { dataset: "toy".into(), file: "toy.h5".into(), sha256: "abc".into() };
        let here = Provenance::here(vec![data], 3, vec!["loss.reg=0.5".into()], "cpu");
        let lines = here.lines();
        let told = |name: &str| lines.iter().any(|(own, value)| own == name && !value.is_empty());
        for name in ["command", "program", "machine", "seeds", "overrides", "toy"] {
            assert!(told(name), "{name}: {lines:?}");
        }
        assert!(here.machine.ends_with("cores, cpu"), "{}", here.machine);
        let columns = here.columns(Some("toy")).named().unwrap();
        assert_eq!(columns[0], ("data_sha256".to_owned(), "abc".to_owned()));
        assert!(columns.iter().all(|(_, value)| !value.is_empty()), "{columns:?}");
        assert_eq!(here.columns(Some("another")).data_sha256, "");
    }
}
