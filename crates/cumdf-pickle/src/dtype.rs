//! The element types of numpy.

use std::fmt;

use crate::element;
use crate::error::{Error, Result};

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One byte, 0 or 1.
    Bool,
    /// A signed integer.
    Int,
    /// An unsigned integer.
    Uint,
    /// An IEEE 754 float.
    Float,
    /// Bytes, filled up with zeros; numpy's `S`.
    Bytes,
    /// Text of four bytes a character, filled up with zeros; numpy's `U`.
    Text,
    /// Any value, kept beside the array; numpy's `O`.
    Object,
}

/// The type of an array's elements. Printed without its byte order, `float64` or `U12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DType {
    /// What an element is.
    pub kind: Kind,
    /// Bytes an element.
    pub size: usize,
    /// Whether the first byte of a number is its highest.
    pub big_endian: bool,
}

impl DType {
    /// Reads `f4`, `b1`, `U12`, with or without a byte order before it.
    ///
    /// # Errors
    /// When it is of a kind that [`Kind`] does not list.
    pub fn parse(code: &str) -> Result<Self> {
        let bad = || {
            let shown: String = code.escape_debug().take(40).collect();
            Error::unsupported(format!(
                "refuses dtype {shown:?}: arrays of numbers, bools, text, bytes and objects are \
                 decoded, structured, complex, date and extended ones are not; convert it in python"
            ))
        };
        let (order, rest) = match code.strip_prefix(['<', '>', '|', '=']) {
            Some(rest) => (code.chars().next().unwrap_or('|'), rest),
            None => ('=', code),
        };
        let mut chars = rest.chars();
        let letter = chars.next().ok_or_else(bad)?;
        let n: usize = match chars.as_str() {
            "" if matches!(letter, 'S' | 'U' | 'O') => 0,
            digits => digits.parse().map_err(|_| bad())?,
        };
        let (kind, size) = match (letter, n) {
            ('b', 1) => (Kind::Bool, 1),
            ('i', 1 | 2 | 4 | 8) => (Kind::Int, n),
            ('u', 1 | 2 | 4 | 8) => (Kind::Uint, n),
            ('f', 2 | 4 | 8) => (Kind::Float, n),
            ('S', _) => (Kind::Bytes, n),
            ('U', _) => (Kind::Text, n.checked_mul(4).ok_or_else(bad)?),
            ('O', 0 | 4 | 8) => (Kind::Object, 8),
            _ => return Err(bad()),
        };
        Self { kind, size, big_endian: false }.with_order(order)
    }

    /// The numbers that lie one after another in `bytes`, as many as `out` has room for.
    ///
    /// # Errors
    /// When elements of this type are no numbers.
    pub fn read_f32(self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        element::numbers(self, bytes, out)
    }

    /// As [`Self::read_f32`], exact except for integers above 2^53.
    ///
    /// # Errors
    /// When elements of this type are no numbers.
    pub fn read_f64(self, bytes: &[u8], out: &mut [f64]) -> Result<()> {
        element::numbers(self, bytes, out)
    }

    /// One element as a text, without what fills it up; integers in decimal digits.
    ///
    /// # Errors
    /// When it is no text, no integer and no float, or a text that is no unicode.
    pub fn read_text(self, bytes: &[u8]) -> Result<String> {
        match self.kind {
            Kind::Bytes | Kind::Text => Ok(element::text(self, bytes)?.into_owned()),
            Kind::Int | Kind::Uint => Ok(element::int(self, bytes).to_string()),
            Kind::Float => Ok(element::float(self, bytes).to_string()),
            Kind::Bool | Kind::Object => Err(Error::read(format!("{self} elements are no texts"))),
        }
    }

    /// This type in the byte order `order`, one of `<`, `>`, `|` and `=`.
    pub(crate) fn with_order(mut self, order: char) -> Result<Self> {
        self.big_endian = match order {
            '<' | '|' => false,
            '=' => cfg!(target_endian = "big"),
            '>' => true,
            other => return Err(Error::malformed(format!("a dtype of byte order {other:?}"))),
        };
        Ok(self)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = 8 * self.size;
        match self.kind {
            Kind::Bool => write!(f, "bool"),
            Kind::Int => write!(f, "int{bits}"),
            Kind::Uint => write!(f, "uint{bits}"),
            Kind::Float => write!(f, "float{bits}"),
            Kind::Bytes => write!(f, "S{}", self.size),
            Kind::Text => write!(f, "U{}", self.size / 4),
            Kind::Object => write!(f, "object"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numpy_type_codes_are_read() {
        for (code, shown) in [
            ("f4", "float32"),
            (">f8", "float64"),
            ("b1", "bool"),
            ("u1", "uint8"),
            ("<U12", "U12"),
            ("S3", "S3"),
            ("O8", "object"),
        ] {
            assert_eq!(DType::parse(code).unwrap().to_string(), shown);
        }
        assert!(DType::parse(">i2").unwrap().big_endian);
    }

    #[test]
    fn elements_are_read_as_texts() {
        let text = |code: &str, bytes: &[u8]| DType::parse(code).unwrap().read_text(bytes).unwrap();
        assert_eq!(text("S4", b"ab\0\0"), "ab");
        assert_eq!(text(">i2", &[0xff, 0xfe]), "-2");
        assert_eq!(text("u8", &u64::MAX.to_le_bytes()), u64::MAX.to_string());
        assert_eq!(text("f8", &2f64.to_le_bytes()), "2");
        assert!(DType::parse("b1").unwrap().read_text(&[1]).is_err());
    }

    #[test]
    fn other_types_are_refused_by_name() {
        for code in
            ["c8", "V16", "M8", "f16", "i3", "", "<", "x", "f4x", "é", "U99999999999999999999"]
        {
            let err = DType::parse(code).unwrap_err().to_string();
            assert!(err.contains("refuses dtype"), "{code}: {err}");
        }
    }
}
