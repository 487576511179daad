//! `cumdf-bench`: the paper's tables. See [`cumdf_bench`].

use std::process::ExitCode;

use anyhow::Result;
use clap::{
    Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use cumdf_bench::{
    artefact::{all, datasets, efficiency, figure3, figure4, table1, table2, table3},
    grid::child,
    page, results,
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
    /// Table 1: models under the seven sets of present modalities.
    Table1(table1::Args),
    /// Table 2: models under the seven sets of present modalities, one emotion against the rest.
    Table2(table2::Args),
    /// Table 3: CUMDF without its parts, and with the paper's settings one at a time.
    Table3(table3::Args),
    /// Figure 3: models against the share of frames that are hidden, as curves.
    Figure3(figure3::Args),
    /// Figure 4: cases. What was seen of a sample, and what two models made of it.
    Figure4(figure4::Args),
    /// The statistics of data files.
    Datasets(datasets::Args),
    /// What the methods cost: parameters, arithmetic, memory, time.
    Efficiency(efficiency::Args),
    /// Everything above, in one go.
    All(all::Args),
    /// All results of a folder as one page for a browser.
    Report(page::Args),
    /// docs/results.md from the results that are kept in results/.
    Results(results::Args),
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
    let work: (bool, Box<dyn FnOnce() -> Result<bool>>) = match cli.command {
        Command::Table1(args) => (args.grid.verbose, Box::new(move || table1::run(&args))),
        Command::Table2(args) => (args.grid.verbose, Box::new(move || table2::run(&args))),
        Command::Table3(args) => (args.grid.verbose, Box::new(move || table3::run(&args))),
        Command::Figure3(args) => (args.grid.verbose, Box::new(move || figure3::run(&args))),
        Command::Figure4(args) => (args.grid.verbose, Box::new(move || figure4::run(&args))),
        Command::Datasets(args) => (false, Box::new(move || datasets::run(&args))),
        Command::Efficiency(args) => (args.grid.verbose, Box::new(move || efficiency::run(&args))),
        Command::All(args) => (args.grid.verbose, Box::new(move || all::run(&args))),
        Command::Report(args) => (false, Box::new(move || page::run(&args))),
        Command::Results(args) => (false, Box::new(move || results::run(&args))),
        Command::Cell(args) => return child::main(&args),
    };
    let (verbose, run) = work;
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
