//! The text forms of protocol 0, and the two encodings that Python 2 left behind.

use std::borrow::Cow;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Text of bytes that Python 2 called a string: UTF-8 where it is, Latin-1 otherwise.
pub(crate) fn lenient(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

/// The Latin-1 bytes of `text`, the inverse of how Python 3 writes bytes in protocols 0 to 2.
pub(crate) fn to_latin1(text: &str) -> Result<Vec<u8>> {
    text.chars().map(u8::try_from).collect::<std::result::Result<_, _>>().map_err(|_| above_255())
}

fn above_255() -> Error {
    Error::malformed("bytes written as text hold a character above 255")
}

/// Decodes a piece of UTF-8 to Latin-1 bytes at the start of `out`, and says how many.
///
/// `lead` is the first half of a character that the last piece ended with, or 0. There are no
/// branches in the loop, since payloads are as good as random to the branch predictor.
pub(crate) fn from_utf8_latin1(piece: &[u8], lead: &mut u8, out: &mut [u8]) -> Result<usize> {
    let out = &mut out[..piece.len()]; // a byte gives at most one
    let (mut n, mut bad) = (0, false);
    for &byte in piece {
        let is_lead = byte >= 0xc0;
        let is_second = byte & 0xc0 == 0x80;
        bad |= is_second != (*lead != 0);
        bad |= is_lead & (byte & 0xfe != 0xc2);
        out[n] = if is_second { (*lead << 6) | (byte & 0x3f) } else { byte };
        n += usize::from(!is_lead);
        *lead = if is_lead { byte } else { 0 };
    }
    if bad { Err(above_255()) } else { Ok(n) }
}

/// A number in a line of text.
pub(crate) fn number<T: FromStr>(line: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(line).ok().map(str::trim);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::malformed(format!("{:?} is not a number that fits", lenient(line))))
}

/// The bytes of a Python 2 string literal, `'a\x00b'` with its quotes.
pub(crate) fn quoted(line: &[u8]) -> Result<Vec<u8>> {
    let bad = || Error::malformed("a string without its quotes");
    let line = line.trim_ascii();
    let body = match line {
        [open @ (b'\'' | b'"'), body @ .., close] if open == close => body,
        _ => return Err(bad()),
    };
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let [escape, tail @ ..] = rest else { return Err(bad()) };
        rest = tail;
        match escape {
            b'\n' => {}
            b'\\' | b'\'' | b'"' => out.push(*escape),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'v' => out.push(11),
            b'x' => {
                let digits = rest.get(..2).ok_or_else(bad)?;
                out.push(u8::try_from(radix(digits, 16)?).map_err(|_| bad())?);
                rest = &rest[2..];
            }
            b'0'..=b'7' => {
                let n = rest.iter().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                let value = radix(&[&[*escape], &rest[..n]].concat(), 8)?;
                out.push((value & 0xff) as u8); // as Python does with \777
                rest = &rest[n..];
            }
            other => out.extend([b'\\', *other]), // Python keeps escapes that it does not know
        }
    }
    Ok(out)
}

/// The text of a `raw-unicode-escape` line: Latin-1 with `\uXXXX` and `\UXXXXXXXX` for the rest.
pub(crate) fn raw_unicode(line: &[u8]) -> Result<String> {
    let bad = || Error::malformed("a broken \\u escape, or half of a surrogate pair");
    let mut out = String::with_capacity(line.len());
    let mut high: Option<u32> = None; // narrow builds of Python 2 write pairs of surrogates
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        let n_digits = match tail {
            [b'u', ..] if *byte == b'\\' => 4,
            [b'U', ..] if *byte == b'\\' => 8,
            _ => 0,
        };
        if n_digits == 0 {
            // A backslash takes the next byte along, so that `\\u0041` is no escape.
            let n = if *byte == b'\\' { rest.len().min(2) } else { 1 };
            if high.is_some() {
                return Err(bad());
            }
            out.extend(rest[..n].iter().map(|&byte| char::from(byte)));
            rest = &rest[n..];
            continue;
        }
        let code = radix(tail.get(1..=n_digits).ok_or_else(bad)?, 16)?;
        rest = &tail[n_digits + 1..];
        match (high.take(), code) {
            (None, 0xd800..0xdc00) => high = Some(code),
            (Some(high), 0xdc00..0xe000) => {
                let code = 0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00);
                out.push(char::from_u32(code).ok_or_else(bad)?);
            }
            (None, _) => out.push(char::from_u32(code).ok_or_else(bad)?),
            (Some(_), _) => return Err(bad()),
        }
    }
    if high.is_some() { Err(bad()) } else { Ok(out) }
}

fn radix(digits: &[u8], radix: u32) -> Result<u32> {
    digits.iter().try_fold(0u32, |sum, &digit| {
        let digit = char::from(digit).to_digit(radix);
        let next = digit.and_then(|digit| sum.checked_mul(radix)?.checked_add(digit));
        next.ok_or_else(|| Error::malformed("a broken escape in a string"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_2_literal_gives_back_its_bytes() {
        assert_eq!(quoted(br"'a\x00\n\\\'\351\q'").unwrap(), b"a\0\n\\'\xe9\\q");
        assert_eq!(quoted(br#""it's""#).unwrap(), b"it's");
        for broken in [&b"'"[..], b"", b"'a", b"a'", br"'\'", br"'\x4'", br"'\xzz'"] {
            assert!(quoted(broken).is_err(), "{:?}", lenient(broken));
        }
    }

    #[test]
    fn a_unicode_line_knows_latin_1_escapes_and_surrogate_pairs() {
        assert_eq!(raw_unicode(b"caf\xe9 \\u4f60").unwrap(), "café 你");
        assert_eq!(raw_unicode(br"\U0001f600 \ud83d\ude00").unwrap(), "😀 😀");
        assert_eq!(raw_unicode(br"\\u0041 \u005cu0041 \n").unwrap(), r"\\u0041 \u0041 \n");
        for broken in [&br"\u00"[..], br"\ud83d", br"\ud83dx", br"\ude00", br"\Uffffffff"] {
            assert!(raw_unicode(broken).is_err(), "{:?}", lenient(broken));
        }
    }

    #[test]
    fn bytes_written_as_text_come_back() {
        assert_eq!(to_latin1("aé\u{ff}").unwrap(), b"a\xe9\xff");
        assert!(to_latin1("你").is_err());
    }
}
