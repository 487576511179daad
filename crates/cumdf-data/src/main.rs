//! `cumdf-data`: looks into data sets and writes the synthetic ones.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use cumdf_data::{inspect::Report, synthetic};

/// Looks into data sets in the native layout and writes the synthetic ones.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  cumdf-data synthetic                      write data/synthetic.h5 and data/synthetic-emotion.h5
  cumdf-data inspect data/synthetic.h5      sizes, gaps and labels of a file, after checking it
  cumdf-data inspect --json data/*.h5       the same for programs

A file that breaks a rule of the layout (docs/data.md) is refused with the reason: exit code 1."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check files and print their statistics.
    ///
    /// Per split: samples, lengths, duplicates, labels; per modality: its sizes, the samples that
    /// lack it, and the frames that are not finite or all zero.
    #[command(after_help = "\
Examples:
  cumdf-data inspect mosi.h5
  cumdf-data inspect --json mosi.h5 | jq '.[0].splits[].samples'")]
    Inspect {
        /// HDF5 files in the native layout.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print JSON, an array of one object per file.
        #[arg(long)]
        json: bool,
    },
    /// Write the synthetic corpora, unless they are there already.
    ///
    /// synthetic.h5 carries sentiment scores, synthetic-emotion.h5 four emotions. Their content is
    /// the same on every machine.
    #[command(after_help = "\
Example:
  cumdf-data synthetic --dir /tmp/data")]
    Synthetic {
        /// Folder to write to; made if need be.
        #[arg(long, value_name = "DIR", default_value = "data")]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let args = Args::parse(); // a usage error exits with 2
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    match run(args, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS, // `| head` has seen enough
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args, out: &mut impl Write) -> Result<()> {
    match args.command {
        Command::Inspect { files, json } => {
            let mut reports = Vec::new();
            for file in files {
                let report = Report::of(file)?;
                if !json {
                    report.write_text(out)?;
                    writeln!(out)?;
                }
                reports.push(report);
            }
            if json {
                serde_json::to_writer_pretty(&mut *out, &reports).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        }
        Command::Synthetic { dir } => {
            for kind in synthetic::Kind::ALL {
                writeln!(out, "{}", synthetic::ensure(kind, &dir)?.display())?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
