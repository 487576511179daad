//! Loose arrays, as `scripts/arrays.py` writes them, imported through a manifest.

use std::fs;
use std::path::{Path, PathBuf};

use cumdf_data::import::{self, Fate, Options, Summary};
use cumdf_data::{Dataset, Labels, ModalitySet, Split, Task};
use indicatif::ProgressBar;
use tempfile::TempDir;

use crate::cli::run;
use crate::common::floats;

const COUNTS: [usize; 3] = [5, 2, 3];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/arrays")
}

/// A manifest of the fixtures whose splits are `split`, with `SPLIT` for the split's name.
fn manifest(head: &str, split: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("mine.toml");
    let mut text = format!("name = 'mine'\n{head}\n");
    for name in Split::ALL.map(Split::name) {
        let fixtures = fixtures().display().to_string();
        text += &format!("[{name}]\n{split}\n").replace("SPLIT", name).replace("DIR", &fixtures);
    }
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn imported(head: &str, split: &str) -> (Dataset, Summary) {
    let (folder, path) = manifest(head, split);
    let out = folder.path().join("new.h5");
    let done = import::import(&path, &Options::default(), &out, &ProgressBar::hidden());
    (Dataset::open(&out).unwrap(), done.unwrap())
}

/// The formula of `scripts/arrays.py`.
fn value(split: Split, sample: usize, step: usize, feature: usize) -> f32 {
    let value = (64 * sample + 8 * step + feature + 1) as f32 + split.index() as f32 / 4.0;
    if step <= sample % 4 { value } else { 0.0 }
}

#[test]
fn scores_and_streams() {
    let (data, summary) = imported(
        "task = 'sentiment'\nrange = [-3, 3]",
        "language = 'DIR/SPLIT-text.npy'
         audio = { file = 'DIR/audio.npz', array = 'SPLIT_audio' }
         vision = { file = 'DIR/all.h5', array = 'SPLIT/chunked' }
         label = 'DIR/SPLIT-label.npy'
         length = 'DIR/SPLIT-length.npy'
         id = 'DIR/SPLIT-names.txt'",
    );
    assert_eq!(data.task, Task::Sentiment { lo: -3, hi: 3 });
    assert_eq!((data.steps, data.dims), (4, [3, 2, 2]));
    assert_eq!(summary.ledger.count_of(Fate::Found, "samples"), 10);
    let source = data.source.as_deref().unwrap();
    assert!(source.starts_with("manifest of arrays, mine.toml (sha256 "), "{source}");
    assert!(source.contains("14 files of arrays ("), "{source}");
    for split in Split::ALL {
        let (samples, n) = (data.split(split), COUNTS[split.index()]);
        assert_eq!(samples.ids, (0..n).map(|i| format!("{split}_{i}")).collect::<Vec<_>>());
        assert_eq!(samples.lengths, (0..n).map(|i| 1 + i as i64 % 4).collect::<Vec<_>>());
        let scores = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
        assert_eq!(samples.labels, Labels::Scores(scores));
        assert_eq!(samples.present, vec![ModalitySet::ALL; n]);
        for (x, dim) in samples.features.iter().zip([3, 2, 2]) {
            let sample = |i: usize| (0..4 * dim).map(move |at| value(split, i, at / dim, at % dim));
            assert_eq!(floats(x), (0..n).flat_map(sample).collect::<Vec<_>>(), "{split}");
        }
    }
}

#[test]
fn classes_and_utterances() {
    let (data, _) = imported(
        "task = 'emotion'\nclasses = ['happy', 'sad']",
        "audio = { file = 'DIR/all.h5', array = 'SPLIT/utterance' }
         label = { file = 'DIR/all.h5', array = 'SPLIT/class' }",
    );
    assert_eq!(data.steps, 1);
    assert_eq!(data.test.ids, ["test0", "test1", "test2"]);
    assert_eq!(data.test.present, vec!["a".parse::<ModalitySet>().unwrap(); 3]);
    assert_eq!(floats(&data.test.features[1]), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let rows = [[true, false], [false, true], [true, false]].map(Vec::from).to_vec();
    assert_eq!(data.test.labels, Labels::Classes(rows));
}

#[test]
fn the_command_names_manifest_key_and_file() {
    let (folder, path) = manifest(
        "task = 'sentiment'",
        "audio = { file = 'DIR/audio.npz', array = 'SPLIT_audoi' }
         label = 'DIR/SPLIT-label.npy'",
    );
    let out = folder.path().join("new.h5");
    let (code, _, errors) =
        run(&["import", path.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!((code, errors.lines().count()), (1, 1), "{errors}");
    assert!(errors.contains("mine.toml: train.audio: "), "{errors}");
    assert!(errors.contains("has no array \"train_audoi\"; it holds train_audio,"), "{errors}");
    assert!(!out.exists());
}

#[test]
fn a_survey_tells_shapes_types_and_names() {
    let (_folder, path) = manifest(
        "task = 'sentiment'",
        "audio = { file = 'DIR/audio.npz', array = 'SPLIT_audio' }
         vision = { file = 'DIR/all.h5', array = 'SPLIT/vision' }
         label = 'DIR/SPLIT-label.npy'",
    );
    let survey = import::survey(&path, &ProgressBar::hidden()).unwrap().expect("not native");
    let tables: Vec<_> =
        survey.tables.iter().map(|t| (t.name.as_str(), t.dtype.as_str(), &t.shape[..])).collect();
    assert_eq!(tables.len(), 9);
    assert_eq!(tables[6], ("train/label", "score", &[5][..]));
    assert_eq!(tables[0], ("train/audio", "float32", &[5, 4, 2][..]));
    assert_eq!(tables[5], ("test/vision", "float16", &[3, 4, 2][..]));
    assert!(survey.remarks.iter().any(|remark| remark.starts_with("5 + 2 + 3 = 10 samples")));
}

#[test]
fn inspect_tells_what_loose_arrays_are_and_import_what_to_do_with_them() {
    for (file, expected) in [
        ("train-text.npy", "train-text.npy  float64  5 x 4 x 3"),
        ("audio.npz", "train_audio"),
        ("all.h5", "/train/chunked"),
    ] {
        let path = fixtures().join(file);
        let (code, out, errors) = run(&["inspect", path.to_str().unwrap()]);
        assert_eq!(code, 0, "{errors}");
        assert!(out.contains("loose arrays") && out.contains(expected), "{out}");
        let folder = TempDir::new().unwrap();
        let new = folder.path().join("new.h5");
        let args = ["import", path.to_str().unwrap(), "--out", new.to_str().unwrap()];
        let (code, _, errors) = run(&args);
        assert_eq!(code, 1);
        assert!(errors.contains("holds arrays; name them in a manifest"), "{errors}");
    }
}

#[test]
fn an_import_does_not_replace_the_arrays_that_it_reads() {
    let (folder, path) = manifest(
        "task = 'sentiment'",
        "language = 'DIR/SPLIT-text.npy'\nlabel = { file = 'own.h5', array = 'SPLIT' }",
    );
    let own = folder.path().join("own.h5");
    let file = hdf5::File::create(&own).unwrap();
    for (split, n) in Split::ALL.into_iter().zip(COUNTS) {
        file.new_dataset_builder().with_data(&vec![0.5f32; n]).create(split.name()).unwrap();
    }
    drop(file);
    let before = fs::read(&own).unwrap();
    let args = ["import", path.to_str().unwrap(), "--out", own.to_str().unwrap(), "--force"];
    let (code, _, errors) = run(&args);
    assert_eq!(code, 1);
    assert!(errors.contains("is read by this import, write elsewhere"), "{errors}");
    assert_eq!(fs::read(&own).unwrap(), before);
    let out = folder.path().join("new.h5");
    let args = ["import", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
    assert_eq!(run(&args).0, 0, "it is a good manifest otherwise");
}
