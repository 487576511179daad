//! What a file or the command line says otherwise than a recipe.

use anyhow::{Result, bail};
use toml::{Table, Value};

use crate::strict::did_you_mean;

/// Keys that hold one of several things: a new value replaces the old one, never mixes with it.
const ONE_OF: [&str; 2] = ["clip", "schedule"];

/// Puts every leaf of `over` into `base`.
pub(crate) fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        let empties = value.as_table().is_some_and(Table::is_empty); // `groups = {}` has no groups
        let whole = ONE_OF.contains(&key.as_str()) || empties;
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) if !whole => merge(inner, value),
            (Some(Value::Float(_)), Value::Integer(n)) => {
                base.insert(key, Value::Float(n as f64));
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Splits `a.b=value`; a value that is no TOML is a string.
pub(crate) fn parse_assignment(text: &str) -> Result<(&str, Value)> {
    let Some((key, value)) = text.split_once('=') else {
        bail!("--set {text} has no `=`: write --set train.batch_size=16");
    };
    let parsed = toml::from_str::<Table>(&format!("value = {value}"));
    let value = match parsed {
        Ok(mut table) => table.remove("value").expect("just written"),
        Err(_) => Value::String(value.into()),
    };
    Ok((key.trim(), value))
}

pub(crate) fn set(table: &mut Table, key: &str, value: Value) -> Result<()> {
    let (head, rest) = key.split_once('.').unwrap_or((key, ""));
    if head == "groups" && !rest.is_empty() {
        table.entry(head).or_insert_with(|| Value::Table(Table::new()));
    }
    if !table.contains_key(head) {
        let known: Vec<_> = table.keys().map(String::as_str).collect();
        let what = if rest.is_empty() { "key" } else { "table" };
        bail!("there is no {what} `{head}`{}", did_you_mean(head, &known));
    }
    if rest.is_empty() {
        merge(table, Table::from_iter([(key.to_owned(), value)]));
        return Ok(());
    }
    match table.get_mut(head) {
        // Groups of parameters have names of the method's own, which it checks itself.
        Some(Value::Table(inner)) if head == "groups" && !rest.contains('.') => {
            inner.insert(rest.to_owned(), value);
            Ok(())
        }
        Some(Value::Table(inner)) => set(inner, rest, value),
        _ => bail!("`{head}` is no table"),
    }
}

/// Where else in `table` a key of that last name is: `; did you mean `train.batch_size`?`.
pub(crate) fn full_key(table: &Table, key: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let found: Vec<_> = leaves(table)
        .into_iter()
        .filter(|path| path != key && path.rsplit('.').next() == Some(last))
        .map(|path| format!("`{path}`"))
        .collect();
    match found.is_empty() {
        true => String::new(),
        false => format!("; did you mean {}?", found.join(" or ")),
    }
}

/// The keys of `table`, down to the values: `train.batch_size`.
pub(crate) fn leaves(table: &Table) -> Vec<String> {
    let own = |(key, value): (&String, &Value)| match value {
        Value::Table(inner) => leaves(inner).iter().map(|rest| format!("{key}.{rest}")).collect(),
        _ => vec![key.clone()],
    };
    table.iter().flat_map(own).collect()
}
