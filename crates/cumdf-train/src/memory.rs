//! How much memory there is, and how much a number of bytes is in words.

use std::fs;

/// Bytes that can still be allocated on the host without pushing others out; `None` where the
/// system does not say.
pub fn free() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024.0 * kib)
}

/// The most bytes that this process has held at once; `None` where the system does not say.
pub fn peak() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}

/// Numbers in the inputs of a sample, about: its features, what gathering them copies, and masks.
pub(crate) fn input_floats(steps: i64, dims: [i64; 3]) -> f64 {
    3.0 * steps as f64 * dims.iter().sum::<i64>() as f64
}

/// `1.3 GB`, `40 MB`.
pub fn in_words(bytes: f64) -> String {
    match bytes {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b => format!("{:.0} MB", b / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_some_of_the_machine_s() {
        let Some(free) = free() else { return eprintln!("no /proc/meminfo here: skipped") };
        assert!(free > 1e6 && free < 1e15, "{free} bytes");
        let held = vec![1u8; 50_000_000];
        let peak = peak().expect("this system told what is free");
        assert!(peak > held.len() as u64, "{peak} bytes");
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_is_read() {
        assert_eq!(["1.3 GB", "40 MB"], [in_words(1.31e9), in_words(4.0e7)]);
    }
}
