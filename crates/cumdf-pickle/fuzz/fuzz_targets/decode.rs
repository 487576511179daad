//! Decodes any bytes, and where that works, reads all that was found.
//!
//! From the root of the repository:
//!
//! ```text
//! cd crates/cumdf-pickle
//! cp tests/fixtures/*.pkl /tmp/seeds/
//! cargo +nightly fuzz run decode fuzz/corpus/decode /tmp/seeds -- \
//!     -dict=fuzz/pickle.dict -max_len=4096 -runs=12000000 -rss_limit_mb=2048 -timeout=10
//! ```

#![no_main]

use std::io::Cursor;

use cumdf_pickle::{Array, Item, Limits, load};
use libfuzzer_sys::fuzz_target;

/// Elements read of one array, and values met in one walk.
const MAX: usize = 1 << 12;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { inline_below: 64, max_walk: MAX as u64, ..Limits::default() };
    match load(Cursor::new(bytes), &limits) {
        Ok(pickle) => {
            let mut n_met = 0;
            walk(pickle.root(), &mut Cursor::new(bytes), &mut n_met);
            assert!(n_met <= MAX, "a walk over {n_met} values was let through");
        }
        Err(err) => {
            let at = err.offset().unwrap_or_else(|| panic!("no place in {err}"));
            assert!(at <= bytes.len() as u64, "{err}");
        }
    }
});

fn walk(item: Item<'_>, reader: &mut Cursor<&[u8]>, n_met: &mut usize) {
    *n_met += 1;
    let _ = (item.kind(), item.text(), item.integer(), item.float(), item.bool(), item.is_none());
    let _ = (item.bytes(), item.get("a"));
    let _ = (item.read_text(reader), item.read_bytes(reader));
    if let Some(array) = item.array() {
        read(array, reader);
        for item in array.objects().into_iter().flatten() {
            walk(item, reader, n_met);
        }
    }
    for item in item.items().into_iter().flatten() {
        walk(item, reader, n_met);
    }
    for (key, value) in item.entries().into_iter().flatten() {
        walk(key, reader, n_met);
        walk(value, reader, n_met);
    }
}

/// Reads the first rows of an array one by one, and compares them with reading them at once.
fn read(array: Array<'_>, reader: &mut Cursor<&[u8]>) {
    let n = array.n_rows().min(16);
    if array.row_len().saturating_mul(n) > MAX {
        return;
    }
    let rows: Result<Vec<_>, _> = (0..n).map(|i| array.read_f32(reader, i..i + 1)).collect();
    let whole = array.read_f32(reader, 0..n);
    if let (Ok(rows), Ok(whole)) = (&rows, &whole) {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&rows.concat()), bits(whole), "{array}");
    }
    let _ = array.read_f64(reader, 0..n);
    if array.len() <= MAX {
        let _ = array.read_texts(reader);
    }
}
