//! Where an import's data came from, as the new file says.

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::native;

/// What a native file was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The data set's name, as far as the source tells it.
    pub(crate) name: String,
    /// The layout, for example `MMSA pickle`.
    pub(crate) layout: &'static str,
    /// Name of each file with its SHA-256, or its size where it is too large to sum.
    pub(crate) files: Vec<(String, String)>,
}

impl Source {
    /// A source of one file, which is summed.
    pub(crate) fn of_file(name: &str, layout: &'static str, path: &Path) -> Result<Self> {
        let sum = native::sha256_of(path)?;
        let files = vec![(file_name(path), format!("sha256 {sum}"))];
        Ok(Self { name: name.to_owned(), layout, files })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.layout)?;
        for (name, mark) in &self.files {
            write!(f, ", {name} ({mark})")?;
        }
        write!(f, ", by cumdf-data {}", env!("CARGO_PKG_VERSION"))
    }
}

/// The last part of a path.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
