//! `cumdf-data`: imports data sets, looks into them, and writes the synthetic ones.

mod cli;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use cumdf_data::border;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

fn main() -> ExitCode {
    let args = cli::Args::parse(); // a usage error exits with 2
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy()) // RUST_LOG, as everywhere in Rust
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    border::guard("cumdf-data", || cli::run(args, &mut io::stdout().lock()).map(|()| true))
}
