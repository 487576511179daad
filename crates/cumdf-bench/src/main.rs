//! `cumdf-bench`: the paper's tables. See [`cumdf_bench`].

use std::process::ExitCode;

use anyhow::Result;
use clap::{
    Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use cumdf_bench::{
    artefact::{Artefact, datasets},
    grid::child,
    page, results, sweep,
};
use cumdf_data::border;
use cumdf_train::{allocator, config::Config, device, telemetry};

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
    #[command(flatten)]
    Artefact(Artefact),
    /// The statistics of data files.
    Datasets(datasets::Args),
    /// All results of a folder as one page for a browser.
    Report(page::Args),
    /// docs/results.md from the results that are kept in results/.
    Results(results::Args),
    /// The trainings of a table on many GPUs or machines: plan, run, Slurm, status, retry.
    #[command(subcommand)]
    Sweep(sweep::Command),
    /// One training and its test; tables start these.
    #[command(hide = true)]
    Cell(child::Args),
}

fn main() -> ExitCode {
    allocator::keep_freed();
    // Before all else of libtorch: it gives up on CUDA for good if it is asked before this.
    device::load_cuda();
    let cli = Cli::try_parse().unwrap_or_else(|err| {
        let _ = err.print();
        if let Some(hint) = hint(&err) {
            eprintln!("\n  tip: {hint}");
        }
        std::process::exit(err.exit_code()) // 2 for a usage error
    });
    let (verbose, run): (bool, Box<dyn FnOnce() -> Result<bool>>) = match cli.command {
        Command::Artefact(mut artefact) => {
            (artefact.grid().verbose, Box::new(move || artefact.run()))
        }
        Command::Datasets(args) => (false, Box::new(move || datasets::run(&args))),
        Command::Report(args) => (false, Box::new(move || page::run(&args))),
        Command::Results(args) => (false, Box::new(move || results::run(&args))),
        Command::Sweep(command) => (command.is_verbose(), Box::new(move || sweep::run(&command))),
        Command::Cell(args) => return child::main(&args),
    };
    telemetry::init(verbose);
    border::guard("cumdf-bench", run)
}

/// To an argument that is not known: keys of the configuration are given with `--set`.
fn hint(err: &clap::Error) -> Option<String> {
    let ContextValue::String(argument) = err.get(ContextKind::InvalidArg)? else { return None };
    let name = argument.strip_prefix("--").filter(|_| err.kind() == ErrorKind::UnknownArgument)?;
    let keys = Config::keys_called(&name.split('=').next()?.replace('-', "_"), None);
    let keys: Vec<_> = keys.iter().map(|key| format!("--set {key}=..")).collect();
    (!keys.is_empty())
        .then(|| format!("a key of the configuration is given as {}", keys.join(" or ")))
}
