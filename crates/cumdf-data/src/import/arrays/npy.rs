//! Numpy's own files: an array (`.npy`), or a zip archive of arrays (`.npz`).
//!
//! The format is that of
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>, versions 1 to 3.
//! Elements stay in their file until rows of them are asked for. Two things are unpacked first,
//! into a nameless temporary file rather than into memory: a compressed member of an archive, and
//! an array in Fortran order, whose rows lie scattered.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cumdf_pickle::{DType, Kind};
use py_literal::Value;
use zip::{CompressionMethod, ZipArchive};

use crate::hdf::MOST_PACKED;
use crate::import::table::Table;

/// Bytes of the longest header that numpy itself reads.
const LONGEST_HEADER: usize = 10_000;
/// A plain array's header is a dict with a tuple in it. Deeper ones cost the parser time that
/// doubles with every bracket.
const MOST_BRACKETS: usize = 2;
/// Bytes of a Fortran array that are brought into C order at a time, about.
const BLOCK_BYTES: usize = 64 << 20;

/// An array in a file, by rows of its first axis.
#[derive(Debug)]
pub(crate) struct Npy {
    file: File,
    /// Where the elements begin.
    start: u64,
    dtype: DType,
    shape: Vec<usize>,
}

impl Npy {
    /// Opens an `.npy` file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).context("cannot be opened")?;
        let end = file.metadata().context("cannot be opened")?.len();
        Self::within(file, 0..end)
    }

    /// Opens the `.npy` file that lies in these bytes of another.
    fn within(mut file: File, bytes: Range<u64>) -> Result<Self> {
        file.seek(SeekFrom::Start(bytes.start)).context("cannot be read")?;
        let room = bytes.end.saturating_sub(bytes.start);
        let header = Header::read(&mut BufReader::new((&file).take(room)))?;
        let Header { dtype, shape, fortran, bytes: header } = header;
        let claimed = Some(&dtype.size)
            .into_iter()
            .chain(&shape)
            .try_fold(1u64, |bytes, side| bytes.checked_mul(*side as u64));
        let held = room.saturating_sub(header);
        ensure!(!shape.contains(&0) && dtype.size > 0, "has shape {shape:?} of {dtype}: no value");
        ensure!(
            claimed == Some(held),
            "claims shape {shape:?} of {dtype}, {} bytes, and holds {held}: it is cut off or \
             damaged, save it again",
            claimed.map_or("more than there can be".to_owned(), |bytes| bytes.to_string())
        );
        let start = bytes.start + header;
        let array = Self { file, start, dtype, shape };
        if fortran && array.shape.len() > 1 { array.in_c_order() } else { Ok(array) }
    }

    /// What each element is read as, one after another.
    pub(crate) fn texts(&mut self) -> Result<Vec<String>> {
        let bytes = self.bytes(0..self.rows_held())?;
        let texts = bytes.chunks_exact(self.dtype.size).map(|bytes| self.dtype.read_text(bytes));
        Ok(texts.collect::<Result<_, _>>()?)
    }

    /// Whether elements are numbers or flags.
    pub(crate) fn is_numeric(&self) -> bool {
        matches!(self.dtype.kind, Kind::Bool | Kind::Int | Kind::Uint | Kind::Float)
    }

    fn rows_held(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    fn bytes(&mut self, rows: Range<usize>) -> Result<Vec<u8>> {
        let held = self.rows_held();
        ensure!(rows.start <= rows.end && rows.end <= held, "has {held} rows, not {rows:?}");
        let row = self.row_len() * self.dtype.size;
        let mut bytes = vec![0; rows.len() * row];
        let at = self.start + (rows.start * row) as u64;
        self.file.seek(SeekFrom::Start(at)).context("cannot be read")?;
        self.file.read_exact(&mut bytes).context("cannot be read")?;
        Ok(bytes)
    }

    /// The same array in a temporary file, in C order.
    fn in_c_order(self) -> Result<Self> {
        let (held, row_len, size) = (self.rows_held(), self.row_len(), self.dtype.size);
        let places = fortran_places(&self.shape[1..]);
        let mut out = BufWriter::new(temporary()?);
        let block = (BLOCK_BYTES / (row_len * size)).clamp(1, held);
        let mut from = BufReader::new(&self.file);
        let mut at = from.seek(SeekFrom::Start(self.start)).context("cannot be read")?;
        let mut column = Vec::new();
        for first in (0..held).step_by(block) {
            let rows = block.min(held - first);
            let mut values = vec![0; rows * row_len * size];
            column.resize(rows * size, 0);
            for (i, place) in places.iter().enumerate() {
                let next = self.start + ((i * held + first) * size) as u64;
                from.seek_relative(next as i64 - at as i64).context("cannot be read")?;
                from.read_exact(&mut column).context("cannot be read")?;
                at = next + column.len() as u64;
                for (row, element) in column.chunks_exact(size).enumerate() {
                    let to = (row * row_len + place) * size;
                    values[to..to + size].copy_from_slice(element);
                }
            }
            out.write_all(&values).with_context(cannot_unpack)?;
        }
        let file = out.into_inner().map_err(io::Error::from).with_context(cannot_unpack)?;
        Ok(Self { file, start: 0, ..self })
    }
}

impl Table for Npy {
    fn dtype(&self) -> String {
        self.dtype.to_string()
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn rows(&mut self, rows: Range<usize>) -> Result<Vec<f32>> {
        let bytes = self.bytes(rows)?;
        let mut out = vec![0.0; bytes.len() / self.dtype.size];
        self.dtype.read_f32(&bytes, &mut out)?;
        Ok(out)
    }

    fn rows_f64(&mut self, rows: Range<usize>) -> Result<Vec<f64>> {
        let bytes = self.bytes(rows)?;
        let mut out = vec![0.0; bytes.len() / self.dtype.size];
        self.dtype.read_f64(&bytes, &mut out)?;
        Ok(out)
    }
}

/// Where in C order the elements of an array in Fortran order belong.
fn fortran_places(shape: &[usize]) -> Vec<usize> {
    let mut places = vec![0];
    let mut stride: usize = shape.iter().product();
    for side in shape {
        stride /= side;
        // Each axis repeats the places of the axes before it, which move faster.
        places = (0..*side).flat_map(|i| places.iter().map(move |p| p + i * stride)).collect();
    }
    places
}

/// What stands before the elements.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    dtype: DType,
    shape: Vec<usize>,
    fortran: bool,
    /// Its own length, to the first element.
    bytes: u64,
}

impl Header {
    fn read(from: &mut impl Read) -> Result<Self> {
        const CUT: &str = "ends inside its header: it is cut off, save it again";
        let mut magic = [0; 8];
        from.read_exact(&mut magic).context(CUT)?;
        ensure!(magic.starts_with(b"\x93NUMPY"), "is no .npy array: it starts with other bytes");
        let mut len = [0; 4];
        let width = match magic[6] {
            1 => 2,
            2 | 3 => 4,
            version => bail!("is of version {version} of the .npy format, 1 to 3 are read"),
        };
        from.read_exact(&mut len[..width]).context(CUT)?;
        let len = u32::from_le_bytes(len) as usize;
        ensure!(
            len <= LONGEST_HEADER,
            "claims a header of {len} bytes, no array of numbers or texts has more than \
             {LONGEST_HEADER}"
        );
        let mut text = vec![0; len];
        from.read_exact(&mut text).context(CUT)?;
        let (dtype, shape, fortran) = Self::parse(&text)?;
        Ok(Self { dtype, shape, fortran, bytes: (magic.len() + width + len) as u64 })
    }

    fn parse(text: &[u8]) -> Result<(DType, Vec<usize>, bool)> {
        let damaged = || anyhow!("has a damaged header: {:?}", String::from_utf8_lossy(text));
        let brackets = text.iter().filter(|byte| b"([{".contains(byte)).count();
        ensure!(
            brackets <= MOST_BRACKETS,
            "is a structured array, or damaged; save each field as an array of its own"
        );
        // Python 2 wrote `(3L, 4L)`.
        let plain = str::from_utf8(text).map_err(|_| damaged())?.trim();
        let plain = plain.replace("L,", ",").replace("L)", ")");
        let Ok(Value::Dict(entries)) = plain.parse() else { return Err(damaged()) };
        let entry = |name: &str| {
            entries.iter().find(|(key, _)| key.as_string().is_some_and(|key| key == name))
        };
        let values = (entry("descr"), entry("fortran_order"), entry("shape"));
        let (
            Some((_, Value::String(descr))),
            Some((_, Value::Boolean(fortran))),
            Some((_, Value::Tuple(shape))),
        ) = values
        else {
            return Err(damaged());
        };
        let side = |side: &Value| usize::try_from(side.as_integer()?).ok();
        let shape: Option<Vec<usize>> = shape.iter().map(side).collect();
        let dtype = DType::parse(descr)?;
        ensure!(
            dtype.kind != Kind::Object,
            "holds pickled Python objects, which are not read; save it as an array of numbers or \
             unicode: np.save(path, np.array(list(values), dtype=..))"
        );
        Ok((dtype, shape.ok_or_else(damaged)?, *fortran))
    }
}

/// An `.npz` archive.
pub(crate) struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    bytes: u64,
}

impl Npz {
    /// Opens an archive.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).context("cannot be opened")?;
        let bytes = file.metadata().context("cannot be opened")?.len();
        let archive = ZipArchive::new(BufReader::new(file))
            .context("is no readable .npz archive; it may be cut off, save it again")?;
        Ok(Self { path: path.to_owned(), archive, bytes })
    }

    /// The names of its arrays.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.archive.file_names().flatten();
        names.filter_map(|name| Some(name.strip_suffix(".npy")?.to_owned())).collect()
    }

    /// Opens one of its arrays; `name` is one of [`Self::names`].
    pub(crate) fn array(&mut self, name: &str) -> Result<Npy> {
        let damaged = || "is damaged in the archive, save it again".to_owned();
        let index = self.archive.index_for_name(&format!("{name}.npy"));
        let index = index.with_context(|| format!("no array {name:?}"))?;
        let mut member = self.archive.by_index(index).with_context(damaged)?;
        let size = member.size();
        ensure!(
            size <= self.bytes.saturating_mul(MOST_PACKED),
            "claims {size} bytes, more than an archive of {} bytes can hold: it is damaged",
            self.bytes
        );
        let place = match (member.compression(), member.data_start()) {
            (CompressionMethod::Stored, Some(start)) => Some(start),
            _ => None,
        };
        // Read to the end, past which the archive's checksum is compared.
        let mut content = (&mut member).take(size + 1);
        match place {
            Some(start) => {
                let read = io::copy(&mut content, &mut io::sink()).with_context(damaged)?;
                ensure!(read == size, "{}", damaged());
                let file = File::open(&self.path).context("cannot be opened")?;
                Npy::within(file, start..start.saturating_add(size))
            }
            None => {
                let mut file = temporary()?;
                let read = io::copy(&mut content, &mut file).with_context(damaged)?;
                ensure!(read == size, "{}", damaged());
                Npy::within(file, 0..size)
            }
        }
    }
}

fn temporary() -> Result<File> {
    tempfile::tempfile().with_context(cannot_unpack)
}

fn cannot_unpack() -> String {
    let folder = std::env::temp_dir();
    format!("cannot be unpacked in {}; TMPDIR=FOLDER names another place", folder.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file of `scripts/arrays.py`.
    fn fixture(name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        folder.join("tests/it/fixtures/arrays/types").join(name)
    }

    fn open(name: &str) -> Npy {
        Npy::open(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error:#}"))
    }

    fn refused(name: &str) -> String {
        format!("{:#}", Npy::open(&fixture(name)).map(|array| array.shape).unwrap_err())
    }

    fn member(archive: &str, name: &str) -> Npy {
        Npz::open(&fixture(archive)).unwrap().array(name).unwrap()
    }

    fn all(array: &mut Npy) -> Vec<f32> {
        array.rows(0..array.shape[0]).unwrap()
    }

    /// `low`, `low` + 1, ...
    fn counted(low: i32, n: usize) -> Vec<f32> {
        (low..).take(n).map(|i| i as f32).collect()
    }

    /// Everything of an `.npy` file of these bytes.
    fn read_npy(file: &mut File, bytes: &[u8]) -> Result<Vec<f64>> {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(bytes)?;
        let mut array = Npy::within(file.try_clone()?, 0..bytes.len() as u64)?;
        array.rows_f64(0..array.rows_held())
    }

    /// Everything of an archive of these bytes.
    fn read_npz(path: &Path, bytes: &[u8]) -> Result<Vec<f64>> {
        fs::write(path, bytes)?;
        let mut archive = Npz::open(path)?;
        let mut values = Vec::new();
        for name in archive.names() {
            let mut array = archive.array(&name)?;
            let rows = 0..array.rows_held();
            values.extend(array.rows_f64(rows)?);
        }
        Ok(values)
    }

    /// `bytes` with one of them replaced, by values near and far.
    fn damaged(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        const OTHERS: &[u8] = b"\0\xff019<>|(),'LOSUe-";
        (0..bytes.len()).flat_map(move |at| {
            let flipped = (0..8).map(move |bit| bytes[at] ^ 1 << bit);
            flipped.chain(OTHERS.iter().copied()).map(move |byte| {
                let mut damaged = bytes.to_vec();
                damaged[at] = byte;
                damaged
            })
        })
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        let len = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\0", &len[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn every_type_is_read_in_both_byte_orders() {
        for code in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"] {
            let low = if code.starts_with('u') { 0 } else { -3 };
            for order in ["little", "big"] {
                let mut array = open(&format!("{code}-{order}.npy"));
                assert_eq!(array.shape(), [3, 2, 2]);
                assert_eq!(all(&mut array), counted(low, 12), "{code} {order}");
                let doubles = array.rows_f64(1..2).unwrap();
                assert_eq!(doubles, [4, 5, 6, 7].map(|i| f64::from(low + i)), "{code} {order}");
            }
        }
        let flags = all(&mut open("bool.npy"));
        assert_eq!(flags, [1., 0., 1., 0., 1., 0., 1., 0., 1., 0., 1., 0.]);
        assert_eq!(open("f2-big.npy").dtype(), "float16");
    }

    #[test]
    fn fortran_order_and_old_and_new_headers_are_read() {
        assert_eq!(all(&mut open("fortran.npy")), counted(1, 120));
        assert_eq!(all(&mut open("fortran-flat.npy")), counted(1, 7));
        assert_eq!(all(&mut open("python2.npy")), counted(1, 6));
        assert_eq!(all(&mut open("version3.npy")), counted(1, 6));
        assert_eq!(fortran_places(&[2, 3]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(fortran_places(&[]), [0]);
    }

    #[test]
    fn archives_are_read_packed_or_not() {
        let names = Npz::open(&fixture("stored.npz")).unwrap().names();
        assert_eq!(names, ["first", "second"]);
        assert_eq!(all(&mut member("stored.npz", "first")), counted(1, 12));
        assert_eq!(all(&mut member("stored.npz", "second")), counted(9, 2));
        assert_eq!(all(&mut member("packed.npz", "first")), counted(1, 12));
        assert_eq!(all(&mut member("packed.npz", "turned")), counted(1, 15));
    }

    #[test]
    fn some_rows_are_those_of_the_whole() {
        let arrays = [
            open("i2-big.npy"),
            open("fortran.npy"),
            member("stored.npz", "first"),
            member("packed.npz", "turned"),
        ];
        for mut array in arrays {
            let whole = all(&mut array);
            let (held, row) = (array.rows_held(), array.row_len());
            for start in 0..=held {
                for end in start..=held {
                    let some = array.rows(start..end).unwrap();
                    assert_eq!(some, whole[start * row..end * row], "{array:?} {start}..{end}");
                }
            }
            assert!(array.rows(0..held + 1).is_err());
        }
    }

    #[test]
    fn names_are_texts_bytes_or_numbers() {
        assert_eq!(open("text.npy").texts().unwrap(), ["größer", "b[0]", "", "😀"]);
        assert_eq!(open("bytes.npy").texts().unwrap(), ["a", "bc", "def"]);
        assert_eq!(member("stored.npz", "second").texts().unwrap(), ["9", "10"]);
    }

    #[test]
    fn what_is_no_array_of_numbers_or_texts_is_refused_by_name() {
        let refusals = [
            (
                "objects.npy",
                "holds pickled Python objects, which are not read; save it as an array",
            ),
            ("complex.npy", "refuses dtype \"<c8\""),
            ("fields.npy", "is a structured array"),
            ("empty.npy", "has shape [0, 3] of float32: no value"),
            ("one.npz", "is no .npy array: it starts with other bytes"),
        ];
        for (name, expected) in refusals {
            let error = refused(name);
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn a_header_that_lies_costs_nothing() {
        let mut file = tempfile::tempfile().unwrap();
        let header = |shape: &str| {
            let header =
                format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
            with_header(&header, &[0; 24])
        };
        assert_eq!(read_npy(&mut file, &header("(2, 3)")).unwrap(), [0.0; 6]);
        let lies = [
            ("(1152921504606846976,)", "claims shape [1152921504606846976] of float32"),
            ("(4294967296, 4294967296)", "more than there can be bytes, and holds 24"),
            ("(18446744073709551616,)", "damaged header"),
            ("(-6,)", "damaged header"),
            ("(1e3,)", "damaged header"),
            ("(2, 4)", "32 bytes, and holds 24: it is cut off or damaged"),
            ("(2, 2)", "16 bytes, and holds 24"),
            ("(4611686018427387904, 4, 0)", "no value"),
            ("(((((((((((((((((((((((((6,),),),),)", "is a structured array, or damaged"),
        ];
        for (shape, expected) in lies {
            let error = format!("{:#}", read_npy(&mut file, &header(shape)).unwrap_err());
            assert!(error.contains(expected), "{shape}: {error}");
        }
        let mut long = header("(2, 3)");
        long[6] = 2;
        long[8..12].fill(0xff);
        let error = read_npy(&mut file, &long).unwrap_err().to_string();
        assert!(error.contains("claims a header of 4294967295 bytes"), "{error}");
    }

    #[test]
    fn an_archive_that_claims_too_much_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.npz");
        let mut bytes = fs::read(fixture("bomb.npz")).unwrap();
        let error = format!("{:#}", read_npz(&path, &bytes).unwrap_err());
        assert!(error.contains("is no .npy array"), "{error}");
        // The size stands in the central directory, 24 bytes after its mark, and once before.
        let directory = bytes.windows(4).position(|mark| mark == b"PK\x01\x02").unwrap();
        bytes[directory + 24..directory + 28].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
        let error = format!("{:#}", read_npz(&path, &bytes).unwrap_err());
        assert!(error.contains("claims 4294967280 bytes, more than an archive"), "{error}");
        bytes[directory + 24..directory + 28].copy_from_slice(&1000_u32.to_le_bytes());
        let error = format!("{:#}", read_npz(&path, &bytes).unwrap_err());
        assert!(error.contains("is damaged in the archive"), "{error}");
    }

    #[test]
    fn files_cut_off_anywhere_are_refused() {
        let mut file = tempfile::tempfile().unwrap();
        for name in ["f8-big.npy", "fortran.npy", "version3.npy"] {
            let bytes = fs::read(fixture(name)).unwrap();
            for len in 0..bytes.len() {
                assert!(read_npy(&mut file, &bytes[..len]).is_err(), "{name}: {len} bytes");
            }
        }
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.npz");
        for name in ["stored.npz", "packed.npz"] {
            let bytes = fs::read(fixture(name)).unwrap();
            for len in 0..bytes.len() {
                assert!(read_npz(&path, &bytes[..len]).is_err(), "{name}: {len} bytes");
            }
        }
    }

    #[test]
    fn damage_to_any_byte_ends_in_an_error_or_other_numbers() {
        let mut file = tempfile::tempfile().unwrap();
        for name in ["f2-little.npy", "fortran-flat.npy"] {
            for bytes in damaged(&fs::read(fixture(name)).unwrap()) {
                if let Ok(values) = read_npy(&mut file, &bytes) {
                    assert!(values.len() <= bytes.len(), "{name}: {} values", values.len());
                }
            }
        }
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.npz");
        for name in ["one.npz", "packed.npz"] {
            for bytes in damaged(&fs::read(fixture(name)).unwrap()) {
                if let Ok(values) = read_npz(&path, &bytes) {
                    assert!(values.len() <= 100, "{name}: {} values", values.len());
                }
            }
        }
    }
}
