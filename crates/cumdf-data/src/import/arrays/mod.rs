//! The loose arrays that a manifest names, opened and held against each other.

mod array;
mod manifest;
mod npy;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;

use array::{Array, ensure_flat};
use manifest::{Entry, Length, Place};
use npy::Npz;

use crate::import::assemble::{self, RawTask};
use crate::import::kind::Kind;
use crate::import::source::{self, Mark, Source, file_name};
use crate::import::table::{Part, RawLabels, Table};
use crate::import::{Fate, Ledger, Options, Summary, Survey};
use crate::{Modality, Split};

pub(crate) use manifest::Manifest;

/// What the layout is called in the new file.
const LAYOUT: &str = "manifest of arrays";
/// Arrays of one file that a survey reads.
const MOST_TOLD: usize = 1000;
/// Samples of a split, at most: labels and names are held. CMU-MOSEI has 16,326.
const MOST_SAMPLES: usize = 2_000_000;

impl Manifest {
    /// Writes the arrays as the native file `out`.
    pub(crate) fn import(
        &self,
        options: &Options,
        out: &Path,
        bar: &ProgressBar,
    ) -> Result<Summary> {
        ensure!(
            options.pack.label_column.is_none(),
            "--label-column is for pickles; save the column that is the score as an array [N]"
        );
        let parts = self.parts()?;
        let mut source = Source::of_file(&self.name, LAYOUT, &self.path, bar)?;
        let files = self.files();
        source::refuse_to_replace(out, files.iter().map(PathBuf::as_path))?;
        let bytes = files.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum();
        source.files.push((format!("{} files of arrays", files.len()), Mark::Bytes(bytes)));
        assemble::write(&source, &self.task, parts, options, out, Ledger::default(), bar)
            .with_context(|| self.path.display().to_string())
    }

    /// Tells what the arrays hold.
    pub(crate) fn survey(&self, bar: &ProgressBar) -> Result<Survey> {
        let mut parts = self.parts()?;
        let mut survey = Survey::start(&self.path, LAYOUT, bar)?;
        survey.remarks.clear(); // nobody else has this manifest
        for (split, part) in Split::ALL.into_iter().zip(&mut parts) {
            for (modality, table) in Modality::ALL.into_iter().zip(&mut part.features) {
                let Some(table) = table else { continue };
                survey
                    .add(format!("{split}/{modality}"), table.as_mut(), bar)
                    .with_context(|| format!("{}: {split}.{modality}", self.path.display()))?;
            }
        }
        for (split, part) in Split::ALL.into_iter().zip(&parts) {
            let (dtype, values): (_, Vec<f32>) = match &part.labels {
                RawLabels::Scores(scores) => ("score", scores.iter().map(|s| *s as f32).collect()),
                RawLabels::Classes(rows) => {
                    ("flags", rows.iter().flatten().map(|flag| f32::from(*flag)).collect())
                }
            };
            let (n, width) = (part.labels.len(), values.len() / part.labels.len().max(1));
            let shape = if width == 1 { vec![n] } else { vec![n, width] };
            survey.add_values(format!("{split}/label"), dtype, shape, &values);
        }
        survey.note_ids(parts.each_ref().map(|part| part.ids.as_deref()));
        let [train, ..] = &parts;
        let shapes = train.features.each_ref().map(|table| Some(table.as_ref()?.shape()));
        survey.remark(parts.each_ref().map(|part| part.labels.len()), shapes);
        Ok(survey)
    }

    /// Opens every array and reads labels, lengths and names; features stay in their files.
    ///
    /// # Errors
    /// When an array cannot be read or has another type or shape than its key wants, or when those
    /// of a split disagree on the number of samples. The message names manifest, key and file.
    pub(crate) fn parts(&self) -> Result<[Part<'static>; 3]> {
        let folder = self.folder();
        let part = |split: Split| {
            Opened::open(split, &self.splits[split.index()], &folder)
                .and_then(|opened| opened.part(&self.task))
                .with_context(|| self.path.display().to_string())
        };
        Ok([part(Split::Train)?, part(Split::Valid)?, part(Split::Test)?])
    }
}

/// Tells what a file of loose arrays holds, `.npy`, `.npz` or HDF5.
pub(crate) fn survey(path: &Path, kind: Kind, bar: &ProgressBar) -> Result<Survey> {
    let mut survey = Survey::start(path, "loose arrays", bar)?;
    let file = Place { file: path.to_owned(), array: None };
    let names = match kind {
        Kind::Npz => Npz::open(path)?.names().into_iter().map(Some).collect(),
        Kind::Hdf5 => {
            Array::open_hdf5(path)?.1.data_sets(MOST_TOLD).into_iter().map(Some).collect()
        }
        _ => vec![None],
    };
    for array in names {
        let name = array.clone().unwrap_or_else(|| file_name(path));
        let opened = Array::open(Path::new(""), &Place { array, ..file.clone() });
        match opened.and_then(Array::table) {
            Ok(mut table) => {
                bar.inc_length(table.shape().iter().product::<usize>() as u64);
                survey.add(name, table.as_mut(), bar)?;
            }
            Err(error) => {
                let what = "arrays that are not read";
                survey.ledger.one(Fate::Found, what, format!("{name} {error}"));
            }
        }
    }
    survey.remarks.push("To import arrays, name them in a manifest: docs/import.md.".to_owned());
    Ok(survey)
}

/// The arrays of one split, which have equally many rows.
struct Opened {
    split: Split,
    features: [Option<Column>; 3],
    label: Column,
    length: [Option<Column>; 3],
    common_length: Option<Column>,
    ids: Option<Vec<String>>,
}

/// An array of numbers, with its key and file for messages.
struct Column {
    at: String,
    table: Box<dyn Table>,
}

impl Opened {
    fn open(split: Split, entry: &Entry, folder: &Path) -> Result<Self> {
        let mut rows = Vec::new();
        let mut column = |key: &str, place: &Place| -> Result<Column> {
            let at = format!("{split}.{key}: {place}");
            let table = Array::open(folder, place).and_then(Array::table);
            let table = table.with_context(|| at.clone())?;
            let n = table.shape()[0];
            ensure!(
                n <= MOST_SAMPLES,
                "{at} has {n} rows; at most {MOST_SAMPLES} samples are read"
            );
            rows.push((n, format!("{key} {n} ({place})")));
            Ok(Column { at, table })
        };
        let mut features = [const { None }; 3];
        for (modality, place) in Modality::ALL.into_iter().zip(entry.features()) {
            let Some(place) = place else { continue };
            let found = column(modality.name(), place)?;
            ensure!(
                matches!(found.shape().len(), 2 | 3),
                "{} has shape {:?}, expected [N, T, d], or [N, d] for features of the whole \
                 utterance",
                found.at,
                found.shape()
            );
            features[modality.index()] = Some(found);
        }
        let label = column("label", &entry.label)?;
        let mut length = [const { None }; 3];
        let mut common_length = None;
        match &entry.length {
            None => {}
            Some(Length::Common(place)) => common_length = Some(column("length", place)?),
            Some(Length::Each(each)) => {
                for (modality, place) in Modality::ALL.into_iter().zip(each) {
                    let Some(place) = place else { continue };
                    length[modality.index()] = Some(column(&format!("length.{modality}"), place)?);
                }
            }
        }
        let mut ids = None;
        if let Some(place) = &entry.id {
            let texts = Array::open(folder, place).and_then(Array::texts);
            let texts = texts.with_context(|| format!("{split}.id: {place}"))?;
            rows.push((texts.len(), format!("id {} ({place})", texts.len())));
            ids = Some(texts);
        }
        ensure!(
            rows.iter().all(|(n, _)| *n == rows[0].0),
            "{split}: the arrays disagree on the number of samples: {}",
            rows.iter().map(|(_, told)| told.as_str()).collect::<Vec<_>>().join(", ")
        );
        Ok(Self { split, features, label, length, common_length, ids })
    }

    fn part(mut self, task: &RawTask) -> Result<Part<'static>> {
        let labels = labels(&mut self.label, task).with_context(|| self.label.at.clone())?;
        let lengths = self.lengths()?;
        let features = self.features.map(|column| column.map(|column| column.table));
        Ok(Part { features, labels, ids: self.ids, lengths })
    }

    /// Used steps of the modalities that have any.
    fn lengths(&mut self) -> Result<[Option<Vec<usize>>; 3]> {
        let steps = self.features.each_ref().map(|column| match column.as_ref()?.shape() {
            [_, steps, _] => Some(*steps),
            _ => None,
        });
        let mut lengths = [const { None }; 3];
        for modality in Modality::ALL {
            let m = modality.index();
            let Some(column) = &mut self.length[m] else { continue };
            let Some(steps) = steps[m] else {
                bail!("{}: {}.{modality} has no steps; drop the key", column.at, self.split);
            };
            lengths[m] = Some(column.lengths(steps)?);
        }
        if let Some(column) = &mut self.common_length {
            // A step more or less is another unit of time: a modality of one step is an utterance.
            let told: Vec<_> = steps.into_iter().flatten().filter(|steps| *steps > 1).collect();
            let Some(first) = told.first() else { return Ok(lengths) };
            ensure!(
                told.iter().all(|steps| steps == first),
                "{}: the modalities have {told:?} steps, so one length cannot serve them all; \
                 write length = {{ language = .., audio = .., vision = .. }}",
                column.at
            );
            let values = column.lengths(*first)?;
            lengths = steps.map(|steps| (steps? > 1).then(|| values.clone()));
        }
        Ok(lengths)
    }
}

impl Column {
    fn shape(&self) -> &[usize] {
        self.table.shape()
    }

    fn values(&mut self) -> Result<Vec<f64>> {
        let rows = 0..self.shape()[0];
        self.table.rows_f64(rows)
    }

    /// Whole numbers, each up to `steps`.
    fn lengths(&mut self, steps: usize) -> Result<Vec<usize>> {
        let mut read = || -> Result<Vec<usize>> {
            ensure_flat(self.table.shape(), "used steps")?;
            let length = |(row, length): (usize, f64)| -> Result<usize> {
                ensure!(
                    length.fract() == 0.0 && (0.0..=steps as f64).contains(&length),
                    "sample {row} is {length}, expected a whole number of used steps, 0 to {steps}"
                );
                Ok(length as usize)
            };
            self.values()?.into_iter().enumerate().map(length).collect()
        };
        read().with_context(|| self.at.clone())
    }
}

fn labels(label: &mut Column, task: &RawTask) -> Result<RawLabels> {
    let shape = label.shape().to_vec();
    let RawTask::Emotion { classes } = task else {
        ensure_flat(&shape, "scores")?;
        return Ok(RawLabels::Scores(label.values()?));
    };
    let width = classes.len();
    let flags = shape[1..] == [width];
    ensure!(
        flags || shape[1..].iter().all(|side| *side == 1),
        "has shape {shape:?}, expected [N] class numbers or [N, {width}] flags, for the classes \
         {classes:?}"
    );
    let values = label.values()?;
    if flags {
        let flag = |(at, value): (usize, &f64)| match *value {
            0.0 => Ok(false),
            1.0 => Ok(true),
            value => bail!(
                "sample {}, column {} is {value}, expected 0 or 1; save the array of flags, such as \
                 label > 0",
                at / width,
                at % width
            ),
        };
        let flags: Vec<bool> = values.iter().enumerate().map(flag).collect::<Result<_>>()?;
        return Ok(RawLabels::Classes(flags.chunks_exact(width).map(<[_]>::to_vec).collect()));
    }
    let row = |(row, class): (usize, &f64)| -> Result<Vec<bool>> {
        ensure!(
            class.is_nan() || class.fract() == 0.0 && (0.0..width as f64).contains(class),
            "sample {row} is of class {class}, expected 0 to {}, for the classes {classes:?}",
            width - 1
        );
        Ok((0..width).map(|at| !class.is_nan() && at == *class as usize).collect())
    };
    Ok(RawLabels::Classes(values.iter().enumerate().map(row).collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const COUNTS: [usize; 3] = [5, 2, 3];
    /// Every so many bytes of an HDF5 file one is damaged; 1 takes minutes.
    const DAMAGE_STEP: usize = 23;

    /// A folder with the arrays of `scripts/arrays.py` and this manifest.
    fn folder(manifest: &str) -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        let fixtures =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/arrays").canonicalize();
        for file in fs::read_dir(fixtures.unwrap()).unwrap().flatten() {
            let to = folder.path().join(file.file_name());
            if file.path().is_file() {
                fs::copy(file.path(), to).unwrap();
            } else {
                fs::create_dir(&to).unwrap();
                for inner in fs::read_dir(file.path()).unwrap().flatten() {
                    fs::copy(inner.path(), to.join(inner.file_name())).unwrap();
                }
            }
        }
        let path = folder.path().join("mine.toml");
        fs::write(&path, manifest).unwrap();
        (folder, path)
    }

    fn sentiment() -> String {
        let split = |split: Split| {
            format!(
                r#"
[{split}]
language = "{split}-text.npy"
audio = {{ file = "audio.npz", array = "{split}_audio" }}
vision = {{ file = "all.h5", array = "/{split}/vision" }}
label = "{split}-label.npy"
length = "{split}-length.npy"
id = "{split}-names.txt"
"#
            )
        };
        let head = "name = \"mine\"\ntask = \"sentiment\"\nrange = [-3, 3]\n".to_owned();
        Split::ALL.into_iter().fold(head, |text, s| text + &split(s))
    }

    fn emotion(label: &str) -> String {
        let head =
            "name = \"mine\"\ntask = \"emotion\"\nclasses = [\"happy\", \"sad\"]\n".to_owned();
        Split::ALL.into_iter().fold(head, |text, split| {
            format!(
                r#"{text}
[{split}]
audio = {{ file = "all.h5", array = "{split}/utterance" }}
label = {{ file = "all.h5", array = "{split}/{label}" }}
id = {{ file = "all.h5", array = "{split}/numbers" }}
"#
            )
        })
    }

    /// The parts of a manifest, whose features may still be read from the folder.
    fn parts(manifest: &str) -> (TempDir, [Part<'static>; 3]) {
        let (folder, path) = folder(manifest);
        let parts = Manifest::load(&path).and_then(|manifest| manifest.parts());
        (folder, parts.unwrap_or_else(|error| panic!("{error:#}")))
    }

    /// What is said about a manifest, without the path in front.
    fn complaint(manifest: &str) -> String {
        let (_folder, path) = folder(manifest);
        let parts = Manifest::load(&path).and_then(|manifest| manifest.parts());
        let error = format!("{:#}", parts.map(|_| ()).expect_err("the manifest is broken"));
        let start = format!("{}: ", path.display());
        error.strip_prefix(&start).unwrap_or_else(|| panic!("no path in front: {error}")).to_owned()
    }

    fn spoilt(from: &str, to: &str) -> String {
        let manifest = sentiment();
        assert!(manifest.contains(from), "{from}");
        complaint(&manifest.replacen(from, to, 1))
    }

    /// The formula of `scripts/arrays.py`.
    fn value(split: Split, sample: usize, step: usize, feature: usize) -> f32 {
        let steps = 1 + sample % 4;
        let value = (64 * sample + 8 * step + feature + 1) as f32 + split.index() as f32 / 4.0;
        if step < steps { value } else { 0.0 }
    }

    #[test]
    fn a_manifest_names_arrays_in_files_of_all_kinds() {
        let (_folder, mut parts) = parts(&sentiment());
        for split in Split::ALL {
            let n = COUNTS[split.index()];
            let part = &mut parts[split.index()];
            for (m, dim) in [3, 2, 2].into_iter().enumerate() {
                let table = part.features[m].as_mut().unwrap();
                assert_eq!(table.shape(), [n, 4, dim]);
                assert_eq!(table.dtype(), ["float64", "float32", "float16"][m]);
                let sample =
                    |i: usize| (0..4 * dim).map(move |at| value(split, i, at / dim, at % dim));
                let expected: Vec<f32> = (0..n).flat_map(sample).collect();
                assert_eq!(table.rows(0..n).unwrap(), expected, "{split} {m}");
                assert_eq!(table.rows(1..2).unwrap(), expected[4 * dim..8 * dim], "{split} {m}");
                assert!(table.rows(0..n + 1).is_err());
            }
            let scores: Vec<f64> = (0..n).map(|i| (i % 7) as f64 - 3.0).collect();
            assert_eq!(part.labels, RawLabels::Scores(scores));
            let lengths: Vec<usize> = (0..n).map(|i| 1 + i % 4).collect();
            assert_eq!(part.lengths, [0; 3].map(|_| Some(lengths.clone())));
            let ids: Vec<String> = (0..n).map(|i| format!("{split}_{i}")).collect();
            assert_eq!(part.ids.as_ref(), Some(&ids));
        }
    }

    #[test]
    fn a_modality_may_be_absent_everywhere_or_in_one_split() {
        let manifest = sentiment().replace("language = ", "#").replacen("vision = ", "#", 1);
        let (_folder, parts) = parts(&manifest);
        let given = parts.each_ref().map(|part| part.features.each_ref().map(Option::is_some));
        assert_eq!(given, [[false, true, false], [false, true, true], [false, true, true]]);
    }

    #[test]
    fn classes_are_numbers_or_flags() {
        let (_folder, [train, ..]) = parts(&emotion("class"));
        let rows = |flags: [[bool; 2]; 5]| RawLabels::Classes(flags.map(Vec::from).to_vec());
        let (yes, no) = (true, false);
        assert_eq!(train.labels, rows([[yes, no], [no, yes], [yes, no], [no, yes], [yes, no]]));
        assert_eq!(train.features[1].as_ref().unwrap().shape(), [5, 2]);
        assert_eq!(train.ids.unwrap()[4], "9223372036854775812", "an integer keeps all its digits");
        let (_folder, [train, ..]) = parts(&emotion("flags"));
        assert_eq!(train.labels, rows([[no, yes], [yes, no], [yes, yes], [no, yes], [yes, no]]));
    }

    #[test]
    fn lengths_and_names_come_in_several_forms() {
        let common = "length = \"train-length.npy\"";
        let audio = "length = { audio = \"train-length.npy\" }";
        let (_folder, [train, ..]) = parts(&sentiment().replace(common, audio));
        assert_eq!(train.lengths, [None, Some(vec![1, 2, 3, 4, 1]), None]);
        let flat = "vision = { file = \"all.h5\", array = \"train/utterance\" }";
        let steps = "vision = { file = \"all.h5\", array = \"/train/vision\" }";
        let (_folder, [train, ..]) = parts(&sentiment().replace(steps, flat));
        assert!(train.lengths[1].is_some() && train.lengths[2].is_none());
        let lines = "id = \"train-names.txt\"";
        let texts = "id = { file = \"all.h5\", array = \"train/names\" }";
        let (_folder, [train, ..]) = parts(&sentiment().replace(lines, texts));
        assert_eq!(train.ids.unwrap()[1], "train ä1");
        let (_folder, [train, ..]) = parts(&sentiment().replace(lines, "").replace(common, ""));
        assert_eq!((train.ids, train.lengths), (None, [None, None, None]));
    }

    #[test]
    fn a_misspelt_key_is_shown_with_its_line() {
        for (from, to, line) in [
            ("task =", "tsak =", 2),
            ("language =", "langauge =", 6),
            ("array =", "aray =", 7),
            ("length = \"train-length.npy\"", "length = { vission = \"a.npy\" }", 10),
            ("\"sentiment\"", "\"sentimental\"", 2),
        ] {
            let error = spoilt(from, to);
            let word = to.split(['=', '"', '{']).find(|word| !word.trim().is_empty()).unwrap();
            assert!(error.contains(&format!("line {line}")), "{to}: {error}");
            assert!(error.contains(word.trim()) && error.contains("expected"), "{to}: {error}");
        }
        let error =
            spoilt("length = \"train-length.npy\"", "length = { file = \"a\", audio = \"b\" }");
        assert!(error.contains("expected either file and array, or some of"), "{error}");
    }

    #[test]
    fn bad_values_are_reported_all_at_once() {
        let manifest = sentiment()
            .replace("[-3, 3]", "[3, -3]")
            .replace("train-label", "train-lable")
            .replace("\"mine\"", "\"\"");
        let error = complaint(&manifest);
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 4, "{error}");
        assert_eq!(
            lines[..3],
            [
                "3 bad values",
                "  name: is empty; write the data set's name",
                "  range: is [3, -3]; the first must be the lower",
            ]
        );
        let start = "  train.label: train-lable.npy is no file; paths start from the manifest's";
        assert!(lines[3].starts_with(start), "{error}");
        let refusals = [
            (
                emotion("class").replace("classes = ", "#"),
                "classes: names 0, an emotion task needs",
            ),
            (emotion("class").replace("happy", "sad"), "has an empty or a repeated name"),
            (
                sentiment().replace("range = [-3, 3]", "classes = [\"a\"]"),
                "classes: are for task =",
            ),
            (emotion("class").replace("audio = ", "#"), "train: names no features"),
        ];
        for (manifest, expected) in refusals {
            let error = complaint(&manifest);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_array_that_does_not_fit_is_refused_with_key_and_file() {
        let text = "\"train-text.npy\"";
        let label = "\"train-label.npy\"";
        let length = "\"train-length.npy\"";
        let names = "\"train-names.txt\"";
        let refusals = [
            (
                "\"train_audio\"",
                "\"train_audoi\"",
                "train.audio: audio.npz, train_audoi: has no array \"train_audoi\"; it holds \
                 train_audio, valid_audio, test_audio",
            ),
            (
                "\"/train/vision\"",
                "\"/train/visoin\"",
                "train.vision: all.h5, /train/visoin: has no data set \"/train/visoin\"; it holds /",
            ),
            (
                "{ file = \"audio.npz\", array = \"train_audio\" }",
                "\"audio.npz\"",
                "train.audio: audio.npz: holds 3 arrays; say which one with `array`; it holds",
            ),
            (text, "{ file = \"train-text.npy\", array = \"a\" }", "is one array, without a name"),
            (text, "\"types/objects.npy\"", "train.language: types/objects.npy: holds pickled"),
            (text, "\"types/text.npy\"", "is U6 of shape [4], expected an array of numbers"),
            (text, "\"types/scalar.npy\"", "is float32 of shape [], expected an array"),
            (text, "\"train-names.txt\"", "is a text, expected an array of numbers"),
            (text, "\"mine.toml\"", "train.language: mine.toml: is no .npy, .npz or HDF5 file"),
            (text, "\"train-length.npy\"", "has shape [5], expected [N, T, d], or [N, d]"),
            (
                text,
                "\"valid-text.npy\"",
                "train: the arrays disagree on the number of samples: language 2 (valid-text.npy), \
                 audio 5 (audio.npz, train_audio), vision 5 (all.h5, /train/vision), \
                 label 5 (train-label.npy), length 5 (train-length.npy), id 5 (train-names.txt)",
            ),
            (
                label,
                "{ file = \"all.h5\", array = \"train/flags\" }",
                "train.label: all.h5, train/flags: has shape [5, 2], expected [N] scores",
            ),
            (
                length,
                "{ file = \"all.h5\", array = \"train/numbers\" }",
                "train.length: all.h5, train/numbers: sample 0 is 9223372036854776000, expected a \
                 whole number of used steps, 0 to 4",
            ),
            (
                "length = \"train-length.npy\"\nid = \"train-names.txt\"",
                "length = { audio = \"train-length.npy\" }\nid = \"train-text.npy\"",
                "train.id: train-text.npy: has shape [5, 4, 3], expected [N] names",
            ),
            (names, "\"types/text.npy\"", "id 4 (types/text.npy)"),
        ];
        for (from, to, expected) in refusals {
            let error = spoilt(from, to);
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn labels_that_are_no_classes_are_refused() {
        let error = complaint(&emotion("numbers"));
        assert!(
            error.contains("sample 0 is of class 9223372036854776000, expected 0 to 1"),
            "{error}"
        );
        let error = complaint(&emotion("utterance"));
        assert!(error.contains("sample 0, column 1 is 2, expected 0 or 1"), "{error}");
        let error = complaint(&emotion("flags").replace("\"sad\"", "\"sad\", \"angry\""));
        assert!(
            error.contains("has shape [5, 2], expected [N] class numbers or [N, 3]"),
            "{error}"
        );
    }

    #[test]
    fn damage_to_an_hdf5_file_ends_in_an_error_or_other_values() {
        let (folder, path) = folder("");
        let path = path.with_file_name("all.h5");
        let whole = fs::read(&path).unwrap();
        let arrays = ["train/chunked", "train/vision", "train/numbers", "test/flags", "no/such"];
        for at in (0..whole.len()).step_by(DAMAGE_STEP) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            fs::write(&path, damaged).unwrap();
            let open = |name: &str| {
                let place = Place { file: "all.h5".into(), array: Some(name.to_owned()) };
                Array::open(folder.path(), &place)
            };
            for name in arrays {
                if let Ok(mut table) = open(name).and_then(Array::table) {
                    let few = 0..table.shape()[0].min(10);
                    let _ = table.rows(few);
                }
            }
            for name in ["train/names", "test/numbers"] {
                if let Ok(texts) = open(name).and_then(Array::texts) {
                    assert!(texts.len() < 100_000, "byte {at}: {} names", texts.len());
                }
            }
        }
    }

    #[test]
    fn one_length_cannot_serve_streams_of_different_steps() {
        let (_folder, path) = folder(&sentiment());
        let two = path.with_file_name("train-text.npy");
        let header =
            b"\x93NUMPY\x01\0\x3e\0{'descr': '|u1', 'fortran_order': False, 'shape': (5, 2, 1)}  ";
        fs::write(two, [&header[..], &[1; 10]].concat()).unwrap();
        let error = Manifest::load(&path).unwrap().parts().map(|_| ()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("the modalities have [2, 4, 4] steps"), "{error}");
    }
}
