//! The statistics of a data set: what the paper's appendix tabulates, and what tends to be wrong.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::import::{self, Survey};
use crate::text::counted;
use crate::{Dataset, Labels, Modality, Samples, Split, Task};

/// What a file holds, in whatever layout.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Inspection {
    /// A file in the native layout, checked.
    Native(Report),
    /// A file that can be imported.
    Foreign(Survey),
}

impl Inspection {
    /// Writes what was found for a person to read.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Native(report) => report.write_text(out),
            Self::Foreign(survey) => survey.write_text(out),
        }
    }
}

/// Looks into a file of any layout. `bar` moves with what is read of a foreign one.
///
/// # Errors
/// As [`Dataset::open`] for a native file, as [`import::survey`] for another.
pub fn inspect(path: &Path, bar: &ProgressBar) -> Result<Inspection> {
    Ok(match import::survey(path, bar)? {
        Some(survey) => Inspection::Foreign(survey),
        None => Inspection::Native(Report::of(path)?),
    })
}

/// Statistics of one file in the native layout.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The file, as it was named.
    pub file: String,
    /// Its SHA-256.
    pub sha256: String,
    /// The data set's own name.
    pub name: String,
    /// What the file was imported from, if it was.
    pub source: Option<String>,
    /// The kind of label.
    pub task: Task,
    /// Steps `T`.
    pub steps: i64,
    /// Train, valid and test.
    pub splits: Vec<SplitReport>,
}

/// Statistics of one split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitReport {
    /// Which split.
    pub split: Split,
    /// Number of samples.
    pub samples: usize,
    /// Samples whose features all equal those of an earlier one, in this split or one before it.
    pub duplicates: usize,
    /// Used steps.
    pub length: LengthReport,
    /// Language, audio and vision.
    pub modalities: Vec<ModalityReport>,
    /// Samples of each class, by name: a score's nearest bin, or an emotion. A sample of several
    /// emotions counts in each.
    pub classes: Vec<(String, usize)>,
}

/// Used steps of a split's samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthReport {
    /// Shortest.
    pub min: i64,
    /// Middle one; the lower of two.
    pub median: i64,
    /// Mean.
    pub mean: f64,
    /// Longest.
    pub max: i64,
}

/// One modality of one split. Shares lie in [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModalityReport {
    /// Which modality.
    pub modality: Modality,
    /// Steps `T_m`; 1 for a feature of the whole utterance.
    pub steps: i64,
    /// Features per step `d_m`.
    pub dim: i64,
    /// Share of samples without it.
    pub absent: f64,
    /// Share of real frames with a value that is not finite; `None` when there is no real frame.
    pub non_finite_frames: Option<f64>,
    /// Share of real frames that are all zero; `None` when there is no real frame.
    pub zero_frames: Option<f64>,
}

impl Report {
    /// Opens and measures a file.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let data = Dataset::open(path)?;
        let mut known = HashSet::new();
        let splits: Result<_> =
            Split::ALL.into_iter().map(|split| split_report(&data, split, &mut known)).collect();
        Ok(Self {
            file: path.display().to_string(),
            sha256: data.sha256,
            name: data.name,
            source: data.source,
            task: data.task,
            steps: data.steps,
            splits: splits?,
        })
    }

    /// Writes the report for a person to read.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let task = &self.task;
        let count = |n: i64, noun| counted(usize::try_from(n).unwrap_or(0), noun);
        let steps = count(self.steps, "step");
        writeln!(out, "{}\n  {}: {task}, {steps}", self.file, self.name)?;
        if let Some(source) = &self.source {
            writeln!(out, "  imported from {source}")?;
        }
        writeln!(out, "  sha256 {}\n", self.sha256)?;
        self.row(out, "", |s| s.split.to_string())?;
        self.row(out, "samples", |s| s.samples.to_string())?;
        self.row(out, "duplicates", |s| s.duplicates.to_string())?;
        self.row(out, "length, min / median / max", |s| {
            format!("{} / {} / {}", s.length.min, s.length.median, s.length.max)
        })?;
        self.row(out, "length, mean", |s| format!("{:.1}", s.length.mean))?;
        for modality in Modality::ALL {
            let m = modality.index();
            let first = &self.splits[0].modalities[m];
            let features = count(first.dim, "feature");
            let title = match first.steps {
                1 => format!("{modality}: one vector per utterance, {features}"),
                steps => format!("{modality}: {steps} steps of {features}"),
            };
            writeln!(out, "  {title}")?;
            self.row(out, "  samples without it", |s| percent(s.modalities[m].absent))?;
            self.row(out, "  frames not finite", |s| maybe(s.modalities[m].non_finite_frames))?;
            self.row(out, "  frames all zero", |s| maybe(s.modalities[m].zero_frames))?;
        }
        writeln!(out, "  label")?;
        for (class, (name, _)) in self.splits[0].classes.iter().enumerate() {
            self.row(out, &format!("  {name}"), |s| {
                let count = s.classes[class].1;
                format!("{count} ({})", percent(count as f64 / s.samples as f64))
            })?;
        }
        Ok(())
    }

    fn row(
        &self,
        out: &mut impl Write,
        title: &str,
        cell: impl Fn(&SplitReport) -> String,
    ) -> io::Result<()> {
        write!(out, "  {title:<28}")?;
        for split in &self.splits {
            write!(out, "{:>16}", cell(split))?;
        }
        writeln!(out)
    }
}

/// A share; nothing is shown as 0 % that is not 0.
fn percent(share: f64) -> String {
    match share {
        0.0 => "0 %".to_owned(),
        share if share < 0.001 => "< 0.1 %".to_owned(),
        share => format!("{:.1} %", 100.0 * share),
    }
}

fn maybe(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), percent)
}

fn split_report(
    data: &Dataset,
    split: Split,
    known: &mut HashSet<[u8; 32]>,
) -> Result<SplitReport> {
    let samples = data.split(split);
    let mut lengths = samples.lengths.clone();
    lengths.sort_unstable();
    let n = samples.len();
    let length = LengthReport {
        min: lengths[0],
        median: lengths[(n - 1) / 2],
        mean: lengths.iter().sum::<i64>() as f64 / n as f64,
        max: lengths[n - 1],
    };
    let mut hashers = vec![Sha256::new(); n];
    let mut modalities = Vec::new();
    for modality in Modality::ALL {
        modalities.push(modality_report(samples, modality, &mut hashers)?);
    }
    let duplicates = hashers.into_iter().filter(|h| !known.insert(h.clone().finalize().into()));
    Ok(SplitReport {
        split,
        samples: n,
        duplicates: duplicates.count(),
        length,
        modalities,
        classes: histogram(&samples.labels, &data.task),
    })
}

/// Measures a modality, and feeds every sample's real frames to its hasher.
fn modality_report(
    samples: &Samples,
    modality: Modality,
    hashers: &mut [Sha256],
) -> Result<ModalityReport> {
    let x = &samples.features[modality.index()];
    let (n, steps, dim) = x.size3()?;
    let (mut absent, mut frames, mut non_finite, mut zero) = (0u64, 0u64, 0u64, 0u64);
    for (sample, hasher) in hashers.iter_mut().enumerate() {
        if !samples.present[sample].contains(modality) {
            absent += 1;
            continue;
        }
        let used = samples.lengths[sample].min(steps);
        let real = x.get(sample as i64).narrow(0, 0, used).flatten(0, -1);
        for frame in Vec::<f32>::try_from(real)?.chunks_exact(dim as usize) {
            frames += 1;
            non_finite += u64::from(frame.iter().any(|value| !value.is_finite()));
            zero += u64::from(frame.iter().all(|value| *value == 0.0));
            for value in frame {
                hasher.update(value.to_le_bytes());
            }
        }
        hasher.update([modality as u8]);
    }
    let share = |part: u64| (frames > 0).then(|| part as f64 / frames as f64);
    Ok(ModalityReport {
        modality,
        steps,
        dim,
        absent: absent as f64 / n as f64,
        non_finite_frames: share(non_finite),
        zero_frames: share(zero),
    })
}

fn histogram(labels: &Labels, task: &Task) -> Vec<(String, usize)> {
    let mut counts = vec![0; task.n_classes()];
    match labels {
        Labels::Scores(scores) => scores.iter().for_each(|score| counts[task.bin(*score)] += 1),
        Labels::Classes(rows) => {
            for row in rows {
                for (count, flag) in counts.iter_mut().zip(row) {
                    *count += usize::from(*flag);
                }
            }
        }
    }
    task.class_names().into_iter().zip(counts).collect()
}
