//! `cumdf-train`: teacher, student, evaluate, doctor.

use std::process::ExitCode;

use clap::Parser as _;
use cumdf_data::border;
use cumdf_train::{allocator, device, telemetry};

mod cli;

fn main() -> ExitCode {
    allocator::keep_freed();
    // libtorch must find its CUDA half before anything asks it about CUDA.
    device::load_cuda();
    let args = cli::Args::try_parse().unwrap_or_else(|err| {
        let _ = err.print();
        if let Some(hint) = cli::hint(&err) {
            eprintln!("\n  tip: {hint}");
        }
        std::process::exit(err.exit_code()) // 2 for a usage error
    });
    telemetry::init(args.verbose);
    border::guard("cumdf-train", || cli::run(args))
}
