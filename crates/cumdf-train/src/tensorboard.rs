//! Writes scalars for TensorBoard.
//!
//! An event file is a row of TFRecords (length, checksum, payload, checksum), each holding one
//! `Event` message of `tensorboard/compat/proto/event.proto`. We need four fields of it, so they
//! are encoded by hand; a protobuf library and generated code would be far larger.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

/// Appends events to one file of its own; dropped or flushed, all of them are on disk.
#[derive(Debug)]
pub(crate) struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Makes `dir` and a new event file in it. Older files there stay: TensorBoard reads them all,
    /// in the order of the start times in their names.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let at = || format!("cannot make an event file in {}", dir.display());
        fs::create_dir_all(dir).with_context(at)?;
        let secs = since_epoch().as_secs();
        let stem = format!("events.out.tfevents.{secs}.{}.{}", host_name(), std::process::id());
        let mut path = dir.join(&stem);
        let mut n = 0; // a second writer of the same process, in the same second
        let file = loop {
            match File::create_new(&path) {
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => n += 1,
                opened => break opened.with_context(at)?,
            }
            path = dir.join(format!("{stem}.{n}"));
        };
        let mut writer = Self { path, file: BufWriter::new(file) };
        writer.event(0, &bytes_field(3, b"brain.Event:2"))?; // file_version
        writer.flush()?;
        Ok(writer)
    }

    /// Adds the value of `tag` at `step`.
    pub(crate) fn scalar(&mut self, tag: &str, step: usize, value: f64) -> Result<()> {
        let mut point = bytes_field(1, tag.as_bytes());
        point.push(key(2, WIRE_32_BIT)); // simple_value
        point.extend((value as f32).to_le_bytes());
        let summary = bytes_field(1, &point); // value
        self.event(step, &bytes_field(5, &summary))
    }

    /// Makes TensorBoard forget what earlier files say about `step` and later steps: call it on
    /// resume, with the first step that will be run again.
    pub(crate) fn purge_from(&mut self, step: usize) -> Result<()> {
        const START: u8 = 1; // SessionLog.SessionStatus
        self.event(step, &bytes_field(7, &[key(1, WIRE_VARINT), START]))?;
        self.flush()
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.file.flush().with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn event(&mut self, step: usize, what: &[u8]) -> Result<()> {
        let event = event(since_epoch().as_secs_f64(), step, what);
        self.file
            .write_all(&record(&event))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

const WIRE_VARINT: u8 = 0;
const WIRE_64_BIT: u8 = 1;
const WIRE_BYTES: u8 = 2;
const WIRE_32_BIT: u8 = 5;

/// An `Event`: wall time, step, and the already encoded field that says what happened.
fn event(wall_time: f64, step: usize, what: &[u8]) -> Vec<u8> {
    let mut message = vec![key(1, WIRE_64_BIT)];
    message.extend(wall_time.to_le_bytes());
    if step > 0 {
        // A zero is left out, as protobuf's own encoder does.
        message.push(key(2, WIRE_VARINT));
        message.extend(varint(step as u64));
    }
    message.extend(what);
    message
}

fn key(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

fn bytes_field(field: u8, value: &[u8]) -> Vec<u8> {
    let mut encoded = vec![key(field, WIRE_BYTES)];
    encoded.extend(varint(value.len() as u64));
    encoded.extend(value);
    encoded
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut encoded = Vec::new();
    while value > 0x7f {
        encoded.push(value as u8 | 0x80);
        value >>= 7;
    }
    encoded.push(value as u8);
    encoded
}

/// The TFRecord around `payload`.
fn record(payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u64).to_le_bytes();
    let mut framed = len.to_vec();
    framed.extend(masked_crc(&len).to_le_bytes());
    framed.extend(payload);
    framed.extend(masked_crc(payload).to_le_bytes());
    framed
}

/// CRC-32C, masked as TFRecord wants it: a checksum of data that holds checksums is a weak one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' })
        .collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_first_record_opens_like_every_event_file() {
        // The first 12 bytes of any file TensorFlow writes (`xxd events.out.tfevents.*`): 24 bytes
        // follow, and the masked checksum of that length.
        let framed = record(&event(1.5, 0, &bytes_field(3, b"brain.Event:2")));
        assert_eq!(framed[..12], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
        // Key 1, the double 1.5, key 3, length 13, the text.
        assert_eq!(framed[12..21], [0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
        assert_eq!(framed[21..36], *b"\x1a\x0dbrain.Event:2");
        assert_eq!(framed.len(), 12 + 24 + 4);
    }

    #[test]
    fn a_scalar_is_encoded_as_protobuf_does() {
        // python: event_pb2.Event(wall_time=1.5, step=300, summary=summary_pb2.Summary(value=[
        //     summary_pb2.Summary.Value(tag="a/b", simple_value=0.5)])).SerializeToString().hex()
        let mut point = bytes_field(1, b"a/b");
        point.push(key(2, WIRE_32_BIT));
        point.extend(0.5f32.to_le_bytes());
        let encoded = event(1.5, 300, &bytes_field(5, &bytes_field(1, &point)));
        let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "09000000000000f83f10ac022a0c0a0a0a03612f62150000003f");
    }

    #[test]
    fn the_checksum_is_crc32c_with_tensorflow_mask() {
        // RFC 3720, B.4: the CRC-32C of 32 zero bytes is 0x8a9136aa.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        // Rotated right by 15 that is 0x6d551522; plus 0xa282ead8, in 32 bits:
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa);
    }

    #[test]
    fn two_writers_in_one_second_get_a_file_each() {
        let dir = tempfile::tempdir().unwrap();
        let a = EventWriter::create(dir.path()).unwrap();
        let b = EventWriter::create(dir.path()).unwrap();
        assert_ne!(a.path, b.path);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn tensorboard_reads_back_what_was_written_and_forgets_purged_steps() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let python = std::env::var("CUMDF_PYTHON")
            .unwrap_or_else(|_| Path::new(root).join(".venv/bin/python").display().to_string());
        let has_tensorboard = Command::new(&python)
            .args(["-c", "import tensorboard"])
            .output()
            .is_ok_and(|output| output.status.success());
        if !has_tensorboard {
            eprintln!("skipped: {python} cannot import tensorboard; pip install it there to run");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut first = EventWriter::create(dir.path()).unwrap();
        for step in 0..200 {
            first.scalar("loss", step, 1.0 / (step + 1) as f64).unwrap();
        }
        drop(first);
        let mut second = EventWriter::create(dir.path()).unwrap();
        second.purge_from(150).unwrap();
        second.scalar("loss", 150, -7.0).unwrap();
        drop(second);

        let script = "import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0}).Reload()
print([(e.step, round(e.value, 6)) for e in events.Scalars('loss')][-3:])
print(len(events.Scalars('loss')), events.FirstEventTimestamp() > 1.6e9)";
        let output = Command::new(&python).args(["-c", script]).arg(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            said.trim(),
            "[(148, 0.006711), (149, 0.006667), (150, -7.0)]\n151 True",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
