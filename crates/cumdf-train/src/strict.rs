//! Reading settings strictly, and saying what is wrong with them in the words of TOML.

use anyhow::{Result, anyhow};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::{config::COMMON, overrides::full_key};

/// Reads a table strictly: a key too many, one too few or one of another type is refused by its
/// path, in the words of TOML.
pub(crate) fn strict<T: DeserializeOwned>(table: Table) -> Result<T> {
    let whole = table.clone();
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|err| {
        let (path, message) = (err.path().to_string(), err.inner().to_string());
        let message = message.lines().next().unwrap_or_default().trim(); // the path is ours to tell
        match path.as_str() {
            "." | "" => anyhow!("{}{}", in_toml(message), suggestion(message, &whole)),
            path => anyhow!("{path}: {}{}", in_toml(message), suggestion(message, &whole)),
        }
    })
}

/// serde's message, with TOML's words for Rust's types.
fn in_toml(message: &str) -> String {
    let mut text = message.replace("invalid type: ", "found ").replace("invalid value: ", "found ");
    if text.contains("expected string only") || text.contains("wanted exactly 1 element") {
        return "expected one of its names in quotes, or a table of one of them such as { norm = 1.0 }"
            .into();
    }
    for (rust, toml) in [
        ("floating point", "number"),
        ("a sequence", "a list"),
        ("sequence", "list"),
        ("a map", "a table"),
        ("map", "table"),
        ("a boolean", "true or false"),
        ("expected path string", "expected a path in quotes"),
        ("an array of length", "a list of"),
        ("unit variant", "a name"),
        ("newtype variant", "a value"),
    ] {
        text = text.replace(rust, toml);
    }
    // What was expected: `i64`, `struct TrainConfig`, `enum Clip`.
    let Some((found, expected)) = text.split_once(", expected ") else { return text };
    let expected = match expected.trim() {
        "i64" | "i32" | "isize" => "a whole number",
        "u64" | "u32" | "usize" => "a whole number of 0 or more",
        "f64" | "f32" => "a number",
        other if other.starts_with("struct ") => "a table",
        other if other.starts_with("enum ") || other.starts_with("a value of enum ") => {
            "one of its names, or a table such as { norm = 1.0 }"
        }
        other => other,
    };
    format!("{found}, expected {expected}")
}

/// From serde's "unknown field `x`, expected one of `a`, `b`": the nearest known key, or the same
/// key in another table.
fn suggestion(message: &str, whole: &Table) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(unknown) if message.starts_with("unknown ") => {
            let near = did_you_mean(unknown, &quoted.chain(COMMON).collect::<Vec<_>>());
            if near.is_empty() { full_key(whole, unknown) } else { near }
        }
        _ => String::new(),
    }
}

pub(crate) fn did_you_mean(unknown: &str, known: &[&str]) -> String {
    known
        .iter()
        .map(|k| (strsim::jaro_winkler(unknown, k), k))
        .filter(|(similarity, k)| *similarity > 0.8 && **k != unknown)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, k)| format!("; did you mean `{k}`?"))
}
