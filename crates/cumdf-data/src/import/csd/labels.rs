//! The label file of computational sequences: what each segment is labelled with.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::Target;
use super::align::{self, Interval};
use super::folds::Folds;
use super::sequence::{Rows, Sequence};
use crate::Task;
use crate::hdf::chunks::Scratch;
use crate::import::{Fate, Ledger, range};
use crate::writer::Label;

/// Columns of CMU-MOSEI's `All Labels`, for a file that does not name its own.
const MOSEI: [&str; 7] = ["sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear"];

/// One labelled stretch of a video.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Segment {
    /// `video[i]`.
    pub(crate) id: String,
    pub(crate) interval: Interval,
    pub(crate) label: Label,
}

/// The labelled segments of all videos of the folds.
#[derive(Debug)]
pub(crate) struct Annotations {
    segments: HashMap<String, Vec<Segment>>,
    target: Target,
    classes: Vec<String>,
}

impl Annotations {
    /// Reads the labels of the folds' videos, and drops segments that are none.
    pub(crate) fn read(
        labels: &Sequence,
        folds: &Folds,
        target: Target,
        ledger: &mut Ledger,
    ) -> Result<Self> {
        let at = || labels.path().display().to_string();
        let kind = labels.kind()?.with_context(|| format!("{}: is empty", at()))?;
        ensure!(kind.dtype != "string", "{}: holds strings, expected the labels' numbers", at());
        let width = kind.dim;
        let columns = columns(&names(labels, width), width, target).with_context(at)?;
        let mut all = HashMap::new();
        let mut scratch = Scratch::new();
        for video in folds.videos.iter().flatten() {
            if !labels.has(video) {
                ledger.one(Fate::Dropped, "videos of a fold without labels", video);
                continue;
            }
            let rows = labels.rows(video, &mut scratch)?;
            let mut values = vec![0f32; rows.intervals.len() * width];
            rows.visit(
                width,
                &mut scratch,
                |_| true,
                |row, col, part| {
                    values[row * width + col..][..part.len()].copy_from_slice(part);
                },
            )?;
            let ids = ids(video, &rows);
            let mut segments = Vec::new();
            ledger.count(Fate::Found, "labelled segments", rows.intervals.len() as u64);
            for ((interval, id), values) in
                rows.intervals.iter().zip(ids).zip(values.chunks_exact(width))
            {
                if !align::is_proper(*interval) {
                    ledger.one(Fate::Dropped, "segments of no length", id);
                    continue;
                }
                let chosen: Vec<f32> = columns.iter().map(|(col, _)| values[*col]).collect();
                if !chosen.iter().all(|value| value.is_finite()) {
                    ledger.one(Fate::Dropped, "segments whose label is not a number", id);
                    continue;
                }
                let label = match target {
                    Target::Sentiment => Label::Score(chosen[0]),
                    Target::Emotion => Label::Classes(chosen.iter().map(|v| *v > 0.0).collect()),
                };
                if matches!(&label, Label::Classes(flags) if !flags.contains(&true)) {
                    ledger.one(Fate::Dropped, "segments without any emotion", id);
                    continue;
                }
                segments.push(Segment { id, interval: *interval, label });
            }
            all.insert(video.clone(), segments);
        }
        ensure!(
            !all.is_empty(),
            "{}: has none of the folds' videos; are these the folds of another data set?",
            at()
        );
        for video in labels.videos().filter(|video| !all.contains_key(*video)) {
            ledger.one(Fate::Dropped, "labelled videos in no fold", video);
        }
        let classes = columns.into_iter().map(|(_, name)| name).collect();
        Ok(Self { segments: all, target, classes })
    }

    /// The segments of a video, in the order of their rows.
    pub(crate) fn of(&self, video: &str) -> &[Segment] {
        self.segments.get(video).map_or(&[], Vec::as_slice)
    }

    /// What the labels mean; `range` is the one asked for or usual for the data set.
    pub(crate) fn task(&mut self, range: Option<[i64; 2]>) -> Result<Task> {
        if self.target == Target::Emotion {
            return Ok(Task::Emotion { classes: self.classes.clone() });
        }
        let scores = self.segments.values().flatten().filter_map(|segment| match segment.label {
            Label::Score(score) => Some(f64::from(score)),
            Label::Classes(_) => None,
        });
        let task = range::settle(range, scores)?;
        for segment in self.segments.values_mut().flatten() {
            if let Label::Score(score) = &mut segment.label {
                *score = range::clamp(f64::from(*score), &task);
            }
        }
        Ok(task)
    }
}

/// Names of a label file's columns, as far as they can be known.
fn names(labels: &Sequence, width: usize) -> Option<Vec<String>> {
    let named = labels.metadata().get("dimension names").and_then(|names| names.as_array());
    let named = named
        .and_then(|names| names.iter().map(|name| name.as_str().map(str::to_owned)).collect())
        .filter(|names: &Vec<String>| names.len() == width);
    named.or_else(|| (width == MOSEI.len()).then(|| MOSEI.map(str::to_owned).to_vec()))
}

/// The columns that become labels, and their names.
fn columns(
    names: &Option<Vec<String>>,
    width: usize,
    target: Target,
) -> Result<Vec<(usize, String)>> {
    let is_sentiment = |name: &String| name.to_ascii_lowercase().contains("sentiment");
    let sentiment = names.as_ref().and_then(|names| names.iter().position(is_sentiment));
    match (target, names) {
        (Target::Sentiment, _) => Ok(vec![(sentiment.unwrap_or(0), "sentiment".to_owned())]),
        (Target::Emotion, Some(names)) => {
            let others = names.iter().cloned().enumerate();
            let others: Vec<_> = others.filter(|(col, _)| Some(*col) != sentiment).collect();
            ensure!(!others.is_empty(), "its only label is {names:?}, there are no emotions");
            Ok(others)
        }
        (Target::Emotion, None) => bail!(
            "has {width} columns without names (metadata `dimension names`), so that emotions \
             cannot be told from a sentiment"
        ),
    }
}

/// `video[i]` of each row. In a file that is aligned already the entries have such names.
fn ids(video: &str, rows: &Rows<'_>) -> Vec<String> {
    let aligned = rows.parts.iter().all(|p| p.entry.contains('[') && p.features.rows == 1);
    if aligned {
        rows.parts.iter().map(|part| part.entry.to_owned()).collect()
    } else {
        (0..rows.intervals.len()).map(|row| format!("{video}[{row}]")).collect()
    }
}
