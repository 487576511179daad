//! The synthetic corpora: the same everywhere and for ever, written once, replaced when out of date.

use std::fs;

use cumdf_data::synthetic::{self, Kind};
use cumdf_data::{Dataset, Labels, Split, Task};
use tempfile::TempDir;

use crate::common::{floats, toy};

#[test]
fn content_and_bytes_are_pinned() {
    let pins = [
        (
            Kind::Sentiment,
            "9d029b4ce0e0914173bb24183d93a50221806948877b03eb668c344ebdf1deac",
            "4f7a8d2ad9db99f7a90695384830d7a019fb19ef3e04edc008d515e1174045d0",
        ),
        (
            Kind::Emotion,
            "7abd0fd1585832960d05783c63934b8d4b20f9ca0f56b9809d87a1952ceefad9",
            "12b587a30706857d906ee7afa22aae9e9ad3a4fd9af61322fdc31d0f70fdf2a8",
        ),
    ];
    for (kind, content, bytes) in pins {
        let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let open = |folder: &TempDir| {
            Dataset::open(synthetic::ensure(kind, folder.path()).unwrap()).unwrap()
        };
        let (first, second) = (open(&first), open(&second));
        assert_eq!(synthetic::content_sha256(&first).unwrap(), content, "{kind:?}");
        assert_eq!(first.sha256, second.sha256, "{kind:?}: two writes differ");
        assert_eq!(first.sha256, bytes, "{kind:?}: the file's bytes differ, its content does not");
        assert_eq!(first.repairs.total(), 0);
    }
}

#[test]
fn a_corpus_is_written_once_and_an_older_version_is_replaced() {
    let folder = TempDir::new().unwrap();
    let path = synthetic::ensure(Kind::Emotion, folder.path()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    synthetic::ensure(Kind::Emotion, folder.path()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written, "written again");

    let mut other = synthetic::generate(Kind::Emotion).unwrap();
    other.generator = Some("cumdf-data synthetic 0".to_owned());
    other.write(&path).unwrap();
    synthetic::ensure(Kind::Emotion, folder.path()).unwrap();
    assert!(fs::read(&path).unwrap() == bytes, "another version was kept");
}

#[test]
fn whatever_else_bears_the_name_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = synthetic::ensure(Kind::Emotion, folder.path()).unwrap();
    let whole = fs::read(&path).unwrap();
    let said = |expected: &str| {
        let before = fs::read(&path).unwrap();
        let error = synthetic::ensure(Kind::Emotion, folder.path()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("synthetic-emotion.h5"), "no name: {error}");
        assert!(error.contains("move") && error.contains("away"), "no way out: {error}");
        assert!(error.contains(expected), "{error}");
        assert!(fs::read(&path).unwrap() == before, "it was replaced: {error}");
    };

    fs::write(&path, "id,score\na,1.5\n").unwrap();
    said("it may be yours");
    fs::write(&path, &whole[..1000]).unwrap();
    said("no readable HDF5 file");
    toy().write(&path).unwrap();
    said("not synthetic");

    let mut other = synthetic::generate(Kind::Emotion).unwrap();
    other.generator = Some("another program 1".to_owned());
    other.write(&path).unwrap();
    said("not synthetic");
    other.generator = Some("cumdf-data synthetic 99".to_owned());
    other.write(&path).unwrap();
    said("newer version (99");
    other.generator = Some("cumdf-data synthetic 1".to_owned());
    other.train.lengths[0] = 4 + (other.train.lengths[0] - 3) % 16;
    other.write(&path).unwrap();
    said("other values than the synthetic corpus");
    #[cfg(unix)]
    {
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/nowhere/mine.h5", &path).unwrap();
        let error = synthetic::ensure(Kind::Emotion, folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("cannot be opened"), "{error:#}");
        assert!(path.is_symlink(), "the link was replaced");
    }
}

#[test]
fn the_truth_says_what_the_features_hold() {
    let data = synthetic::generate(Kind::Sentiment).unwrap();
    let Labels::Scores(scores) = &data.train.labels else { panic!("scores") };
    let fifths = |score: &f32| score * 5.0;
    assert!(scores.iter().all(|s| (fifths(s) - fifths(s).round()).abs() < 1e-5));
    let mean = scores.iter().sum::<f32>() / scores.len() as f32;
    let spread = scores.iter().map(|s| (s - mean).powi(2)).sum::<f32>() / scores.len() as f32;
    assert!((1.5..2.0).contains(&spread.sqrt()), "the scores spread by {}", spread.sqrt());

    for split in Split::ALL {
        let samples = data.split(split);
        let truth = samples.truth.as_ref().unwrap();
        assert!(truth.signal[0] > truth.signal[1] && truth.signal[1] > truth.signal[2]);
        let many = truth.contradicts.iter().any(|row| row[0] || (row[1] && row[2]));
        assert!(!many, "{split}: language contradicts, or two modalities do");
        let share = truth.contradicts.iter().filter(|row| row[1] || row[2]).count() as f64
            / samples.len() as f64;
        assert!((0.1..0.2).contains(&share), "{split}: {share} contradict");
        let keys = floats(&truth.key_frames); // [N, 3, T]
        for (row, length) in keys.chunks(20).zip(samples.lengths.iter().flat_map(|l| [*l; 3])) {
            assert_eq!(row.iter().sum::<f32>() as i64, 1 + length / 5);
            assert!(row[length as usize..].iter().all(|key| *key == 0.0));
        }
    }
    // The first feature tells key frames from the others, 2 against 0 on average.
    let marks = data.train.features[0].select(2, 0); // [N, T]
    let keys = data.train.truth.as_ref().unwrap().key_frames.select(1, 0);
    let mean = marks.masked_select(&keys).mean(None).double_value(&[]);
    assert!((1.9..2.1).contains(&mean), "{mean}");
}

#[test]
fn the_emotions_are_uneven() {
    let data = synthetic::generate(Kind::Emotion).unwrap();
    let Task::Emotion { classes } = &data.task else { panic!("emotions") };
    let Labels::Classes(rows) = &data.train.labels else { panic!("emotions") };
    let count = |class| rows.iter().filter(|row| row[class]).count();
    let counts: Vec<_> = (0..classes.len()).map(count).collect();
    assert!(counts.is_sorted(), "{counts:?}");
    assert!(rows.iter().any(|row| row.iter().filter(|flag| **flag).count() == 2));
}
