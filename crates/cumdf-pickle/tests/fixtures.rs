//! Pickles that Python wrote, against what Python says is in them: see `scripts/pickles.py`.

mod common;

use std::io::{Cursor, Read, Seek};

use common::{describe, fixtures};
use cumdf_pickle::{Limits, load};
use serde_json::Value;

fn expected() -> Value {
    let text = include_str!("fixtures/expected.json");
    serde_json::from_str(text).expect("expected.json is json")
}

fn fixture(name: &str) -> Vec<u8> {
    fixtures().into_iter().find(|(found, _)| found == name).expect("the fixture is there").1
}

#[test]
fn every_fixture_decodes_to_what_python_wrote() {
    let expected = expected();
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 23, "a fixture came or went; is expected.json newer?");
    // With every payload in memory, with large ones in the file, with all of them there.
    for inline_below in [u64::MAX, 4096, 600, 64] {
        let limits = Limits { inline_below, ..Limits::default() };
        for (name, bytes) in &fixtures {
            let mut reader = Cursor::new(bytes);
            let pickle = load(&mut reader, &limits).unwrap_or_else(|err| panic!("{name}: {err}"));
            let found = describe(pickle.root(), &mut reader)
                .unwrap_or_else(|err| panic!("{name}, inline below {inline_below}: {err}"));
            let values = expected["files"][name].as_str().expect("expected.json names the file");
            compare(&found, &expected[values], name);
        }
    }
}

/// Compares piece by piece, so that a failure shows the piece.
fn compare(found: &Value, expected: &Value, path: &str) {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                compare(found, expected, &format!("{path}[{i}]"));
            }
        }
        (Value::Object(found), Value::Object(expected)) if found.keys().eq(expected.keys()) => {
            for (key, found) in found {
                compare(found, &expected[key], &format!("{path}.{key}"));
            }
        }
        _ => assert_eq!(found, expected, "{path} (left: decoded, right: python)"),
    }
}

#[test]
fn rows_of_any_memory_order_are_the_same_as_in_the_whole() {
    for name in ["arrays_2.pkl", "arrays_5.pkl", "py2_0.pkl"] {
        for inline_below in [u64::MAX, 64] {
            let mut reader = Cursor::new(fixture(name));
            let limits = Limits { inline_below, ..Limits::default() };
            let pickle = load(&mut reader, &limits).expect("the fixture decodes");
            let root = pickle.root().get("train").unwrap_or(pickle.root());
            let mut n_arrays = 0;
            for (key, item) in root.entries().expect("it is a dict") {
                let Some(array) = item.array() else { continue };
                let Ok(whole) = array.read_f64(&mut reader, 0..array.n_rows()) else { continue };
                n_arrays += 1;
                for start in 0..=array.n_rows() {
                    for end in start..=array.n_rows() {
                        let rows = array.read_f64(&mut reader, start..end).expect("rows are there");
                        let n = array.row_len();
                        assert_eq!(
                            rows,
                            whole[start * n..end * n],
                            "{name} {key:?} {start}..{end}"
                        );
                    }
                }
                assert!(array.read_f64(&mut reader, 0..array.n_rows() + 1).is_err());
            }
            assert!(n_arrays > 3, "{name}: only {n_arrays} arrays of numbers");
        }
    }
}

/// A reader that counts the bytes taken from it.
struct Counted {
    inner: Cursor<Vec<u8>>,
    /// Bytes read so far.
    n_read: usize,
}

impl Counted {
    /// Starts at zero.
    fn new(bytes: Vec<u8>) -> Self {
        Self { inner: Cursor::new(bytes), n_read: 0 }
    }
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.n_read += n;
        Ok(n)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.inner.seek(to)
    }
}

#[test]
fn a_payload_is_not_read_before_it_is_wanted() {
    // Protocol 5 with a buffer of 32 MiB: the header as in large_5.pkl, zeros as content.
    let mut file = b"\x80\x05cnumpy._core.numeric\n_frombuffer\n(B".to_vec();
    let rows = 1usize << 13;
    file.extend((rows as u32 * 4096).to_le_bytes());
    file.resize(file.len() + rows * 4096, 0);
    file.extend(
        b"cnumpy\ndtype\n(U\x02f4I0\nI1\ntR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb",
    );
    file.extend(b"M\0\x20M\0\x04\x86U\x01CtR.");
    let mut reader = Counted::new(file);

    let pickle = load(&mut reader, &Limits::default()).expect("it decodes");
    assert!(reader.n_read < 20_000, "{} bytes were read to decode", reader.n_read);
    let array = pickle.root().array().expect("it is an array");
    assert_eq!(array.shape, [rows, 1024]);

    reader.n_read = 0;
    let values = array.read_f32(&mut reader, 4000..4003).expect("the rows are there");
    assert_eq!(values.len(), 3 * 1024);
    assert_eq!(reader.n_read, 3 * 4096, "rows in C order are one read");
}

#[test]
fn a_text_of_python_3_in_protocol_2_is_read_from_the_file() {
    let mut reader = Cursor::new(fixture("large_2.pkl"));
    let pickle = load(&mut reader, &Limits::default()).expect("the fixture decodes");
    let array = pickle.root().require("large").expect("it is there").array().expect("an array");
    let rows = array.read_f32(&mut reader, 299..300).expect("the last row is there");
    assert_eq!(rows, [596.0, 597.0, 598.0, 599.0]);
    let text = pickle.root().require("text").expect("it is there");
    assert_eq!(text.text(), None, "6000 bytes stay in the file");
    assert_eq!(text.read_text(&mut reader).expect("it is utf-8"), Some("né".repeat(2000)));
}

#[test]
fn a_missing_key_is_reported_beside_those_that_are_there() {
    let pickle =
        load(Cursor::new(fixture("readme_2.pkl")), &Limits::default()).expect("it decodes");
    let err = pickle.root().require("label").expect_err("there is no such key").to_string();
    assert_eq!(err, r#"no key "label" in a dict of 2; it starts with ["labels", "ids"]"#);
    assert_eq!(format!("{pickle:?}"), "pickle of protocol 2: dict of 2");
}

/// `_frombuffer` of a cube of doubles, 0 to 196607 in the order of the memory, with its axes
/// permuted; the content is bytes, or the text that Python 3 writes for them in protocol 2.
fn cube(axes: [u8; 3], as_text: bool) -> Vec<u8> {
    let content: Vec<u8> = (0..32 * 64 * 96).flat_map(|i| f64::from(i).to_le_bytes()).collect();
    let mut file = b"\x80\x05cnumpy._core.numeric\n_frombuffer\n(".to_vec();
    if as_text {
        let text: String = content.into_iter().map(char::from).collect();
        file.extend(b"c_codecs\nencode\nX");
        file.extend((text.len() as u32).to_le_bytes());
        file.extend([text.as_bytes(), b"X\x06\0\0\0latin1\x86R"].concat());
    } else {
        file.extend(b"B");
        file.extend((content.len() as u32).to_le_bytes());
        file.extend(content);
    }
    file.extend(b"cnumpy\ndtype\n(U\x02f8I0\nI1\ntRK\x20K\x40K\x60\x87U\x01K");
    file.extend([b'K', axes[0], b'K', axes[1], b'K', axes[2], 0x87, b't', b'R', b'.']);
    file
}

#[test]
fn arrays_beyond_one_read_are_right_in_every_order_of_the_axes() {
    let (memory, strides) = ([32usize, 64, 96], [64 * 96, 96, 1]);
    for axes in [[0u8, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let [a, b, c] = axes.map(usize::from);
        for as_text in [false, true] {
            let mut reader = Cursor::new(cube(axes, as_text));
            let pickle = load(&mut reader, &Limits::default()).expect("it decodes");
            let array = pickle.root().array().expect("it is an array");
            assert_eq!(array.shape, [memory[a], memory[b], memory[c]]);
            for rows in [0..memory[a], 3..memory[a] - 5] {
                let values = array.read_f64(&mut reader, rows.clone()).expect("rows are there");
                let place = |i, j, k| i * strides[a] + j * strides[b] + k * strides[c];
                let row =
                    |i| (0..memory[b]).flat_map(move |j| (0..memory[c]).map(move |k| (i, j, k)));
                let expected: Vec<f64> =
                    rows.flat_map(row).map(|(i, j, k)| place(i, j, k) as f64).collect();
                assert!(values == expected, "axes {axes:?}, as text: {as_text}");
            }
        }
    }
}
