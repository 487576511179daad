//! The file as the decoder sees it: small reads forward, and skips that read nothing.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use crate::data::Span;
use crate::error::{Error, ErrorKind, Result};

/// A buffered reader that knows where it is and where the file ends.
pub(crate) struct Source<R> {
    inner: BufReader<R>,
    at: u64,
    len: u64,
}

impl<R: Read + Seek> Source<R> {
    /// Starts at the first byte of `reader`, wherever that stands.
    pub(crate) fn new(mut reader: R) -> Result<Self> {
        let len = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        Ok(Self { inner: BufReader::new(reader), at: 0, len })
    }

    /// The offset of the next byte.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Fails unless `n` more bytes are there, so that no length is believed before it is checked.
    fn need(&self, n: u64) -> Result<()> {
        let left = self.len - self.at;
        match n.checked_sub(left) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Error::from(ErrorKind::Truncated { missing }).or_at(self.len)),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.need(N as u64)?;
        self.inner.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next `n` bytes; the caller has bounded `n`.
    pub(crate) fn bytes(&mut self, n: usize) -> Result<Vec<u8>> {
        self.need(n as u64)?;
        let mut bytes = vec![0; n];
        self.inner.read_exact(&mut bytes)?;
        self.at += n as u64;
        Ok(bytes)
    }

    /// Passes over `n` bytes without reading them.
    pub(crate) fn skip(&mut self, n: u64) -> Result<Span> {
        self.need(n)?;
        let span = Span { offset: self.at, len: n };
        let step = i64::try_from(n).map_err(|_| Error::malformed("a payload above 2^63 bytes"))?;
        self.inner.seek_relative(step)?;
        self.at += n;
        Ok(span)
    }

    /// The rest of the line without its newline, or `None` where it is longer than `max`.
    pub(crate) fn line(&mut self, max: usize) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let n = self
            .inner
            .by_ref()
            .take((max as u64).saturating_add(1))
            .read_until(b'\n', &mut line)?;
        self.at += n as u64;
        match line.pop() {
            Some(b'\n') => Ok(Some(line)),
            _ if n > max => Ok(None),
            _ => Err(Error::from(ErrorKind::Truncated { missing: 1 }).or_at(self.len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_line_ends_at_its_newline_and_not_after_its_limit() {
        let mut source = Source::new(Cursor::new(b"abc\n\nde")).unwrap();
        assert_eq!(source.line(3).unwrap().as_deref(), Some(&b"abc"[..]));
        assert_eq!(source.line(3).unwrap().as_deref(), Some(&b""[..]));
        let err = source.line(9).unwrap_err();
        assert!(matches!(err.kind(), ErrorKind::Truncated { .. }), "{err}");
        let mut source = Source::new(Cursor::new(b"abcd\n")).unwrap();
        assert_eq!(source.line(3).unwrap(), None);
    }

    #[test]
    fn a_skip_past_the_end_says_how_much_is_missing() {
        let mut source = Source::new(Cursor::new(vec![0; 10])).unwrap();
        source.skip(4).unwrap();
        assert_eq!(source.at(), 4);
        let err = source.skip(u64::MAX).unwrap_err();
        assert!(matches!(err.kind(), ErrorKind::Truncated { missing } if *missing == u64::MAX - 6));
        assert_eq!(source.bytes(6).unwrap().len(), 6);
        assert!(source.byte().is_err());
    }
}
