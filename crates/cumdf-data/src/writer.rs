//! Writes the native layout sample by sample, so that an import need never hold a whole data set.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hdf5::{Dataset as Array, File, Group};
use ndarray::{ArrayView3, s};

use crate::files::Unfinished;
use crate::import::Ledger;
use crate::{Labels, Modality, ModalitySet, Split, Task, hdf, native};

/// Bytes of one chunk of a feature array, about: a chunk is written at once.
const CHUNK_BYTES: usize = 1 << 18;

/// Bytes of one modality of one sample, at most: no data set comes near.
const LARGEST_SAMPLE: f64 = (1u64 << 28) as f64;

/// Steps and features per step of each modality: `[T_l, T_a, T_v]` and `[d_l, d_a, d_v]`. A
/// modality of the whole utterance has one step; the others agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) steps: [usize; 3],
    pub(crate) dims: [usize; 3],
}

/// One sample, as [`crate::Samples`] holds many.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) id: String,
    pub(crate) label: Label,
    /// Used steps, 1 to `T`.
    pub(crate) length: usize,
    pub(crate) present: ModalitySet,
    /// `[T_m, d_m]` per modality in C order, or empty where the modality is absent. What lies past
    /// `length` is written as zeros, what is not finite as NaN.
    pub(crate) features: [Vec<f32>; 3],
}

/// The label of one sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Label {
    Score(f32),
    Classes(Vec<bool>),
}

/// What was written into one split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct SplitCounts {
    /// Samples.
    pub samples: usize,
    /// Samples that have each modality.
    pub present: [usize; 3],
    /// Values of each modality that are not finite, in used steps of samples that have it.
    pub not_finite: [u64; 3],
}

/// A file in the making. Nothing stands at its path until [`Writer::finish`].
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    unfinished: Unfinished,
    file: File,
    shape: Shape,
    splits: [SplitWriter; 3],
    owner: HashMap<String, Split>,
}

impl Writer {
    /// Starts a file that will appear at `path`.
    pub(crate) fn create(path: &Path, shape: Shape) -> Result<Self> {
        let start = || -> Result<Self> {
            let bytes = |m: usize| 4.0 * shape.steps[m] as f64 * shape.dims[m] as f64;
            for modality in Modality::ALL {
                ensure!(
                    bytes(modality.index()) <= LARGEST_SAMPLE,
                    "{modality} of {} steps of {} features is more than a sample may have",
                    shape.steps[modality.index()],
                    shape.dims[modality.index()]
                );
            }
            let unfinished = native::begin(path)?;
            let file = hdf::create(unfinished.path())?;
            let make = |split: Split| SplitWriter::create(&file.create_group(split.name())?, shape);
            let splits = [make(Split::Train)?, make(Split::Valid)?, make(Split::Test)?];
            let owner = HashMap::new();
            Ok(Self { path: path.to_owned(), unfinished, file, shape, splits, owner })
        };
        start().with_context(|| format!("{}: cannot be written", path.display()))
    }

    /// Appends a sample to a split.
    pub(crate) fn push(&mut self, split: Split, mut sample: Sample) -> Result<()> {
        let shown: String = sample.id.chars().take(40).collect();
        ensure!(
            sample.id.len() <= hdf::LONGEST_TEXT && !sample.id.contains('\0'),
            "id {shown:?}... has {} bytes or a NUL in it; at most {} bytes can be stored",
            sample.id.len(),
            hdf::LONGEST_TEXT
        );
        if let Some(first) = self.owner.insert(sample.id.clone(), split) {
            bail!("id `{}` stands in /{first} and again in /{split}", sample.id);
        }
        let longest = self.shape.steps.into_iter().max().unwrap_or(1);
        ensure!(
            (1..=longest).contains(&sample.length),
            "sample `{}` has length {}, expected 1 to {longest}",
            sample.id,
            sample.length
        );
        ensure!(!sample.present.is_empty(), "sample `{}` has no present modality", sample.id);
        let part = &mut self.splits[split.index()];
        for modality in Modality::ALL {
            let m = modality.index();
            let (steps, dim) = (self.shape.steps[m], self.shape.dims[m]);
            let values = &mut sample.features[m];
            if sample.present.contains(modality) {
                ensure!(
                    values.len() == steps * dim,
                    "sample `{}` has {} values of {modality}, expected {steps} x {dim}",
                    sample.id,
                    values.len()
                );
                part.counts.present[m] += 1;
            } else {
                values.clear();
            }
            let used = sample.length.min(steps) * dim;
            values.resize(used.min(values.len()), 0.0);
            for value in values.iter_mut().filter(|value| !value.is_finite()) {
                *value = f32::NAN;
                part.counts.not_finite[m] += 1;
            }
            values.resize(steps * dim, 0.0);
        }
        part.push(sample)
    }

    /// Notes in the file what it was made from; the end of a very long source is left out.
    pub(crate) fn note_source(&self, source: &str) -> Result<()> {
        let mut end = source.len().min(hdf::LONGEST_TEXT);
        while !source.is_char_boundary(end) {
            end -= 1;
        }
        hdf::put_text_attribute(&self.file, "source", &source[..end])
    }

    /// Refuses to end without a sample in every split, and says where they went.
    pub(crate) fn check_filled(&self, ledger: &Ledger) -> Result<()> {
        for (split, part) in Split::ALL.into_iter().zip(&self.splits) {
            let lost = match ledger.dropped() {
                lost if lost.is_empty() => "it had none".to_owned(),
                lost => format!("dropped were {lost}"),
            };
            ensure!(part.counts.samples > 0, "{split}: no sample is left, {lost}");
        }
        Ok(())
    }

    /// Ends the file and puts it in its place.
    ///
    /// # Errors
    /// When a split has no sample, a label does not fit the task, or the disk is full.
    pub(crate) fn finish(mut self, name: &str, task: &Task) -> Result<[SplitCounts; 3]> {
        let end = || -> Result<[SplitCounts; 3]> {
            native::put_task(&self.file, name, task)?;
            for (split, part) in Split::ALL.into_iter().zip(&mut self.splits) {
                part.finish(task).with_context(|| format!("/{split}"))?;
            }
            let counts = self.splits.map(|part| part.counts); // closes its arrays
            self.file.close()?;
            self.unfinished.finish(&self.path)?;
            Ok(counts)
        };
        end().with_context(|| format!("{}: cannot be written", self.path.display()))
    }
}

/// One split: features go to the file in chunks, the small columns wait for the end.
#[derive(Debug)]
struct SplitWriter {
    group: Group,
    columns: [Column; 3],
    labels: Vec<Label>,
    lengths: Vec<i32>,
    ids: Vec<String>,
    present: Vec<u8>,
    counts: SplitCounts,
}

impl SplitWriter {
    fn create(group: &Group, shape: Shape) -> Result<Self> {
        let column = |m: Modality| -> Result<Column> {
            Column::create(group, m.name(), shape.steps[m.index()], shape.dims[m.index()])
        };
        Ok(Self {
            group: group.clone(),
            columns: [
                column(Modality::Language)?,
                column(Modality::Audio)?,
                column(Modality::Vision)?,
            ],
            labels: Vec::new(),
            lengths: Vec::new(),
            ids: Vec::new(),
            present: Vec::new(),
            counts: SplitCounts::default(),
        })
    }

    fn push(&mut self, sample: Sample) -> Result<()> {
        for (column, values) in self.columns.iter_mut().zip(&sample.features) {
            column.push(values)?;
        }
        self.labels.push(sample.label);
        self.lengths.push(sample.length as i32);
        self.ids.push(sample.id);
        self.present.extend(Modality::ALL.map(|m| u8::from(sample.present.contains(m))));
        self.counts.samples += 1;
        Ok(())
    }

    fn finish(&mut self, task: &Task) -> Result<()> {
        let n = self.ids.len();
        ensure!(n > 0, "holds no sample; every split needs at least one");
        for column in &mut self.columns {
            column.flush()?;
        }
        let labels = collect(std::mem::take(&mut self.labels), &self.ids, task)?;
        native::put_columns(&self.group, &labels, &self.lengths, &self.ids, &self.present)
    }
}

/// Labels of one kind, each of which the task allows.
fn collect(labels: Vec<Label>, ids: &[String], task: &Task) -> Result<Labels> {
    let mut scores = Vec::new();
    let mut rows = Vec::new();
    for (label, id) in labels.into_iter().zip(ids) {
        match (label, task) {
            (Label::Score(score), Task::Sentiment { lo, hi }) => {
                ensure!(
                    (*lo as f32..=*hi as f32).contains(&score),
                    "sample `{id}` has label {score}, expected a score in [{lo}, {hi}]"
                );
                scores.push(score);
            }
            (Label::Classes(row), Task::Emotion { classes }) => {
                ensure!(
                    row.len() == classes.len() && row.contains(&true),
                    "sample `{id}` has labels {row:?}, expected one or more of {classes:?}"
                );
                rows.push(row);
            }
            (label, _) => bail!("sample `{id}` has label {label:?}, of another kind than the task"),
        }
    }
    Ok(match task {
        Task::Sentiment { .. } => Labels::Scores(scores),
        Task::Emotion { .. } => Labels::Classes(rows),
    })
}

/// A feature array `[N, T_m, d_m]` that grows by whole chunks.
#[derive(Debug)]
struct Column {
    array: Array,
    steps: usize,
    dim: usize,
    /// Samples in the file, and per chunk.
    written: usize,
    chunk: usize,
    pending: Vec<f32>,
}

impl Column {
    fn create(group: &Group, name: &str, steps: usize, dim: usize) -> Result<Self> {
        ensure!(steps > 0 && dim > 0, "{name} has {steps} steps of {dim} features, expected some");
        let chunk = (CHUNK_BYTES / (steps * dim * size_of::<f32>())).max(1);
        let array = group
            .new_dataset_builder()
            .obj_track_times(false)
            .chunk((chunk, steps, dim))
            .empty::<f32>()
            .shape((0.., steps, dim))
            .create(name)?;
        Ok(Self { array, steps, dim, written: 0, chunk, pending: Vec::new() })
    }

    fn push(&mut self, values: &[f32]) -> Result<()> {
        self.pending.extend_from_slice(values);
        if self.pending.len() == self.chunk * self.steps * self.dim { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let rows = self.pending.len() / (self.steps * self.dim);
        if rows > 0 {
            let view = ArrayView3::from_shape((rows, self.steps, self.dim), &self.pending)?;
            let end = self.written + rows;
            self.array.resize((end, self.steps, self.dim))?;
            self.array.write_slice(view, s![self.written..end, .., ..])?;
            self.written = end;
            self.pending.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dataset;

    const SHAPE: Shape = Shape { steps: [3, 3, 1], dims: [2, 1, 2] };
    const TASK: Task = Task::Sentiment { lo: -3, hi: 3 };

    fn sample(id: &str) -> Sample {
        Sample {
            id: id.to_owned(),
            label: Label::Score(1.5),
            length: 2,
            present: ModalitySet::ALL,
            features: [vec![1.0; 6], vec![2.0, f32::NEG_INFINITY, 9.0], vec![3.0; 2]],
        }
    }

    fn with_all_splits(path: &Path) -> Writer {
        let mut writer = Writer::create(path, SHAPE).unwrap();
        for split in Split::ALL {
            writer.push(split, sample(split.name())).unwrap();
        }
        writer
    }

    #[test]
    fn what_is_pushed_is_what_is_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("new.h5");
        let mut writer = with_all_splits(&path);
        let silent = ModalitySet::of([Modality::Language]);
        writer.note_source("a pack").unwrap();
        writer.push(Split::Train, Sample { present: silent, ..sample("silent") }).unwrap();
        assert!(!path.exists(), "a file stands there before it is whole");
        let counts = writer.finish("toy", &TASK).unwrap();
        let train = SplitCounts { samples: 2, present: [2, 1, 1], not_finite: [0, 1, 0] };
        assert_eq!(counts[0], train);

        let data = Dataset::open(&path).unwrap();
        assert_eq!((data.name.as_str(), &data.task), ("toy", &TASK));
        assert_eq!(data.source.as_deref(), Some("a pack"));
        assert_eq!(data.train.ids, ["train", "silent"]);
        assert_eq!(data.train.lengths, [2, 2]);
        assert_eq!(data.train.labels, Labels::Scores(vec![1.5, 1.5]));
        assert_eq!(data.train.present, [ModalitySet::ALL, silent]);
        let audio = Vec::<f32>::try_from(data.train.features[1].flatten(0, -1)).unwrap();
        assert!(audio[1].is_nan(), "{audio:?}");
        let others = [&audio[..1], &audio[2..]].concat();
        assert_eq!(others, [2.0, 0.0, 0.0, 0.0, 0.0], "padding and what is absent are zeros");
    }

    #[test]
    fn many_samples_cross_chunks() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("new.h5");
        let shape = Shape { steps: [50, 1, 1], dims: [3000, 1, 1] };
        let mut writer = Writer::create(&path, shape).unwrap();
        for split in Split::ALL {
            for row in 0..5 {
                let filled = |len| vec![1.0 + row as f32; len];
                let features = [filled(150_000), filled(1), filled(1)];
                let id = format!("{split}{row}");
                writer.push(split, Sample { id, features, length: 50, ..sample("") }).unwrap();
            }
        }
        writer.finish("wide", &TASK).unwrap();
        let data = Dataset::open(&path).unwrap();
        let mean = data.test.features[0].mean_dim([1i64, 2].as_slice(), false, None);
        assert_eq!(Vec::<f32>::try_from(mean).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn nothing_is_left_behind_by_a_writer_that_fails() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("new.h5");
        let writer = Writer::create(&path, SHAPE).unwrap();
        let error = format!("{:#}", writer.finish("toy", &TASK).unwrap_err());
        assert!(error.contains("/train: holds no sample"), "{error}");
        drop(with_all_splits(&path));
        let error = with_all_splits(&path).finish("toy", &Task::Sentiment { lo: 0, hi: 1 });
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("label 1.5, expected a score in [0, 1]"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_import_left_is_swept_away_by_the_next() {
        let folder = tempfile::TempDir::new().unwrap();
        let (path, left) = (folder.path().join("new.h5"), folder.path().join(".writing-killed"));
        std::fs::write(&left, "half a data set").unwrap();
        let first = with_all_splits(&path);
        let second = with_all_splits(&folder.path().join("other.h5"));
        assert!(!left.exists(), "it is still there");
        first.finish("toy", &TASK).unwrap();
        second.finish("toy", &TASK).unwrap();
    }

    #[test]
    fn a_sample_that_breaks_a_rule_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut writer = with_all_splits(&folder.path().join("new.h5"));
        let broken = [
            (Sample { length: 4, ..sample("x") }, "length 4, expected 1 to 3"),
            (Sample { present: ModalitySet::EMPTY, ..sample("y") }, "no present modality"),
            (Sample { features: Default::default(), ..sample("z") }, "0 values of language"),
            (sample("valid"), "id `valid` stands in /valid and again in /test"),
        ];
        for (sample, expected) in broken {
            let error = writer.push(Split::Test, sample).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
