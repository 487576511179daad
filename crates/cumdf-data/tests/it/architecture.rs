//! ARCHITECTURE.md is a map: every file that it names is there.

use std::fs;
use std::path::{Path, PathBuf};

/// Kinds of files that the map names by their bare names.
const KINDS: [&str; 4] = [".rs", ".py", ".toml", ".md"];
/// Folders of the project that are made, not kept.
const MADE: [&str; 5] = ["target", "runs", ".venv", ".libtorch", ".git"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All files and folders under `folder`, as `/` and their path from `root`.
fn tree(root: &Path, folder: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if MADE.iter().any(|made| path.ends_with(made)) || path.is_symlink() {
            continue;
        }
        paths.push(format!("/{}", path.strip_prefix(root).unwrap().to_str().unwrap()));
        if path.is_dir() {
            tree(root, &path, paths);
        }
    }
}

/// The words in backticks that look like files or folders of the project, with their lines.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (row, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            let word = quoted.split_whitespace().next().unwrap_or("").trim_end_matches('/');
            let is_path = word.contains('/') && quoted.split_whitespace().count() <= 2;
            let last = word.rsplit('/').next().unwrap_or(word);
            let kept = KINDS.iter().any(|kind| last.len() > kind.len() && last.ends_with(kind));
            let other_kind = !kept && last.contains('.');
            let made = MADE.iter().any(|made| word.split('/').next() == Some(made));
            let pattern = word.contains(['*', '<', '{', '[', '(', '"', '=', ':', '$']);
            if (is_path && !other_kind || kept) && !made && !pattern {
                found.push((row + 1, word.to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_file_on_the_map_is_in_the_tree() {
    let root = root();
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let mut paths = Vec::new();
    tree(&root, &root, &mut paths);
    let names = named(&text);
    assert!(names.len() > 10, "a map of {} names is none: {names:?}", names.len());
    // `fit.rs` is found by its name, `import/kind.rs` by the end of its path.
    let is_there = |name: &str| paths.iter().any(|path| path.ends_with(&format!("/{name}")));
    let missing: Vec<_> = names.iter().filter(|(_, name)| !is_there(name)).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
}

#[test]
fn files_are_told_from_other_words() {
    let text = "`fit.rs` and `import/kind.rs`, in `tests/golden/` and `cumdf-data/tests`\n\
                `[B, 3, T]`, `Dataset::open`, `configs/*.toml`, `.csd`, `runs/a/best.safetensors`\n\
                ```\nno/such/file.rs `here.rs`\n```\n\
                `scripts/setup --python` or `cargo run -p a/b`, `best.safetensors`, `Cargo.toml`";
    let words: Vec<_> =
        named(text).into_iter().map(|(row, word)| format!("{row} {word}")).collect();
    assert_eq!(
        words,
        [
            "1 fit.rs",
            "1 import/kind.rs",
            "1 tests/golden",
            "1 cumdf-data/tests",
            "6 scripts/setup",
            "6 Cargo.toml"
        ]
    );
}
