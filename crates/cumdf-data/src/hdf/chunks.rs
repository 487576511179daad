//! Reads arrays chunk by chunk, past the HDF5 library's lock.
//!
//! The library has one lock for a whole process and inflates under it, so that two threads read no
//! faster than one. Here it is asked only where things lie: shape, type, filters and the chunks'
//! addresses. The bytes come from a file handle of our own, and each thread inflates its chunks
//! with a [`Scratch`] of its own. The usual case is read this way: little-endian floats of 4 or 8
//! bytes or strings, in chunks or in one piece, deflated, shuffled, both or neither. Any other
//! array of numbers is left to the library, with the same result.
//!
//! Variable-length strings are looked up in the file's heaps by our own code in every case: the
//! library loops for ever on some damaged heaps.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use flate2::{Decompress, FlushDecompress, Status};
use hdf5::filters::Filter;
use hdf5::plist::dataset_create::Layout;
use hdf5::types::TypeDescriptor;
use hdf5::{Dataset, Datatype, Group, H5Type};

use super::limits::{
    FREE_BYTES_OF_A_VIDEO, LARGEST_TEXT_HEAP, LONGEST_METADATA, MOST_COLUMNS, MOST_PACKED,
};

/// Bytes of an array in one piece that are read at a time.
const BAND_BYTES: usize = 1 << 16;
/// Bytes of a variable-length string's place in an array: its length, heap and index there.
const REFERENCE: usize = 16;

/// The bytes of one open HDF5 file, beside the library's own handle.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    len: u64,
    /// The library's name of it: arrays may lie in other files, by external links.
    name: String,
    /// Bytes before the HDF5 part; such files are rare, and their arrays are left to the library.
    user_block: u64,
    /// Whether addresses and lengths in the file have 8 bytes, as they all but always do.
    wide: bool,
}

/// What one thread reads and inflates with, and the time this took it.
#[derive(Debug)]
pub(crate) struct Scratch {
    packed: Vec<u8>,
    raw: Vec<u8>,
    mixed: Vec<u8>,
    inflate: Decompress,
    /// The heap that was read last, and its address.
    heap: (u64, Vec<u8>),
    pub(crate) times: Times,
}

/// Where the time of reading went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// Reading bytes of the file.
    pub(crate) read: Duration,
    /// Inflating them.
    pub(crate) inflate: Duration,
    /// Bytes read and bytes inflated.
    pub(crate) bytes: [u64; 2],
}

/// A two-dimensional array of a file: where its parts lie, not yet what they hold.
#[derive(Debug)]
pub(crate) struct Table {
    path: String,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) item: Item,
    store: Store,
}

/// What an array holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    /// Little-endian IEEE floats of 4 bytes.
    F4,
    /// Little-endian IEEE floats of 8 bytes.
    F8,
    /// Strings of so many bytes.
    Text(usize),
    /// Strings of any length.
    LongText,
    /// Numbers of another type, that only the library can convert.
    Other,
}

#[derive(Debug)]
enum Store {
    Nothing,
    Pieces { shape: [usize; 2], deflated: bool, shuffled: bool, pieces: Vec<Piece> },
    Library(Dataset),
}

/// A rectangle of an array, and where its bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    at: [usize; 2],
    address: u64,
    bytes: u64,
}

/// A number that an array's floats can be read as.
pub(crate) trait Value: H5Type + Copy {
    fn of_f4(bytes: [u8; 4]) -> Self;
    fn of_f8(bytes: [u8; 8]) -> Self;
}

impl Value for f32 {
    fn of_f4(bytes: [u8; 4]) -> Self {
        f32::from_le_bytes(bytes)
    }
    fn of_f8(bytes: [u8; 8]) -> Self {
        f64::from_le_bytes(bytes) as f32
    }
}

impl Value for f64 {
    fn of_f4(bytes: [u8; 4]) -> Self {
        f64::from(f32::from_le_bytes(bytes))
    }
    fn of_f8(bytes: [u8; 8]) -> Self {
        f64::from_le_bytes(bytes)
    }
}

impl Source {
    /// Opens the file's bytes a second time.
    pub(crate) fn open(path: &Path, library: &hdf5::File) -> Result<Self> {
        let source = Self::at(path, library.userblock())?;
        Ok(Self { name: library.filename(), ..source })
    }

    /// The same for a file that the library has not seen yet.
    pub(crate) fn at(path: &Path, user_block: u64) -> Result<Self> {
        let file = File::open(path).context("cannot be opened")?;
        let len = file.metadata().context("cannot be opened")?.len();
        let mut source = Self { file, len, name: String::new(), user_block, wide: false };
        let mut head = Vec::new();
        source.read(user_block, 16, &mut head)?;
        source.wide = match head[8] {
            0 | 1 => head[13] == 8 && head[14] == 8,
            _ => head[9] == 8 && head[10] == 8,
        };
        Ok(source)
    }

    /// Size of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether addresses and lengths in the file have 8 bytes.
    pub(crate) fn is_wide(&self) -> bool {
        self.wide
    }

    /// Reads bytes; an address outside the file is an error.
    pub(crate) fn read(&self, address: u64, len: u64, into: &mut Vec<u8>) -> Result<()> {
        ensure!(
            address.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} bytes at {address} lie past the end of the file: it is truncated or damaged"
        );
        into.resize(len as usize, 0);
        self.read_at(address, into).with_context(|| format!("{len} bytes at {address}"))
    }

    #[cfg(unix)]
    fn read_at(&self, address: u64, into: &mut [u8]) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, into, address)
    }

    #[cfg(not(unix))]
    fn read_at(&self, address: u64, into: &mut [u8]) -> std::io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(address))?;
        file.read_exact(into)
    }
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self {
            packed: Vec::new(),
            raw: Vec::new(),
            mixed: Vec::new(),
            inflate: Decompress::new(true),
            heap: (u64::MAX, Vec::new()),
            times: Times::default(),
        }
    }

    /// Forgets what belongs to one file; to be called between files.
    pub(crate) fn leave_file(&mut self) {
        self.heap = (u64::MAX, Vec::new());
    }

    /// Inflates `packed` into `raw`, which it has to fill exactly.
    fn inflate(&mut self, len: usize) -> Result<()> {
        self.raw.resize(len, 0);
        self.inflate.reset(true);
        let status = self.inflate.decompress(&self.packed, &mut self.raw, FlushDecompress::Finish);
        let made = self.inflate.total_out();
        ensure!(
            matches!(status, Ok(Status::StreamEnd)) && made == len as u64,
            "a chunk inflates to {made} bytes or more, expected {len}: it is damaged"
        );
        Ok(())
    }

    /// Puts the bytes of `raw`'s items together again: the first of each, the second of each, ...
    fn unshuffle(&mut self, item: usize) {
        let n = self.raw.len() / item;
        self.mixed.resize(self.raw.len(), 0);
        for (byte, plane) in self.raw.chunks_exact(n.max(1)).enumerate().take(item) {
            for (value, out) in plane.iter().zip(self.mixed.chunks_exact_mut(item)) {
                out[byte] = *value;
            }
        }
        // Bytes that make no whole item stay where they are; arrays of ours have none.
        std::mem::swap(&mut self.raw, &mut self.mixed);
    }
}

impl Times {
    /// The sum of two threads' times.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            inflate: self.inflate + other.inflate,
            bytes: [self.bytes[0] + other.bytes[0], self.bytes[1] + other.bytes[1]],
        }
    }
}

impl Item {
    fn of(dtype: &Datatype) -> Result<Self> {
        if dtype.is::<f32>() && cfg!(target_endian = "little") {
            return Ok(Self::F4);
        }
        if dtype.is::<f64>() && cfg!(target_endian = "little") {
            return Ok(Self::F8);
        }
        match dtype.to_descriptor() {
            Ok(TypeDescriptor::FixedAscii(n) | TypeDescriptor::FixedUnicode(n)) => {
                Ok(Self::Text(n))
            }
            Ok(TypeDescriptor::VarLenAscii | TypeDescriptor::VarLenUnicode) => Ok(Self::LongText),
            _ if dtype.conv_to::<f64>().is_some() => Ok(Self::Other),
            _ => bail!("holds neither numbers nor strings"),
        }
    }

    /// Bytes of one of them in the file.
    fn bytes(self) -> usize {
        match self {
            Self::F4 => 4,
            Self::F8 | Self::Other => 8,
            Self::Text(n) => n,
            Self::LongText => REFERENCE,
        }
    }

    /// `float32`, `string`, ...
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F4 => "float32",
            Self::F8 => "float64",
            Self::Other => "number",
            Self::Text(_) | Self::LongText => "string",
        }
    }

    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Text(_) | Self::LongText)
    }
}

impl Table {
    /// Finds the array `name` of a group. Numbers have two axes, strings two or fewer.
    pub(crate) fn open(group: &Group, name: &str, source: &Source) -> Result<Self> {
        let data = group.dataset(name).with_context(|| format!("no readable data set {name}"))?;
        Self::of(&data, name, source).with_context(|| name.to_owned())
    }

    /// The same by way of the library alone, to compare with.
    #[cfg(test)]
    pub(crate) fn by_library(group: &Group, name: &str, source: &Source) -> Result<Self> {
        let table = Self::open(group, name, source)?;
        Ok(Self { store: Store::Library(group.dataset(name)?), ..table })
    }

    /// Whether the library has to read it.
    #[cfg(test)]
    pub(crate) fn is_left_to_library(&self) -> bool {
        matches!(self.store, Store::Library(..))
    }

    fn of(data: &Dataset, name: &str, source: &Source) -> Result<Self> {
        let item = Item::of(&data.dtype().context("has no readable type")?)?;
        let axes = data.get_shape().context("has no readable shape")?;
        let table = |rows, cols, store| Self { path: name.to_owned(), rows, cols, item, store };
        if axes.contains(&0) {
            return Ok(table(0, axes.get(1).copied().unwrap_or(0), Store::Nothing));
        }
        let [rows, cols] = match axes[..] {
            [rows, cols] => [rows, cols],
            [rows] if item.is_text() => [rows, 1],
            [cols] => [1, cols], // the SDK reads these as one row
            [] if item.is_text() => [1, 1],
            _ => bail!("has shape {axes:?}, expected two axes"),
        };
        let most = source.len.saturating_mul(MOST_PACKED).saturating_add(FREE_BYTES_OF_A_VIDEO);
        let bytes =
            (rows as u64).checked_mul(cols as u64).and_then(|n| n.checked_mul(item.bytes() as u64));
        ensure!(
            bytes.is_some_and(|bytes| bytes <= most),
            "claims shape {axes:?}, more than a file of {} bytes can hold: it is damaged",
            source.len
        );
        ensure!(
            cols <= MOST_COLUMNS,
            "has {cols} features per row, at most {MOST_COLUMNS} make sense: it is damaged"
        );
        let store = match pieces(data, [rows, cols], item, source)? {
            Some(store) => store,
            None => Store::Library(data.clone()),
        };
        Ok(table(rows, cols, store))
    }

    /// Hands over rows of numbers, or stretches of them where chunks part the columns: the row, the
    /// first column, and the values. Parts of which no row is `wanted` are not read.
    pub(crate) fn visit<T: Value>(
        &self,
        source: &Source,
        scratch: &mut Scratch,
        wanted: impl Fn(Range<usize>) -> bool,
        mut each: impl FnMut(usize, usize, &[T]),
    ) -> Result<()> {
        ensure!(!self.item.is_text(), "{} holds strings, expected numbers", self.path);
        if let Store::Library(data) = &self.store {
            if wanted(0..self.rows) {
                let values: Vec<T> = data.read_raw().with_context(|| {
                    format!("{} cannot be read, the file may be damaged", self.path)
                })?;
                ensure!(
                    values.len() == self.rows * self.cols,
                    "{} has another size than it says: it is damaged",
                    self.path
                );
                for (row, values) in values.chunks_exact(self.cols).enumerate() {
                    each(row, 0, values);
                }
            }
            return Ok(());
        }
        let mut line = Vec::new();
        let item = self.item;
        self.stretches(source, scratch, wanted, |_, row, col, bytes| {
            line.clear();
            if item == Item::F4 {
                line.extend(bytes.as_chunks().0.iter().map(|bytes| T::of_f4(*bytes)));
            } else {
                line.extend(bytes.as_chunks().0.iter().map(|bytes| T::of_f8(*bytes)));
            }
            each(row, col, &line);
            Ok(())
        })
    }

    /// All numbers in C order.
    pub(crate) fn numbers<T: Value + Default>(
        &self,
        source: &Source,
        scratch: &mut Scratch,
    ) -> Result<Vec<T>> {
        let mut all = vec![T::default(); self.rows * self.cols];
        self.visit(
            source,
            scratch,
            |_| true,
            |row, col, values: &[T]| {
                let at = row * self.cols + col;
                all[at..at + values.len()].copy_from_slice(values);
            },
        )?;
        Ok(all)
    }

    /// All strings in C order. What is not UTF-8 in them is replaced.
    pub(crate) fn texts(&self, source: &Source, scratch: &mut Scratch) -> Result<Vec<String>> {
        ensure!(self.item.is_text(), "{} holds numbers, expected strings", self.path);
        ensure!(
            !matches!(self.store, Store::Library(..)),
            "{} holds strings in a form that is not read here: write them anew with h5py",
            self.path
        );
        let mut all = vec![String::new(); self.rows * self.cols];
        let width = self.item.bytes().max(1);
        self.stretches(
            source,
            scratch,
            |_| true,
            |scratch, row, col, bytes| {
                for (step, bytes) in bytes.chunks_exact(width).enumerate() {
                    let text = match self.item {
                        Item::LongText => source.long_text(bytes, scratch)?,
                        _ => bytes,
                    };
                    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
                    let text = String::from_utf8_lossy(&text[..end]);
                    all[row * self.cols + col + step] = text.into_owned();
                }
                Ok(())
            },
        )?;
        Ok(all)
    }

    /// Reads and unpacks the wanted pieces, and hands over the bytes of each of their rows.
    fn stretches(
        &self,
        source: &Source,
        scratch: &mut Scratch,
        wanted: impl Fn(Range<usize>) -> bool,
        mut each: impl FnMut(&mut (u64, Vec<u8>), usize, usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let Store::Pieces { shape, deflated, shuffled, pieces } = &self.store else {
            return Ok(());
        };
        let width = self.item.bytes();
        for piece in pieces {
            let [row, col] = piece.at;
            let rows = row..self.rows.min(row + shape[0]);
            if !wanted(rows.clone()) {
                continue;
            }
            let start = Instant::now();
            source.read(piece.address, piece.bytes, &mut scratch.packed)?;
            let read = Instant::now();
            scratch.times.read += read - start;
            scratch.times.bytes[0] += piece.bytes;
            if *deflated {
                scratch.inflate(shape[0] * shape[1] * width).with_context(|| self.path.clone())?;
                scratch.times.inflate += read.elapsed();
                scratch.times.bytes[1] += scratch.raw.len() as u64;
            } else {
                std::mem::swap(&mut scratch.raw, &mut scratch.packed);
            }
            if *shuffled {
                scratch.unshuffle(width);
            }
            let used = (self.cols - col).min(shape[1]) * width;
            for (row, bytes) in rows.zip(scratch.raw.chunks_exact(shape[1] * width)) {
                each(&mut scratch.heap, row, col, &bytes[..used])?;
            }
        }
        Ok(())
    }
}

/// Where the parts of an array lie, if this module can read them.
fn pieces(data: &Dataset, axes: [usize; 2], item: Item, source: &Source) -> Result<Option<Store>> {
    let [rows, cols] = axes;
    let width = item.bytes();
    let elsewhere = source.user_block > 0 || data.filename() != source.name;
    if item == Item::Other || elsewhere || width == 0 || width > LONGEST_METADATA {
        return Ok(None);
    }
    let create = data.dcpl().context("has no readable description")?;
    match create.layout() {
        Layout::Contiguous if create.external().is_empty() => {
            let Some(address) = data.offset() else { return Ok(None) };
            let row_bytes = cols * width;
            let band = (BAND_BYTES / row_bytes).max(1);
            let piece = |row: usize| Piece {
                at: [row, 0],
                address: address.saturating_add((row * row_bytes) as u64),
                bytes: (band.min(rows - row) * row_bytes) as u64,
            };
            let end = address.checked_add((rows * row_bytes) as u64);
            ensure!(
                end.is_some_and(|end| end <= source.len),
                "lies past the end of the file: it is truncated or damaged"
            );
            let pieces = (0..rows).step_by(band).map(piece).collect();
            let shape = [band, cols];
            Ok(Some(Store::Pieces { shape, deflated: false, shuffled: false, pieces }))
        }
        Layout::Chunked => {
            let [deflated, shuffled] = match create.filters()[..] {
                [] => [false, false],
                [Filter::Deflate(_)] => [true, false],
                [Filter::Shuffle] => [false, true],
                [Filter::Shuffle, Filter::Deflate(_)] => [true, true],
                _ => return Ok(None),
            };
            let shape = match create.chunk().as_deref() {
                Some([rows, cols]) => [*rows, *cols],
                Some([rows]) if item.is_text() => [*rows, 1],
                Some([cols]) => [1, *cols],
                _ => return Ok(None),
            };
            let raw = shape[0].checked_mul(shape[1]).and_then(|n| n.checked_mul(width));
            let raw = raw.filter(|raw| *raw > 0).context("has chunks of no size")? as u64;
            let grid = rows.div_ceil(shape[0]).checked_mul(cols.div_ceil(shape[1]));
            let grid = grid.filter(|grid| *grid as u64 <= source.len);
            let grid = grid.context("claims more chunks than the file has bytes")?;
            let mut pieces = Vec::new();
            let mut plain = true; // no chunk skipped a filter
            let visited = data.chunks_visit(|chunk| {
                let at = match *chunk.offset {
                    [row, col] => [row as usize, col as usize],
                    [row] if item.is_text() => [row as usize, 0],
                    [col] => [0, col as usize],
                    _ => [usize::MAX; 2],
                };
                pieces.push(Piece { at, address: chunk.addr, bytes: chunk.size });
                plain &= chunk.filter_mask == 0;
                i32::from(pieces.len() > grid) // a damaged index may lead in circles
            });
            visited.context("has no readable index of its chunks, the file may be damaged")?;
            pieces.sort_unstable();
            let places = (0..rows)
                .step_by(shape[0])
                .flat_map(|row| (0..cols).step_by(shape[1]).map(move |col| [row, col]));
            if !plain || !pieces.iter().map(|piece| piece.at).eq(places) {
                return Ok(None); // chunks that were never written stand for zeros
            }
            let total = pieces.iter().try_fold(0u64, |sum, piece| sum.checked_add(piece.bytes));
            ensure!(
                total.is_some_and(|total| total <= source.len),
                "has chunks larger than the file: it is damaged"
            );
            for piece in &pieces {
                ensure!(
                    if deflated { raw / MOST_PACKED <= piece.bytes } else { raw == piece.bytes },
                    "has a chunk of {} bytes that claims to hold {raw}: it is damaged",
                    piece.bytes
                );
            }
            Ok(Some(Store::Pieces { shape, deflated, shuffled, pieces }))
        }
        _ => Ok(None),
    }
}

impl Source {
    /// Looks a variable-length string up in the heap that its place in an array names.
    fn long_text<'a>(&self, place: &[u8], heap: &'a mut (u64, Vec<u8>)) -> Result<&'a [u8]> {
        ensure!(self.wide, "the file's addresses do not have 8 bytes");
        let len = number(&place[..4]) as usize;
        let address = number(&place[4..12]);
        let index = number(&place[12..16]);
        if len == 0 || address == 0 {
            return Ok(&[]);
        }
        if heap.0 != address {
            heap.0 = u64::MAX;
            let at = address.checked_add(self.user_block).context("a heap past the file's end")?;
            self.read(at, 16, &mut heap.1)?;
            let size = number(&heap.1[8..16]);
            ensure!(
                heap.1.starts_with(b"GCOL\x01") && (16..=LARGEST_TEXT_HEAP).contains(&size),
                "no heap of strings at {address}: the file is damaged"
            );
            self.read(at, size, &mut heap.1)?;
            heap.0 = address;
        }
        let text = object(&heap.1, index).and_then(|text| text.get(..len));
        text.filter(|text| text.len() <= LONGEST_METADATA)
            .with_context(|| format!("no string {index} in the heap at {address}: it is damaged"))
    }
}

/// An object of a heap; every step of the search is at least 16 bytes long, so that it ends.
fn object(heap: &[u8], index: u64) -> Option<&[u8]> {
    let mut rest = heap.get(16..)?;
    while let Some((head, tail)) = rest.split_at_checked(16) {
        let found = number(&head[..2]);
        let len = usize::try_from(number(&head[8..])).ok()?;
        if found == 0 {
            return None; // what follows is free
        }
        if found == index {
            return tail.get(..len);
        }
        rest = tail.get(len.checked_next_multiple_of(8)?..)?;
    }
    None
}

/// A little-endian number of up to 8 bytes.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use hdf5::types::{FixedAscii, VarLenUnicode};
    use ndarray::{Array2, arr1};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use tempfile::TempDir;

    use super::*;

    fn file(user_block: u64) -> (TempDir, std::path::PathBuf, hdf5::File) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.csd");
        let builder = hdf5::FileBuilder::new().with_fcpl(|p| p.userblock(user_block)).create(&path);
        (folder, path, builder.unwrap())
    }

    fn noise(rows: usize, cols: usize) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        Array2::from_shape_fn((rows, cols), |_| f64::from(rng.next_u32() as i32) / 1024.0)
    }

    #[test]
    fn chunks_read_here_equal_what_the_library_reads() {
        let (_folder, path, file) = file(0);
        let wide = noise(37, 11);
        let narrow = wide.mapv(|value| value as f32);
        let plain = || file.new_dataset_builder();
        plain().with_data(&wide).create("contiguous").unwrap();
        plain().with_data(&narrow).chunk((8, 4)).create("chunked").unwrap();
        plain().with_data(&narrow).chunk((8, 4)).deflate(9).create("deflated").unwrap();
        plain().with_data(&wide).chunk((37, 11)).shuffle().create("shuffled").unwrap();
        plain().with_data(&wide).chunk((5, 11)).shuffle().deflate(1).create("both").unwrap();
        plain().with_data(&narrow).chunk((1, 3)).deflate(4).create("rows").unwrap();
        let left = ["summed", "whole", "compact", "empty", "partly"];
        plain().with_data(&narrow).chunk((8, 4)).fletcher32().create("summed").unwrap();
        plain().with_data(&narrow.mapv(|v| v as i32)).create("whole").unwrap();
        plain().with_data(&narrow).layout(Layout::Compact).create("compact").unwrap();
        plain().empty::<f32>().shape((3, 2)).create("empty").unwrap();
        let partly = plain().empty::<f32>().shape((8, 4)).chunk((2, 2)).create("partly").unwrap();
        partly.write_slice(&Array2::<f32>::ones((2, 2)), ndarray::s![2..4, 2..4]).unwrap();
        file.flush().unwrap();
        let source = Source::open(&path, &file).unwrap();
        let mut scratch = Scratch::new();
        for name in file.member_names().unwrap() {
            let ours = Table::open(&file, &name, &source).unwrap();
            let theirs = Table::by_library(&file, &name, &source).unwrap();
            assert_eq!(ours.is_left_to_library(), left.contains(&name.as_str()), "{name}");
            let a: Vec<f32> = ours.numbers(&source, &mut scratch).unwrap();
            let b: Vec<f32> = theirs.numbers(&source, &mut scratch).unwrap();
            assert_eq!(a, b, "{name}");
            let a: Vec<f64> = ours.numbers(&source, &mut scratch).unwrap();
            let b: Vec<f64> = theirs.numbers(&source, &mut scratch).unwrap();
            assert_eq!(a, b, "{name}");
        }
        let row: Vec<f32> = (0..10).map(|value| value as f32).collect();
        plain().with_data(&arr1(&row)).chunk(4).deflate(1).create("row").unwrap();
        file.flush().unwrap();
        let source = Source::open(&path, &file).unwrap();
        let table = Table::open(&file, "row", &source).unwrap();
        assert_eq!((table.rows, table.cols, table.is_left_to_library()), (1, 10, false));
        assert_eq!(table.numbers::<f32>(&source, &mut scratch).unwrap(), row);
        assert!(scratch.times.bytes[1] > 0, "nothing was inflated here");
    }

    #[test]
    fn only_wanted_chunks_are_read() {
        let (_folder, path, file) = file(0);
        let data = noise(40, 4);
        file.new_dataset_builder().with_data(&data).chunk((10, 4)).deflate(1).create("x").unwrap();
        file.flush().unwrap();
        let source = Source::open(&path, &file).unwrap();
        let table = Table::open(&file, "x", &source).unwrap();
        let mut rows = Vec::new();
        let wanted = |rows: Range<usize>| rows.contains(&12);
        let scratch = &mut Scratch::new();
        table.visit(&source, scratch, wanted, |row, _, _: &[f32]| rows.push(row)).unwrap();
        assert_eq!(rows, (10..20).collect::<Vec<_>>());
    }

    #[test]
    fn strings_of_any_kind_are_read() {
        let (_folder, path, file) = file(0);
        let texts = ["", "a", "größer", "sp"];
        let long: Vec<VarLenUnicode> = texts.iter().map(|t| t.parse().unwrap()).collect();
        let fixed: Vec<_> =
            ["", "a", "bc", "sp"].map(|t| FixedAscii::<32>::from_ascii(t).unwrap()).to_vec();
        file.new_dataset_builder().with_data(&arr1(&long)).create("long").unwrap();
        file.new_dataset_builder()
            .with_data(&arr1(&long))
            .chunk(3)
            .deflate(1)
            .create("packed")
            .unwrap();
        let column = Array2::from_shape_vec((4, 1), fixed).unwrap();
        file.new_dataset_builder().with_data(&column).create("fixed").unwrap();
        file.new_dataset_builder().with_data(&column).chunk((3, 1)).deflate(1).create("f").unwrap();
        file.flush().unwrap();
        let source = Source::open(&path, &file).unwrap();
        let mut scratch = Scratch::new();
        let mut read =
            |name| Table::open(&file, name, &source).unwrap().texts(&source, &mut scratch);
        assert_eq!(read("long").unwrap(), texts);
        assert_eq!(read("packed").unwrap(), texts);
        assert_eq!(read("fixed").unwrap(), ["", "a", "bc", "sp"]);
        assert_eq!(read("f").unwrap(), ["", "a", "bc", "sp"]);
    }

    #[test]
    fn a_file_behind_a_user_block_is_left_to_the_library() {
        let (_folder, path, file) = file(1024);
        let data = noise(9, 2);
        file.new_dataset_builder().with_data(&data).chunk((4, 2)).deflate(1).create("x").unwrap();
        file.flush().unwrap();
        let source = Source::open(&path, &file).unwrap();
        let table = Table::open(&file, "x", &source).unwrap();
        assert!(table.is_left_to_library());
        let values: Vec<f64> = table.numbers(&source, &mut Scratch::new()).unwrap();
        assert_eq!(values, data.into_raw_vec_and_offset().0);
    }

    #[test]
    fn a_heap_that_leads_nowhere_ends() {
        let mut heap = vec![0; 64];
        heap[16] = 2; // object 2 of length 0, then free space
        assert_eq!(object(&heap, 1), None);
        assert_eq!(object(&heap, 2), Some(&[][..]));
        heap[24..32].fill(0xff);
        assert_eq!(object(&heap, 2), None);
        assert_eq!(object(&heap, 1), None);
        assert_eq!(object(&[], 1), None);
    }
}
