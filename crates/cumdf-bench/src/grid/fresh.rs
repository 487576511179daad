//! `--fresh`: what is there is kept under another name, and everything is done anew.

use std::io::{self, BufRead, IsTerminal as _, Write};

use anyhow::Result;
use cumdf_train::telemetry;

use super::cell::Cell;

/// Moves all `cells` aside, after a question where somebody can answer and something finished is
/// there. `false` when the answer is no.
///
/// # Errors
/// When another process works on a cell, or a folder cannot be renamed.
pub(super) fn move_aside(cells: &[&Cell]) -> Result<bool> {
    let finished: Vec<_> =
        cells.iter().filter(|c| c.dir.exists() && c.config.is_some() && c.is_finished()).collect();
    let seconds: f64 = finished.iter().map(|cell| cell.seconds()).sum();
    let has_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    if has_terminal && !finished.is_empty() {
        let question = question(finished.len(), seconds);
        if !confirm(&question, &mut io::stdin().lock(), &mut io::stderr().lock())? {
            return Ok(false);
        }
    }
    // All of them, before the first is moved: half a grid moved aside would be of no use.
    cells.iter().try_for_each(|cell| cell.check_free())?;
    let mut n_moved = 0;
    for cell in cells {
        n_moved += usize::from(cell.move_aside()?.is_some());
    }
    if n_moved > 0 {
        tracing::info!("{n_moved} cells are kept beside the new ones, with the ending .old-<n>");
    }
    Ok(true)
}

fn question(n: usize, seconds: f64) -> String {
    let cells = if n == 1 { "1 finished cell" } else { &format!("{n} finished cells") };
    format!(
        "{cells} ({} of training) will be trained again; go on? [y/N] ",
        telemetry::duration(seconds)
    )
}

/// Whether the answer to `question` is yes.
fn confirm(question: &str, answers: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<bool> {
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one_and_the_question_says_what_it_costs() {
        let asked = question(8, 185.0);
        assert_eq!(
            asked,
            "8 finished cells (3 min 5 s of training) will be trained again; go on? [y/N] "
        );
        for (answer, goes_on) in
            [("y\n", true), ("YES\n", true), ("\n", false), ("n\n", false), ("", false)]
        {
            let mut out = Vec::new();
            assert_eq!(confirm(&asked, &mut answer.as_bytes(), &mut out).unwrap(), goes_on);
            assert_eq!(String::from_utf8(out).unwrap(), asked);
        }
    }
}
