//! The command line of `cumdf-data`.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::{Parser, Subcommand};
use cumdf_data::import::{
    self, CsdOptions, Given, Incomplete, Keep, Options, PackOptions, SharedIds, Target,
};
use cumdf_data::{Modality, ModalitySet, inspect, interrupt, synthetic};
use indicatif::{ProgressBar, ProgressStyle};

/// Imports data sets into the native layout, looks into them, and writes the synthetic ones.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  cumdf-data inspect aligned_50.pkl                   what a file holds, whoever made it
  cumdf-data import aligned_50.pkl --out data/mosi.h5 a pack of MMSA, MulT or LMF
  cumdf-data import cmumosi/ --folds cmu_mosi_std_folds.py --out data/mosi.h5
                                                      .csd files of CMU-MultimodalSDK
  cumdf-data import mine.toml --out data/mine.h5      arrays named in a manifest
  cumdf-data synthetic                                data/synthetic.h5, data/synthetic-emotion.h5

docs/import.md says what to download for each data set, docs/data.md what a native file holds. A
file that breaks a rule is refused with the reason: exit code 1. Exit code 70 is a bug of ours, 130
an interruption by Ctrl-C."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn a data set in another layout into a native file.
    Import(Box<ImportArgs>),
    /// Check files and tell what they hold.
    ///
    /// A native file, per split: samples, lengths, duplicates, labels; per modality: its sizes, the
    /// samples that lack it, and the frames that are not finite or all zero. Any other file that
    /// can be imported: its layout and whose file it is, shapes, types, ranges, values that are not
    /// finite, whether it is aligned, and names that stand twice or in two splits.
    #[command(after_help = "\
Examples:
  cumdf-data inspect mosi.h5
  cumdf-data inspect mosi_data.pkl CMU_MOSI_COVAREP.csd
  cumdf-data inspect --json mosi.h5 | jq '.[0].splits[].samples'")]
    Inspect {
        /// Native files, pickles, .csd files, .npy, .npz, .h5, or manifests.
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

const CSD: &str = "CMU-MultimodalSDK";
const PACK: &str = "Pickles and arrays";

/// What `import` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cumdf-data import aligned_50.pkl --out data/mosi.h5 --name CMU-MOSI
  cumdf-data import unaligned_50.pkl --out data/mosi.h5 --pool audio,vision
  cumdf-data import iemocap_data.pkl --out data/iemocap.h5
  cumdf-data import cmumosi/ --folds cmu_mosi_std_folds.py --out data/mosi.h5
  cumdf-data import cmumosei/ --audio cmumosei/CMU_MOSEI_COVAREP.csd --target emotion \\
      --out data/mosei-emotion.h5
  cumdf-data import mine.toml --out data/mine.h5

What a pickle holds is never executed. The summary says what was found, dropped and filled; the
output appears whole or not at all.")]
struct ImportArgs {
    /// A pickle of MMSA, MulT or LMF; a TOML manifest of arrays; or a folder of .csd files.
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// The native file to write.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// Replace the output if it exists.
    #[arg(long)]
    force: bool,
    /// Name of the new data set, for titles; the source's own when absent.
    #[arg(long)]
    name: Option<String>,
    /// Lowest and highest score; the narrowest of -1,1 -3,3 1,5 0,5 that holds all when absent.
    #[arg(long, value_name = "LO,HI", value_parser = parse_range, allow_hyphen_values = true)]
    range: Option<[i64; 2]>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,

    /// Modalities to average over time into one vector per utterance, for unaligned packs.
    #[arg(long, value_name = "MODALITY", value_delimiter = ',', value_parser = parse_modality)]
    #[arg(help_heading = PACK)]
    pool: Vec<Modality>,
    /// What to do when an id stands in two splits.
    #[arg(long, value_name = "HOW", default_value = "refuse")]
    #[arg(help_heading = PACK)]
    shared_ids: SharedIds,
    /// Which number of a label of several is the score, from 0.
    #[arg(long, value_name = "COLUMN", help_heading = PACK)]
    label_column: Option<usize>,

    /// Which videos belong to which split: CMU-MultimodalSDK's *_std_folds.py (parsed, never run),
    /// or JSON with train, valid and test; found in the folder when absent.
    #[arg(long, value_name = "FILE", value_delimiter = ',', help_heading = CSD)]
    folds: Vec<PathBuf>,
    /// The sequence of word vectors; like those below, found in the folder when absent.
    #[arg(long, value_name = "FILE", help_heading = CSD)]
    language: Option<PathBuf>,
    /// The sequence of audio features.
    #[arg(long, value_name = "FILE", help_heading = CSD)]
    audio: Option<PathBuf>,
    /// The sequence of vision features.
    #[arg(long, value_name = "FILE", help_heading = CSD)]
    vision: Option<PathBuf>,
    /// The sequence of labels.
    #[arg(long, value_name = "FILE", help_heading = CSD)]
    labels: Option<PathBuf>,
    /// The sequence of the words themselves, which tells silence.
    #[arg(long, value_name = "FILE", help_heading = CSD)]
    words: Option<PathBuf>,
    /// Words per sample; 50 for CMU-MOSI, 20 for CMU-MOSEI and IEMOCAP when absent.
    #[arg(long, value_name = "T", help_heading = CSD)]
    steps: Option<usize>,
    /// Which words stay of a segment of more.
    #[arg(long, value_name = "WHICH", default_value = "last", help_heading = CSD)]
    keep: Keep,
    /// Keep silence (sp) as words.
    #[arg(long, help_heading = CSD)]
    silence: bool,
    /// What becomes of a sample that lacks a modality.
    #[arg(long, value_name = "HOW", default_value = "keep", help_heading = CSD)]
    incomplete: Incomplete,
    /// Which columns of the labels to take.
    #[arg(long, value_name = "WHICH", default_value = "sentiment", help_heading = CSD)]
    target: Target,
}

impl ImportArgs {
    fn options(&self) -> Options {
        Options {
            name: self.name.clone(),
            range: self.range,
            pack: PackOptions {
                pool: ModalitySet::of(self.pool.iter().copied()),
                shared_ids: self.shared_ids,
                label_column: self.label_column,
            },
            csd: CsdOptions {
                given: Given {
                    language: self.language.clone(),
                    audio: self.audio.clone(),
                    vision: self.vision.clone(),
                    labels: self.labels.clone(),
                    words: self.words.clone(),
                    folds: self.folds.clone(),
                },
                steps: self.steps,
                keep: self.keep,
                silence: self.silence,
                incomplete: self.incomplete,
                target: self.target,
            },
        }
    }

    fn run(&self, out: &mut impl Write) -> Result<()> {
        let path = &self.out;
        ensure!(!path.is_dir(), "{} is a folder; name the file to write", path.display());
        ensure!(self.force || !path.exists(), "{} exists; --force replaces it", path.display());
        let bar = bar("importing");
        let shown = bar.clone();
        interrupt::watch(move || {
            shown.finish_and_clear();
            eprintln!("interrupted; nothing was written");
        })?;
        let summary = import::import(&self.source, &self.options(), path, &bar);
        interrupt::watch(|| {})?;
        bar.finish_and_clear();
        let summary = summary?;
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &summary).map_err(io::Error::from)?;
            return Ok(writeln!(out)?);
        }
        writeln!(out, "{}", path.display())?;
        Ok(summary.write_text(out)?)
    }
}

/// Does what the arguments ask for; results go to `out`.
pub(crate) fn run(args: Args, out: &mut impl Write) -> Result<()> {
    match args.command {
        Command::Import(args) => args.run(out)?,
        Command::Inspect { files, json } => {
            let mut reports = Vec::new();
            for file in files {
                let bar = bar("reading");
                let report = inspect::inspect(&file, &bar);
                bar.finish_and_clear();
                let report = report?;
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

/// A bar on stderr; nothing is drawn where that is no terminal.
fn bar(what: &'static str) -> ProgressBar {
    let style = "{msg} {wide_bar} {percent:>3} %  {elapsed} of about {duration}";
    let style = ProgressStyle::with_template(style).expect("the template is well-formed");
    ProgressBar::new(0).with_style(style).with_message(what)
}

fn parse_modality(text: &str) -> Result<Modality> {
    let found = Modality::ALL.into_iter().find(|modality| modality.name() == text);
    found.ok_or_else(|| anyhow::anyhow!("expected language, audio or vision"))
}

fn parse_range(text: &str) -> Result<[i64; 2]> {
    let Some((low, high)) = text.split_once(',') else {
        bail!("expected two integers with a comma between, as in -3,3");
    };
    let (low, high) = (low.trim().parse()?, high.trim().parse()?);
    ensure!(low < high, "the first must be the lower");
    Ok([low, high])
}
