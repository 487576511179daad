//! What an import met on its way: nothing is dropped or filled in silence.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::text::singular;

/// What is counted here.
const NOUNS: [&str; 16] = [
    "array", "entry", "feature", "file", "frame", "id", "interval", "length", "row", "sample",
    "second", "segment", "split", "value", "video", "word",
];
/// Examples kept of each thing that was met.
const EXAMPLES: usize = 3;

/// What happened to the things of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Read from the source.
    Found,
    /// Left out of the new file.
    Dropped,
    /// Not in the source, or of no use there, and replaced.
    Filled,
    /// Taken over, but worth knowing.
    Noted,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Found => "found",
            Self::Dropped => "dropped",
            Self::Filled => "filled",
            Self::Noted => "noted",
        })
    }
}

/// One kind of thing that was met, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What happened to it.
    pub fate: Fate,
    /// What it is, in the plural: `segments without a word`.
    pub what: String,
    /// How many there were.
    pub count: u64,
    /// The first few of them.
    pub examples: Vec<String>,
}

impl Entry {
    /// What it is, in the number that it has.
    fn told(&self) -> String {
        if self.count == 1 { singular(&self.what, &NOUNS) } else { self.what.clone() }
    }
}

/// Everything an import met, in the order in which it was met first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ledger(Vec<Entry>);

impl Ledger {
    /// Counts `count` more of `what`; nothing is noted for a count of 0.
    pub fn count(&mut self, fate: Fate, what: &str, count: u64) {
        if count > 0 {
            self.entry(fate, what).count += count;
        }
    }

    /// Counts one more of `what`, and keeps it as an example while there are few.
    pub fn one(&mut self, fate: Fate, what: &str, example: impl fmt::Display) {
        let entry = self.entry(fate, what);
        entry.count += 1;
        if entry.examples.len() < EXAMPLES {
            entry.examples.push(example.to_string());
        }
    }

    /// What was met.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// How many of `what` met this fate.
    pub fn count_of(&self, fate: Fate, what: &str) -> u64 {
        self.0.iter().find(|e| e.fate == fate && e.what == what).map_or(0, |e| e.count)
    }

    /// What was dropped, with counts, in one line.
    pub fn dropped(&self) -> String {
        let dropped = self.0.iter().filter(|entry| entry.fate == Fate::Dropped);
        dropped.map(|e| format!("{} {}", e.count, e.told())).collect::<Vec<_>>().join(", ")
    }

    /// Writes one line an entry, for a person to read.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        for fate in [Fate::Found, Fate::Dropped, Fate::Filled, Fate::Noted] {
            for entry in self.0.iter().filter(|e| e.fate == fate) {
                let Entry { count, examples, .. } = entry;
                write!(out, "  {fate:<8}{count:>12}  {}", entry.told())?;
                if !examples.is_empty() {
                    let more = if *count > examples.len() as u64 { ", ..." } else { "" };
                    write!(out, ": {}{more}", examples.join(", "))?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, fate: Fate, what: &str) -> &mut Entry {
        let at = self.0.iter().position(|e| e.fate == fate && e.what == what);
        let at = at.unwrap_or_else(|| {
            self.0.push(Entry { fate, what: what.to_owned(), count: 0, examples: Vec::new() });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_counts_and_keeps_the_first_examples() {
        let mut ledger = Ledger::default();
        for video in ["a", "b", "c", "d"] {
            ledger.one(Fate::Dropped, "videos in no fold", video);
        }
        ledger.count(Fate::Found, "words", 7);
        ledger.count(Fate::Found, "words", 0);
        ledger.one(Fate::Dropped, "samples whose score is not a number", "x");
        ledger.count(Fate::Filled, "values that are not finite", 0);
        assert_eq!(ledger.count_of(Fate::Dropped, "videos in no fold"), 4);
        assert_eq!(ledger.count_of(Fate::Found, "videos in no fold"), 0);
        let mut text = Vec::new();
        ledger.write_text(&mut text).unwrap();
        let lines = "  found              7  words\n  \
                     dropped            4  videos in no fold: a, b, c, ...\n  \
                     dropped            1  sample whose score is not a number: x\n";
        assert_eq!(String::from_utf8(text).unwrap(), lines);
        let dropped = "4 videos in no fold, 1 sample whose score is not a number";
        assert_eq!(ledger.dropped(), dropped);
    }
}
