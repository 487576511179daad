//! `cumdf-bench`: the paper's tables. See [`cumdf_bench`].

use std::process::ExitCode;

use clap::{
    Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use cumdf_bench::{artefact::Artefact, grid::child, sweep};
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
    match cli.command {
        Command::Artefact(mut artefact) => {
            telemetry::init(artefact.grid().verbose);
            border::guard("cumdf-bench", || artefact.run())
        }
        Command::Sweep(command) => {
            telemetry::init(command.is_verbose());
            border::guard("cumdf-bench", || sweep::run(&command))
        }
        Command::Cell(args) => child::main(&args),
    }
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
