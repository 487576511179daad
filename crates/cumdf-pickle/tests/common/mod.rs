//! What the integration tests share.

use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use cumdf_pickle::{Item, Kind, Result};
use serde_json::{Value, json};

/// The pickles under `tests/fixtures`, by name.
pub(crate) fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    files(&folder).into_iter().filter(|(name, _)| name.ends_with(".pkl")).collect()
}

/// The files of a folder, by name.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("it is readable").path()).collect();
    paths.sort();
    let named = |path: PathBuf| {
        let name = path.file_name().expect("it is a file").to_string_lossy().into_owned();
        (name, fs::read(path).expect("it is readable"))
    };
    paths.into_iter().map(named).collect()
}

/// What `scripts/pickles.py` says of the same value.
pub(crate) fn describe<R: Read + Seek>(item: Item<'_>, reader: &mut R) -> Result<Value> {
    fn all<'a, R: Read + Seek>(
        items: impl Iterator<Item = Item<'a>>,
        reader: &mut R,
    ) -> Result<Vec<Value>> {
        items.map(|item| describe(item, reader)).collect()
    }
    let double = |value: f64| hex(&value.to_be_bytes());
    let kind = item.kind();
    if let Some(array) = item.array() {
        let values = match array.dtype.kind {
            Kind::Object => all(array.objects().expect("it is an object array"), reader)?,
            Kind::Bytes | Kind::Text => {
                array.read_texts(reader)?.into_iter().map(Value::from).collect()
            }
            _ => {
                let values = array.read_f64(reader, 0..array.n_rows())?;
                values.into_iter().map(|value| double(value).into()).collect()
            }
        };
        let dtype = array.dtype.to_string();
        return Ok(json!({"array": dtype, "shape": array.shape, "values": values}));
    }
    if let Some(entries) = item.entries() {
        let pair = |(key, value)| Ok(json!([describe(key, reader)?, describe(value, reader)?]));
        return Ok(json!({ "dict": entries.map(pair).collect::<Result<Vec<_>>>()? }));
    }
    if let Some(items) = item.items() {
        let name = kind.split(' ').next().unwrap_or_default().to_owned();
        return Ok(json!({ name: all(items, reader)? }));
    }
    Ok(match kind.split(' ').next().unwrap_or_default() {
        "none" => Value::Null,
        "bool" => json!(item.bool()),
        // Only the fixtures' one integer beyond 64 bits reads as a float alone.
        "int" => match item.integer() {
            Some(value) => json!({"int": value.to_string()}),
            None => json!({"int": format!("{:.0}", item.float().expect("it is a number"))}),
        },
        "float" => json!({"float": double(item.float().expect("it is a float"))}),
        "str" => json!(item.read_text(reader)?),
        "bytes" => json!({"bytes": hex(&item.read_bytes(reader)?.expect("it is bytes"))}),
        "dtype" => json!({"dtype": kind.trim_start_matches("dtype ")}),
        _ => json!(kind),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
