//! Running cells of a plan: many of them, or the one that a batch system asks for; and the tables at
//! the end.

use std::{
    collections::BTreeMap,
    env,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use cumdf_data::files;
use cumdf_train::{device, pipeline::sha256_of};

use super::{Place, plan::Plan};
use crate::{
    artefact::Artefact,
    grid::{
        self, claim,
        pool::{self, Job, Options},
        source,
    },
};

/// The threads that Slurm grants a task, in its environment.
const SLURM_THREADS: &str = "SLURM_CPUS_PER_TASK";

/// What `run` and `cell` have in common.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    #[command(flatten)]
    place: Place,

    /// A data file that has another path here; may be given several times. Which cells it is for is
    /// told by its content.
    #[arg(long, value_name = "FILE.h5")]
    data: Vec<PathBuf>,

    /// Silence after which a process on another machine is taken for dead, and its cell taken over. A
    /// process of this machine that is gone is noticed at once.
    #[arg(long, value_name = "SECONDS", default_value_t = claim::DEAD_AFTER.as_secs(),
          value_parser = clap::value_parser!(u64).range(30..))]
    dead_after: u64,

    /// Show what the trainings say.
    #[arg(long, short)]
    pub verbose: bool,
}

/// Arguments of `sweep run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub(super) common: Common,

    /// Cells at once, each in a process of its own. Default: the number of cores, or of --gpus.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// GPUs by their numbers, such as 0,1; processes take them in turn, so --jobs 8 --gpus 0,1 has four
    /// on each. For a plan made with --device cuda.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    gpus: Vec<usize>,
}

/// Arguments of `sweep cell`.
#[derive(Debug, Clone, clap::Args)]
pub struct CellArgs {
    #[command(flatten)]
    pub(super) common: Common,

    /// Which cell, counted from 0.
    #[arg(long, value_name = "I")]
    index: usize,

    /// Threads of one tensor operation. Default: SLURM_CPUS_PER_TASK, or 1. Results are the same to the
    /// last bit only with the same number.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// Arguments of `sweep tables`.
#[derive(Debug, Clone, clap::Args)]
pub struct TablesArgs {
    #[command(flatten)]
    place: Place,

    /// A data file that has another path here; may be given several times.
    #[arg(long, value_name = "FILE.h5")]
    data: Vec<PathBuf>,
}

/// Runs all cells of a plan; whether none failed.
///
/// # Errors
/// When the plan cannot be followed here.
pub(super) fn run(args: &RunArgs) -> Result<bool> {
    let devices: Vec<_> = args.gpus.iter().map(|gpu| format!("cuda:{gpu}")).collect();
    for device in &devices {
        device::parse_device(device).context("--gpus")?;
    }
    let plan = args.common.place.open()?;
    ensure!(
        devices.is_empty() || plan.device == "cuda",
        "--gpus: the cells of this plan are for {}, and figures of another kind of device differ in \
         their last digits; plan with --device cuda",
        plan.device
    );
    let n_processes = match (args.jobs, plan.device.as_str()) {
        (Some(jobs), _) => jobs.get(),
        (None, "cpu") => grid::cores(),
        (None, _) => devices.len().max(1),
    };
    work(&plan, &[], &args.common, devices, n_processes, 1)
}

/// Runs one cell of a plan; whether it is finished.
///
/// # Errors
/// When the plan cannot be followed here, or has no such cell.
pub(super) fn cell(args: &CellArgs) -> Result<bool> {
    let plan = args.common.place.open()?;
    let threads = match args.threads {
        Some(threads) => threads.get(),
        None => slurm_threads(env::var(SLURM_THREADS).ok().as_deref())?,
    };
    work(&plan, &[args.index], &args.common, Vec::new(), 1, threads)
}

fn slurm_threads(granted: Option<&str>) -> Result<usize> {
    let Some(text) = granted else { return Ok(1) };
    let threads = text.parse::<NonZeroUsize>();
    Ok(threads.with_context(|| format!("{SLURM_THREADS}={text} is no number"))?.get())
}

fn work(
    plan: &Plan,
    indices: &[usize],
    common: &Common,
    mut devices: Vec<String>,
    n_processes: usize,
    threads: usize,
) -> Result<bool> {
    if devices.is_empty() {
        device::parse_device(&plan.device)?;
        devices.push(plan.device.clone());
    }
    let cells = plan.cells(indices, &by_content(&common.data)?)?;
    let mut wanted: Vec<_> = cells.iter().map(|(cell, _)| cell.data.clone()).collect();
    wanted.sort();
    wanted.dedup();
    let sources = source::open_all(&[], &wanted, &[], plan.split)?;
    let mut jobs = Vec::new();
    for (cell, views) in cells {
        let sha256 = cell.identity["data"]["sha256"].as_str().unwrap_or_default();
        let Some(source) = sources.iter().find(|source| source.sha256 == sha256) else {
            bail!(
                "{}: {} is not the file that was planned with: its content has changed; plan anew, \
                 or name the right file with --data",
                cell.title(),
                cell.data.display()
            );
        };
        jobs.push(Job { cell, source, views });
    }
    files::sweep(&plan.out);
    jobs.iter().for_each(|job| job.cell.sweep());
    let open: Vec<_> = jobs.iter().filter(|job| !job.is_done()).collect();
    tracing::info!("{} of {} cells are finished already", jobs.len() - open.len(), jobs.len());
    let options = Options {
        n_processes,
        devices,
        threads,
        dead_after: Duration::from_secs(common.dead_after),
        verbose: common.verbose,
        after_interrupt: "the same command goes on where they stopped".to_owned(),
    };
    let mut n_failed = 0;
    pool::run(&open, &options, &mut |_, result| n_failed += usize::from(result.is_err()));
    if n_failed > 0 {
        tracing::error!(
            "{n_failed} of {} cells failed; `sweep retry` has them tried again",
            jobs.len()
        );
    }
    Ok(n_failed == 0)
}

/// Where data files are, by the SHA-256 of their content.
fn by_content(files: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>> {
    files.iter().map(|file| Ok((sha256_of(file)?, std::path::absolute(file)?))).collect()
}

/// A command that makes a table.
#[derive(Debug, Parser)]
#[command(name = "cumdf-bench")]
struct Line {
    #[command(subcommand)]
    artefact: Artefact,
}

/// Makes the tables of a plan from what is finished; whether all of it is.
///
/// # Errors
/// When the plan cannot be followed here, or a table not be written.
pub(super) fn tables(args: &TablesArgs) -> Result<bool> {
    let plan = args.place.open()?;
    let here = by_content(&args.data)?;
    let line = ["cumdf-bench".to_owned()].into_iter().chain(plan.arguments.iter().cloned());
    let Line { mut artefact } = Line::try_parse_from(line).context("the plan's arguments")?;
    let start = env::current_dir()?;
    // Paths in the arguments start where the plan was made, which may be no folder of this machine.
    if env::set_current_dir(&plan.folder).is_err() {
        tracing::warn!(
            "{} is not here: relative paths start in {}",
            plan.folder.display(),
            start.display()
        );
    }
    artefact.out().clone_from(&plan.out);
    let grid = artefact.grid();
    grid.as_it_is = true;
    grid.fresh = false; // what is there is all there is
    grid.device.clone_from(&plan.device); // `auto` may be another kind here
    for file in &mut grid.data {
        let planned = moved(&plan, file, &here)?;
        *file = planned.unwrap_or_else(|| file.clone());
    }
    artefact.run()
}

/// Where a data file of the plan is now.
fn moved(plan: &Plan, file: &Path, here: &BTreeMap<String, PathBuf>) -> Result<Option<PathBuf>> {
    let file = std::path::absolute(plan.folder.join(file))?;
    let planned = plan.cells.iter().find(|planned| planned.data == file);
    Ok(planned.and_then(|planned| here.get(planned.sha256())).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurm_says_how_many_threads() {
        assert_eq!(slurm_threads(None).unwrap(), 1);
        assert_eq!(slurm_threads(Some("4")).unwrap(), 4);
        for nonsense in ["0", "", "x"] {
            let err = slurm_threads(Some(nonsense)).unwrap_err().to_string();
            assert!(err.contains(SLURM_THREADS), "{err}");
        }
    }
}
