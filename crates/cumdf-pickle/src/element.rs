//! From the bytes of one element to its value.

use std::borrow::Cow;

use crate::dtype::{DType, Kind};
use crate::error::{Error, Result};
use crate::text;

/// A number that an element can be read as, always the nearest there is.
pub(crate) trait Number: Copy + Default {
    fn from_f64(value: f64) -> Self;
    fn from_i64(value: i64) -> Self;
    fn from_u64(value: u64) -> Self;
    /// Of an integer of Python, which has no size; too slow for arrays.
    fn from_i128(value: i128) -> Self;
}

macro_rules! numbers {
    ($($float:ty),*) => {$(
        impl Number for $float {
            fn from_f64(value: f64) -> Self {
                value as $float
            }

            fn from_i64(value: i64) -> Self {
                value as $float
            }

            fn from_u64(value: u64) -> Self {
                value as $float
            }

            fn from_i128(value: i128) -> Self {
                value as $float
            }
        }
    )*};
}

numbers!(f32, f64);

/// Reads elements that lie one after another in `bytes`; fails unless they are numbers.
pub(crate) fn numbers<T: Number>(dtype: DType, bytes: &[u8], out: &mut [T]) -> Result<()> {
    fn each<const N: usize, T>(
        bytes: &[u8],
        out: &mut [T],
        big: bool,
        read: impl Fn([u8; N]) -> T,
    ) {
        let (elements, _) = bytes.as_chunks::<N>();
        for (out, &element) in out.iter_mut().zip(elements) {
            let mut element = element;
            if big {
                element.reverse();
            }
            *out = read(element);
        }
    }
    let big = dtype.big_endian;
    let (float, int, uint) = (T::from_f64, T::from_i64, T::from_u64);
    match (dtype.kind, dtype.size) {
        (Kind::Bool, 1) => each(bytes, out, big, |[b]| uint(u64::from(b != 0))),
        (Kind::Int, 1) => each(bytes, out, big, |b| int(i8::from_le_bytes(b).into())),
        (Kind::Int, 2) => each(bytes, out, big, |b| int(i16::from_le_bytes(b).into())),
        (Kind::Int, 4) => each(bytes, out, big, |b| int(i32::from_le_bytes(b).into())),
        (Kind::Int, 8) => each(bytes, out, big, |b| int(i64::from_le_bytes(b))),
        (Kind::Uint, 1) => each(bytes, out, big, |b| uint(u8::from_le_bytes(b).into())),
        (Kind::Uint, 2) => each(bytes, out, big, |b| uint(u16::from_le_bytes(b).into())),
        (Kind::Uint, 4) => each(bytes, out, big, |b| uint(u32::from_le_bytes(b).into())),
        (Kind::Uint, 8) => each(bytes, out, big, |b| uint(u64::from_le_bytes(b))),
        (Kind::Float, 2) => each(bytes, out, big, |b| float(half(u16::from_le_bytes(b)))),
        (Kind::Float, 4) => each(bytes, out, big, |b| float(f32::from_le_bytes(b).into())),
        (Kind::Float, 8) => each(bytes, out, big, |b| float(f64::from_le_bytes(b))),
        _ => return Err(Error::read(format!("{dtype} elements are not numbers"))),
    }
    Ok(())
}

/// The value of an integer or a bool.
pub(crate) fn int(dtype: DType, bytes: &[u8]) -> i128 {
    let byte = |sum: i128, byte: &u8| (sum << 8) | i128::from(*byte);
    let value = if dtype.big_endian {
        bytes.iter().fold(0, byte)
    } else {
        bytes.iter().rev().fold(0, byte)
    };
    let bits = 8 * bytes.len().min(15);
    let negative = dtype.kind == Kind::Int && bits > 0 && (value >> (bits - 1)) & 1 == 1;
    if negative { value - (1 << bits) } else { value }
}

/// The value of a float.
pub(crate) fn float(dtype: DType, bytes: &[u8]) -> f64 {
    let mut out = [0.0];
    match numbers(dtype, bytes, &mut out) {
        Ok(()) => out[0],
        Err(_) => f64::NAN, // callers have looked at the kind
    }
}

/// An IEEE 754 half.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from((bits >> 10) & 31), f64::from(bits & 1023));
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        31 if fraction > 0.0 => f64::NAN,
        31 => sign * f64::INFINITY,
        _ => sign * (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

/// The text of an `S` or `U` element.
pub(crate) fn text(dtype: DType, bytes: &[u8]) -> Result<Cow<'_, str>> {
    if dtype.kind == Kind::Bytes {
        return Ok(text::lenient(stripped(bytes)));
    }
    let (codes, _) = bytes.as_chunks::<4>();
    let code = |&bytes| {
        if dtype.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    let n = codes.iter().rposition(|bytes| *bytes != [0; 4]).map_or(0, |last| last + 1);
    let text: Option<String> = codes[..n].iter().map(|bytes| char::from_u32(code(bytes))).collect();
    let text =
        text.ok_or_else(|| Error::read(format!("a {dtype} element that is no unicode text")))?;
    Ok(text.into())
}

/// The bytes of an `S` element without the zeros that fill it up.
pub(crate) fn stripped(bytes: &[u8]) -> &[u8] {
    let n = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &bytes[..n]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(code: &str, bytes: &[u8]) -> f64 {
        let mut out = [0.0];
        numbers(DType::parse(code).unwrap(), bytes, &mut out).unwrap();
        out[0]
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "every value here is exact")]
    fn every_number_type_is_read_in_both_byte_orders() {
        assert_eq!(read("i1", &[0xff]), -1.0);
        assert_eq!(read("u1", &[0xff]), 255.0);
        assert_eq!(read(">i2", &[0xff, 0xfe]), -2.0);
        assert_eq!(read("<u4", &[1, 0, 0, 0x80]), 2_147_483_649.0);
        assert_eq!(read(">i8", &(-5i64).to_be_bytes()), -5.0);
        assert_eq!(read(">f4", &1.5f32.to_be_bytes()), 1.5);
        assert_eq!(read("f8", &(-0.25f64).to_le_bytes()), -0.25);
        assert_eq!(read("b1", &[2]), 1.0);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "every half is exact as a double")]
    fn halves_include_the_small_and_the_infinite() {
        assert_eq!(half(0x3c00), 1.0);
        assert_eq!(half(0xc000), -2.0);
        assert_eq!(half(0x0001), 5.960_464_477_539_063e-8);
        assert_eq!(half(0x7bff), 65504.0);
        assert_eq!(half(0xfc00), f64::NEG_INFINITY);
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn integers_keep_their_sign_and_all_their_bits() {
        let u8_ = DType::parse("u8").unwrap();
        assert_eq!(int(u8_, &[0xff; 8]), i128::from(u64::MAX));
        assert_eq!(int(DType::parse(">i2").unwrap(), &[0x80, 0]), -32768);
    }

    #[test]
    fn text_ends_before_the_zeros_that_fill_it_up() {
        let wide = DType::parse(">U3").unwrap();
        assert_eq!(text(wide, b"\0\0\0a\0\x01\xf6\0\0\0\0\0").unwrap(), "a😀");
        assert!(text(wide, &[0xff; 12]).is_err());
        assert_eq!(text(DType::parse("S4").unwrap(), b"\xe9\0b\0").unwrap(), "é\0b");
    }
}
