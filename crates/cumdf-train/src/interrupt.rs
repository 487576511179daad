//! Ctrl-C during training: one line that says how to go on, and exit code 130 (143 after `kill`).
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use cumdf_train::interrupt;
//!
//! let interrupted = interrupt::watch("interrupted; nothing was kept yet")?;
//! for epoch in 1..=20 {
//!     // train, save the state
//!     interrupted.say(format!("interrupted; the same command with --resume goes on after epoch {epoch}"));
//! }
//! drop(interrupted); // Ctrl-C still ends the process, with no word about this run
//! # Ok(())
//! # }
//! ```

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::telemetry;

/// What Ctrl-C says now.
static TEXT: Mutex<Option<String>> = Mutex::new(None);

/// While this lives, Ctrl-C says the line it was given last.
#[derive(Debug)]
#[must_use = "the line is forgotten when this is dropped"]
pub struct Interrupted(());

/// From now on Ctrl-C and `kill` print `line` on stderr and into the run's log, remove unfinished
/// files, and end the process.
///
/// # Errors
/// When the system grants no signal handler.
pub fn watch(line: impl Into<String>) -> io::Result<Interrupted> {
    *text() = Some(line.into());
    cumdf_data::interrupt::watch(|| {
        let line = text().clone();
        telemetry::last_word(line.as_deref().unwrap_or("interrupted"));
    })?;
    Ok(Interrupted(()))
}

impl Interrupted {
    /// Replaces the line.
    pub fn say(&self, line: impl Into<String>) {
        *text() = Some(line.into());
    }
}

impl Drop for Interrupted {
    fn drop(&mut self) {
        *text() = None;
    }
}

fn text() -> MutexGuard<'static, Option<String>> {
    TEXT.lock().unwrap_or_else(PoisonError::into_inner)
}
