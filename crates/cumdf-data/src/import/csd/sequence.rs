//! Computational sequences: the `.csd` files of CMU-MultimodalSDK.
//!
//! Such a file is HDF5. One group at its root, named after the sequence, holds
//! `data/<video>/features` `[n, d]`, `data/<video>/intervals` `[n, 2]` (start and end in seconds),
//! and `metadata/<key>`, JSON in strings of any length. In a file that is aligned already a video
//! has several entries, `video[0]`, `video[1]`, ...: as the SDK does, we put them together in order
//! of time.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hdf5::Group;
use serde_json::Value;

use super::align::Interval;
use crate::hdf;
use crate::hdf::chunks::{Scratch, Source, Table};

/// One open `.csd` file.
#[derive(Debug)]
pub struct Sequence {
    path: PathBuf,
    root_name: String,
    metadata: BTreeMap<String, Value>,
    unread: Vec<String>,
    data: Group,
    /// Entry names of each video.
    videos: BTreeMap<String, Vec<String>>,
    source: Source,
}

/// What one video has in a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// Start and end of every row, in seconds.
    pub intervals: Vec<[f64; 2]>,
    /// The rows.
    pub values: Values,
}

/// The rows of a [`Track`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// `[n, d]` in C order.
    Numbers {
        /// Features per row, `d`.
        dim: usize,
        /// The features.
        values: Vec<f32>,
    },
    /// One string per row.
    Texts(Vec<String>),
}

/// What a sequence holds, as its first entry that is not empty has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Features per row, `d`.
    pub dim: usize,
    /// `float32`, `float64`, `number` or `string`.
    pub dtype: &'static str,
}

impl Sequence {
    /// Opens a file, and reads its metadata and the names of its videos.
    ///
    /// # Errors
    /// When it is no readable HDF5 file, or has another structure.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::open_checked(path).with_context(|| path.display().to_string())
    }

    fn open_checked(path: &Path) -> Result<Self> {
        let about = fs::metadata(path).context("cannot be opened")?;
        ensure!(about.is_file(), "not a file; give the path of one .csd file");
        let file = hdf::open(path)
            .context("not a readable .csd file; it may be truncated or of another format")?;
        let source = Source::open(path, &file)?;
        let names = file.member_names().context("its groups cannot be listed")?;
        let with_data = |name: &&String| file.link_exists(&format!("{name}/data"));
        let roots: Vec<&String> = names.iter().filter(with_data).collect();
        let root_name = match roots[..] {
            [root] => root.clone(),
            [] => {
                bail!("no group NAME/data at its root {names:?}: it is no computational sequence")
            }
            _ => bail!("more than one sequence in one file: {roots:?}"),
        };
        let data = file
            .group(&format!("{root_name}/data"))
            .with_context(|| format!("/{root_name}/data is no readable group"))?;
        let listed = |group: &Group| {
            group.member_names().with_context(|| format!("{} cannot be listed", group.name()))
        };
        let mut videos: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in listed(&data)? {
            let video = entry.split('[').next().unwrap_or(&entry).to_owned();
            videos.entry(video).or_default().push(entry);
        }
        let (mut metadata, mut unread) = (BTreeMap::new(), Vec::new());
        let about = format!("{root_name}/metadata");
        if file.link_exists(&about) {
            let group = file.group(&about).with_context(|| format!("/{about} is no group"))?;
            let mut scratch = Scratch::new();
            for key in listed(&group)? {
                match text_of(&group, &key, &source, &mut scratch) {
                    Ok(text) => {
                        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
                        metadata.insert(key, value);
                    }
                    Err(error) => {
                        tracing::debug!("{}: metadata `{key}`: {error:#}", path.display());
                        unread.push(key);
                    }
                }
            }
        }
        Ok(Self { path: path.to_owned(), root_name, metadata, unread, data, videos, source })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sequence's name: of the file's one group.
    pub fn root_name(&self) -> &str {
        &self.root_name
    }

    /// What the file says about itself. Values that are no JSON are strings.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// Keys of metadata that are there and cannot be read.
    pub fn unread_metadata(&self) -> &[String] {
        &self.unread
    }

    /// The videos, in order of their names.
    pub fn videos(&self) -> impl Iterator<Item = &str> {
        self.videos.keys().map(String::as_str)
    }

    /// Whether a video is in the file.
    pub fn has(&self, video: &str) -> bool {
        self.videos.contains_key(video)
    }

    /// Number of entries: of videos, and more where the file is aligned already.
    pub fn entries(&self) -> usize {
        self.videos.values().map(Vec::len).sum()
    }

    /// What it holds; `None` when every entry is empty.
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn kind(&self) -> Result<Option<Kind>> {
        for entry in self.videos.values().flatten() {
            let table = self.features(entry)?;
            if table.rows > 0 {
                return Ok(Some(Kind { dim: table.cols, dtype: table.item.name() }));
            }
        }
        Ok(None)
    }

    /// Everything that one video has, entries in order of their starts, rows in the file's order.
    ///
    /// # Errors
    /// When the video is not there or cannot be read.
    pub fn read(&self, video: &str) -> Result<Track> {
        let mut scratch = Scratch::new();
        let rows = self.rows(video, &mut scratch)?;
        let texts = rows.parts.iter().any(|part| part.features.rows > 0 && part.is_text());
        let values = if texts {
            Values::Texts(rows.texts(&mut scratch)?)
        } else {
            let dim = rows.parts.iter().map(|part| part.features.cols).max().unwrap_or(0);
            let mut values = vec![0.0; rows.intervals.len() * dim];
            rows.visit(
                dim,
                &mut scratch,
                |_| true,
                |row, col, part| {
                    values[row * dim + col..][..part.len()].copy_from_slice(part);
                },
            )?;
            Values::Numbers { dim, values }
        };
        Ok(Track { intervals: rows.intervals, values })
    }

    /// Where a video's rows lie, and when they are.
    pub(crate) fn rows(&self, video: &str, scratch: &mut Scratch) -> Result<Rows<'_>> {
        let entries = self.videos.get(video);
        let entries = entries.with_context(|| format!("{}: no {video}", self.path.display()))?;
        scratch.leave_file();
        let mut parts = Vec::new();
        for entry in entries {
            let group = self.group(entry)?;
            let mut read = || -> Result<(Vec<Interval>, Table)> {
                let times = Table::open(&group, "intervals", &self.source)?;
                let features = Table::open(&group, "features", &self.source)?;
                ensure!(
                    times.rows == features.rows && (times.rows == 0 || times.cols == 2),
                    "intervals has shape [{}, {}], expected [{}, 2] as features has {} rows",
                    times.rows,
                    times.cols,
                    features.rows,
                    features.rows
                );
                let times: Vec<f64> = times.numbers(&self.source, scratch)?;
                Ok((times.as_chunks().0.to_vec(), features))
            };
            let (times, features) = read().with_context(|| self.place(entry))?;
            parts.push((times, Part { entry, first: 0, features }));
        }
        // Aligned entries come in order of time; f64::min passes over NaN.
        let start = |times: &[Interval]| times.iter().map(|t| t[0]).fold(f64::INFINITY, f64::min);
        parts.sort_by(|(a, _), (b, _)| start(a).total_cmp(&start(b)));
        let mut rows = Rows { sequence: self, intervals: Vec::new(), parts: Vec::new() };
        for (times, mut part) in parts {
            part.first = rows.intervals.len();
            rows.intervals.extend(times);
            rows.parts.push(part);
        }
        Ok(rows)
    }

    fn group(&self, entry: &str) -> Result<Group> {
        self.data.group(entry).with_context(|| format!("{} is no group", self.place(entry)))
    }

    fn features(&self, entry: &str) -> Result<Table> {
        Table::open(&self.group(entry)?, "features", &self.source)
            .with_context(|| self.place(entry))
    }

    fn place(&self, entry: &str) -> String {
        format!("{}: /{}/data/{entry}", self.path.display(), self.root_name)
    }
}

/// A metadata string of an array of one.
fn text_of(group: &Group, key: &str, source: &Source, scratch: &mut Scratch) -> Result<String> {
    let table = Table::open(group, key, source)?;
    let texts = table.texts(source, scratch)?;
    texts.into_iter().next().context("is empty")
}

/// The rows of one video, of one entry or several.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    sequence: &'a Sequence,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) parts: Vec<Part<'a>>,
}

/// The rows of one entry.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) entry: &'a str,
    /// Its first row's place among the video's.
    pub(crate) first: usize,
    pub(crate) features: Table,
}

impl Part<'_> {
    fn is_text(&self) -> bool {
        self.features.item.is_text()
    }
}

impl Rows<'_> {
    /// Hands over numbers, see [`Table::visit`]; every entry has to have `dim` features.
    pub(crate) fn visit(
        &self,
        dim: usize,
        scratch: &mut Scratch,
        wanted: impl Fn(Range<usize>) -> bool,
        mut each: impl FnMut(usize, usize, &[f32]),
    ) -> Result<()> {
        for Part { entry, first, features } in &self.parts {
            let mut read = |scratch: &mut Scratch| -> Result<()> {
                ensure!(
                    features.rows == 0 || features.cols == dim,
                    "features has {} columns, other entries have {dim}",
                    features.cols
                );
                let wanted = |rows: Range<usize>| wanted(first + rows.start..first + rows.end);
                features.visit(&self.sequence.source, scratch, wanted, |row, col, values| {
                    each(first + row, col, values);
                })
            };
            read(scratch).with_context(|| self.sequence.place(entry))?;
        }
        Ok(())
    }

    /// All strings; each row has one.
    pub(crate) fn texts(&self, scratch: &mut Scratch) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for Part { entry, features, .. } in &self.parts {
            if features.rows > 0 {
                let read = |scratch: &mut Scratch| -> Result<Vec<String>> {
                    ensure!(
                        features.cols == 1,
                        "features has {} columns of strings",
                        features.cols
                    );
                    features.texts(&self.sequence.source, scratch)
                };
                all.extend(read(scratch).with_context(|| self.sequence.place(entry))?);
            }
        }
        Ok(all)
    }
}
