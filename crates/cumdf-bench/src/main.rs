//! `cumdf-bench`: the paper's tables. See [`cumdf_bench`].

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use cumdf_bench::{cell, schedule, table1};
use cumdf_train::{device, telemetry};

/// Regenerates the tables of the CUMDF paper: what we measure, what the paper prints, and what
/// simple answers reach, such as always the same one.
#[derive(Debug, Parser)]
#[command(name = "cumdf-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Table 1: models under the seven sets of present modalities.
    Table1(table1::Args),
    /// One training and its test; `table1` starts these.
    #[command(hide = true)]
    Cell {
        /// Folder that `table1` has prepared.
        #[arg(long)]
        dir: PathBuf,
        /// Device to compute on.
        #[arg(long)]
        device: String,
    },
}

fn main() -> ExitCode {
    // First of all: libtorch gives up on CUDA for good if it is asked before this.
    device::load_cuda();
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well; the details have been told.
fn run(command: Command) -> Result<bool> {
    match command {
        Command::Table1(args) => {
            telemetry::init(args.verbose);
            table1::run(&args)
        }
        Command::Cell { dir, device } => {
            schedule::end_with_parent();
            telemetry::init(true);
            device::set_threads(1);
            cell::run(&dir, &device).map(|_| true)
        }
    }
}
