//! What a file holds, told without importing it: shapes, types, gaps, names, and what tends to be
//! mistaken for something else.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::import::table::Table;
use crate::import::{Fate, Ledger, known, source};
use crate::{Modality, Split};

/// Bytes of a table that are read at a time, about.
const BLOCK_BYTES: usize = 16 << 20;

/// What one foreign file holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Survey {
    /// The file, as it was named.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Whose file it is, when the sum is known.
    pub known: Option<&'static str>,
    /// The layout, for example `MMSA pickle`.
    pub layout: String,
    /// Arrays of numbers.
    pub tables: Vec<TableSurvey>,
    /// What else was found, and what stands out.
    pub ledger: Ledger,
    /// Sentences on what that means.
    pub remarks: Vec<String>,
}

/// One array of numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TableSurvey {
    /// Where it is, for example `train/audio`.
    pub name: String,
    /// Element type, as numpy names it.
    pub dtype: String,
    /// Shape, `[N, T, d]` for features over time.
    pub shape: Vec<usize>,
    /// Values that are NaN.
    pub nan: u64,
    /// Values that are infinite.
    pub infinite: u64,
    /// Lowest and highest finite value; `None` when there is none.
    pub range: Option<[f64; 2]>,
}

impl Survey {
    /// Starts a survey of a file, which is summed.
    pub(crate) fn start(path: &Path, layout: &str, bar: &ProgressBar) -> Result<Self> {
        let sha256 = source::sum(path, bar)?;
        let known = known::file(&sha256);
        let mut remarks = Vec::new();
        match known {
            Some(known) => remarks.push(format!("This is {}.", known.name)),
            None => remarks.push(format!(
                "Its SHA-256 is none of the {} that are known here: compare the counts below with \
                 docs/import.md.",
                known::file_count()
            )),
        }
        Ok(Self {
            file: path.display().to_string(),
            sha256,
            known: known.map(|known| known.name.as_str()),
            layout: layout.to_owned(),
            tables: Vec::new(),
            ledger: Ledger::default(),
            remarks,
        })
    }

    /// Reads a table through, in blocks.
    pub(crate) fn add(
        &mut self,
        name: String,
        table: &mut dyn Table,
        bar: &ProgressBar,
    ) -> Result<()> {
        let shape = table.shape().to_vec();
        let n = shape.first().copied().unwrap_or(0);
        let row: usize = shape.iter().skip(1).product();
        let block = (BLOCK_BYTES / (4 * row).max(1)).max(1);
        let mut survey = TableSurvey { name, dtype: table.dtype(), shape, ..Default::default() };
        for start in (0..n).step_by(block) {
            let end = n.min(start + block);
            survey.count(&table.rows(start..end)?);
            bar.inc(((end - start) * row) as u64);
        }
        self.tables.push(survey);
        Ok(())
    }

    /// Adds a table whose values are at hand.
    pub(crate) fn add_values(
        &mut self,
        name: String,
        dtype: &str,
        shape: Vec<usize>,
        values: &[f32],
    ) {
        let mut survey = TableSurvey { name, dtype: dtype.to_owned(), shape, ..Default::default() };
        survey.count(values);
        self.tables.push(survey);
    }

    /// Notes names that occur twice in a split, or in two splits.
    pub(crate) fn note_ids(&mut self, ids: [Option<&[String]>; 3]) {
        let mut owner: HashMap<&str, Split> = HashMap::new();
        for (split, ids) in Split::ALL.into_iter().zip(ids) {
            let Some(ids) = ids else {
                self.ledger.one(Fate::Noted, "splits without names of samples", split);
                continue;
            };
            for id in ids.iter().filter(|id| !id.is_empty()) {
                match owner.insert(id, split) {
                    Some(first) if first == split => {
                        self.ledger.one(Fate::Noted, "ids that stand twice in a split", id);
                    }
                    Some(first) => {
                        let leak = format!("{id} in {first} and {split}");
                        self.ledger.one(Fate::Noted, "ids that stand in two splits", leak);
                    }
                    None => {}
                }
            }
        }
    }

    /// Remarks on the counts of the splits, on alignment, and on what the widths of the features
    /// give away.
    pub(crate) fn remark(&mut self, counts: [usize; 3], shapes: [Option<&[usize]>; 3]) {
        let total: usize = counts.iter().sum();
        let [train, valid, test] = counts;
        let whose = known::counts(counts)
            .map_or("the counts of no data set known here".to_owned(), |w| format!("those of {w}"));
        self.remarks.push(format!("{train} + {valid} + {test} = {total} samples: {whose}."));
        let steps = shapes.map(|shape| match shape {
            Some([_, steps, _]) if *steps > 1 => Some(*steps),
            _ => None,
        });
        let mut told: Vec<_> = steps.into_iter().flatten().collect();
        told.dedup();
        match told.len() {
            0 => self.remarks.push("All features are of the whole utterance.".to_owned()),
            1 => self.remarks.push(format!(
                "The streams over time share their {} steps: aligned, by all appearance.",
                told[0]
            )),
            _ => self.remarks.push(
                "The streams differ in steps: unaligned. Import the aligned file instead, or give \
                 --pool audio,vision."
                    .to_owned(),
            ),
        }
        for (modality, shape) in Modality::ALL.into_iter().zip(shapes) {
            let width = shape.and_then(|shape| shape.last());
            if let Some(guess) = width.and_then(|width| guess(modality, *width)) {
                self.remarks.push(guess);
            }
        }
    }

    /// Writes the survey for a person to read.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}\n  {}\n  sha256 {}\n", self.file, self.layout, self.sha256)?;
        if !self.tables.is_empty() {
            let head = ["", "type", "shape", "NaN", "infinite", "lowest", "highest"];
            let mut rows = vec![head.map(str::to_owned)];
            rows.extend(self.tables.iter().map(TableSurvey::cells));
            let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            let widths: Vec<_> = (0..head.len()).map(width).collect();
            for row in &rows {
                write!(out, "  {:<1$}", row[0], widths[0])?;
                for (cell, width) in row.iter().zip(&widths).skip(1) {
                    write!(out, "  {cell:>width$}")?;
                }
                writeln!(out)?;
            }
            writeln!(out)?;
        }
        self.ledger.write_text(out)?;
        for remark in &self.remarks {
            writeln!(out, "  - {remark}")?;
        }
        Ok(())
    }
}

impl TableSurvey {
    /// Adds what some values show.
    pub(crate) fn count(&mut self, values: &[f32]) {
        for value in values {
            if value.is_nan() {
                self.nan += 1;
            } else if value.is_infinite() {
                self.infinite += 1;
            } else {
                self.widen([f64::from(*value); 2]);
            }
        }
    }

    /// Adds what other values of the same table show.
    pub(crate) fn add(&mut self, other: &Self) {
        self.nan += other.nan;
        self.infinite += other.infinite;
        if let Some(range) = other.range {
            self.widen(range);
        }
    }

    fn widen(&mut self, [low, high]: [f64; 2]) {
        let [lowest, highest] = self.range.unwrap_or([low, high]);
        self.range = Some([lowest.min(low), highest.max(high)]);
    }

    fn cells(&self) -> [String; 7] {
        let shape: Vec<_> = self.shape.iter().map(usize::to_string).collect();
        let bound = |at: usize| self.range.map_or("-".to_owned(), |range| short(range[at]));
        [
            self.name.clone(),
            self.dtype.clone(),
            shape.join(" x "),
            self.nan.to_string(),
            self.infinite.to_string(),
            bound(0),
            bound(1),
        ]
    }
}

/// A number in few digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e6 {
        format!("{value}")
    } else if (1e-3..1e6).contains(&size) {
        format!("{value:.3}")
    } else {
        format!("{value:.2e}")
    }
}

/// What features of this width usually are.
fn guess(modality: Modality, width: usize) -> Option<String> {
    let what = match (modality, width) {
        (Modality::Language, 300) => "300 features per word are usually GloVe vectors",
        (Modality::Language, 768) => "768 features are usually those of BERT-base, not GloVe",
        (Modality::Language, 1024) => "1024 features are usually those of a large BERT",
        (Modality::Audio, 5) => "5 audio features are usually the chosen COVAREP ones of CMU-MOSI",
        (Modality::Audio, 74) => "74 audio features are usually all of COVAREP",
        (Modality::Audio, 33) => "33 audio features are usually LibROSA's of CH-SIMS",
        (Modality::Vision, 20) => {
            "20 vision features are usually the chosen FACET ones of CMU-MOSI"
        }
        (Modality::Vision, 35) => "35 vision features are usually FACET 4.2",
        (Modality::Vision, 47) => "47 vision features are usually FACET 4.1",
        (Modality::Vision, 709) => "709 vision features are usually OpenFace 2's of CH-SIMS",
        (Modality::Vision, 713) => "713 vision features are usually all of OpenFace 2",
        _ => return None,
    };
    Some(format!("{what}."))
}
