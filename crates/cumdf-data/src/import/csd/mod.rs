//! Computational sequences, joined word by word: imports what CMU-MultimodalSDK distributes.
//!
//! The procedure is the one that the SDK documents for CMU-MOSI and CMU-MOSEI (Zadeh et al.,
//! "Multi-attention Recurrent Network for Human Communication Comprehension", AAAI 2018, and
//! <https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK>): `align` to the words with means, then
//! `align` to the labels.
//!
//! 1. Intervals overlap when they share more than 1e-5 seconds. Words and segments shorter than
//!    that are dropped, and frames as short, or that end before they start, belong to nothing.
//! 2. A word's audio is the plain mean of all audio frames that overlap it, however long each is;
//!    so is its vision.
//! 3. A segment's steps are all words that overlap it, in order of their starts. A word at a border
//!    is in both segments, each time with the features of the whole word.
//! 4. A sample is named `video[i]`, `i` being the segment's row in the label file. Samples stand in
//!    the order of the fold's videos, and of the rows in each.
//!
//! It departs from the SDK in what it does where something is missing, and counts each case:
//!
//! - values that are not finite are left out of a mean, where the SDK's becomes NaN or infinite;
//! - a word without a frame, or a feature without a finite one, is a gap (NaN in the new file,
//!   the feature's mean in training), where the SDK fills in zeros;
//! - a segment none of whose words (those that stay, see below) has a frame of a modality is kept,
//!   and that modality absent. The SDK leaves out a video that a sequence lacks (`unify`), and fills
//!   in zeros elsewhere, or without `impute` leaves out the segment; [`Incomplete::Drop`] leaves out
//!   both;
//! - silence (`sp`) is dropped where a file of words says which it is, as published packs do;
//! - a word is in a segment with all its modalities or not at all. The SDK asks anew for each, by
//!   the time that its frames cover, so that at a segment's border it may have fewer steps;
//! - segments are cut to `steps` words: the last ones stay, as by the SDK's `get_tensors` and in the
//!   packs of MulT (Tsai et al., ACL 2019), or the first ones.
//!
//! Videos are read one after another by as many threads as there are cores, a few at a time; the
//! new file is the same, byte for byte, however many there are.

mod align;
mod folds;
mod labels;
mod roles;
mod sequence;
pub(crate) mod survey;
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use indicatif::ProgressBar;

use labels::Annotations;
use words::{Joined, Joiner};

use crate::hdf::chunks::{Scratch, Times};
use crate::import::known::{self, KnownSet};
use crate::import::source::{self, Mark, Source, file_name};
use crate::import::{Entry, Fate, Ledger, Summary};
use crate::native::sha256_of;
use crate::writer::{Shape, Writer};
use crate::{Modality, Split};

pub use folds::Folds;
pub use roles::Given;
pub use sequence::{Kind, Sequence, Track, Values};

/// Videos that each thread may be ahead of the writer.
const AHEAD: usize = 4;

/// The sequences of one data set and how to join them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequences {
    /// Features of words, for example `CMU_MOSI_TimestampedWordVectors.csd`: the steps.
    pub language: PathBuf,
    /// Features of speech, for example `CMU_MOSI_COVAREP.csd`.
    pub audio: Option<PathBuf>,
    /// Features of faces, for example `CMU_MOSI_Visual_Facet_42.csd`.
    pub vision: Option<PathBuf>,
    /// Labels of segments, for example `CMU_MOSI_Opinion_Labels.csd`.
    pub labels: PathBuf,
    /// The words themselves, `CMU_MOSI_TimestampedWords.csd`: they tell silence.
    pub words: Option<PathBuf>,
    /// The SDK's folds file or JSON, see [`Folds::open`].
    pub folds: Vec<PathBuf>,
    /// The new data set's name; by default the one in the label file's metadata.
    pub name: Option<String>,
    /// Words per sample, `T`; by default 50 for CMU-MOSI, 20 for CMU-MOSEI and IEMOCAP.
    pub steps: Option<usize>,
    /// What stays of a segment of more words.
    pub keep: Keep,
    /// Whether silence stays; it is known where `words` is given.
    pub silence: bool,
    /// What becomes of samples that lack a modality.
    pub incomplete: Incomplete,
    /// What the samples' labels are to be.
    pub target: Target,
    /// Lowest and highest score; by default [-3, 3] for CMU-MOSI and CMU-MOSEI, otherwise the
    /// first of [-1, 1], [-3, 3], [1, 5] and [0, 5] that holds all scores.
    pub range: Option<[i64; 2]>,
    /// Threads that read and join; by default as many as there are cores.
    pub threads: Option<usize>,
}

/// What stays of a segment of more than `T` words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Keep {
    /// Its first `T` words.
    First,
    /// Its last `T` words, as in MulT's packs.
    #[default]
    Last,
}

/// What becomes of samples that lack a modality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Incomplete {
    /// They stay, and the modality is absent.
    #[default]
    Keep,
    /// They are left out, as by the SDK.
    Drop,
}

/// Which columns of a label file become labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Target {
    /// The one named sentiment, or the only one: a score.
    #[default]
    Sentiment,
    /// The others: emotions, each present where it is above 0.
    Emotion,
}

impl Sequences {
    /// Sequences of these files, joined as usual; fields may be changed afterwards.
    pub fn new(language: PathBuf, labels: PathBuf, folds: Vec<PathBuf>) -> Self {
        Self {
            language,
            audio: None,
            vision: None,
            labels,
            words: None,
            folds,
            name: None,
            steps: None,
            keep: Keep::default(),
            silence: false,
            incomplete: Incomplete::default(),
            target: Target::default(),
            range: None,
            threads: None,
        }
    }

    /// Joins the sequences into a new file at `out`, in the native layout.
    ///
    /// The bar counts videos.
    ///
    /// # Errors
    /// When a file cannot be read or contradicts itself or another, an option is missing that the
    /// files do not answer, or `out` cannot be written. Then nothing is left at `out`.
    pub fn import(&self, out: &Path, bar: &ProgressBar) -> Result<Summary> {
        let start = Instant::now();
        let options = [&self.audio, &self.vision, &self.words].into_iter().flatten();
        let all = [&self.language, &self.labels].into_iter().chain(options).chain(&self.folds);
        source::refuse_to_replace(out, all.map(PathBuf::as_path))?;
        let mut ledger = Ledger::default();
        let folds = Folds::open(&self.folds)?;
        for video in &folds.repeated {
            ledger.one(Fate::Noted, "videos that stand twice in their fold", video);
        }
        let language = self.open_language()?;
        let open = |path: &Option<PathBuf>| path.as_ref().map(Sequence::open).transpose();
        let frames = [open(&self.audio)?, open(&self.vision)?];
        let words = open(&self.words)?;
        let labels = Sequence::open(&self.labels)?;
        let others = frames.iter().chain([&words]).flatten();
        let all: Vec<&Sequence> = [&labels, &language].into_iter().chain(others).collect();
        for sequence in &all {
            for key in sequence.unread_metadata() {
                let example = format!("{} `{key}`", sequence.path().display());
                ledger.one(Fate::Noted, "metadata that cannot be read", example);
            }
        }

        let known = recognise(&all);
        let steps = self.steps.or(known.map(|set| set.steps)).context(
            "neither the metadata nor the file names say CMU-MOSI, CMU-MOSEI or IEMOCAP; say how \
             many words a sample has at most with --steps",
        )?;
        ensure!(
            self.range.is_none() || self.target == Target::Sentiment,
            "--range is for scores, and the labels are to be emotions"
        );
        ensure!(steps > 0, "steps is 0: a sample needs at least one word");
        let name = self.name(&labels, known);
        let mut annotations = Annotations::read(&labels, &folds, self.target, &mut ledger)?;
        let task = annotations.task(self.range.or(known.and_then(|set| set.range)))?;

        let width = |sequence: &Sequence| -> Result<usize> {
            let kind = sequence.kind()?;
            let kind = kind.with_context(|| format!("{}: is empty", sequence.path().display()))?;
            ensure!(
                kind.dtype != "string",
                "{}: holds strings, expected numbers; give this file as the words, and their \
                 vectors (*_TimestampedWordVectors.csd) as the language",
                sequence.path().display()
            );
            Ok(kind.dim)
        };
        let mut shape = Shape { steps: [steps, 1, 1], dims: [width(&language)?, 1, 1] };
        for (m, sequence) in frames.iter().enumerate() {
            let modality = Modality::ALL[m + 1];
            match sequence {
                Some(sequence) => {
                    shape.dims[m + 1] = width(sequence)?;
                    shape.steps[m + 1] = steps;
                }
                None => {
                    let what = format!("no file of {modality} was given: absent everywhere");
                    ledger.count(Fate::Noted, &what, 1);
                }
            }
        }
        if words.is_none() {
            let what = "no file of words was given: silence is unknown and stays";
            ledger.count(Fate::Noted, what, 1);
        }

        let joiner = Joiner {
            language: &language,
            frames: frames.each_ref().map(Option::as_ref),
            words: words.as_ref(),
            shape,
            keep: self.keep,
            silence: self.silence,
            incomplete: self.incomplete,
        };
        let videos: Vec<(Split, &str)> = Split::ALL
            .into_iter()
            .zip(&folds.videos)
            .flat_map(|(split, videos)| videos.iter().map(move |video| (split, video.as_str())))
            .collect();
        bar.set_length(videos.len() as u64);
        let mut writer = Writer::create(out, shape)?;
        writer.note_source(&self.source(&all)?.to_string())?;
        let opened = start.elapsed();
        let mut wrote = Duration::ZERO;
        let times = in_order(
            self.threads(),
            &videos,
            |scratch, (_, video)| joiner.join(video, annotations.of(video), scratch),
            |(split, video), joined: Joined| {
                let start = Instant::now();
                joined.ledger.entries().iter().for_each(|entry| add(&mut ledger, entry));
                for sample in joined.samples {
                    writer.push(*split, sample).with_context(|| format!("video {video}"))?;
                }
                wrote += start.elapsed();
                bar.inc(1);
                Ok(())
            },
        )?;
        joiner.check(&ledger)?;
        writer.check_filled(&ledger)?;
        let splits = writer.finish(&name, &task)?;
        tracing::debug!(
            opening = ?opened,
            joining = ?times.joining,
            reading = ?times.files.read,
            inflating = ?times.files.inflate,
            writing = ?wrote,
            whole = ?start.elapsed(),
            "times of the import; joining is the threads' sum and holds reading and inflating"
        );
        tracing::debug!(read = times.files.bytes[0], inflated = times.files.bytes[1], "bytes");
        Ok(Summary { name, task, steps: shape.steps, dims: shape.dims, splits, ledger })
    }

    /// The files by name: the labels with their sum, the others, of gigabytes, with their size.
    fn source(&self, sequences: &[&Sequence]) -> Result<Source> {
        let mark = |path: &Path| -> Result<(String, Mark)> {
            let mark = if path == self.labels {
                Mark::Sha256(sha256_of(path)?)
            } else {
                Mark::Bytes(fs::metadata(path)?.len())
            };
            Ok((file_name(path), mark))
        };
        let paths = sequences.iter().map(|sequence| sequence.path());
        let paths = paths.chain(self.folds.iter().map(PathBuf::as_path));
        let files = paths.map(mark).collect::<Result<_>>()?;
        Ok(Source { name: String::new(), layout: "CMU-MultimodalSDK sequences", files })
    }

    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(cores).max(1)
    }

    fn open_language(&self) -> Result<Sequence> {
        Sequence::open(&self.language)
    }

    fn name(&self, labels: &Sequence, known: Option<&KnownSet>) -> String {
        let in_file = || labels.metadata().get("dataset name").and_then(|name| name.as_str());
        let from_path = || self.labels.file_stem().map_or("csd".into(), |s| s.to_string_lossy());
        self.name
            .clone()
            .or_else(|| in_file().map(str::to_owned).filter(|name| !name.is_empty()))
            .or_else(|| known.map(|set| set.name.clone()))
            .unwrap_or_else(|| from_path().into_owned())
    }
}

/// Which of the well-known data sets this is: by metadata first, then by names.
fn recognise(sequences: &[&Sequence]) -> Option<&'static KnownSet> {
    let metadata = |s: &&Sequence| known::set(s.metadata().get("dataset name")?.as_str()?);
    let names = |s: &&Sequence| {
        known::set(s.root_name()).or_else(|| known::set(&s.path().file_name()?.to_string_lossy()))
    };
    sequences.iter().find_map(metadata).or_else(|| sequences.iter().find_map(names))
}

/// Adds what one video's ledger counted.
fn add(ledger: &mut Ledger, entry: &Entry) {
    for example in &entry.examples {
        ledger.one(entry.fate, &entry.what, example);
    }
    ledger.count(entry.fate, &entry.what, entry.count - entry.examples.len() as u64);
}

/// Where the threads' time went.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    joining: Duration,
    files: Times,
}

/// Does `work` on every item by several threads, and hands the results over in the items' order.
/// Item `i` is thread `i % threads`'s, so a thread that is ahead waits for the others.
pub(crate) fn in_order<I: Sync, R: Send>(
    threads: usize,
    items: &[I],
    work: impl Fn(&mut Scratch, &I) -> Result<R> + Sync,
    mut take: impl FnMut(&I, R) -> Result<()>,
) -> Result<Spent> {
    let threads = threads.min(items.len()).max(1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (work, stop) = (&work, &stop);
        let (mut receivers, mut workers) = (Vec::new(), Vec::new());
        for first in 0..threads {
            let (sender, receiver): (SyncSender<Result<R>>, Receiver<_>) = sync_channel(AHEAD);
            receivers.push(receiver);
            workers.push(scope.spawn(move || {
                let mut scratch = Scratch::new();
                let mut joining = Duration::ZERO;
                for item in items.iter().skip(first).step_by(threads) {
                    let start = Instant::now();
                    let result = work(&mut scratch, item);
                    joining += start.elapsed();
                    if stop.load(Ordering::Relaxed) || sender.send(result).is_err() {
                        break;
                    }
                }
                Spent { joining, files: scratch.times }
            }));
        }
        let mut outcome = Ok(());
        for (item, receiver) in items.iter().zip(receivers.iter().cycle()) {
            // A thread that hangs up early has panicked; joining it below says so.
            let Ok(result) = receiver.recv() else { break };
            outcome = result.and_then(|result| take(item, result));
            if outcome.is_err() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        drop(receivers);
        let mut spent = Spent::default();
        for worker in workers {
            let part = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            spent.joining += part.joining;
            spent.files = spent.files.and(part.files);
        }
        outcome.map(|()| spent)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn results_come_in_order_from_any_number_of_threads() {
        let items: Vec<u64> = (0..50).collect();
        for threads in [1, 2, 3, 80] {
            let mut taken = Vec::new();
            let work = |_: &mut Scratch, item: &u64| {
                std::thread::sleep(Duration::from_micros(item * 7919 % 300));
                Ok(item * 2)
            };
            let take = |item: &u64, result| {
                taken.push((*item, result));
                Ok(())
            };
            in_order(threads, &items, work, take).unwrap();
            assert!(taken.iter().map(|(item, _)| item).eq(&items), "{threads} threads");
            assert!(taken.iter().all(|(item, result)| *result == item * 2), "{threads} threads");
        }
    }

    #[test]
    fn the_first_error_in_order_ends_the_work() {
        let items: Vec<u64> = (0..1000).collect();
        let work = |_: &mut Scratch, item: &u64| {
            if *item >= 20 { bail!("item {item}") } else { Ok(*item) }
        };
        for threads in [1, 4] {
            let mut taken = 0;
            let take = |_: &u64, _| {
                taken += 1;
                Ok(())
            };
            let error = in_order(threads, &items, work, take).unwrap_err();
            assert_eq!((error.to_string().as_str(), taken), ("item 20", 20), "{threads} threads");
            let full = in_order(threads, &items, work, |_, _: u64| bail!("disk is full"));
            assert_eq!(full.unwrap_err().to_string(), "disk is full");
        }
    }

    #[test]
    #[should_panic(expected = "a broken promise")]
    fn a_panic_of_a_thread_is_passed_on() {
        let work = |_: &mut Scratch, item: &u64| {
            assert!(*item != 7, "a broken promise");
            Ok(())
        };
        let items: Vec<u64> = (0..50).collect();
        let _ = in_order(3, &items, work, |_, ()| Ok(()));
    }
}
