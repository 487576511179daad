//! One array of a file: `.npy`, a member of an `.npz`, a data set of HDF5, or the lines of a text.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::manifest::Place;
use super::npy::{Npy, Npz};
use crate::hdf::{self, Node, Rows, chunks};
use crate::import::kind::Kind;
use crate::import::table::Table;

/// Names of arrays told where the one that was asked for is not there.
const NAMES_TOLD: usize = 12;

/// An array in an open file.
pub(super) enum Array {
    Npy(Npy),
    Hdf5 {
        path: PathBuf,
        file: hdf5::File,
        root: Node,
        /// Path of the data set, from the root.
        name: String,
    },
    /// The lines of a text.
    Lines(Vec<String>),
}

impl Array {
    pub(super) fn open(folder: &Path, place: &Place) -> Result<Self> {
        let path = folder.join(&place.file);
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = fs::read_to_string(&path).context("cannot be read as UTF-8 text")?;
            let text = text.trim_start_matches('\u{feff}'); // Windows marks UTF-8 so
            return Ok(Self::Lines(text.lines().map(|line| line.trim().to_owned()).collect()));
        }
        match Kind::sniff(&path)? {
            Kind::Npy => {
                ensure!(place.array.is_none(), "is one array, without a name; drop `array`");
                Ok(Self::Npy(Npy::open(&path)?))
            }
            Kind::Npz => {
                let mut archive = Npz::open(&path)?;
                let names = archive.names();
                let name = match &place.array {
                    Some(name) => name.strip_suffix(".npy").unwrap_or(name),
                    None => only(&names)?,
                };
                ensure!(names.iter().any(|n| n == name), "has no array {name:?}{}", told(&names));
                Ok(Self::Npy(archive.array(name)?))
            }
            Kind::Hdf5 => {
                let (file, root) = Self::open_hdf5(&path)?;
                let name = match &place.array {
                    Some(name) => name.clone(),
                    None => only(&root.data_sets(NAMES_TOLD + 1))?.to_owned(),
                };
                let name = name.trim_start_matches('/').to_owned();
                ensure!(
                    root.group.dataset(&name).is_ok(),
                    "has no data set \"/{name}\"{}",
                    told(&root.data_sets(NAMES_TOLD + 1))
                );
                Ok(Self::Hdf5 { path, file, root, name })
            }
            Kind::Pickle => {
                bail!("is a pickle; import it by itself, or save its arrays with np.save")
            }
            Kind::Folder | Kind::Manifest => bail!("is no .npy, .npz or HDF5 file"),
        }
    }

    pub(super) fn open_hdf5(path: &Path) -> Result<(hdf5::File, Node)> {
        let bytes = fs::metadata(path).context("cannot be opened")?.len();
        let file = hdf::open(path).context("is no readable HDF5 file")?;
        let root = Node::root(&file, bytes)?;
        Ok((file, root))
    }

    pub(super) fn table(self) -> Result<Box<dyn Table>> {
        match self {
            Self::Npy(array) => {
                ensure!(
                    array.is_numeric() && !array.shape().is_empty(),
                    "is {} of shape {:?}, expected an array of numbers",
                    array.dtype(),
                    array.shape()
                );
                Ok(Box::new(array))
            }
            Self::Hdf5 { root, name, .. } => Ok(Box::new(root.rows(&name)?)),
            Self::Lines(_) => bail!("is a text, expected an array of numbers"),
        }
    }

    pub(super) fn texts(self) -> Result<Vec<String>> {
        match self {
            Self::Npy(mut array) => {
                ensure_flat(array.shape(), "names")?;
                array.texts()
            }
            Self::Hdf5 { path, file, root, name } if root.holds_text(&name)? => {
                ensure_flat(&root.group.dataset(&name)?.shape(), "names")?;
                let bytes = chunks::Source::open(&path, &file)?;
                let texts = chunks::Table::open(&root.group, &name, &bytes)?;
                texts.texts(&bytes, &mut chunks::Scratch::new())
            }
            Self::Hdf5 { root, name, .. } => {
                let table = root.rows(&name)?;
                ensure_flat(&table.shape, "names")?;
                let rows = 0..table.shape[0];
                Ok(match table.dtype.as_str() {
                    "uint64" => table.read::<u64>(rows)?.iter().map(u64::to_string).collect(),
                    "int64" => table.read::<i64>(rows)?.iter().map(i64::to_string).collect(),
                    _ => table.read::<f64>(rows)?.iter().map(f64::to_string).collect(),
                })
            }
            Self::Lines(lines) => Ok(lines),
        }
    }
}

impl Table for Rows {
    fn dtype(&self) -> String {
        self.dtype.clone()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn rows(&mut self, rows: Range<usize>) -> Result<Vec<f32>> {
        self.read(rows)
    }

    fn rows_f64(&mut self, rows: Range<usize>) -> Result<Vec<f64>> {
        self.read(rows)
    }
}

/// The array of a file that holds no other.
fn only(names: &[String]) -> Result<&str> {
    match names {
        [name] => Ok(name),
        _ => bail!("holds {} arrays; say which one with `array`{}", names.len(), told(names)),
    }
}

/// `; it holds a, b`.
fn told(names: &[String]) -> String {
    let few = names.iter().take(NAMES_TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => String::new(),
        n if n > NAMES_TOLD => format!("; it holds {few}, ..."),
        _ => format!("; it holds {few}"),
    }
}

/// Checks for one value per row.
pub(super) fn ensure_flat(shape: &[usize], what: &str) -> Result<()> {
    ensure!(
        !shape.is_empty() && shape[1..].iter().all(|side| *side == 1),
        "has shape {shape:?}, expected [N] {what}"
    );
    Ok(())
}
