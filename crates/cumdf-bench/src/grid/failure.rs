//! Why a cell failed: `failed.json` in its folder.
//!
//! A cell that failed is left alone until somebody takes the note away: `sweep retry`, or a table that
//! is made anew.

use std::{fmt, fs, io::ErrorKind, path::Path, time::SystemTime};

use anyhow::{Context as _, Result};
use cumdf_train::run_dir::write_atomic;
use serde::{Deserialize, Serialize};

use super::claim;

const FAILED: &str = "failed.json";

/// `failed.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub why: String,
    /// The machine on which it did.
    pub host: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Version of the program.
    pub version: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (on {}; `sweep retry` has it tried again)", self.why, self.host)
    }
}

/// The failure that is noted in a cell's folder.
pub fn read(cell: &Path) -> Option<Failure> {
    serde_json::from_str(&fs::read_to_string(cell.join(FAILED)).ok()?).ok()
}

/// Notes that a cell failed.
///
/// # Errors
/// When it cannot be written.
pub fn note(cell: &Path, why: String) -> Result<()> {
    let failure = Failure {
        why,
        host: claim::host(),
        at: claim::seconds(SystemTime::now()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let text = serde_json::to_string_pretty(&failure)? + "\n";
    write_atomic(&cell.join(FAILED), text.as_bytes())
}

/// Forgets a failure; whether there was one.
///
/// # Errors
/// When the note cannot be removed.
pub fn forget(cell: &Path) -> Result<bool> {
    let path = cell.join(FAILED);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err).with_context(|| format!("cannot remove {}", path.display())),
    }
}
