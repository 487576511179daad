//! The trainings of a table where one process is not enough: on several GPUs, under Slurm or
//! Kubernetes, on machines that share a folder.
//!
//! - [`plan`]: the file in which every cell has an index;
//! - [`work`]: running cells of a plan, and making the tables at the end;
//! - [`slurm`]: batch scripts;
//! - [`status`]: how far it is, and what failed.
//!
//! Whoever runs a cell, and however often it is asked for: [`crate::grid::claim`] lets one process at
//! a time have it, and what is finished is not done again.

pub mod plan;
pub mod slurm;
pub mod status;
pub mod work;

use std::path::PathBuf;

use anyhow::Result;
use cumdf_data::View;

use self::plan::Plan;
use crate::grid::cell::Cell;

/// What `sweep` can do.
#[derive(Debug, clap::Subcommand)]
#[command(after_long_help = EXAMPLES)]
pub enum Command {
    /// Print a plan: every cell of a table, with an index.
    Plan(Box<plan::Args>),
    /// Run the cells of a plan on this machine, several at once; others may do the same elsewhere.
    Run(work::RunArgs),
    /// Run one cell of a plan: what Slurm, Kubernetes or GNU parallel start.
    Cell(work::CellArgs),
    /// Make the tables of a plan from what is finished.
    Tables(work::TablesArgs),
    /// Write the batch scripts of a plan for Slurm, and submit them.
    Slurm(slurm::Args),
    /// How many cells are finished, running, failed, open, and which.
    Status(status::Args),
    /// Have failed cells tried again by whoever runs next.
    Retry(status::RetryArgs),
}

const EXAMPLES: &str = "\
Examples:
  cumdf-bench sweep plan --data mosi.h5 --models all --seeds 5 --out runs/five > plan.json
  cumdf-bench sweep run --plan plan.json --jobs 4
  cumdf-bench sweep run --plan plan.json --jobs 8 --gpus 0,1    (planned with --device cuda)
  cumdf-bench sweep slurm --plan plan.json --submit --time 4:00:00 --partition gpu
  cumdf-bench sweep status --plan plan.json
  cumdf-bench sweep retry --plan plan.json
  cumdf-bench sweep tables --plan plan.json

docs/sweeps.md has Slurm, Kubernetes and GNU parallel.";

/// Which plan, and where its files are on this machine.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// The plan that `sweep plan` printed.
    #[arg(long, value_name = "PLAN.json")]
    pub plan: PathBuf,

    /// The folder of the cells, where it has another path here than on the machine that planned.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl Place {
    /// Reads the plan, with this machine's path of the folder in it.
    fn open(&self) -> Result<Plan> {
        let mut plan = plan::read(&self.plan)?;
        if let Some(out) = &self.out {
            plan.out = std::path::absolute(out)?;
        }
        Ok(plan)
    }
}

/// A cell of a plan, with its views.
type Wanted = (Cell, Vec<View>);

impl Command {
    /// Whether the trainings are to be heard.
    pub fn is_verbose(&self) -> bool {
        match self {
            Self::Run(args) => args.common.verbose,
            Self::Cell(args) => args.common.verbose,
            _ => false,
        }
    }
}

/// Does what a command says; whether all went well.
///
/// # Errors
/// When the plan cannot be used, or a file not be written.
pub fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Plan(args) => plan::print(args),
        Command::Run(args) => work::run(args),
        Command::Cell(args) => work::cell(args),
        Command::Tables(args) => work::tables(args),
        Command::Slurm(args) => slurm::write(args),
        Command::Status(args) => status::print(args),
        Command::Retry(args) => status::retry(args),
    }
}
