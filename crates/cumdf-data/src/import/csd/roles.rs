//! Which `.csd` file of a folder is which, by the names that CMU-MultimodalSDK's files have.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{Sequence, Sequences};

/// Files that the user named, beside those that are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Features of words.
    pub language: Option<PathBuf>,
    /// Features of speech.
    pub audio: Option<PathBuf>,
    /// Features of faces.
    pub vision: Option<PathBuf>,
    /// Labels of segments.
    pub labels: Option<PathBuf>,
    /// The words themselves.
    pub words: Option<PathBuf>,
    /// Folds.
    pub folds: Vec<PathBuf>,
}

/// What a file can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Language,
    Audio,
    Vision,
    Labels,
    Words,
}

impl Role {
    /// By parts of the root's or the file's name, lower case without signs; the first that is found
    /// in either name wins, so longer and rarer ones come first.
    const MARKS: [(&'static str, Option<Self>); 21] = [
        ("phone", None),
        ("label", Some(Self::Labels)),
        ("wordvectors", Some(Self::Language)),
        ("glove", Some(Self::Language)),
        ("word2vec", Some(Self::Language)),
        ("bert", Some(Self::Language)),
        ("timestampedwords", Some(Self::Words)),
        ("words", Some(Self::Words)),
        ("covarep", Some(Self::Audio)),
        ("opensmile", Some(Self::Audio)),
        ("mfcc", Some(Self::Audio)),
        ("wav2vec", Some(Self::Audio)),
        ("acoustic", Some(Self::Audio)),
        ("audio", Some(Self::Audio)),
        ("facet", Some(Self::Vision)),
        ("openface", Some(Self::Vision)),
        ("visual", Some(Self::Vision)),
        ("vision", Some(Self::Vision)),
        ("video", Some(Self::Vision)),
        ("language", Some(Self::Language)),
        ("text", Some(Self::Language)),
    ];

    fn of(sequence: &Sequence) -> Option<Self> {
        let plain = |text: &str| -> String {
            text.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
        };
        let file = sequence.path().file_stem().map(|stem| plain(&stem.to_string_lossy()));
        let root = plain(sequence.root_name());
        let by = |name: &str| {
            Self::MARKS.into_iter().find(|(mark, _)| name.contains(mark)).map(|(_, role)| role)
        };
        by(&root).or_else(|| by(&file?)).flatten()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Language => "language",
            Self::Audio => "audio",
            Self::Vision => "vision",
            Self::Labels => "labels",
            Self::Words => "words",
        }
    }
}

impl Sequences {
    /// Finds what each `.csd` file of a folder is, by its root's name and its own, and the folds.
    /// What is `given` is taken as it is, and other candidates for its role are passed over.
    ///
    /// # Errors
    /// When the folder or a file cannot be read, there is no file of language, labels or folds, or
    /// several could be meant.
    pub fn in_folder(folder: &Path, given: &Given) -> Result<Self> {
        Self::find(folder, given).with_context(|| folder.display().to_string())
    }

    fn find(folder: &Path, given: &Given) -> Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).context("is no readable folder")? {
            files.push(entry.context("cannot be listed")?.path());
        }
        files.sort();
        let is = |path: &Path, extension: &str| {
            path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
        };
        ensure!(
            files.iter().any(|path| is(path, "csd")),
            "holds no .csd file; give the folder of CMU-MultimodalSDK's files, or the manifest or \
             pickle itself"
        );
        let mut found: Vec<(Role, PathBuf)> = Vec::new();
        let mut unknown = Vec::new();
        for path in files.iter().filter(|path| is(path, "csd")) {
            match Sequence::open(path).map(|sequence| Role::of(&sequence)) {
                Ok(Some(role)) => found.push((role, path.clone())),
                Ok(None) => unknown.push(shown(path)),
                Err(error) => unknown.push(format!("{error:#}")),
            }
        }
        let one = |role: Role, given: &Option<PathBuf>| -> Result<Option<PathBuf>> {
            let paths = || found.iter().filter(|(r, _)| *r == role).map(|(_, path)| path);
            match (given, paths().count()) {
                (Some(given), _) => Ok(Some(given.clone())),
                (None, 0 | 1) => Ok(paths().next().cloned()),
                (None, _) => {
                    let names: Vec<_> = paths().map(|path| path.display().to_string()).collect();
                    bail!(
                        "several files of {0}: {1}; name one with --{0}",
                        role.name(),
                        names.join(", ")
                    )
                }
            }
        };
        let needed = |role: Role, given: &Option<PathBuf>| -> Result<PathBuf> {
            one(role, given)?.with_context(|| {
                let of_none = match &unknown[..] {
                    [] => String::new(),
                    names => format!("; not known what they are: {}", names.join(", ")),
                };
                format!("no .csd file of {0} here; name one with --{0}{of_none}", role.name())
            })
        };
        let mut folds = given.folds.clone();
        if folds.is_empty() {
            let is_folds = |path: &&PathBuf| {
                (is(path, "py") || is(path, "json")) && shown(path).contains("fold")
            };
            folds = files.iter().filter(is_folds).cloned().collect();
            ensure!(
                folds.len() <= 1,
                "several files of folds: {}; name one with --folds",
                folds.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
            );
        }
        let language = needed(Role::Language, &given.language)?;
        let labels = needed(Role::Labels, &given.labels)?;
        Ok(Self {
            audio: one(Role::Audio, &given.audio)?,
            vision: one(Role::Vision, &given.vision)?,
            words: one(Role::Words, &given.words)?,
            ..Self::new(language, labels, folds)
        })
    }
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
