//! Typed reads and writes on top of the HDF5 library: whatever number or string type a file holds
//! comes out as f32, f64 or `String`, and a file that lies about its sizes is refused.

pub(crate) mod chunks;
pub(crate) mod heaps;
mod limits;

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use hdf5::plist::file_access::{CacheIncreaseMode, FlashIncreaseMode, MetadataCacheConfig};
use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Container, File, FileBuilder, Group, H5Type, Location};
use ndarray::{ArrayView, IxDyn, aview0, s};

pub(crate) use limits::{LONGEST_TEXT, MOST_PACKED};

use limits::{FREE_BYTES, MEMBERS_SEEN};

/// A group of a file, its absolute path, and the file's size, for messages and plausibility.
pub(crate) struct Node {
    pub(crate) group: Group,
    path: String,
    file_bytes: u64,
}

/// Numbers of one data set of one to three axes, read by rows of the first.
#[derive(Debug)]
pub(crate) struct Rows {
    data: hdf5::Dataset,
    path: String,
    /// Element type, as numpy names it.
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
}

impl Rows {
    /// These rows in C order.
    pub(crate) fn read<T: H5Type>(&self, rows: Range<usize>) -> Result<Vec<T>> {
        let held = self.shape[0];
        ensure!(
            rows.start <= rows.end && rows.end <= held,
            "{} has {held} rows, not {rows:?}",
            self.path
        );
        let data = &self.data;
        let values = match self.shape.len() {
            1 => data.read_slice::<T, _, IxDyn>(s![rows]),
            2 => data.read_slice(s![rows, ..]),
            _ => data.read_slice(s![rows, .., ..]),
        };
        let unreadable = || format!("{} cannot be read, the file may be damaged", self.path);
        Ok(values.with_context(unreadable)?.into_raw_vec_and_offset().0)
    }
}

/// Numbers of one data set in C order.
pub(crate) struct Numbers<T> {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<T>,
}

impl Node {
    /// The root of an open file.
    pub(crate) fn root(file: &File, file_bytes: u64) -> Result<Self> {
        Ok(Self { group: file.group("/")?, path: String::new(), file_bytes })
    }

    /// Absolute path of a member.
    pub(crate) fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// Whether a member of this name exists.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.group.link_exists(name)
    }

    /// A group inside this one.
    pub(crate) fn child(&self, name: &str) -> Result<Self> {
        let path = self.path_of(name);
        ensure!(
            self.has(name),
            "no group {path}; the native layout wants /train, /valid and /test"
        );
        let group =
            self.group.group(name).with_context(|| format!("{path} is no readable group"))?;
        Ok(Self { group, path, file_bytes: self.file_bytes })
    }

    /// A data set of `rank` axes, any number type.
    pub(crate) fn numbers<T: H5Type>(&self, name: &str, rank: &[usize]) -> Result<Numbers<T>> {
        let path = self.path_of(name);
        let data = self.dataset(name)?;
        let shape = data.shape();
        let ranks = rank.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
        ensure!(rank.contains(&shape.len()), "{path} has shape {shape:?}, expected {ranks} axes");
        let values = self.values(&data, &path)?;
        Ok(Numbers { shape, values })
    }

    /// A data set of one to three axes, any number type, to be read by rows.
    pub(crate) fn rows(&self, name: &str) -> Result<Rows> {
        let path = self.path_of(name);
        let data = self.dataset(name)?;
        let shape = data.shape();
        ensure!(
            (1..=3).contains(&shape.len()) && !shape.contains(&0),
            "{path} has shape {shape:?}, expected one to three axes, none of them empty"
        );
        let dtype = data.dtype().with_context(|| format!("{path} has no readable type"))?;
        ensure!(dtype.conv_to::<f64>().is_some(), "{path} does not hold numbers");
        self.check_size(&data, size_of::<f32>(), &path)?;
        let half = if dtype.size() == 2 { "float16" } else { "number" };
        let dtype = dtype.to_descriptor().map_or(half.to_owned(), |dtype| dtype.to_string());
        Ok(Rows { data, path, dtype, shape })
    }

    /// Whether a data set holds strings, not numbers.
    pub(crate) fn holds_text(&self, name: &str) -> Result<bool> {
        let dtype = self.dataset(name)?.dtype()?;
        Ok(dtype.conv_to::<f64>().is_none())
    }

    /// Paths of the first `most` data sets in this group and in groups inside it.
    pub(crate) fn data_sets(&self, most: usize) -> Vec<String> {
        let mut found = Vec::new();
        let mut groups = vec![(self.group.clone(), self.path.clone())];
        let mut seen = 0;
        while let Some((group, at)) = groups.pop() {
            for name in group.member_names().unwrap_or_default() {
                let path = format!("{at}/{name}");
                seen += 1;
                if found.len() == most || seen > MEMBERS_SEEN {
                    return found;
                }
                if group.dataset(&name).is_ok() {
                    found.push(path);
                } else if let Ok(inner) = group.group(&name) {
                    groups.push((inner, path));
                }
            }
        }
        found
    }

    /// A one-dimensional data set of strings.
    pub(crate) fn strings(&self, name: &str) -> Result<Vec<String>> {
        let path = self.path_of(name);
        let data = self.dataset(name)?;
        ensure!(data.ndim() == 1, "{path} has shape {:?}, expected [N] strings", data.shape());
        self.texts(&data, &path)
    }

    /// An attribute holding strings, one or many; `None` when there is none.
    pub(crate) fn text_attribute(&self, name: &str) -> Result<Option<Vec<String>>> {
        self.attribute(name)?.map(|a| self.texts(&a, &format!("attribute `{name}`"))).transpose()
    }

    /// An attribute holding numbers, one or many; `None` when there is none.
    pub(crate) fn number_attribute(&self, name: &str) -> Result<Option<Vec<f64>>> {
        self.attribute(name)?.map(|a| self.values(&a, &format!("attribute `{name}`"))).transpose()
    }

    /// Asks for the one attribute: listing them all trips over a damaged one's description.
    fn attribute(&self, name: &str) -> Result<Option<hdf5::Attribute>> {
        match self.group.attr(name) {
            Ok(attribute) => Ok(Some(attribute)),
            Err(error) if error.to_string().contains("can't locate attribute") => Ok(None),
            Err(error) => Err(error).with_context(|| format!("attribute `{name}` is damaged")),
        }
    }

    fn dataset(&self, name: &str) -> Result<hdf5::Dataset> {
        let path = self.path_of(name);
        ensure!(self.has(name), "no data set {path}; docs/data.md lists what a split holds");
        self.group.dataset(name).with_context(|| format!("{path} is no readable data set"))
    }

    fn values<T: H5Type>(&self, data: &Container, path: &str) -> Result<Vec<T>> {
        let dtype = data.dtype().with_context(|| format!("{path} has no readable type"))?;
        ensure!(dtype.conv_to::<T>().is_some(), "{path} does not hold numbers");
        self.check_size(data, size_of::<T>(), path)?;
        data.read_raw().with_context(|| format!("{path} cannot be read, the file may be damaged"))
    }

    fn texts(&self, data: &Container, path: &str) -> Result<Vec<String>> {
        let dtype = data.dtype().with_context(|| format!("{path} has no readable type"))?;
        let descriptor = dtype.to_descriptor();
        let unreadable = || format!("{path} cannot be read, the file may be damaged");
        macro_rules! read {
            ($($kind:tt)+) => {{
                self.check_size(data, size_of::<$($kind)+>(), path)?;
                let raw = data.read_raw::<$($kind)+>().with_context(unreadable)?;
                // `as_str` trusts the file to hold UTF-8, so the bytes are checked here.
                raw.iter().map(|s| Ok(str::from_utf8(s.as_bytes())?.to_owned())).collect()
            }};
        }
        let texts: Result<Vec<String>> = match descriptor {
            Ok(TypeDescriptor::VarLenUnicode) => read!(VarLenUnicode),
            Ok(TypeDescriptor::VarLenAscii) => read!(VarLenAscii),
            Ok(TypeDescriptor::FixedAscii(..=64)) => read!(FixedAscii<64>),
            Ok(TypeDescriptor::FixedAscii(..=LONGEST_TEXT)) => read!(FixedAscii<LONGEST_TEXT>),
            Ok(TypeDescriptor::FixedUnicode(..=64)) => read!(FixedUnicode<64>),
            Ok(TypeDescriptor::FixedUnicode(..=LONGEST_TEXT)) => read!(FixedUnicode<LONGEST_TEXT>),
            _ => bail!("{path} does not hold strings of at most {LONGEST_TEXT} bytes"),
        };
        texts.with_context(|| format!("{path} holds a string that is not UTF-8"))
    }

    /// Refuses a size that the file cannot hold, before anything is allocated.
    fn check_size(&self, data: &Container, element: usize, path: &str) -> Result<()> {
        let shape = data.shape();
        let bytes = shape.iter().try_fold(element as u64, |n, side| n.checked_mul(*side as u64));
        let most = self.file_bytes.saturating_mul(MOST_PACKED).saturating_add(FREE_BYTES);
        ensure!(
            bytes.is_some_and(|bytes| bytes <= most),
            "{path} claims shape {shape:?}, more than a file of {} bytes can hold: it is damaged",
            self.file_bytes
        );
        Ok(())
    }
}

/// Opens a file to read it, unless it would lead the library round in circles. It is not locked:
/// locks fail on network drives, and outlive us in every child process that is started meanwhile.
pub(crate) fn open(path: &Path) -> Result<File> {
    heaps::check(path)?;
    hdf5::silence_errors(true); // the library's own stack traces say nothing ours do not
    let mut file = FileBuilder::new();
    file.with_fapl(|access| access.file_locking(false).mdc_config(&small_cache()));
    Ok(file.open(path)?)
}

/// A cache for the library's view of the file that does not grow. What it holds of a chunked array
/// is ten times its size in the file, and a video's arrays are looked at once.
fn small_cache() -> MetadataCacheConfig {
    MetadataCacheConfig {
        initial_size: 1 << 20,
        max_size: 1 << 20,
        min_size: 1 << 20,
        incr_mode: CacheIncreaseMode::Off,
        flash_incr_mode: FlashIncreaseMode::Off,
        ..MetadataCacheConfig::default()
    }
}

/// An empty file of the oldest format: everything reads it, and its groups carry no time.
pub(crate) fn create(path: &Path) -> hdf5::Result<File> {
    hdf5::silence_errors(true);
    FileBuilder::new().with_fapl(|access| access.file_locking(false).libver_earliest()).create(path)
}

/// Writes a data set of the given shape, without a time stamp: equal data, equal bytes.
pub(crate) fn put<T: H5Type>(
    group: &Group,
    name: &str,
    shape: &[usize],
    values: &[T],
) -> Result<()> {
    let view = ArrayView::from_shape(IxDyn(shape), values)
        .with_context(|| format!("{name}: {} values do not fill {shape:?}", values.len()))?;
    let builder = group.new_dataset_builder().obj_track_times(false);
    builder.with_data(view).create(name).with_context(|| format!("cannot write {name}"))?;
    Ok(())
}

/// Writes strings as a data set.
pub(crate) fn put_texts(group: &Group, name: &str, texts: &[String]) -> Result<()> {
    fixed(texts, |values, dtype| {
        let builder = group.new_dataset_builder().obj_track_times(false);
        builder.with_data_as(values, dtype).create(name).map(drop)
    })
}

/// Writes one string as a scalar attribute.
pub(crate) fn put_text_attribute(at: &Location, name: &str, text: &str) -> Result<()> {
    fixed(&[text.to_owned()], |values, dtype| {
        at.new_attr_builder().with_data_as(aview0(&values[0]), dtype).create(name).map(drop)
    })
}

/// Writes strings as a one-dimensional attribute.
pub(crate) fn put_text_list_attribute(at: &Location, name: &str, texts: &[String]) -> Result<()> {
    fixed(texts, |values, dtype| {
        at.new_attr_builder().with_data_as(values, dtype).create(name).map(drop)
    })
}

/// Writes numbers as a one-dimensional attribute.
pub(crate) fn put_number_attribute(at: &Location, name: &str, values: &[f32]) -> Result<()> {
    at.new_attr_builder().with_data(values).create(name)?;
    Ok(())
}

/// Hands strings over as fixed-length UTF-8, as wide in the file as the longest. Variable-length
/// ones would lie in a heap, and the HDF5 library loops for ever on some damaged heaps.
fn fixed(
    texts: &[String],
    write: impl FnOnce(&[FixedUnicode<LONGEST_TEXT>], TypeDescriptor) -> hdf5::Result<()>,
) -> Result<()> {
    let width = texts.iter().map(String::len).max().unwrap_or(0).max(1);
    let values: Vec<_> = texts
        .iter()
        .map(|text| {
            ensure!(!text.contains('\0'), "{text:?} has a NUL in it and cannot be stored");
            text.parse().with_context(|| format!("`{text}` is longer than {LONGEST_TEXT} bytes"))
        })
        .collect::<Result<_>>()?;
    Ok(write(&values, TypeDescriptor::FixedUnicode(width))?)
}
