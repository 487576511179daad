//! The binary `cumdf-data`, from outside.

use std::process::{Command, Output, Stdio};

use crate::common::toy;

pub(crate) fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_cumdf-data")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn help_teaches_by_example() {
    for args in [&["--help"][..], &["inspect", "--help"], &["synthetic", "--help"]] {
        let (code, out, _) = run(args);
        assert_eq!(code, 0);
        assert!(out.contains("Example") && out.contains("cumdf-data "), "{out}");
    }
}

#[test]
fn inspect_tells_what_a_file_holds() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("toy.h5");
    toy().write(&path).unwrap();
    let path = path.to_str().unwrap();
    let (code, out, err) = run(&["inspect", path]);
    assert_eq!((code, err.as_str()), (0, ""));
    for expected in [
        "toy: sentiment, scores in [-3, 3], 4 steps",
        "vision: one vector per utterance, 1 feature\n",
    ] {
        assert!(out.contains(expected), "{out}");
    }
    let (code, out, _) = run(&["inspect", "--json", path, path]);
    assert_eq!(code, 0);
    let reports: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(reports[1]["splits"][0]["samples"], 10);
    assert_eq!(reports[0]["splits"][2]["modalities"][0]["dim"], 3);
    assert_eq!(reports[0]["splits"][0]["length"]["median"], 2);
    assert_eq!(reports[0]["splits"][0]["classes"][0], serde_json::json!(["-3", 1]));
}

#[test]
fn errors_go_to_stderr_with_a_code() {
    let (code, out, err) = run(&["inspect", "no/such/file.h5"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("error: no/such/file.h5: cannot be opened: "), "{err}");
    assert_eq!(err.lines().count(), 1, "the HDF5 library talks too: {err}");
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("noise.h5");
    std::fs::write(&path, [7; 4000]).unwrap();
    let (code, _, err) = run(&["inspect", path.to_str().unwrap()]);
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert_eq!(run(&["inspect"]).0, 2);
    assert_eq!(run(&["delete"]).0, 2);
}

#[test]
fn synthetic_writes_both_corpora() {
    let folder = tempfile::TempDir::new().unwrap();
    let dir = folder.path().join("data");
    let (code, out, _) = run(&["synthetic", "--dir", dir.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert_eq!(out.lines().count(), 2);
    assert!(dir.join("synthetic.h5").exists() && dir.join("synthetic-emotion.h5").exists());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("toy.h5");
    toy().write(&path).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_cumdf-data"))
        .arg("inspect")
        .args(vec![path; 40])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
