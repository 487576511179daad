//! The native layout: what is read, what is refused and with which words.

use std::fs;
use std::path::PathBuf;

use cumdf_data::{Dataset, Labels, Modality, Samples, Split, Task};
use hdf5::types::VarLenUnicode;
use hdf5::{File, Group, H5Type};
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::common::{self, floats, samples, toy};

/// The toy's file in a folder of its own.
fn written() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("toy.h5");
    toy().write(&path).unwrap();
    (folder, path)
}

/// What is said about the toy's file after `spoil`, without the path in front.
fn complaint(spoil: impl FnOnce(&File)) -> String {
    let (_folder, path) = written();
    let file = File::open_rw(&path).unwrap();
    spoil(&file);
    file.close().unwrap();
    let error = format!("{:#}", Dataset::open(&path).expect_err("the file is broken"));
    let start = format!("{}: ", path.display());
    error.strip_prefix(&start).unwrap_or_else(|| panic!("no path in front: {error}")).to_owned()
}

/// Puts other values in place of a data set.
fn replace<T: H5Type>(file: &File, name: &str, shape: &[usize], values: Vec<T>) {
    let array = ndarray::ArrayD::from_shape_vec(shape, values).unwrap();
    file.unlink(name).unwrap();
    file.new_dataset_builder().with_data(&array).create(name).unwrap();
}

fn replace_ids(file: &File, name: &str, ids: &[&str]) {
    let ids: Vec<VarLenUnicode> = ids.iter().map(|id| id.parse().unwrap()).collect();
    replace(file, name, &[ids.len()], ids);
}

fn set_text(at: &Group, name: &str, text: &str) {
    if at.attr_names().unwrap().iter().any(|n| n == name) {
        at.delete_attr(name).unwrap();
    }
    let text: VarLenUnicode = text.parse().unwrap();
    at.new_attr::<VarLenUnicode>().create(name).unwrap().write_scalar(&text).unwrap();
}

fn set_range(file: &File, range: &[f64]) {
    file.delete_attr("range").unwrap();
    file.new_attr_builder().with_data(range).create("range").unwrap();
}

fn assert_equal(a: &Samples, b: &Samples) {
    for (x, y) in a.features.iter().zip(&b.features) {
        assert!(x.nan_to_num(77.0, None, None).equal(&y.nan_to_num(77.0, None, None)));
    }
    assert_eq!(a.labels, b.labels);
    assert_eq!(a.lengths, b.lengths);
    assert_eq!(a.ids, b.ids);
    assert_eq!(a.present, b.present);
}

#[test]
fn what_is_written_is_read_back() {
    let mut splits = [samples("train", 10), samples("valid", 5), samples("test", 6)];
    let _ = splits[1].features[1].get(3).get(2).fill_(f64::NAN);
    splits[2].present[4] = "la".parse().unwrap();
    let data = common::emotions(splits).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("new/folder/toy.h5");
    data.write(&path).unwrap();
    let read = Dataset::open(&path).unwrap();
    assert_eq!((read.name, read.task, read.steps), (data.name, data.task, data.steps));
    assert_eq!((read.dims, read.repairs), (data.dims, data.repairs));
    assert_eq!(read.repairs.count(Split::Valid, Modality::Audio), 2);
    assert_eq!(read.sha256.len(), 64);
    assert_equal(&read.train, &data.train);
    assert_equal(&read.valid, &data.valid);
    assert_equal(&read.test, &data.test);
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "a temporary file was left behind: {names:?}");
}

#[test]
fn equal_data_give_equal_bytes() {
    let ((_a, first), (_b, second)) = (written(), written());
    assert_eq!(Dataset::open(&first).unwrap().sha256, Dataset::open(&second).unwrap().sha256);
}

#[test]
fn the_types_of_h5py_are_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fixtures/h5py.h5");
    let data = Dataset::open(path).unwrap();
    assert_eq!(data.name, "h5py, größer");
    assert_eq!(data.task, Task::Emotion { classes: vec!["happy".to_owned(), "sad".to_owned()] });
    assert_eq!((data.steps, data.dims), (2, [2, 1, 1]));
    assert_eq!(data.train.ids, ["train ä0", "train ä1", "train ä2"]);
    assert_eq!(data.train.lengths, [2, 1, 2]);
    let present: Vec<_> = data.train.present.iter().map(|set| set.key()).collect();
    assert_eq!(present, ["lav", "lv", "av"]);
    let rows = [[true, false], [false, true], [true, true]].map(Vec::from).to_vec();
    assert_eq!(data.train.labels, Labels::Classes(rows));
    assert_eq!(floats(&data.test.features[0]), [0.5, 0.25, 1.5, 1.25]);
    assert_eq!(floats(&data.test.features[1]), [0.0, -1.0]);
    assert_eq!(floats(&data.train.features[2]), [7.0, 9.0, 11.0]);
}

#[test]
fn a_file_without_present_or_range_is_complete_and_spans_mosi() {
    let (_folder, path) = written();
    let file = File::open_rw(&path).unwrap();
    file.delete_attr("range").unwrap();
    for split in Split::ALL {
        file.unlink(&format!("{split}/present")).unwrap();
    }
    file.close().unwrap();
    let data = Dataset::open(&path).unwrap();
    assert_eq!(data.task, Task::Sentiment { lo: -3, hi: 3 });
    assert!(data.train.present.iter().all(|set| set.len() == 3));
}

#[test]
fn files_that_are_none_are_refused() {
    let folder = TempDir::new().unwrap();
    let complain = |path: &std::path::Path| format!("{:#}", Dataset::open(path).unwrap_err());
    let missing = folder.path().join("missing.h5");
    assert!(complain(&missing).contains("missing.h5: cannot be opened: No such file"));
    assert!(complain(folder.path()).contains("not a file"));
    let text = folder.path().join("text.h5");
    fs::write(&text, "language,audio,vision\n").unwrap();
    assert!(complain(&text).contains("not a readable HDF5 file"), "{}", complain(&text));
    fs::write(&text, "").unwrap();
    assert!(complain(&text).contains("not a readable HDF5 file"));
}

#[test]
fn a_truncated_file_is_an_error_at_any_length() {
    let (_folder, path) = written();
    let bytes = fs::read(&path).unwrap();
    for tenth in 0..10 {
        fs::write(&path, &bytes[..bytes.len() * tenth / 10]).unwrap();
        assert!(Dataset::open(&path).is_err(), "{tenth} tenths of the file were accepted");
    }
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(Dataset::open(&path).is_err());
}

#[test]
fn noise_never_panics() {
    let (_folder, path) = written();
    let bytes = fs::read(&path).unwrap();
    let mut state = 1u64;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for round in 0..200 {
        let mut noisy = bytes.clone();
        match round % 2 {
            // Only the signature survives.
            0 => noisy.iter_mut().skip(8 * (round % 4 / 2)).for_each(|byte| *byte = next() as u8),
            // A few bytes are wrong: whatever passes the checks is a data set.
            _ => {
                for _ in 0..4 {
                    let place = next() % noisy.len();
                    noisy[place] = next() as u8;
                }
            }
        }
        fs::write(&path, noisy).unwrap();
        let _ = Dataset::open(&path);
    }
}

#[test]
fn what_is_missing_is_named() {
    let cases: [(&str, &str); 8] = [
        ("train", "no group /train"),
        ("test", "no group /test"),
        ("valid/language", "no data set /valid/language"),
        ("train/audio", "no data set /train/audio"),
        ("train/vision", "no data set /train/vision"),
        ("train/label", "no data set /train/label"),
        ("test/length", "no data set /test/length"),
        ("test/id", "no data set /test/id"),
    ];
    for (name, expected) in cases {
        let said = complaint(|file| file.unlink(name).unwrap());
        assert!(said.starts_with(expected), "{name}: {said}");
    }
    for name in ["name", "task"] {
        let said = complaint(|file| file.delete_attr(name).unwrap());
        assert!(said.starts_with(&format!("no root attribute `{name}`")), "{said}");
    }
    let said = complaint(|file| {
        set_text(file, "task", "emotion");
    });
    assert!(said.starts_with("no root attribute `classes`"), "{said}");
}

#[test]
fn shapes_that_disagree_are_named() {
    let zeros = |len: usize| vec![0f32; len];
    let cases: Vec<(&str, Vec<usize>, &str)> = vec![
        ("train/audio", vec![10, 8], "/train/audio has shape [10, 8], expected 3 axes"),
        ("train/audio", vec![9, 4, 2], "/train/audio has 9 rows, /train/id has 10"),
        ("train/audio", vec![10, 3, 2], "/train/audio has 3 steps, expected 4"),
        ("test/audio", vec![6, 1, 2], "/test/audio has 1 steps, /train/audio has 4"),
        ("valid/audio", vec![5, 4, 7], "/valid/audio has 7 features per step, /train/audio has 2"),
        ("valid/language", vec![5, 6, 3], "/valid/language has 6 steps, expected 4"),
        ("train/audio", vec![10, 4, 0], "/train/audio has 0 features per step"),
        ("train/language", vec![0, 4, 3], "/train/language has 0 rows, /train/id has 10"),
        ("train/label", vec![10, 1], "/train/label has shape [10, 1], expected 1 axes"),
        ("train/label", vec![8], "/train/label has 8 rows, /train/id has 10"),
        ("train/length", vec![11], "/train/length has 11 rows, /train/id has 10"),
        ("train/present", vec![10, 2], "/train/present has 2 columns, expected 3"),
        ("train/id", vec![10], "/train/id does not hold strings"),
    ];
    for (name, shape, expected) in cases {
        let said = complaint(|file| replace(file, name, &shape, zeros(shape.iter().product())));
        assert!(said.contains(expected), "{name} {shape:?}: {said}");
    }
    let said = complaint(|file| replace_ids(file, "train/language", &["x"; 10]));
    assert!(said.contains("/train/language has shape [10]"), "{said}");
    let said = complaint(|file| replace_ids(file, "train/length", &["x"; 10]));
    assert!(said.contains("/train/length does not hold numbers"), "{said}");
}

#[test]
fn samples_that_break_a_rule_are_named() {
    let flags = |bad: u8| [vec![1u8; 15], vec![bad, bad, bad], vec![1; 12]].concat();
    let lengths = |bad: f64| vec![1.0, 2.0, bad, 1.0, 1.0];
    let said = complaint(|file| replace(file, "valid/length", &[5], lengths(0.0)));
    assert_eq!(said, "/valid: sample `valid2` has length 0, expected 1 to 4");
    let said = complaint(|file| replace(file, "valid/length", &[5], lengths(5.0)));
    assert_eq!(said, "/valid: sample `valid2` has length 5, expected 1 to 4");
    let said = complaint(|file| replace(file, "valid/length", &[5], lengths(1.5)));
    assert_eq!(said, "/valid/length: sample 2 is 1.5, expected an integer");
    for bad in [3.5, -4.0, f64::NAN, f64::INFINITY] {
        let said = complaint(|file| replace(file, "valid/label", &[5], lengths(bad)));
        assert!(said.contains("/valid: sample `valid2` has label"), "{said}");
        assert!(said.contains("expected a score in [-3, 3]"), "{said}");
    }
    let said = complaint(|file| replace(file, "train/present", &[10, 3], flags(2)));
    assert_eq!(said, "/train/present: sample 5, column 0 is 2, expected 0 or 1");
    let said = complaint(|file| replace(file, "train/present", &[10, 3], flags(0)));
    assert!(said.contains("sample `train5` has no present modality"), "{said}");
    let said = complaint(|file| replace_ids(file, "valid/id", &["a", "b", "c", "b", "d"]));
    assert!(said.starts_with("/valid/id holds `b` twice"), "{said}");
    let said = complaint(|file| replace_ids(file, "valid/id", &["a", "b", "train3", "c", "d"]));
    assert!(said.starts_with("id `train3` stands in /train and in /valid"), "{said}");
}

#[test]
fn empty_splits_are_refused() {
    let said = complaint(|file| {
        for (name, shape) in [
            ("test/language", vec![0, 4, 3]),
            ("test/audio", vec![0, 4, 2]),
            ("test/vision", vec![0, 1, 1]),
            ("test/label", vec![0]),
            ("test/length", vec![0]),
            ("test/present", vec![0, 3]),
        ] {
            replace::<f32>(file, name, &shape, vec![]);
        }
        replace_ids(file, "test/id", &[]);
    });
    assert!(said.starts_with("/test holds no sample"), "{said}");
}

#[test]
fn attributes_that_make_no_sense_are_named() {
    let said = complaint(|file| set_text(file, "task", "regression"));
    assert_eq!(said, "attribute `task` is `regression`, expected `sentiment` or `emotion`");
    for (range, expected) in [
        (&[-3.0, 2.5][..], "attribute `range` is [-3, 2.5], expected two integers"),
        (&[3.0, -3.0], "attribute `range` is [3, -3], expected two integers"),
        (&[f64::NAN, 3.0], "attribute `range` is [NaN, 3], expected two integers"),
        (&[-1e300, 1e300], "expected two integers"),
        (&[3.0], "attribute `range` holds 1 numbers"),
    ] {
        let said = complaint(|file| set_range(file, range));
        assert!(said.contains(expected), "{range:?}: {said}");
    }
}

#[test]
fn emotion_rows_are_flags_with_one_set() {
    let spoilt = |values: [f32; 12]| {
        let splits = [samples("train", 10), samples("valid", 5), samples("test", 6)];
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("toy.h5");
        common::emotions(splits).unwrap().write(&path).unwrap();
        let file = File::open_rw(&path).unwrap();
        replace(&file, "test/label", &[6, 2], values.to_vec());
        file.close().unwrap();
        format!("{:#}", Dataset::open(&path).unwrap_err())
    };
    let said = spoilt([1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert!(said.contains("/test: sample `test2` has no class set"), "{said}");
    for bad in [0.5, 2.0, -1.0, f32::NAN] {
        let said = spoilt([1.0, 0.0, 1.0, 0.0, 0.0, bad, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        assert!(said.contains("/test/label: sample 2, column 1 is"), "{said}");
    }
}

#[test]
fn a_data_set_that_breaks_a_rule_is_not_written() {
    let mut data = toy();
    data.test.lengths[1] = 9;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bad.h5");
    let said = format!("{:#}", data.write(&path).unwrap_err());
    assert!(
        said.contains("bad.h5: cannot be written: /test: sample `test1` has length 9"),
        "{said}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let mut splits = [samples("train", 10), samples("valid", 5), samples("test", 6)];
    splits[0].features[0] = Tensor::zeros([10, 4, 3], (Kind::Double, tch::Device::Cpu));
    let said = Dataset::new("toy", Task::Sentiment { lo: -3, hi: 3 }, splits).unwrap_err();
    assert_eq!(said.to_string(), "/train/language is Double, expected f32");
}

#[test]
fn a_size_that_the_file_cannot_hold_is_not_allocated() {
    let said = complaint(|file| {
        file.unlink("train/audio").unwrap();
        let huge = file.new_dataset::<f32>().chunk((1, 1, 1024)).shape((1 << 40, 1 << 10, 1 << 10));
        huge.create("train/audio").unwrap();
    });
    assert!(said.contains("/train/audio claims shape [1099511627776, 1024, 1024]"), "{said}");
}
