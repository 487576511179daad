//! The files and data sets that the field shares: which of them a user holds decides what figures
//! may be compared.

use std::sync::LazyLock;

use serde::Deserialize;

/// A file whose sum is known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownFile {
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Whose file it is, and which.
    pub name: String,
    /// The data set in it.
    pub data_set: String,
}

/// A data set that is known by its name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownSet {
    /// Its name, for titles.
    pub(crate) name: String,
    /// What its files and descriptions have in their names, in capitals.
    mark: String,
    /// Words a sample, as it is usually cut.
    pub(crate) steps: usize,
    /// Lowest and highest score.
    pub(crate) range: Option<[i64; 2]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownCounts {
    samples: [usize; 3],
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    file: Vec<KnownFile>,
    counts: Vec<KnownCounts>,
    set: Vec<KnownSet>,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    toml::from_str(include_str!("known.toml")).expect("known.toml is checked by a test")
});

/// The known file of this SHA-256.
pub fn file(sha256: &str) -> Option<&'static KnownFile> {
    REGISTRY.file.iter().find(|known| known.sha256 == sha256)
}

/// How many files are known.
pub fn file_count() -> usize {
    REGISTRY.file.len()
}

/// The known data set whose mark is in a text.
pub(crate) fn set(text: &str) -> Option<&'static KnownSet> {
    let text = text.to_ascii_uppercase();
    REGISTRY.set.iter().find(|set| text.contains(&set.mark))
}

/// What is known to have so many samples in train, valid and test.
pub fn counts(samples: [usize; 3]) -> Option<&'static str> {
    REGISTRY.counts.iter().find(|c| c.samples == samples).map(|c| c.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_well_formed() {
        assert!(REGISTRY.file.iter().all(|f| {
            f.sha256.len() == 64
                && f.sha256.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
        }));
        let mut sums: Vec<_> = REGISTRY.file.iter().map(|f| &f.sha256).collect();
        sums.sort_unstable();
        sums.dedup();
        assert_eq!(sums.len(), file_count());
        assert!(counts([1284, 229, 686]).is_some_and(|name| name.contains("CMU-MOSI")));
        assert_eq!(counts([1, 2, 3]), None);
        assert!(file("").is_none());
        let names = ["CMU_MOSEI_Labels.csd", "cmu-mosi", "IEMOCAP", "mine"].map(set);
        assert_eq!(names.map(|set| set.map(|set| set.steps)), [Some(20), Some(50), Some(20), None]);
    }
}
