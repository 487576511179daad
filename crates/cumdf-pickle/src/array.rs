//! Arrays: what they are, and reading their elements row by row.

use std::fmt;
use std::io::{Read, Seek};
use std::ops::Range;

use crate::data::Data;
use crate::dtype::{DType, Kind};
use crate::element::{self, Number};
use crate::error::{Error, Result};
use crate::item::Item;
use crate::pickle::Pickle;
use crate::value::{Id, Node};

/// As many axes as numpy has.
pub(crate) const MAX_AXES: usize = 64;

/// Bytes read in one go.
const PIECE: usize = 1 << 20;

/// An array as the pickle describes it.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Axes from the slowest to the fastest in memory: ascending in C order.
    pub(crate) axes: Vec<usize>,
    pub(crate) payload: Payload,
}

/// The elements.
#[derive(Debug)]
pub(crate) enum Payload {
    Bytes(Data),
    Objects(Vec<Id>),
}

/// The number of elements, if that many can be counted.
pub(crate) fn checked_len(shape: &[usize]) -> Result<usize> {
    // Without the zeros, so that no product of some of the axes overflows later.
    let n = shape.iter().filter(|&&n| n > 0).try_fold(1usize, |n, &size| n.checked_mul(size));
    let Some(n) = n.filter(|&n| n <= isize::MAX as usize) else {
        return Err(Error::malformed(format!(
            "a shape of more elements than there can be, {shape:?}"
        )));
    };
    Ok(if shape.contains(&0) { 0 } else { n })
}

/// A numpy array of the pickle. Its elements stay in the file until they are read.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    /// The type of the elements.
    pub dtype: DType,
    /// The sizes of the axes; empty for a single value.
    pub shape: &'a [usize],
    stored: &'a Stored,
    pickle: &'a Pickle,
}

impl<'a> Array<'a> {
    pub(crate) fn new(stored: &'a Stored, pickle: &'a Pickle) -> Self {
        Self { dtype: stored.dtype, shape: &stored.shape, stored, pickle }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the first axis; 1 for an array without axes.
    pub fn n_rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The number of elements in a row, [`Self::n_rows`] of which make the array.
    pub fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Whether rows lie one after another in the file, so that some of them are one read.
    pub fn is_c_order(&self) -> bool {
        self.stored.axes.is_sorted()
    }

    /// The numbers of some rows in C order, as `f32`, whatever number type is stored.
    ///
    /// - `reader`: the file that was decoded
    /// - `rows`: of the first axis; `0..array.n_rows()` is all
    ///
    /// Rows of an array in C order are read alone. One in another order is gone through from end
    /// to end each time, so take many of its rows at once.
    ///
    /// Fails where `rows` are not there, and where elements are no numbers. Wider numbers are
    /// rounded.
    pub fn read_f32<R: Read + Seek>(&self, reader: &mut R, rows: Range<usize>) -> Result<Vec<f32>> {
        self.read(reader, rows)
    }

    /// As [`Self::read_f32`], as `f64`: exact, except for integers above 2^53.
    pub fn read_f64<R: Read + Seek>(&self, reader: &mut R, rows: Range<usize>) -> Result<Vec<f64>> {
        self.read(reader, rows)
    }

    /// All texts in C order: of an `S` or `U` array, or an object array of texts; integers in
    /// decimal digits.
    ///
    /// Bytes are read as UTF-8 where they are that, as Latin-1 otherwise.
    pub fn read_texts<R: Read + Seek>(&self, reader: &mut R) -> Result<Vec<String>> {
        match (&self.stored.payload, self.dtype.kind) {
            (Payload::Objects(_), _) => self
                .objects()
                .into_iter()
                .flatten()
                .enumerate()
                .map(|(i, item)| {
                    item.read_text(reader)?.ok_or_else(|| {
                        let kind = item.kind();
                        Error::read(format!("element {i} of {self} is {kind}, not a text"))
                    })
                })
                .collect(),
            (Payload::Bytes(data), Kind::Bytes | Kind::Text | Kind::Int | Kind::Uint) => {
                let mut out = filled(self.len(), String::new())?;
                self.gather(reader, data, 0..self.n_rows(), |at, bytes| {
                    for (i, bytes) in bytes.chunks_exact(self.dtype.size).enumerate() {
                        out[at + i] = self.dtype.read_text(bytes)?;
                    }
                    Ok(())
                })?;
                Ok(out)
            }
            _ => Err(Error::read(format!("{self} holds no texts"))),
        }
    }

    /// The elements of an object array in C order; `None` for any other.
    pub fn objects(&self) -> Option<impl ExactSizeIterator<Item = Item<'a>> + use<'a>> {
        let pickle = self.pickle;
        match &self.stored.payload {
            Payload::Objects(items) => Some(items.iter().map(move |&id| Item::new(pickle, id))),
            Payload::Bytes(_) => None,
        }
    }

    fn read<T: Number, R: Read + Seek>(
        &self,
        reader: &mut R,
        rows: Range<usize>,
    ) -> Result<Vec<T>> {
        if rows.start > rows.end || rows.end > self.n_rows() {
            return Err(Error::read(format!("{self} has no rows {rows:?}")));
        }
        let row_len = self.row_len();
        let n = rows.len().checked_mul(row_len).ok_or_else(|| Error::read("too many rows"))?;
        let mut out = filled(n, T::default())?;
        match &self.stored.payload {
            Payload::Bytes(data) => self.gather(reader, data, rows, |at, bytes| {
                let n = bytes.len() / self.dtype.size;
                element::numbers(self.dtype, bytes, &mut out[at..at + n])
            })?,
            Payload::Objects(items) if n > 0 => {
                let items = &items[rows.start * row_len..rows.end * row_len];
                for (out, &id) in out.iter_mut().zip(items) {
                    *out = match self.pickle.node(id) {
                        Node::Float(value) => T::from_f64(*value),
                        Node::Int(value) => T::from_i128(*value),
                        Node::Bool(value) => T::from_i128(i128::from(*value)),
                        other => {
                            let kind = other.kind();
                            return Err(Error::read(format!("{self} holds {kind}, not a number")));
                        }
                    };
                }
            }
            Payload::Objects(_) => {}
        }
        Ok(out)
    }

    /// Hands the bytes of `rows` over: the place in C order of the first element, counted from
    /// the first row asked for, and elements that follow one another from there on.
    ///
    /// In memory the axes before the first one make `outer`, those after it `inner`: each of the
    /// `outer` runs holds the wanted rows of `inner` elements in one piece. C order has one run,
    /// Fortran order one for each element of a row.
    fn gather<R: Read + Seek>(
        &self,
        reader: &mut R,
        data: &Data,
        rows: Range<usize>,
        mut take: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (shape, axes, size) = (self.shape, &self.stored.axes, self.dtype.size);
        let total = (self.len() * size) as u64; // checked when it was decoded
        if rows.is_empty() || self.is_empty() {
            return Ok(());
        }
        let mut buffer = Vec::new();
        if self.is_c_order() {
            let row_len = self.row_len();
            let (start, end) = (rows.start * row_len, rows.end * row_len);
            let step = (PIECE / size).max(1);
            for at in (start..end).step_by(step) {
                let n = step.min(end - at);
                resize(&mut buffer, n * size)?;
                data.read_at(reader, total, (at * size) as u64, &mut buffer)?;
                take(at - start, &buffer)?;
            }
            return Ok(());
        }
        let first = axes.iter().position(|&axis| axis == 0).unwrap_or(0);
        let (outer, inner) = (&axes[..first], &axes[first + 1..]);
        let n_inner: usize = inner.iter().map(|&axis| shape[axis]).product();
        let n_outer: usize = outer.iter().map(|&axis| shape[axis]).product();
        let (row_len, run) = (self.row_len(), shape[0] * n_inner);
        // Small runs are read many at a time, with the rows between them that nobody asked for.
        let step = (PIECE / size / run).max(1);
        let inner_at: Vec<usize> = (0..n_inner).map(|i| c_place(shape, inner, i)).collect();
        for block in (0..n_outer).step_by(step) {
            let last = (block + step).min(n_outer) - 1;
            let start = block * run + rows.start * n_inner;
            let end = last * run + rows.end * n_inner;
            resize(&mut buffer, (end - start) * size)?;
            data.read_at(reader, total, (start * size) as u64, &mut buffer)?;
            for i in block..=last {
                let outer_at = c_place(shape, outer, i);
                for row in rows.clone() {
                    let from = i * run + row * n_inner - start;
                    let bytes = &buffer[from * size..(from + n_inner) * size];
                    for (bytes, place) in bytes.chunks_exact(size).zip(&inner_at) {
                        take((row - rows.start) * row_len + outer_at + place, bytes)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where in a row element `i` of the given axes lies in C order; the last of them moves fastest.
fn c_place(shape: &[usize], axes: &[usize], mut i: usize) -> usize {
    let mut place = 0;
    for &axis in axes.iter().rev() {
        let stride: usize = shape[axis + 1..].iter().product();
        place += i % shape[axis] * stride;
        i /= shape[axis];
    }
    place
}

/// `n` times `value`, or an error where the machine has no room for them.
fn filled<T: Clone>(n: usize, value: T) -> Result<Vec<T>> {
    let mut out = Vec::new();
    out.try_reserve_exact(n).map_err(|_| Error::read(format!("no memory for {n} elements")))?;
    out.resize(n, value);
    Ok(out)
}

fn resize(buffer: &mut Vec<u8>, n: usize) -> Result<()> {
    if buffer.len() < n {
        *buffer = filled(n, 0)?;
    }
    buffer.truncate(n);
    Ok(())
}

impl fmt::Display for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} array {:?}", self.dtype, self.shape)
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
