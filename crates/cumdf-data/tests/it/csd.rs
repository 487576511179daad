//! Computational sequences: files of h5py's and of our own, whole, odd and broken.

use std::fs;
use std::path::{Path, PathBuf};

use cumdf_data::import::{Fate, Given, Incomplete, Keep, Sequence, Sequences, Target, Values};
use cumdf_data::{Dataset, Labels, Samples, Split, Task};
use hdf5::types::{FixedAscii, VarLenUnicode};
use indicatif::ProgressBar;
use ndarray::{Array2, arr1};
use tempfile::TempDir;

use crate::common::floats;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/csd")
}

/// The golden case, as its folder is understood.
fn golden() -> Sequences {
    let found = Sequences::in_folder(&fixtures(), &Given::default()).expect("all roles are there");
    Sequences { steps: Some(4), ..found }
}

fn assert_equal(found: &Samples, expected: &Samples) {
    assert_eq!(found.ids, expected.ids);
    assert_eq!(found.lengths, expected.lengths);
    assert_eq!(found.labels, expected.labels);
    assert_eq!(found.present, expected.present);
    for (m, (a, b)) in found.features.iter().zip(&expected.features).enumerate() {
        assert_eq!(a.size(), b.size());
        for (at, (a, b)) in floats(a).into_iter().zip(floats(b)).enumerate() {
            let same = a.is_nan() && b.is_nan() || (a - b).abs() < 1e-5;
            assert!(same, "modality {m}, value {at}: {a}, expected {b}");
        }
    }
}

/// Imports and opens what came out.
fn import(sequences: &Sequences) -> (cumdf_data::import::Summary, Dataset) {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("new.h5");
    let summary = sequences.import(&out, &ProgressBar::hidden()).expect("the import works");
    (summary, Dataset::open(&out).expect("what is written is valid"))
}

fn complaint(sequences: &Sequences) -> String {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("new.h5");
    let error = sequences.import(&out, &ProgressBar::hidden()).expect_err("it is refused");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "something is left");
    format!("{error:#}")
}

#[test]
fn files_of_h5py_join_as_the_reference_joins_them() {
    let first =
        Sequences { keep: Keep::First, silence: true, incomplete: Incomplete::Drop, ..golden() };
    for (sequences, file) in [(golden(), "expected_last.h5"), (first, "expected_first.h5")] {
        let expected = Dataset::open(fixtures().join(file)).expect("the golden file is valid");
        let (summary, found) = import(&sequences);
        assert_eq!(found.name, "CMU-MOSI");
        assert_eq!(found.task, Task::Sentiment { lo: -3, hi: 3 });
        assert_eq!((summary.steps, summary.dims), ([4; 3], [5, 4, 3]));
        for split in Split::ALL {
            assert_equal(found.split(split), expected.split(split));
        }
    }
}

#[test]
fn what_was_dropped_filled_and_odd_is_counted() {
    let (summary, _) = import(&golden());
    let count = |fate, what| summary.ledger.count_of(fate, what);
    assert_eq!(count(Fate::Found, "labelled segments"), 60);
    assert_eq!(count(Fate::Dropped, "segments of no length"), 6);
    assert_eq!(count(Fate::Dropped, "segments without a word"), 9);
    assert_eq!(count(Fate::Dropped, "words of no length"), 6);
    assert_eq!(count(Fate::Dropped, "words that are silence"), 18);
    assert_eq!(count(Fate::Dropped, "labelled videos in no fold"), 1);
    assert_eq!(count(Fate::Dropped, "videos of a fold without labels"), 1);
    assert_eq!(count(Fate::Noted, "videos without vision"), 1);
    let values = "values of audio frames that are not finite, left out of means";
    for what in
        [values, "words without a frame of audio", "features of words that no frame of audio has"]
    {
        assert!(count(Fate::Filled, what) > 0, "{what}: {:#?}", summary.ledger);
    }
    for what in ["segments without audio", "segments without vision", "segments cut to 4 words"] {
        assert!(count(Fate::Noted, what) > 0, "{what}: {:#?}", summary.ledger);
    }
}

#[test]
fn the_new_file_is_the_same_however_many_threads_make_it() {
    let folder = TempDir::new().expect("a folder");
    let bytes = |threads: usize| {
        let out = folder.path().join(format!("{threads}.h5"));
        let sequences = Sequences { threads: Some(threads), ..golden() };
        sequences.import(&out, &ProgressBar::hidden()).expect("the import works");
        fs::read(out).expect("it is there")
    };
    let one = bytes(1);
    assert!([2, 4, 40].into_iter().all(|threads| bytes(threads) == one));
}

#[test]
fn a_file_tells_what_it_holds() {
    let folder = fixtures();
    let words = Sequence::open(folder.join("CMU_MOSI_TimestampedWords.csd")).expect("it opens");
    assert_eq!(words.root_name(), "words");
    assert_eq!(words.metadata()["dataset name"], "CMU-MOSI");
    assert_eq!(words.metadata()["md5"], serde_json::Value::Null);
    assert!(words.unread_metadata().is_empty());
    assert_eq!(words.videos().next(), Some("-vidC"));
    let kind = words.kind().expect("it is readable").expect("it is not empty");
    assert_eq!((kind.dim, kind.dtype), (1, "string"));
    let track = words.read("vidA").expect("it is readable");
    let Values::Texts(texts) = track.values else { panic!("no texts") };
    assert_eq!(
        (track.intervals.len(), &texts[3..6]),
        (18, &["w3", "sp", "w5"].map(String::from)[..])
    );

    let faces = Sequence::open(folder.join("CMU_MOSI_Visual_Facet_42.csd")).expect("it opens");
    let kind = faces.kind().expect("it is readable").expect("it is not empty");
    assert_eq!((kind.dim, kind.dtype, faces.entries()), (3, "float64", 6));
    let track = faces.read("vidA").expect("it is readable");
    let Values::Numbers { dim, values } = track.values else { panic!("no numbers") };
    assert_eq!((dim, values.len()), (3, track.intervals.len() * 3));
    let error = faces.read("vidE").expect_err("it is not there");
    assert!(format!("{error:#}").contains("no vidE"), "{error:#}");
}
