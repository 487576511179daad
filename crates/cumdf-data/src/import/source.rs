//! Where an import's data came from, as the new file says.

use std::path::Path;
use std::{fmt, fs};

use anyhow::{Result, ensure};
use indicatif::ProgressBar;

use crate::import::known::{self, KnownFile};
use crate::native;

/// What tells a file from others of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    Sha256(String),
    Bytes(u64),
}

/// What a native file was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The data set's name, as far as the source tells it.
    pub(crate) name: String,
    /// The layout, for example `MMSA pickle`.
    pub(crate) layout: &'static str,
    /// The files, each with its SHA-256, or with its size where it is too large to sum.
    pub(crate) files: Vec<(String, Mark)>,
}

impl Source {
    /// A source of one file, which is summed.
    pub(crate) fn of_file(
        name: &str,
        layout: &'static str,
        path: &Path,
        bar: &ProgressBar,
    ) -> Result<Self> {
        let files = vec![(file_name(path), Mark::Sha256(sum(path, bar)?))];
        Ok(Self { name: name.to_owned(), layout, files })
    }

    /// The known file that this is, when its sum is known.
    pub(crate) fn known(&self) -> Option<&'static KnownFile> {
        self.files.iter().find_map(|(_, mark)| match mark {
            Mark::Sha256(sum) => known::file(sum),
            Mark::Bytes(_) => None,
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.layout)?;
        for (name, mark) in &self.files {
            match mark {
                Mark::Sha256(sum) => write!(f, ", {name} (sha256 {sum})")?,
                Mark::Bytes(bytes) => write!(f, ", {name} ({bytes} bytes)")?,
            }
        }
        write!(f, ", by cumdf-data {}", env!("CARGO_PKG_VERSION"))
    }
}

/// SHA-256 of a file, for which `bar` runs once from start to end.
pub(crate) fn sum(path: &Path, bar: &ProgressBar) -> Result<String> {
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    bar.set_length(bytes);
    let sum = native::sha256_with(path, |piece| bar.inc(piece))?;
    bar.reset();
    bar.set_length(0);
    Ok(sum)
}

/// Refuses to write over what is read.
pub(crate) fn refuse_to_replace<'a>(
    out: &Path,
    read: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let Ok(real) = out.canonicalize() else { return Ok(()) };
    let own = read.into_iter().find(|path| path.canonicalize().is_ok_and(|path| path == real));
    ensure!(own.is_none(), "{}: is read by this import, write elsewhere", out.display());
    Ok(())
}

/// The last part of a path.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
