//! What one import did, to print and to keep.

use std::io::{self, Write};

use serde::Serialize;

use crate::import::{Ledger, known};
use crate::writer::SplitCounts;
use crate::{Modality, Split, Task};

/// What one import did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The new data set's name.
    pub name: String,
    /// What its labels mean.
    pub task: Task,
    /// Steps `T_m` of each modality.
    pub steps: [usize; 3],
    /// Features per step `d_m` of each modality.
    pub dims: [usize; 3],
    /// What was written into train, valid and test.
    pub splits: [SplitCounts; 3],
    /// What was found, dropped, filled and noted on the way.
    pub ledger: Ledger,
}

impl Summary {
    /// Writes the summary for a person to read.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "  {}: {}\n", self.name, self.task)?;
        row(out, "", Split::ALL.map(|split| split.to_string()))?;
        row(out, "samples", self.splits.map(|split| split.samples.to_string()))?;
        for modality in Modality::ALL {
            let m = modality.index();
            let title = match (self.steps[m], self.dims[m]) {
                _ if self.splits.iter().all(|split| split.present[m] == 0) => {
                    format!("{modality}: none")
                }
                (1, dim) => format!("with {modality}, {dim} per sample"),
                (steps, dim) => format!("with {modality}, {steps} x {dim}"),
            };
            row(out, &title, self.splits.map(|split| split.present[m].to_string()))?;
        }
        writeln!(out)?;
        self.ledger.write_text(out)?;
        let counts = self.splits.map(|split| split.samples);
        match known::counts(counts) {
            Some(whose) => writeln!(out, "\n  The counts are those of {whose}."),
            None => writeln!(
                out,
                "\n  The counts are those of no data set known here (docs/import.md lists them): \
                 figures may not compare with published ones."
            ),
        }
    }
}

fn row(out: &mut impl Write, title: &str, cells: [String; 3]) -> io::Result<()> {
    write!(out, "  {title:<28}")?;
    for cell in cells {
        write!(out, "{cell:>16}")?;
    }
    writeln!(out)
}
