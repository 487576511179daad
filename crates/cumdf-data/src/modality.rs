//! How this project names modalities, sets of them, and splits: the only place that does.

use std::{fmt, str::FromStr};

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// One of the three input streams, always in the order of [`Modality::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Words, for example GloVe vectors.
    Language,
    /// Speech, for example COVAREP frames.
    Audio,
    /// Face or gesture, for example FACET or MA-Net features.
    Vision,
}

impl Modality {
    /// The canonical order, of arrays and of tensor axes alike.
    pub const ALL: [Self; 3] = [Self::Language, Self::Audio, Self::Vision];

    /// `language`, `audio` or `vision`: the name in files, checkpoints and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Language => "language",
            Self::Audio => "audio",
            Self::Vision => "vision",
        }
    }

    /// `l`, `a` or `v`: the short name in conditions.
    pub const fn letter(self) -> char {
        match self {
            Self::Language => 'l',
            Self::Audio => 'a',
            Self::Vision => 'v',
        }
    }

    /// Position in [`Modality::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of modalities. As a test condition it says what is present; printed `{l,a}`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ModalitySet(u8);

impl ModalitySet {
    /// No modality.
    pub const EMPTY: Self = Self(0);
    /// All three modalities.
    pub const ALL: Self = Self(0b111);
    /// The seven non-empty sets, in the column order of the paper's tables:
    /// {l} {a} {v} {l,a} {l,v} {a,v} {l,a,v}.
    pub const CONDITIONS: [Self; 7] =
        [Self(0b001), Self(0b010), Self(0b100), Self(0b011), Self(0b101), Self(0b110), Self(0b111)];

    /// The set with the given members.
    pub fn of(members: impl IntoIterator<Item = Modality>) -> Self {
        Self(members.into_iter().fold(0, |bits, m| bits | 1 << m.index()))
    }

    /// Whether `modality` is a member.
    pub const fn contains(self, modality: Modality) -> bool {
        self.0 & (1 << modality.index()) != 0
    }

    /// Whether every member of `other` is a member of `self`.
    pub const fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Members of both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Members of this one that `other` does not have.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Members of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set has no members.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of members, 0 to 3.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The members, in canonical order.
    pub fn iter(self) -> impl Iterator<Item = Modality> {
        Modality::ALL.into_iter().filter(move |m| self.contains(*m))
    }

    /// `l`, `la`, `lav`, ...: the name in JSON, CSV and on the command line; empty for no member.
    pub fn key(self) -> String {
        self.iter().map(Modality::letter).collect()
    }
}

impl fmt::Display for ModalitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: Vec<_> = self.iter().map(|m| m.letter().to_string()).collect();
        f.pad(&format!("{{{}}}", letters.join(",")))
    }
}

impl fmt::Debug for ModalitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ModalitySet> for String {
    fn from(set: ModalitySet) -> Self {
        set.key()
    }
}

impl TryFrom<String> for ModalitySet {
    type Error = anyhow::Error;

    /// Reads a [`ModalitySet::key`], the empty one too.
    fn try_from(key: String) -> Result<Self, Self::Error> {
        if key.is_empty() { Ok(Self::EMPTY) } else { key.parse() }
    }
}

impl FromStr for ModalitySet {
    type Err = anyhow::Error;

    /// Reads a [`ModalitySet::key`]: l, a, v, la, lv, av or lav, and nothing else. A looser reader
    /// takes `all` for {l,a} and `val` for a split.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(set) = Self::CONDITIONS.into_iter().find(|set| set.key() == text) {
            return Ok(set);
        }
        let hint = match meant(text) {
            Some(set) => format!("; for {set}, write {}", set.key()),
            None => String::new(),
        };
        bail!("`{text}` is not a set of modalities: use l, a, v, la, lv, av or lav{hint}")
    }
}

/// The set that somebody who wrote `text` most likely meant.
fn meant(text: &str) -> Option<ModalitySet> {
    let text = text.to_lowercase();
    if text == "all" {
        return Some(ModalitySet::ALL);
    }
    let letters: Vec<char> = text.chars().filter(|c| !"{}[](),+ ".contains(*c)).collect();
    let modality = |letter: &char| Modality::ALL.into_iter().find(|m| m.letter() == *letter);
    let members: Vec<Modality> = letters.iter().map(modality).collect::<Option<_>>()?;
    (!members.is_empty()).then(|| ModalitySet::of(members))
}

/// One of the three parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Read by training.
    Train,
    /// Read to choose the checkpoint, and for nothing else.
    Valid,
    /// For figures, once a checkpoint is chosen.
    Test,
}

impl Split {
    /// All splits, in file order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    /// `train`, `valid` or `test`: the group's name in a file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }

    /// Position in [`Split::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Split {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::ALL.into_iter().find(|s| s.name() == text) {
            Some(split) => Ok(split),
            None => bail!("`{text}` is not a split: use train, valid or test"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_print_and_parse_in_the_papers_order() {
        let keys: Vec<_> = ModalitySet::CONDITIONS.iter().map(|c| c.key()).collect();
        assert_eq!(keys, ["l", "a", "v", "la", "lv", "av", "lav"]);
        for condition in ModalitySet::CONDITIONS {
            assert_eq!(condition.key().parse::<ModalitySet>().unwrap(), condition);
        }
        let printed: Vec<_> = ModalitySet::CONDITIONS.iter().map(ToString::to_string).collect();
        assert_eq!(printed, ["{l}", "{a}", "{v}", "{l,a}", "{l,v}", "{a,v}", "{l,a,v}"]);
        let json = serde_json::to_string(&[ModalitySet::ALL, ModalitySet::EMPTY]).unwrap();
        assert_eq!(json, r#"["lav",""]"#);
        let sets: Vec<ModalitySet> = serde_json::from_str(&json).unwrap();
        assert_eq!(sets, [ModalitySet::ALL, ModalitySet::EMPTY]);
    }

    #[test]
    fn only_the_seven_keys_are_read_and_a_slip_is_told_the_right_one() {
        let said = |text: &str| text.parse::<ModalitySet>().unwrap_err().to_string();
        for (slip, key) in [
            ("all", "lav"),
            ("ALL", "lav"),
            ("val", "lav"),
            ("ll", "l"),
            ("va", "av"),
            ("LA", "la"),
            ("{l,a}", "la"),
            ("l, v", "lv"),
        ] {
            let message = said(slip);
            assert!(message.contains("use l, a, v, la, lv, av or lav"), "{message}");
            assert!(message.ends_with(&format!(", write {key}")), "{message}");
        }
        for noise in ["", "lx", "valid", "{}", "language", "none"] {
            let message = said(noise);
            assert!(message.ends_with("use l, a, v, la, lv, av or lav"), "{message}");
        }
        assert!(serde_json::from_str::<ModalitySet>("\"all\"").is_err());
    }
}
