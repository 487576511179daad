//! `cumdf-train`: teacher, student, evaluate, doctor.

use std::process::ExitCode;

use clap::Parser as _;

mod cli;

fn main() -> ExitCode {
    // libtorch must find its CUDA half before anything asks it about CUDA.
    cumdf_train::device::load_cuda();
    let args = cli::Args::try_parse().unwrap_or_else(|err| {
        let _ = err.print();
        if let Some(hint) = cli::hint(&err) {
            eprintln!("\n  tip: {hint}");
        }
        std::process::exit(err.exit_code())
    });
    cumdf_train::telemetry::init(args.verbose);
    match cli::run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}
