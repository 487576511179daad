//! How far a plan is, from what lies in its folder.

use std::{collections::BTreeMap, fmt::Write as _, time::SystemTime};

use anyhow::Result;
use cumdf_data::{Split, View};
use cumdf_train::telemetry;

use super::{Place, plan::Plan};
use crate::{
    grid::{
        cell::{Cell, LOG},
        claim::{self, Holder},
        failure::{self, Failure},
        store,
    },
    report,
};

/// Arguments of `sweep status`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
}

/// Arguments of `sweep retry`.
#[derive(Debug, Clone, clap::Args)]
pub struct RetryArgs {
    #[command(flatten)]
    place: Place,

    /// Only these cells, such as 3,8. Default: all that failed.
    #[arg(long, value_name = "INDICES", value_delimiter = ',')]
    index: Vec<usize>,
}

/// How a cell stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// Trained and tested under all views.
    Finished,
    /// A process works on it.
    Running(Holder),
    /// It failed.
    Failed(Failure),
    /// Nobody is on it; maybe somebody was.
    Open,
}

impl Standing {
    /// How a cell stands. Predictions are there or not; whether they are whole is looked at by whoever
    /// runs it.
    pub(super) fn of(cell: &Cell, views: &[View], split: Split) -> Self {
        let folder = store::folder(&cell.dir, split);
        let is_tested = views.iter().all(|view| store::path(&folder, view).is_file());
        if cell.is_finished() && is_tested {
            return Self::Finished;
        }
        if let Some(holder) = claim::holder(&cell.dir).filter(|holder| !holder.is_gone()) {
            return Self::Running(holder);
        }
        match failure::read(&cell.dir) {
            Some(failure) => Self::Failed(failure),
            None => Self::Open,
        }
    }
}

/// Prints how all cells of a plan stand.
///
/// # Errors
/// When the plan cannot be read.
pub(super) fn print(args: &Args) -> Result<bool> {
    let plan = args.place.open()?;
    report::print(&text(&plan)?)?;
    Ok(true)
}

fn text(plan: &Plan) -> Result<String> {
    let (mut n_finished, mut n_open) = (0, 0);
    let (mut running, mut failed, mut begun) = (String::new(), String::new(), String::new());
    let (mut n_running, mut n_failed) = (0, 0);
    for (index, (cell, views)) in plan.cells(&[], &BTreeMap::new())?.iter().enumerate() {
        let title = cell.title();
        match Standing::of(cell, views, plan.split) {
            Standing::Finished => n_finished += 1,
            Standing::Running(holder) => {
                n_running += 1;
                let at = format!("process {} on {}", holder.pid, holder.host);
                let epochs = so_far(cell).map(|epochs| format!(", {epochs}")).unwrap_or_default();
                let for_how_long = how_long(cell, &holder);
                writeln!(running, "  {index:>4}  {title}: {at}{for_how_long}{epochs}")?;
            }
            Standing::Failed(failure) => {
                n_failed += 1;
                let Failure { why, host, at, .. } = failure;
                let ago = claim::seconds(SystemTime::now()).saturating_sub(at);
                let (ago, log) = (telemetry::duration(ago as f64), cell.dir.join(LOG));
                writeln!(failed, "  {index:>4}  {title}: on {host}, {ago} ago: {why}")?;
                writeln!(failed, "        see {}", log.display())?;
            }
            Standing::Open => {
                n_open += 1;
                if let Some(epochs) = so_far(cell) {
                    writeln!(begun, "  {index:>4}  {title}: {epochs}")?;
                }
            }
        }
    }
    let mut text = format!(
        "{} cells: {n_finished} finished, {n_running} running, {n_failed} failed, {n_open} open\n",
        plan.cells.len()
    );
    for (head, lines) in [
        ("running:", running),
        ("failed (`sweep retry` has them tried again):", failed),
        ("open, and begun (whoever runs them goes on there):", begun),
    ] {
        if !lines.is_empty() {
            write!(text, "{head}\n{lines}")?;
        }
    }
    Ok(text)
}

/// `, for 3 min 5 s`, and whether its holder is still heard of.
fn how_long(cell: &Cell, holder: &Holder) -> String {
    let Some((since, beat)) = claim::times(&cell.dir, holder) else { return String::new() };
    let seconds = |at: SystemTime| at.elapsed().unwrap_or_default().as_secs_f64();
    let silent = match seconds(beat) {
        silence if silence < claim::DEAD_AFTER.as_secs_f64() => String::new(),
        silence => format!(
            " (silent for {}: whoever runs next takes it over, if the clocks are right)",
            telemetry::duration(silence)
        ),
    };
    format!(", for {}{silent}", telemetry::duration(seconds(since)))
}

/// `3 of at most 40 epochs`; `None` before the first.
fn so_far(cell: &Cell) -> Option<String> {
    let stages = cell.config.iter().flat_map(|config| config.method.stages());
    let n: u64 = stages.map(|stage| u64::from(stage.epochs)).sum();
    let done = cell.epochs();
    (done > 0).then(|| format!("{done} of at most {n} epochs"))
}

/// Forgets what failed, so that it is tried again.
///
/// # Errors
/// When the plan cannot be read, has no such cell, or a note cannot be removed.
pub(super) fn retry(args: &RetryArgs) -> Result<bool> {
    let plan = args.place.open()?;
    let mut n_forgotten = 0;
    for (cell, _) in plan.cells(&args.index, &BTreeMap::new())? {
        if failure::forget(&cell.dir)? {
            report::print(&format!("open again: {}\n", cell.title()))?;
            n_forgotten += 1;
        }
    }
    if n_forgotten == 0 {
        report::print("nothing has failed\n")?;
    }
    Ok(true)
}
