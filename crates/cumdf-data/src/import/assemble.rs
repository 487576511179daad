//! From the three parts of a pack or of loose arrays to a native file.
//!
//! Packs pad in front (MulT, keeping the last steps) or behind (MMSA), with zeros in every stream;
//! the native layout starts each sample at step 0. A step counts as used when one of the aligned
//! streams has a finite value other than 0 there, or when the file itself tells the lengths.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use indicatif::ProgressBar;

use crate::import::table::{Part, RawLabels, Table};
use crate::import::{Fate, Ledger, Options, Source, Summary, range};
use crate::writer::{Label, Sample, Shape, Writer};
use crate::{Modality, ModalitySet, Split, Task};

/// Bytes of one modality that are read at a time, about.
const BLOCK_BYTES: usize = 16 << 20;
/// What a user can say about a pack or about arrays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackOptions {
    /// Modalities to average over time into one vector per utterance.
    pub pool: ModalitySet,
    /// What to do about an id that stands in two splits.
    pub shared_ids: SharedIds,
    /// Which column of a label of several to take as the score.
    pub label_column: Option<usize>,
}

/// What to do about an id that stands in two splits: a sample there was trained on and tested on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum SharedIds {
    /// Refuse the source.
    #[default]
    Refuse,
    /// Keep the sample in test rather than valid, in valid rather than train.
    Drop,
    /// Keep all and name them by their split too: for names that start anew in each split.
    Number,
}

/// The kind of label of a source whose range may not be known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawTask {
    Sentiment { range: Option<[i64; 2]> },
    Emotion { classes: Vec<String> },
}

/// Writes the parts of train, valid and test as the native file `out`.
pub(crate) fn write(
    source: &Source,
    task: &RawTask,
    mut parts: [Part<'_>; 3],
    options: &Options,
    out: &Path,
    mut ledger: Ledger,
    bar: &ProgressBar,
) -> Result<Summary> {
    let task = settle(task, options.range, &parts)?;
    let shape = shape_of(&parts, options.pack.pool)?;
    let mut ids = name_all(&parts, options.pack.shared_ids, &mut ledger)?;
    bar.set_length(parts.iter().map(|part| part.labels.len() as u64).sum());
    let mut writer = Writer::create(out, shape)?;
    writer.note_source(&source.to_string())?;
    for split in Split::ALL {
        let part = &mut parts[split.index()];
        let ids = std::mem::take(&mut ids[split.index()]);
        Copier { split, task: &task, shape, pool: options.pack.pool, ledger: &mut ledger }
            .copy(part, ids, &mut writer, bar)
            .with_context(|| split.to_string())?;
    }
    writer.check_filled(&ledger)?;
    let name = options.name.as_deref().unwrap_or(&source.name);
    let splits = writer.finish(name, &task)?;
    for modality in Modality::ALL {
        let count: u64 = splits.iter().map(|s| s.not_finite[modality.index()]).sum();
        ledger.count(Fate::Filled, &not_finite(modality), count);
    }
    let Shape { steps, dims } = shape;
    Ok(Summary { name: name.to_owned(), task, steps, dims, splits, ledger })
}

/// The ledger's words for a modality that a sample does not have.
fn nothing_in(modality: Modality) -> String {
    format!("samples whose {modality} is all zeros or not finite: marked as without it")
}

/// The ledger's words for values that become the feature's mean when the file is read.
pub(crate) fn not_finite(modality: Modality) -> String {
    format!("{modality} values that are NaN or infinite: missing values, the mean in training")
}

/// The task with its range, which all scores fit.
fn settle(task: &RawTask, asked: Option<[i64; 2]>, parts: &[Part<'_>; 3]) -> Result<Task> {
    let told = match task {
        RawTask::Emotion { classes } => {
            ensure!(asked.is_none(), "--range is for scores, and the labels are emotions");
            return Ok(Task::Emotion { classes: classes.clone() });
        }
        RawTask::Sentiment { range } => *range,
    };
    let scores = parts.iter().flat_map(|part| match &part.labels {
        RawLabels::Scores(scores) => scores.as_slice(),
        RawLabels::Classes(_) => &[],
    });
    range::settle(asked.or(told), scores.copied())
}

/// Steps and features of each modality, the same in all splits; refuses streams that do not share
/// their steps.
fn shape_of(parts: &[Part<'_>; 3], pool: ModalitySet) -> Result<Shape> {
    let mut shape = Shape { steps: [1; 3], dims: [1; 3] };
    for modality in Modality::ALL {
        let m = modality.index();
        let mut first: Option<(Split, usize, usize)> = None;
        for split in Split::ALL {
            let part = &parts[split.index()];
            let Some(table) = &part.features[m] else { continue };
            let (rows, steps, dim) = match *table.shape() {
                [rows, steps, dim] => (rows, steps, dim),
                [rows, dim] => (rows, 1, dim),
                ref other => bail!(
                    "{split}: {modality} has shape {other:?}, expected [N, T, d], or [N, d] for \
                     features of the whole utterance"
                ),
            };
            ensure!(
                rows == part.labels.len(),
                "{split}: {modality} has {rows} rows, the labels have {}",
                part.labels.len()
            );
            ensure!(
                steps > 0 && dim > 0,
                "{split}: {modality} has shape {:?}, of no value",
                table.shape()
            );
            match first {
                None => first = Some((split, steps, dim)),
                Some((other, t, d)) => ensure!(
                    (t, d) == (steps, dim),
                    "{split}: {modality} has {steps} steps of {dim} features, in {other} it has \
                     {t} of {d}"
                ),
            }
        }
        if let Some((_, steps, dim)) = first {
            shape.steps[m] = if pool.contains(modality) { 1 } else { steps };
            shape.dims[m] = dim;
        }
    }
    let streams: Vec<_> =
        Modality::ALL.into_iter().filter(|m| shape.steps[m.index()] > 1).collect();
    let all: HashSet<_> = streams.iter().map(|m| shape.steps[m.index()]).collect();
    if all.len() > 1 {
        let told: Vec<_> =
            streams.iter().map(|m| format!("{m} {}", shape.steps[m.index()])).collect();
        bail!(
            "the streams are not aligned, their steps differ ({}); take the aligned file of the \
             same data set (aligned_50.pkl, mosi_data.pkl), align CMU-MultimodalSDK's .csd files \
             with this command, or give --pool audio,vision, which averages each over time into \
             one vector per utterance",
            told.join(", ")
        );
    }
    Ok(shape)
}

/// The name of every sample, unique over the splits; `None` where it is to be left out.
fn name_all(
    parts: &[Part<'_>; 3],
    shared: SharedIds,
    ledger: &mut Ledger,
) -> Result<[Vec<Option<String>>; 3]> {
    let mut last: HashMap<&str, Split> = HashMap::new();
    let mut leaks: Vec<String> = Vec::new();
    let mut shared_by: HashSet<&str> = HashSet::new();
    for split in Split::ALL {
        let part = &parts[split.index()];
        let Some(ids) = &part.ids else { continue };
        let n = part.labels.len();
        ensure!(ids.len() == n, "{split}: {} ids for {n} labels", ids.len());
        for id in ids.iter().filter(|id| !id.is_empty()) {
            if let Some(first) = last.insert(id, split)
                && first != split
            {
                shared_by.insert(id);
                leaks.push(format!("`{}` in {first} and {split}", id.escape_debug()));
            }
        }
    }
    if shared == SharedIds::Refuse && !leaks.is_empty() {
        bail!(
            "{} ids stand in two splits, so that samples would be trained on and tested on: {}{}; \
             if these are numbers that start anew in each split, give --shared-ids number; if they are the \
             same samples, --shared-ids drop keeps each in the later split only",
            shared_by.len(),
            leaks[..leaks.len().min(3)].join(", "),
            if leaks.len() > 3 { ", ..." } else { "" }
        );
    }
    let mut taken: HashSet<String> = HashSet::new();
    let mut named = [const { Vec::new() }; 3];
    for split in Split::ALL {
        let part = &parts[split.index()];
        for row in 0..part.labels.len() {
            let given = part.ids.as_ref().map(|ids| ids[row].as_str()).filter(|id| !id.is_empty());
            let name = match given {
                None => {
                    ledger.count(Fate::Filled, "samples without a name, numbered", 1);
                    Some(format!("{split}{row}"))
                }
                Some(id) if shared == SharedIds::Number && shared_by.contains(id) => {
                    ledger.count(Fate::Noted, "ids of two splits, named by their split too", 1);
                    Some(format!("{split}/{id}"))
                }
                Some(id) if last[id] != split => {
                    ledger.one(Fate::Dropped, "samples whose id stands in a later split", id);
                    None
                }
                Some(id) => Some(id.to_owned()),
            };
            let name = name.map(|name| {
                if taken.insert(name.clone()) {
                    return name;
                }
                ledger.one(Fate::Noted, "ids that stood twice in a split, numbered", &name);
                let mut copies = (2..).map(|copy| format!("{name}#{copy}"));
                copies.find(|name| taken.insert(name.clone())).expect("numbers do not end")
            });
            named[split.index()].push(name);
        }
    }
    Ok(named)
}

/// Copies one split.
struct Copier<'a> {
    split: Split,
    task: &'a Task,
    shape: Shape,
    pool: ModalitySet,
    ledger: &'a mut Ledger,
}

impl Copier<'_> {
    fn copy(
        &mut self,
        part: &mut Part<'_>,
        ids: Vec<Option<String>>,
        writer: &mut Writer,
        bar: &ProgressBar,
    ) -> Result<()> {
        let n = ids.len();
        self.ledger.count(Fate::Found, "samples", n as u64);
        let widest = part.features.iter().flatten().map(|t| row_len(t.as_ref())).max();
        let block = (BLOCK_BYTES / (4 * widest.unwrap_or(1)).max(1)).max(1);
        for start in (0..n).step_by(block) {
            let rows = start..n.min(start + block);
            let mut values = [const { Vec::new() }; 3];
            for (values, table) in values.iter_mut().zip(&mut part.features) {
                if let Some(table) = table {
                    *values = table.rows(rows.clone())?;
                }
            }
            for row in rows.clone() {
                bar.inc(1);
                let Some(id) = &ids[row] else { continue };
                let Some(label) = self.label(&part.labels, row, id) else { continue };
                let frames = [0, 1, 2].map(|m| {
                    let len = part.features[m].as_deref().map_or(0, row_len);
                    &values[m][(row - start) * len..(row - start + 1) * len]
                });
                let told = [0, 1, 2].map(|m| part.lengths[m].as_ref().map(|all| all[row]));
                if let Some(sample) = self.sample(id, label, frames, told)? {
                    writer.push(self.split, sample)?;
                }
            }
        }
        Ok(())
    }

    /// The label of a row; `None`, and a line in the ledger, when it has none.
    fn label(&mut self, labels: &RawLabels, row: usize, id: &str) -> Option<Label> {
        match labels {
            RawLabels::Scores(scores) if scores[row].is_finite() => {
                Some(Label::Score(range::clamp(scores[row], self.task)))
            }
            RawLabels::Scores(_) => {
                self.ledger.one(Fate::Dropped, "samples whose score is not a number", id);
                None
            }
            RawLabels::Classes(rows) if rows[row].contains(&true) => {
                Some(Label::Classes(rows[row].clone()))
            }
            RawLabels::Classes(_) => {
                self.ledger.one(Fate::Dropped, "samples of none of the classes", id);
                None
            }
        }
    }

    /// One sample, moved to step 0; `None`, and a line in the ledger, when it has nothing.
    fn sample(
        &mut self,
        id: &str,
        label: Label,
        frames: [&[f32]; 3],
        told: [Option<usize>; 3],
    ) -> Result<Option<Sample>> {
        let Shape { steps, dims } = self.shape;
        let aligned = |m: usize| steps[m] > 1 && !frames[m].is_empty();
        let mut used = 0..1;
        if (0..3).any(aligned) {
            let mut ranges = [const { 0..0 }; 3];
            for m in (0..3).filter(|m| aligned(*m)) {
                ranges[m] = told[m].map_or_else(|| used_steps(frames[m], dims[m]), |n| 0..n);
                let (t, end) = (steps[m], ranges[m].end);
                ensure!(end <= t, "sample `{id}` has length {end}, of {t} steps");
            }
            let filled = ranges.iter().filter(|range| !range.is_empty()).cloned();
            let all = filled.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
            used = all.unwrap_or(0..0);
            if let Some(told) = (0..3).filter(|m| aligned(*m)).filter_map(|m| told[m]).max()
                && told < used.end
            {
                let what = "samples that go on in another stream past the length that is told";
                self.ledger.one(Fate::Noted, what, id);
            }
            if used.start > 0 {
                self.ledger.count(Fate::Noted, "samples padded in front, moved to step 0", 1);
            }
        }
        let mut features = [const { Vec::new() }; 3];
        let mut present = Vec::new();
        for modality in Modality::ALL {
            let (m, dim) = (modality.index(), dims[modality.index()]);
            let seen = if self.pool.contains(modality) {
                let (means, holes) = mean(frames[m], dim, told[m]);
                let what = format!("{modality} values that are not finite, left out of means");
                self.ledger.count(Fate::Filled, &what, holes);
                features[m] = means;
                &features[m]
            } else if aligned(m) {
                &frames[m][used.start * dim..used.end * dim]
            } else {
                frames[m]
            };
            if seen.iter().any(|value| value.is_finite() && *value != 0.0) {
                present.push(modality);
            } else if !frames[m].is_empty() {
                self.ledger.one(Fate::Noted, &nothing_in(modality), id);
            }
            if features[m].is_empty() {
                features[m] = seen.to_vec();
            }
            if let Some(told) = told[m].filter(|told| aligned(m) && *told < used.end) {
                features[m][told * dim..].fill(f32::NAN); // padding, of whatever values
            }
            features[m].resize(steps[m] * dim, 0.0);
        }
        if present.is_empty() {
            self.ledger.one(Fate::Dropped, "samples without any feature", id);
            return Ok(None);
        }
        Ok(Some(Sample {
            id: id.to_owned(),
            label,
            length: used.len().max(1),
            present: ModalitySet::of(present),
            features,
        }))
    }
}

fn row_len(table: &dyn Table) -> usize {
    table.shape()[1..].iter().product()
}

/// The first to the last step with a finite value other than 0; empty when there is none.
fn used_steps(frames: &[f32], dim: usize) -> Range<usize> {
    let used = |frame: &[f32]| frame.iter().any(|value| value.is_finite() && *value != 0.0);
    let start = frames.chunks_exact(dim).position(used);
    let end = frames.chunks_exact(dim).rposition(used);
    start.zip(end).map_or(0..0, |(start, end)| start..end + 1)
}

/// Mean of each feature's finite values over the used steps, NaN where there is none, and how many
/// others there are. Empty for no frames.
fn mean(frames: &[f32], dim: usize, told: Option<usize>) -> (Vec<f32>, u64) {
    let used = match told {
        Some(length) => 0..length.min(frames.len() / dim),
        None => used_steps(frames, dim),
    };
    if frames.is_empty() || used.is_empty() {
        return (vec![0.0; if frames.is_empty() { 0 } else { dim }], 0);
    }
    let mut holes = 0;
    let mut sums = vec![(0.0, 0.0); dim];
    for frame in frames[used.start * dim..used.end * dim].chunks_exact(dim) {
        for ((sum, count), value) in sums.iter_mut().zip(frame) {
            if value.is_finite() {
                *sum += f64::from(*value);
                *count += 1.0;
            } else {
                holes += 1;
            }
        }
    }
    (sums.into_iter().map(|(sum, count)| (sum / count) as f32).collect(), holes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::table::InMemory;
    use crate::{Dataset, Labels};

    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::NEG_INFINITY;

    fn table(shape: &[usize], values: &[f32]) -> Option<Box<dyn Table>> {
        Some(Box::new(InMemory { shape: shape.to_vec(), values: values.to_vec() }))
    }

    /// Two samples of four steps, one padded in front and one behind; audio has an infinity.
    fn part(prefix: &str) -> Part<'static> {
        let language = [0., 0., 0., 1., 0., 2., 3., 4., 5., 6., 7., 8., 0., 0., 0., 0.];
        let audio = [0., 0., INF, 9., 1., 0., 0., 0.];
        let vision = [1., 2., 0., 0.];
        Part {
            features: [
                table(&[2, 4, 2], &language),
                table(&[2, 4, 1], &audio),
                table(&[2, 2], &vision),
            ],
            labels: RawLabels::Scores(vec![-1.5, 2.0]),
            ids: Some(vec![format!("{prefix}1"), format!("{prefix}2")]),
            lengths: [None, None, None],
        }
    }

    fn run(parts: [Part<'_>; 3], options: &Options) -> Result<(Summary, Dataset)> {
        let folder = tempfile::TempDir::new()?;
        let out = folder.path().join("new.h5");
        let task = RawTask::Sentiment { range: None };
        let source = Source { name: "toy".to_owned(), layout: "a toy", files: vec![] };
        let summary =
            write(&source, &task, parts, options, &out, Ledger::default(), &ProgressBar::hidden());
        assert_eq!(out.exists(), summary.is_ok(), "a file stands there after a failure");
        Ok((summary?, Dataset::open(out)?))
    }

    fn about(pack: PackOptions) -> Options {
        Options { pack, ..Default::default() }
    }

    fn parts() -> [Part<'static>; 3] {
        ["a", "b", "c"].map(part)
    }

    fn floats(data: &Dataset, modality: usize) -> Vec<f32> {
        Vec::try_from(data.train.features[modality].flatten(0, -1)).unwrap()
    }

    #[test]
    fn padding_in_front_is_moved_behind() {
        let (summary, data) = run(parts(), &Options::default()).unwrap();
        assert_eq!(data.task, Task::Sentiment { lo: -3, hi: 3 });
        assert_eq!(data.train.lengths, [3, 2]);
        let language = [0., 1., 0., 2., 3., 4., 0., 0., 5., 6., 7., 8., 0., 0., 0., 0.];
        assert_eq!(floats(&data, 0), language);
        let audio = floats(&data, 1);
        assert!(audio[1].is_nan(), "{audio:?}");
        let finite: Vec<_> = audio[..6].iter().copied().filter(|value| !value.is_nan()).collect();
        assert_eq!(finite, [0.0, 9.0, 0.0, 1.0, 0.0]);
        assert_eq!(data.train.present[1], ModalitySet::of([Modality::Language, Modality::Audio]));
        let ledger = &summary.ledger;
        assert_eq!(ledger.count_of(Fate::Noted, "samples padded in front, moved to step 0"), 3);
        assert_eq!(ledger.count_of(Fate::Filled, &not_finite(Modality::Audio)), 3);
        assert_eq!(ledger.count_of(Fate::Noted, &nothing_in(Modality::Vision)), 3);
        assert_eq!(summary.splits[0].present, [2, 2, 1]);
    }

    #[test]
    fn told_lengths_win_over_zeros() {
        let mut parts = parts();
        for part in &mut parts {
            part.lengths[0] = Some(vec![4, 3]);
        }
        let (summary, data) = run(parts, &Options::default()).unwrap();
        assert_eq!(data.train.lengths, [4, 3]);
        assert_eq!(floats(&data, 0)[..4], [0.0, 0.0, 0.0, 1.0]);
        let moved = "samples padded in front, moved to step 0";
        assert_eq!(summary.ledger.count_of(Fate::Noted, moved), 0);
    }

    /// MMSA tells the words' length, and pads what it fills; the other streams lose nothing by it.
    #[test]
    fn a_length_of_one_stream_does_not_cut_another() {
        let mut parts = parts();
        for part in &mut parts {
            part.features[0] = table(&[2, 4, 1], &[1., 2., 7., 7., 1., 2., 3., 4.]);
            part.features[1] = table(&[2, 4, 1], &[0., 0., 5., 6., 5., 6., 0., 0.]);
            part.lengths[0] = Some(vec![2, 4]);
        }
        let (summary, data) = run(parts, &Options::default()).unwrap();
        assert_eq!(data.train.lengths, [4, 4]);
        assert_eq!(floats(&data, 1)[..4], [0., 0., 5., 6.]);
        let language = floats(&data, 0);
        assert_eq!(language[..2], [1., 2.]);
        assert!(language[2].is_nan() && language[3].is_nan(), "padding was kept: {language:?}");
        let what = "samples that go on in another stream past the length that is told";
        assert_eq!(summary.ledger.count_of(Fate::Noted, what), 3);
    }

    #[test]
    fn where_nothing_is_left_the_reason_is_told() {
        let mut parts = parts();
        parts[1].labels = RawLabels::Scores(vec![f64::NAN, f64::INFINITY]);
        let error = run(parts, &Options::default()).unwrap_err().to_string();
        let expected =
            "valid: no sample is left, dropped were 2 samples whose score is not a number";
        assert_eq!(error, expected);
    }

    #[test]
    fn unaligned_streams_are_refused_or_pooled() {
        let unaligned = || {
            let mut parts = parts();
            for part in &mut parts {
                part.features[1] = table(&[2, 3, 1], &[0., 4., NAN, 2., 6., 0.]);
                part.lengths[1] = Some(vec![3, 2]);
            }
            parts
        };
        let error = run(unaligned(), &Options::default()).unwrap_err().to_string();
        assert!(error.contains("(language 4, audio 3)") && error.contains("--pool"), "{error}");
        let pool = ModalitySet::of([Modality::Audio]);
        let (summary, data) =
            run(unaligned(), &about(PackOptions { pool, ..Default::default() })).unwrap();
        assert_eq!(summary.steps, [4, 1, 1]);
        assert_eq!(floats(&data, 1), [2.0, 4.0], "zeros inside the length count");
    }

    #[test]
    fn samples_without_label_or_features_are_dropped_and_counted() {
        let mut parts = parts();
        parts[0].labels = RawLabels::Scores(vec![f64::NAN, 1.0]);
        parts[1].features = [table(&[2, 1], &[0., 1.]), None, None];
        parts[0].features = [table(&[2, 1], &[1., 1.]), None, None];
        parts[2].features = [table(&[2, 1], &[1., NAN]), None, None];
        let (summary, data) = run(parts, &Options::default()).unwrap();
        assert_eq!(data.train.labels, Labels::Scores(vec![1.0]));
        let counts = summary.splits.map(|s| s.samples);
        assert_eq!(counts, [1, 1, 1]);
        assert_eq!(data.task, Task::Sentiment { lo: -3, hi: 3 });
        assert_eq!(summary.ledger.count_of(Fate::Dropped, "samples without any feature"), 2);
        let unscored = "samples whose score is not a number";
        assert_eq!(summary.ledger.count_of(Fate::Dropped, unscored), 1);
    }

    #[test]
    fn an_id_in_two_splits_is_refused_or_kept_in_the_later_one() {
        let leaky = || {
            let mut parts = parts();
            parts[2].ids = Some(vec!["a1".to_owned(), "c2".to_owned()]);
            parts[1].ids = Some(vec!["b".to_owned(), "b".to_owned()]);
            parts
        };
        let error = run(leaky(), &Options::default()).unwrap_err().to_string();
        assert!(error.contains("`a1` in train and test"), "{error}");
        let options = PackOptions { shared_ids: SharedIds::Drop, ..Default::default() };
        let (_, data) = run(leaky(), &about(options)).unwrap();
        assert_eq!(data.train.ids, ["a2"]);
        assert_eq!(data.valid.ids, ["b", "b#2"]);
        assert_eq!(data.test.ids, ["a1", "c2"]);
        let options = PackOptions { shared_ids: SharedIds::Number, ..Default::default() };
        let (_, data) = run(leaky(), &about(options)).unwrap();
        assert_eq!(data.train.ids, ["train/a1", "a2"]);
        assert_eq!(data.test.ids, ["test/a1", "c2"]);
    }

    #[test]
    fn shapes_that_disagree_are_named() {
        let mut parts = parts();
        parts[2].features[0] = table(&[2, 4, 1], &[1.0; 8]);
        let error = run(parts, &Options::default()).unwrap_err().to_string();
        assert_eq!(error, "test: language has 4 steps of 1 features, in train it has 4 of 2");
        let mut parts = ["a", "b", "c"].map(part);
        parts[1].features[2] = table(&[3, 2], &[1.0; 6]);
        let error = run(parts, &Options::default()).unwrap_err().to_string();
        assert_eq!(error, "valid: vision has 3 rows, the labels have 2");
    }
}
