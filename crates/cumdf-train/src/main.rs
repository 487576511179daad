//! `cumdf-train`: teacher, student, evaluate, doctor.

use std::process::ExitCode;

use clap::Parser as _;
use cumdf_data::border;
use cumdf_train::{device, telemetry};

mod cli;

fn main() -> ExitCode {
    // libtorch must find its CUDA half before anything asks it about CUDA.
    device::load_cuda();
    let args = cli::Args::parse(); // a usage error exits with 2
    telemetry::init(args.verbose);
    border::guard("cumdf-train", || cli::run(args))
}
