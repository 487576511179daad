//! Where the bytes of a value are: in memory, or still in the file.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::text;

/// A piece of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The bytes of one value.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Inline(Arc<[u8]>),
    InFile(Span),
    /// Bytes that Python 3 wrote as text in protocols 0 to 2.
    Latin1(Arc<Latin1>),
}

impl Data {
    pub(crate) fn inline(&self) -> Option<&[u8]> {
        match self {
            Self::Inline(bytes) => Some(bytes),
            Self::InFile(_) | Self::Latin1(_) => None,
        }
    }

    /// This text as the Latin-1 bytes that it stands for; `spend` is told what memory it takes.
    pub(crate) fn latin1(&self, spend: impl FnOnce(usize) -> Result<()>) -> Result<Self> {
        match self {
            Self::Inline(text) => {
                spend(text.len())?;
                let text = std::str::from_utf8(text).map_err(|_| not_utf8())?;
                Ok(Self::Inline(text::to_latin1(text)?.into()))
            }
            Self::InFile(span) => {
                Ok(Self::Latin1(Arc::new(Latin1 { span: *span, index: OnceLock::new() })))
            }
            Self::Latin1(_) => Err(Error::malformed("bytes are encoded twice")),
        }
    }

    /// Whether this can be `len` bytes, as far as that is known without reading.
    pub(crate) fn may_be(&self, len: u64) -> bool {
        match self {
            Self::Inline(bytes) => bytes.len() as u64 == len,
            Self::InFile(span) => span.len == len,
            Self::Latin1(text) => text.span.len.div_ceil(2) <= len && len <= text.span.len,
        }
    }

    /// How much there is, as the pickle has it.
    pub(crate) fn stored_len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::InFile(span) => span.len,
            Self::Latin1(text) => text.span.len,
        }
    }

    /// Fills `out` from byte `start` on, of `len` in all.
    pub(crate) fn read_at<R: Read + Seek>(
        &self,
        reader: &mut R,
        len: u64,
        start: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let end = start.checked_add(out.len() as u64).filter(|&end| end <= len);
        if end.is_none() || !self.may_be(len) {
            return Err(Error::read("a read past the end of a payload"));
        }
        match self {
            Self::Inline(bytes) => {
                let start = start as usize; // below bytes.len()
                out.copy_from_slice(&bytes[start..start + out.len()]);
                Ok(())
            }
            Self::InFile(span) => {
                let at = span.offset + start;
                reader.seek(SeekFrom::Start(at)).map_err(|err| Error::from(err).or_at(at))?;
                reader.read_exact(out).map_err(|err| Error::from(err).or_at(at))
            }
            Self::Latin1(text) => {
                text.read_at(reader, len, start, out).map_err(|err| err.or_at(text.span.offset))
            }
        }
    }

    /// All of it, however long.
    pub(crate) fn read_all<R: Read + Seek>(&self, reader: &mut R) -> Result<Vec<u8>> {
        let len = match self {
            Self::Latin1(text) => text.index(reader)?.len,
            other => other.stored_len(),
        };
        let n = usize::try_from(len).map_err(|_| Error::read("a text of more than memory"))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(n).map_err(|_| Error::read(format!("no memory for {n} bytes")))?;
        bytes.resize(n, 0);
        self.read_at(reader, len, 0, &mut bytes)?;
        Ok(bytes)
    }
}

pub(crate) fn not_utf8() -> Error {
    Error::malformed(
        "a text that is not utf-8; python wrote half of a surrogate pair, or the file is damaged",
    )
}

/// Bytes of the file looked at in one go, and between two entries of an index.
const PIECE: usize = 16 << 10;

/// UTF-8 in the file that stands for Latin-1 bytes: one or two bytes in the file for each.
///
/// The first read goes through all of it once and keeps where pieces of 16 KiB start, so that
/// the next ones can begin near what they want.
#[derive(Debug)]
pub(crate) struct Latin1 {
    span: Span,
    index: OnceLock<Index>,
}

/// Where to enter a [`Latin1`].
#[derive(Debug)]
struct Index {
    /// Decoded bytes in all.
    len: u64,
    pieces: Vec<Piece>,
}

/// The start of a character: its offset into the span, and the decoded bytes before it.
#[derive(Debug, Clone, Copy)]
struct Piece {
    at: u64,
    n_before: u64,
}

impl Latin1 {
    fn read_at<R: Read + Seek>(
        &self,
        reader: &mut R,
        len: u64,
        start: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let index = self.index(reader)?;
        if index.len != len {
            let found = index.len;
            return Err(Error::malformed(format!("a payload of {found} bytes, not {len}")));
        }
        let n_before = index.pieces.partition_point(|piece| piece.n_before <= start);
        let Some(&entry) = n_before.checked_sub(1).and_then(|i| index.pieces.get(i)) else {
            return Ok(()); // an empty payload
        };
        let mut skip = (start - entry.n_before) as usize; // not beyond the entry's piece
        let mut n_done = 0;
        self.decode(reader, entry, |_, bytes| {
            let wanted = &bytes[skip.min(bytes.len())..];
            let n = wanted.len().min(out.len() - n_done);
            out[n_done..n_done + n].copy_from_slice(&wanted[..n]);
            skip -= skip.min(bytes.len());
            n_done += n;
            n_done < out.len()
        })
    }

    fn index<R: Read + Seek>(&self, reader: &mut R) -> Result<&Index> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let mut index = Index { len: 0, pieces: Vec::new() };
        self.decode(reader, Piece { at: 0, n_before: 0 }, |piece, bytes| {
            index.pieces.push(piece);
            index.len += bytes.len() as u64;
            true
        })?;
        Ok(self.index.get_or_init(|| index))
    }

    /// Hands over one decoded piece after another, until told to stop.
    fn decode<R: Read + Seek>(
        &self,
        reader: &mut R,
        mut piece: Piece,
        mut take: impl FnMut(Piece, &[u8]) -> bool,
    ) -> Result<()> {
        reader.seek(SeekFrom::Start(self.span.offset + piece.at))?;
        let mut encoded = vec![0; PIECE];
        let mut decoded = vec![0; PIECE];
        let mut lead = 0; // the first byte of a character that the last piece cut in two, or 0
        let mut at = piece.at;
        while at < self.span.len {
            let n = (self.span.len - at).min(PIECE as u64) as usize;
            reader.read_exact(&mut encoded[..n])?;
            at += n as u64;
            let n = text::from_utf8_latin1(&encoded[..n], &mut lead, &mut decoded)?;
            if !take(piece, &decoded[..n]) {
                return Ok(());
            }
            let n_before = piece.n_before + n as u64;
            piece = Piece { at: at - u64::from(lead != 0), n_before };
        }
        if lead == 0 { Ok(()) } else { Err(not_utf8()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn any_piece_of_bytes_written_as_text_can_be_read() {
        let bytes: Vec<u8> =
            (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
        let mut file = Cursor::new([b"head".as_slice(), text.as_bytes(), b"tail"].concat());
        let span = Span { offset: 4, len: text.len() as u64 };
        let data = Data::InFile(span).latin1(|_| Ok(())).unwrap();
        for (start, n) in [(0, 1), (16_383, 3), (40_000, 50_000), (99_999, 1), (100_000, 0), (5, 0)]
        {
            let mut out = vec![0; n];
            data.read_at(&mut file, 100_000, start as u64, &mut out).unwrap();
            assert_eq!(out, bytes[start..start + n], "{n} bytes from {start}");
        }
        let err = data.read_at(&mut file, 99_999, 0, &mut [0]).unwrap_err();
        assert!(err.to_string().contains("of 100000 bytes, not 99999"), "{err}");
    }

    #[test]
    fn text_above_latin_1_is_noticed_when_read() {
        let mut file = Cursor::new("a你".as_bytes().to_vec());
        let data = Data::InFile(Span { offset: 0, len: 4 }).latin1(|_| Ok(())).unwrap();
        let err = data.read_at(&mut file, 2, 0, &mut [0]).unwrap_err();
        assert!(err.to_string().contains("above 255"), "{err}");
    }
}
